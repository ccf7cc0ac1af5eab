//! What holds for whatever a client sends.

use proptest::{prelude::*, sample::Index};
use serde_json::{Value, value::RawValue};

use super::*;
use crate::socket::encode_broadcast;

const VERSIONS: [Version; 2] = [Version::V1, Version::V2];

const VALID: [&str; 10] = [
    r#"["1","1","room:x","phx_join",{"a":"\ud83d\ude00"}]"#,
    r#"["1","2","room:x","say",{"body":[1,2.5e3,null]}]"#,
    r#"["1","3","room:x","phx_leave",{}]"#,
    r#"[null,"4","phoenix","heartbeat",{}]"#,
    r#"[null,4,"room:x","phx_join",[]]"#,
    r#"{"topic":"room:x","event":"phx_join","payload":{},"ref":"1","join_ref":"1"}"#,
    r#"{"topic":"room:x","event":"say","payload":"x\\\"","ref":"2"}"#,
    r#"{"topic":"room:x","event":"phx_leave","payload":{},"ref":"3"}"#,
    r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":null}"#,
    r#"{"topic":"lobby","event":"phx_x","payload":{},"ref":"5","join_ref":null}"#,
];

/// A valid frame with some bytes replaced, removed or doubled.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop_oneof![Just(b'"'), Just(b'\\'), Just(b'['), Just(b','), any::<u8>()];
    let edits = prop::collection::vec((any::<Index>(), bytes, 0..3_u8), 0..4);
    (prop::sample::select(&VALID[..]), edits).prop_map(|(frame, edits)| {
        let mut frame = frame.as_bytes().to_vec();
        for (at, byte, edit) in edits {
            if frame.is_empty() {
                break;
            }
            let at = at.index(frame.len());
            match edit {
                0 => frame[at] = byte,
                1 => drop(frame.remove(at)),
                _ => frame.insert(at, byte),
            }
        }
        frame
    })
}

/// JSON with room between its parts.
fn payload() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let json = leaf.prop_recursive(4, 32, 4, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from);
        let pairs = prop::collection::vec((any::<String>(), inner), 0..4);
        prop_oneof![list, pairs.prop_map(|pairs| pairs.into_iter().collect())]
    });
    json.prop_map(|json| format!("{json:#}"))
}

/// Feeds a frame; whatever goes to the client or a channel must be well-formed.
fn feed(client: &mut Client, frame: &[u8]) {
    // Others never get past the WebSocket.
    let Ok(text) = std::str::from_utf8(frame) else {
        return;
    };
    let Ok(seen) = client.try_send(text) else {
        return;
    };
    for line in seen {
        if line.starts_with(['[', '{']) {
            serde_json::from_str::<&RawValue>(&line).expect("a well-formed frame");
        }
    }
    let joining: Vec<_> = client.socket.channels().collect();
    for id in joining {
        client.join_ok(id);
    }
}

/// The parts of a frame: topic, event, payload.
fn parts(version: Version, frame: &[u8]) -> (String, String, Value) {
    let text = std::str::from_utf8(frame).expect("UTF-8");
    let envelope = version.decode(text).expect("a frame that its own decoder takes");
    (
        serde_json::from_str(envelope.topic).expect("a string"),
        serde_json::from_str(envelope.event).expect("a string"),
        serde_json::from_str(envelope.payload).expect("JSON"),
    )
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(frames in prop::collection::vec(any::<Vec<u8>>(), 1..5)) {
        for version in VERSIONS {
            let mut client = Client::new(version, Limits::default());
            frames.iter().for_each(|frame| feed(&mut client, frame));
        }
    }

    #[test]
    fn mutated_frames_do_no_harm(frames in prop::collection::vec(mutated(), 1..12)) {
        for version in VERSIONS {
            let limits = Limits { channels_max: 2, pending_max: 2, ..Limits::default() };
            let mut client = Client::new(version, limits);
            for frame in &frames {
                feed(&mut client, frame);
                prop_assert!(client.socket.channels().count() <= 2);
            }
        }
    }

    #[test]
    fn what_is_encoded_can_be_decoded(topic in ".{1,40}", event in ".{0,40}", body in any::<String>()) {
        let payload = Value::from(body);
        for version in VERSIONS {
            let frame = encode_broadcast(version, &topic, &event, payload.to_string().as_bytes());
            let expected = (topic.clone(), event.clone(), payload.clone());
            prop_assert_eq!(parts(version, frame.payload()), expected);
        }
    }

    #[test]
    fn a_payload_arrives_as_it_was_sent(payload in payload()) {
        let mut client = Client::joined();
        let seen = client.send(&format!(r#"["1","2","room:x","say", {payload} ]"#));
        prop_assert_eq!(seen, [format!(r#"push room:x say {payload} "2" "1""#)]);
    }
}

//! The frames that clients read, by [`Format`].

use bytes::Bytes;

use crate::{
    app::encode_tapped,
    framing::quoted,
    pubsub::{Format, Payload, UserBroadcast},
    socket::{
        USER_EVENT, Version, encode_binary_broadcast, encode_broadcast, encode_user_broadcast,
    },
    tracker::push_json_string,
    websocket::{FrameBuf, deflate_text},
};

/// Encodes a broadcast, as it goes on the wire: once per format in use, never per subscriber. `None`
/// when the format has no form for it.
pub(crate) fn encode(
    format: Format,
    topic: &str,
    event: &str,
    payload: Payload<'_>,
) -> Option<Bytes> {
    match payload {
        Payload::Json(json) => Some(encode_json(format, topic, event, json)),
        Payload::Binary(data) => match format {
            // Who sends bytes has made them short.
            Format::V2 | Format::V2Deflated => {
                encode_binary_broadcast(topic, event, data).map(FrameBuf::into_binary)
            }
            Format::Tcp => encode_binary_broadcast(topic, event, data).map(FrameBuf::into_prefixed),
            Format::Tap => Some(encode_tapped(event, data, true)),
            Format::V1 | Format::V1Deflated | Format::Sse | Format::PollV1 | Format::PollV2 => None,
        },
        Payload::User(user) => encode_user(format, topic, &user),
    }
}

/// What a realtime-style client sent: V2 has a binary form for it, all others see it as an object of an
/// event `broadcast`, and bytes not at all.
fn encode_user(format: Format, topic: &str, user: &UserBroadcast<'_>) -> Option<Bytes> {
    let frame = match format {
        Format::V2 | Format::V2Deflated => {
            encode_user_broadcast(topic, user).map(FrameBuf::into_binary)
        }
        Format::Tcp => encode_user_broadcast(topic, user).map(FrameBuf::into_prefixed),
        Format::V1
        | Format::V1Deflated
        | Format::Sse
        | Format::PollV1
        | Format::PollV2
        | Format::Tap => None,
    };
    // A topic may be too long for the binary form.
    frame.or_else(|| Some(encode_json(format, topic, USER_EVENT, &user_object(user)?)))
}

/// `{"type":"broadcast","event":…,"payload":…}`, with the metadata as `meta` if there is some.
fn user_object(user: &UserBroadcast<'_>) -> Option<Vec<u8>> {
    if !user.is_json() {
        return None;
    }
    let (event, metadata, payload) = (user.event(), user.metadata(), user.payload());
    let mut object = Vec::with_capacity(event.len() + metadata.len() + payload.len() + 64);
    object.extend_from_slice(br#"{"type":"broadcast","event":"#);
    push_json_string(&mut object, event);
    object.extend_from_slice(br#","payload":"#);
    object.extend_from_slice(payload);
    if !metadata.is_empty() {
        object.extend_from_slice(br#","meta":"#);
        object.extend_from_slice(metadata);
    }
    object.push(b'}');
    Some(object)
}

fn encode_json(format: Format, topic: &str, event: &str, payload: &[u8]) -> Bytes {
    match format {
        Format::V1 => encode_broadcast(Version::V1, topic, event, payload).into_text(),
        Format::V2 => encode_broadcast(Version::V2, topic, event, payload).into_text(),
        Format::V1Deflated => deflated(encode_broadcast(Version::V1, topic, event, payload)),
        Format::V2Deflated => deflated(encode_broadcast(Version::V2, topic, event, payload)),
        Format::Sse => encode_sse(topic, event, payload),
        Format::Tcp => encode_broadcast(Version::V2, topic, event, payload).into_prefixed(),
        Format::PollV1 => quoted(encode_broadcast(Version::V1, topic, event, payload).payload()),
        Format::PollV2 => quoted(encode_broadcast(Version::V2, topic, event, payload).payload()),
        Format::Tap => encode_tapped(event, payload, false),
    }
}

/// Each message is compressed by itself, so that all clients can be sent the same bytes.
fn deflated(frame: FrameBuf) -> Bytes {
    deflate_text(frame.payload()).unwrap_or_else(|| frame.into_text())
}

/// One server-sent event. A presence event's payload is an object and gets the topic as a member of
/// it; any other stands beside topic and event.
pub(crate) fn encode_sse(topic: &str, event: &str, payload: &[u8]) -> Bytes {
    let (name, close): (&str, &[u8]) = match event {
        "presence_diff" => ("presence_diff", b""),
        "presence_state" => ("presence_state", b"}"),
        _ => ("broadcast", b"}"),
    };
    let mut frame = Vec::with_capacity(payload.len() + topic.len() + event.len() + 64);
    frame.extend_from_slice(b"event: ");
    frame.extend_from_slice(name.as_bytes());
    frame.extend_from_slice(b"\ndata: {\"topic\":");
    push_json_string(&mut frame, topic);
    let payload = match event {
        "presence_diff" => {
            frame.push(b',');
            payload.strip_prefix(b"{").unwrap_or(payload)
        }
        "presence_state" => {
            frame.extend_from_slice(b",\"presences\":");
            payload
        }
        _ => {
            frame.extend_from_slice(b",\"event\":");
            push_json_string(&mut frame, event);
            frame.extend_from_slice(b",\"payload\":");
            payload
        }
    };
    // A line break in JSON is white space, but would end the field.
    frame.extend(payload.iter().map(
        |byte| {
            if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }
        },
    ));
    frame.extend_from_slice(close);
    frame.extend_from_slice(b"\n\n");
    frame.into()
}

/// The server-sent event that says whether all topics of a prefix are followed.
pub(crate) fn encode_sse_of_prefix(prefix: &str, complete: bool, limit: usize) -> Bytes {
    let mut frame = b"event: presence_prefix\ndata: {\"prefix\":".to_vec();
    push_json_string(&mut frame, prefix);
    frame.extend_from_slice(format!(",\"complete\":{complete},\"limit\":{limit}}}\n\n").as_bytes());
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_sent_events_are_one_line_of_json_each() {
        let frame = encode_sse("room:\"a\"", "new", b"{\n\"x\":1}\r\n");
        let data = "{\"topic\":\"room:\\\"a\\\"\",\"event\":\"new\",\"payload\":{ \"x\":1}  }";
        assert_eq!(frame, format!("event: broadcast\ndata: {data}\n\n"));
    }

    #[test]
    fn a_user_broadcast_is_binary_to_v2_and_an_object_to_others() {
        let user = UserBroadcast::new([1, 2, 1], b"e{}[1]").expect("whole");
        let frame = |format, topic| encode(format, topic, USER_EVENT, Payload::User(user));
        let v2 = frame(Format::V2, "t").expect("a form");
        assert_eq!(v2, b"\x82\x0c\x04\x01\x01\x02\x01te{}[1]"[..]);
        let object = r#"{"type":"broadcast","event":"e","payload":[1],"meta":{}}"#;
        let v1 = frame(Format::V1, "t").expect("a form");
        let text = format!("\"event\":\"broadcast\",\"payload\":{object},\"ref\":null");
        assert!(String::from_utf8_lossy(&v1).contains(&text), "{v1:?}");
        let sse = frame(Format::Sse, "t").expect("a form");
        assert_eq!(
            sse,
            format!(
                "event: broadcast\ndata: {{\"topic\":\"t\",\"event\":\"broadcast\",\"payload\":{object}}}\n\n"
            )
        );
        let long = frame(Format::V2, &"t".repeat(256)).expect("a form");
        assert_eq!(long[0], 0x81, "a text");
        let bytes = UserBroadcast::new([1, 0, 0], b"e\xff").expect("whole");
        assert_eq!(encode(Format::V1, "t", USER_EVENT, Payload::User(bytes)), None);
    }

    #[test]
    fn presence_events_carry_their_topic_inside() {
        let diff = encode_sse("t", "presence_diff", b"{\"joins\":{},\"leaves\":{}}");
        assert_eq!(
            diff,
            "event: presence_diff\ndata: {\"topic\":\"t\",\"joins\":{},\"leaves\":{}}\n\n"
        );
        let state = encode_sse("t", "presence_state", b"{}");
        assert_eq!(state, "event: presence_state\ndata: {\"topic\":\"t\",\"presences\":{}}\n\n");
    }
}

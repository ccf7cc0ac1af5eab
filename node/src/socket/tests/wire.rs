//! The two formats: shapes that are taken, shapes that end the socket, exact frames out.

use super::*;
use crate::socket::{Status, encode_broadcast};

/// What a WebSocket hands on of a text frame.
fn text(frame: &[u8]) -> &str {
    std::str::from_utf8(frame).expect("UTF-8")
}

fn verdict(version: Version, frame: &[u8]) -> Option<u16> {
    Client::new(version, Limits::default()).try_send(text(frame)).err().map(|close| close.code)
}

#[test]
fn the_version_asked_for_is_one_of_two() {
    let parse = Version::parse;
    assert_eq!(parse(None), Some(Version::V1));
    assert!(["1.0.0", "1.0.7", "1.0.10"].map(|vsn| parse(Some(vsn))) == [Some(Version::V1); 3]);
    assert!(["2.0.0", "2.0.12"].map(|vsn| parse(Some(vsn))) == [Some(Version::V2); 2]);
    for vsn in ["", "2", "2.0", "2.0.", "2.1.0", "1.5.0", "9.0.0", "2.0.x", "2.0.00", "2.0.1 "] {
        assert_eq!(parse(Some(vsn)), None, "{vsn:?}");
    }
    assert_eq!(parse(Some("éééé")), None);
}

#[test]
fn a_v2_frame_that_cannot_be_decoded_ends_the_socket() {
    let bad: [&[u8]; 15] = [
        b"",
        b" ",
        b"hello",
        b"{}",
        b"[]",
        b"7",
        br#"["1","1","room:x","phx_join"]"#,
        br#"["1","1","room:x","phx_join",{}"#,
        br#"["1","1","room:x","phx_join",{},]"#,
        br#"["1","1","room:x","phx_join",{}] 1"#,
        br#"["1","1","room:x","phx_join",{"a":01}]"#,
        b"\xef\xbb\xbf[null,\"1\",\"phoenix\",\"heartbeat\",{}]",
        b"[\"1\",\"1\",\"room:x\",\"a\nb\",{}]",
        br#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}"#,
        br#"["1","1","room:x","phx_join",{}],["2"]"#,
    ];
    for frame in bad {
        assert_eq!(verdict(Version::V2, frame), Some(1011), "{:?}", String::from_utf8_lossy(frame));
    }
}

#[test]
fn a_v1_frame_that_cannot_be_decoded_ends_the_socket() {
    let bad: [&[u8]; 8] = [
        b"",
        b"{}",
        br#"[null,"1","phoenix","heartbeat",{}]"#,
        br#"{"event":"heartbeat","payload":{},"ref":"1"}"#,
        br#"{"topic":"phoenix","payload":{},"ref":"1"}"#,
        br#"{"topic":"phoenix","event":"heartbeat","ref":"1"}"#,
        br#"{"topic":"phoenix","event":"heartbeat","payload":{}}"#,
        br#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}x"#,
    ];
    for frame in bad {
        assert_eq!(verdict(Version::V1, frame), Some(1011), "{:?}", String::from_utf8_lossy(frame));
    }
}

#[test]
fn a_lone_surrogate_anywhere_ends_the_socket_and_a_pair_does_not() {
    let frames = |part: &str| {
        [
            format!(r#"["1","2","phoenix","heartbeat",{{"a":"{part}"}}]"#),
            format!(r#"["1","2","phoenix","heartbeat",{{"{part}":1}}]"#),
            format!(r#"["1","{part}","phoenix","heartbeat",{{}}]"#),
            format!(r#"["1","2","{part}","say",{{}}]"#),
            format!(r#"["1","2","phoenix","heartbeat",{{}},"{part}"]"#),
        ]
    };
    let lone = [r"\ud800", r"x\uDFFF", r"\ud83d\ud83d\ude00", r"\\\udc00", r"\ud83d\n", r"\ud83dA"];
    for frame in lone.into_iter().flat_map(frames) {
        assert_eq!(verdict(Version::V2, frame.as_bytes()), Some(1011), "{frame}");
    }
    let paired = [r"\ud83d\ude00", r"\uD83D\uDE00\\ud800", r"\\ud800", r"\u00e9\n\\", r"\\\\"];
    for frame in paired.into_iter().flat_map(frames) {
        assert_eq!(verdict(Version::V2, frame.as_bytes()), None, "{frame}");
    }
}

#[test]
fn a_ref_has_a_bound() {
    let frame = |len: usize| format!(r#"[null,"{}","phoenix","heartbeat",{{}}]"#, "1".repeat(len));
    assert_eq!(verdict(Version::V2, frame(1022).as_bytes()), None);
    assert_eq!(verdict(Version::V2, frame(1023).as_bytes()), Some(1011));
    let joined = format!(r#"["{}","1","room:x","phx_join",{{}}]"#, "1".repeat(2000));
    assert_eq!(verdict(Version::V2, joined.as_bytes()), Some(1011));
}

#[test]
fn deep_nesting_is_passed_on_without_recursion() {
    let payload = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let mut client = Client::joined();
    let seen = client.send(&format!(r#"["1","2","room:x","say",{payload}]"#));
    assert_eq!(seen, [format!(r#"push room:x say {payload} "2" "1""#)]);
    let extra = format!(r#"[null,"2","phoenix","heartbeat",{{}},{payload}]"#);
    assert_eq!(client.send(&extra).len(), 1);
}

#[test]
fn extra_elements_and_keys_are_ignored_and_the_last_of_a_repeated_key_counts() {
    let seen = Client::v2().send(r#"["1","2","room:x","phx_join",{},7,{"a":[]}]"#);
    assert_eq!(seen, ["join room:x {}"]);
    let seen = Client::v1().send(
        r#"{"topic":5,"x":[1],"ref":"1","payload":{},"event":"phx_join","t\u006fpic":"room:x"}"#,
    );
    assert_eq!(seen, ["join room:x {}"]);
}

#[test]
fn a_v1_session_sees_objects_and_its_ref_serves_as_join_ref() {
    let mut client = Client::v1();
    let heartbeat = r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":4}"#;
    let reply = r#"{"event":"phx_reply","payload":{"response":{},"status":"ok"},"ref":4,"topic":"phoenix"}"#;
    assert_eq!(client.send(heartbeat), [reply]);
    client.send(r#"{"topic":"room:x","event":"phx_join","payload":{},"ref":"1"}"#);
    let id = client.newest();
    let reply = r#"{"event":"phx_reply","payload":{"response":{},"status":"ok"},"ref":"1","topic":"room:x"}"#;
    assert_eq!(client.join_ok(id), [reply]);
    let push = r#"{"topic":"room:x","event":"say","payload":[],"ref":"2","join_ref":"1"}"#;
    assert_eq!(client.send(push), [r#"push room:x say [] "2" "1""#]);
    let push = client.push(id, "presence_state", "{}").expect("a joined channel");
    let expected = r#"{"event":"presence_state","payload":{},"ref":null,"topic":"room:x"}"#;
    assert_eq!(push, expected);
    let seen = client.send(r#"{"topic":"room:x","event":"phx_leave","payload":{},"ref":"3"}"#);
    let reply = r#"{"event":"phx_reply","payload":{"response":{},"status":"ok"},"ref":"3","topic":"room:x"}"#;
    let close = r#"{"event":"phx_close","payload":{},"ref":"1","topic":"room:x"}"#;
    assert_eq!(seen, ["leave room:x", reply, close]);
}

#[test]
fn a_v1_channel_with_a_join_ref_closes_with_it() {
    let mut client = Client::v1();
    client.send(r#"{"topic":"room:x","event":"phx_join","payload":{},"ref":"1","join_ref":"9"}"#);
    let id = client.newest();
    client.join_ok(id);
    let stale = r#"{"topic":"room:x","event":"say","payload":{},"ref":"2","join_ref":"1"}"#;
    assert!(client.send(stale).is_empty());
    client.socket.crash_channel(id);
    let error =
        r#"{"event":"phx_error","payload":{"reason":"channel_crash"},"ref":"9","topic":"room:x"}"#;
    assert_eq!(client.drain(), ["leave room:x", error]);
}

#[test]
fn a_broadcast_is_encoded_for_either_version() {
    let frame = |version| string(encode_broadcast(version, "room:x", "say", b"[ 1 ]").payload());
    assert_eq!(frame(Version::V2), r#"[null,null,"room:x","say",[ 1 ]]"#);
    let object = r#"{"topic":"room:x","event":"say","payload":[ 1 ],"ref":null,"join_ref":null}"#;
    assert_eq!(frame(Version::V1), object);
}

#[test]
fn topics_and_events_are_quoted_as_json() {
    let frame = encode_broadcast(Version::V2, r#"a"\é"#, "x\n\u{1}\u{7f}\u{2028}", b"{}");
    let expected = "[null,null,\"a\\\"\\\\é\",\"x\\n\\u0001\u{7f}\u{2028}\",{}]";
    assert_eq!(string(frame.payload()), expected);
    let mut client = Client::v2();
    client.send(r#"["1","1","room:\"\\","phx_join",{}]"#);
    let id = client.newest();
    assert_eq!(client.join_ok(id), [replied(r#""1""#, r#""1""#, r#"room:\"\\"#)]);
    client.socket.reply(id, b"null", Status::Error, Payload::Json(b"{}"));
    assert!(client.drain()[0].contains(r#""room:\"\\""#));
}

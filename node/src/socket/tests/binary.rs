//! Binary frames of V2: their bytes, and what of the rules differs for them.

use proptest::prelude::*;

use super::*;
use crate::socket::{Status, encode_binary_broadcast, user_push_in_utf8};

/// The frame of a push.
pub(super) fn frame(names: [&str; 4], data: &[u8]) -> Vec<u8> {
    let lens = names.map(|name| u8::try_from(name.len()).expect("a short name"));
    [&[0][..], &lens, names.concat().as_bytes(), data].concat()
}

#[test]
fn a_push_is_taken_apart_and_its_payload_left_alone() {
    let mut client = Client::joined();
    let frame = b"\x00\x01\x02\x06\x03112room:xsay\x00\xff";
    let seen = client.send_bytes(frame).expect("a frame that can be decoded");
    assert_eq!(seen, [r#"push room:x say binary \x00\xff "12" "1""#]);
}

#[test]
fn replies_pushes_and_broadcasts_have_their_bytes() {
    let mut client = Client::joined();
    let id = client.newest();
    client.socket.reply(id, br#""7""#, Status::Ok, Payload::Binary(b"\x00\xff"));
    client.socket.reply(id, b"7", Status::Error, Payload::Binary(b""));
    client.socket.reply(id, b"null", Status::Ok, Payload::Binary(b"x"));
    let expected = [
        r"binary \x01\x01\x01\x06\x0217room:xok\x00\xff",
        r"binary \x01\x01\x01\x06\x0517room:xerror",
        r"binary \x01\x01\x00\x06\x021room:xokx",
    ];
    assert_eq!(client.drain(), expected);
    let said = client.say(id, "say", Payload::Binary(b"\xfe"));
    assert_eq!(said.as_deref(), Some(r"binary \x00\x01\x06\x031room:xsay\xfe"));
    let said = client.say(id, "say", Payload::Json(b"[1]"));
    assert_eq!(said.as_deref(), Some(r#"["1",null,"room:x","say",[1]]"#));
    let broadcast = encode_binary_broadcast("room:x", "say", b"\x00\xff").expect("a form");
    assert_eq!(broadcast.payload(), b"\x02\x06\x03room:xsay\x00\xff");
}

#[test]
fn what_is_no_push_ends_the_socket() {
    let whole = frame(["1", "2", "room:x", "say"], b"");
    for len in 0..whole.len() {
        let verdict = Client::joined().send_bytes(&whole[..len]);
        assert_eq!(verdict, Err(Close::UNDECODABLE), "{len} bytes");
    }
    for kind in 1..=255 {
        let mut other = whole.clone();
        other[0] = kind;
        assert_eq!(Client::joined().send_bytes(&other), Err(Close::UNDECODABLE), "kind {kind}");
    }
    let latin = b"\x00\x01\x01\x06\x0112room:x\xe9";
    assert_eq!(Client::joined().send_bytes(latin), Err(Close::UNDECODABLE));
    let escaped = "\0".repeat(255);
    let long = frame([&escaped, "2", "room:x", "say"], b"");
    assert_eq!(Client::joined().send_bytes(&long), Err(Close::REF_TOO_LONG));
}

#[test]
fn a_client_of_v1_sends_its_text_in_a_binary_frame_but_no_bytes() {
    let heartbeat = r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"4"}"#;
    let seen = Client::v1().send_bytes(heartbeat.as_bytes()).expect("text");
    assert_eq!(seen.len(), 1);
    assert_eq!(Client::v1().send_bytes(b"\x00\xff"), Err(Close::BINARY));
    let push = frame(["1", "2", "room:x", "say"], b"");
    assert_eq!(Client::v1().send_bytes(&push), Err(Close::UNDECODABLE));
}

#[test]
fn an_empty_join_ref_is_stale_but_for_a_join() {
    let mut client = Client::joined();
    let say = frame(["", "2", "room:x", "say"], b"");
    assert_eq!(client.send_bytes(&say), Ok(vec![]));
    assert_eq!(client.send_bytes(&frame(["", "3", "room:x", "phx_leave"], b"")), Ok(vec![]));
    let seen = client.send_bytes(&frame(["", "4", "lobby", "phx_join"], b"{}")).expect("a join");
    assert_eq!(seen, ["join lobby {}"]);
    assert_eq!(client.join_ok(client.newest()), [replied(r#""""#, r#""4""#, "lobby")]);
    let seen = client.send_bytes(&frame(["", "5", "lobby", "say"], b"")).expect("a push");
    assert_eq!(seen, [r#"push lobby say binary  "5" """#]);
}

#[test]
fn heartbeats_leaves_and_unmatched_topics_are_answered_in_text() {
    let mut client = Client::joined();
    let mut told = |names| client.send_bytes(&frame(names, b"\xff")).expect("a frame");
    assert_eq!(told(["", "2", "phoenix", "heartbeat"]), [replied("null", r#""2""#, "phoenix")]);
    let unmatched = refused("null", r#""3""#, "room:\u{e9}", "unmatched topic");
    assert_eq!(told(["1", "3", "room:\u{e9}", "say"]), [unmatched]);
    assert_eq!(told(["9", "4", "lobby", "phx_leave"]), [replied(r#""9""#, r#""4""#, "lobby")]);
    let left = told(["1", "5", "room:x", "phx_leave"]);
    let text = replied(r#""1""#, r#""5""#, "room:x");
    assert_eq!(left, ["leave room:x".into(), text, closed(r#""1""#, "room:x")]);
}

#[test]
fn a_push_that_waits_for_its_join_keeps_its_bytes() {
    let mut client = Client::v2();
    client.send(r#"["1","1","room:x","phx_join",{}]"#);
    assert_eq!(client.send_bytes(&frame(["1", "2", "room:x", "say"], b"\xff")), Ok(vec![]));
    client.send(r#"["1","3","room:x","say",[]]"#);
    let seen = client.join_ok(client.newest());
    let waited = [r#"push room:x say binary \xff "2" "1""#, r#"push room:x say [] "3" "1""#];
    assert_eq!(seen[1..], waited);
}

/// A client that joined `realtime:x`, of a node that serves such topics.
fn realtime() -> Client {
    let mut client =
        Client::new(Version::V2, Limits { user_broadcasts: true, ..Limits::default() });
    client.join("room:x", "1");
    client
}

#[test]
fn a_user_broadcast_is_a_push_of_its_own_event_and_payload() {
    let frame = b"\x03\x01\x02\x06\x03\x02\x01112room:xsay{}[1]";
    let seen = realtime().send_bytes(frame);
    assert_eq!(seen, Ok(vec![r#"push room:x broadcast say {} [1] "12" "1""#.to_owned()]));
    let nameless = b"\x03\x00\x00\x06\x00\x00\x00room:x\xff";
    let seen = realtime().send_bytes(nameless);
    assert_eq!(seen, Ok(vec![r#"push room:x broadcast   \xff null "1""#.to_owned()]));
    assert_eq!(Client::joined().send_bytes(frame), Err(Close::UNDECODABLE), "where it is off");
}

#[test]
fn a_user_broadcast_that_is_none_ends_the_socket() {
    let whole = b"\x03\x01\x01\x06\x03\x02\x0112room:xsay{}";
    for len in 0..whole.len() {
        assert_eq!(realtime().send_bytes(&whole[..len]), Err(Close::UNDECODABLE), "{len} bytes");
    }
    let mut unknown = *whole;
    unknown[6] = 2;
    assert_eq!(realtime().send_bytes(&unknown), Err(Close::UNDECODABLE));
}

#[test]
fn names_of_a_byte_each_character_are_put_into_utf8() {
    let latin = b"\x03\x01\x01\x06\x02\x00\x0112room:x\xe9!{}";
    let rewritten = user_push_in_utf8(latin).expect("it was none");
    assert_eq!(rewritten, b"\x03\x01\x01\x06\x03\x00\x0112room:x\xc3\xa9!{}");
    assert_eq!(user_push_in_utf8(&rewritten), None);
    assert_eq!(user_push_in_utf8(b"\0\x01\x01\x06\x0112room:x\xe9"), None, "of another kind");
    for len in 0..latin.len() - 3 {
        assert_eq!(user_push_in_utf8(&latin[..len]), None, "{len} bytes");
    }
}

#[test]
fn what_has_no_form_is_dropped_and_counted() {
    let mut client = Client::v1();
    client.send(r#"{"topic":"room:x","event":"phx_join","payload":{},"ref":"1"}"#);
    let id = client.newest();
    client.join_ok(id);
    client.socket.reply(id, b"null", Status::Ok, Payload::Binary(b""));
    assert_eq!(client.drain(), [""; 0]);
    assert_eq!(client.socket.take_refused().formless, 1);
    assert_eq!(client.say(id, "say", Payload::Binary(b"")), None);

    let client = Client::joined();
    let long = "e".repeat(256);
    assert_eq!(client.say(client.newest(), &long, Payload::Binary(b"")), None);
    assert!(client.say(client.newest(), &long[1..], Payload::Binary(b"")).is_some());
    assert!(encode_binary_broadcast(&long, "e", b"").is_none());
}

proptest! {
    #[test]
    fn any_bytes_are_a_push_or_end_the_socket(bytes in prop_oneof![
        any::<Vec<u8>>(),
        ([".{0,9}", ".{0,9}", "room:x", "(say|phx_join|phx_leave|phx_x|.{0,9})"], any::<Vec<u8>>())
            .prop_map(|([a, b, c, d], data)| frame([&a, &b, &c, &d], &data)),
    ]) {
        let mut client = Client::joined();
        if let Ok(seen) = client.send_bytes(&bytes) {
            for line in seen.iter().filter(|line| line.starts_with('[')) {
                serde_json::from_str::<serde_json::Value>(line).expect("a well-formed frame");
            }
        }
    }

    #[test]
    fn a_push_means_the_same_in_text_and_in_bytes(
        join_ref in "[1-9\"é\\\\]{0,3}", reference in ".{0,9}",
        topic in prop::sample::select(&["room:x", "room:y", "phoenix", "lobby"][..]),
        event in "(say|phx_leave|phx_x|heartbeat)",
    ) {
        let text = serde_json::to_string(&(&join_ref, &reference, topic, &event, ())).expect("JSON");
        let frame = frame([&join_ref, &reference, topic, &event], b"null");
        let (mut one, mut other) = (Client::joined(), Client::joined());
        let told = one.send_bytes(&frame).expect("a frame");
        let told: Vec<_> = told.iter().map(|line| line.replace(" binary ", " ")).collect();
        prop_assert_eq!(told, other.send(&text));
    }
}

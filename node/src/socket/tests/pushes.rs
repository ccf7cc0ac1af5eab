//! Events of joined and unjoined topics, and heartbeats.

use super::*;
use crate::socket::{Status, reserved_event};

#[test]
fn a_heartbeat_is_answered_whatever_is_joined() {
    let mut client = Client::v2();
    let reply = r#"[null,"2","phoenix","phx_reply",{"response":{},"status":"ok"}]"#;
    assert_eq!(client.send(r#"[null,"2","phoenix","heartbeat",{}]"#), [reply]);
    client.join("room:x", "1");
    assert_eq!(client.send(r#" ["1", "2", "phoenix", "heartbeat", {"a":1}, 6]"#), [reply]);
}

#[test]
fn a_heartbeat_echoes_any_ref_and_never_the_join_ref() {
    for reference in
        ["4", "null", r#""a b""#, r#""é\n""#, "[1, 2]", r#"{"a":true}"#, "1.50e3", r#""""#]
    {
        let frame = format!(r#"["9",{reference},"phoenix","heartbeat",{{}}]"#);
        assert_eq!(Client::v2().send(&frame), [replied("null", reference, "phoenix")]);
    }
}

#[test]
fn a_frame_that_only_looks_like_a_heartbeat_is_decoded() {
    let seen = Client::joined().send(r#"[null,"5","room:x","say","phoenix","heartbeat",{}]"#);
    assert_eq!(seen, [r#"push room:x say "phoenix" "5" "1""#]);
    for frame in
        [r#"[null,"a\\","phoenix","heartbeat",{}]"#, r#"[null,"","phoenix","heartbeat",{}]"#]
    {
        assert_eq!(Client::v2().send(frame).len(), 1, "{frame}");
    }
    for broken in
        [r#"[null,"a"b","phoenix","heartbeat",{}]"#, r#"[null,"a\","phoenix","heartbeat",{}]"#]
    {
        assert_eq!(Client::v2().try_send(broken), Err(Close::UNDECODABLE), "{broken}");
    }
}

#[test]
fn a_push_reaches_its_channel_and_its_reply_the_client() {
    let mut client = Client::joined();
    let seen = client.send(r#"["1","7","room:x","say",{"body": "hi"}]"#);
    assert_eq!(seen, [r#"push room:x say {"body": "hi"} "7" "1""#]);
    let frame = r#"["1",8,"room:x","say",null]"#;
    let push = client.socket.handle_text(frame, &route, client.now).expect("a valid frame");
    let Push { id, route, reference, payload, .. } = push.expect("a push");
    assert_eq!((route, payload), (0, Payload::Json(b"null")));
    client.socket.reply(id, reference.as_bytes(), Status::Ok, Payload::Json(br#"{"n":1}"#));
    let reply = r#"["1",8,"room:x","phx_reply",{"response":{"n":1},"status":"ok"}]"#;
    assert_eq!(client.drain(), [reply]);
}

#[test]
fn a_push_to_a_topic_that_is_not_joined_is_unmatched() {
    let mut client = Client::joined();
    for event in ["say", "phx_reply", "heartbeat"] {
        let seen = client.send(&format!(r#"["1","5","room:y","{event}",{{}}]"#));
        assert_eq!(seen, [refused("null", r#""5""#, "room:y", "unmatched topic")]);
    }
}

#[test]
fn a_stale_frame_is_ignored_without_a_reply() {
    let mut client = Client::joined();
    for join_ref in [r#""0""#, "1", "false", r#""""#] {
        for event in ["say", "phx_leave", "phx_reply"] {
            let seen = client.send(&format!(r#"[{join_ref},"5","room:x","{event}",{{}}]"#));
            assert!(seen.is_empty(), "{join_ref} {event}: {seen:?}");
        }
    }
    assert_eq!(client.socket.channels().count(), 1);
}

#[test]
fn a_null_join_ref_is_current_and_the_reply_carries_the_channels() {
    let mut client = Client::joined();
    let seen = client.send(r#"[null,"5","room:x","say",{}]"#);
    assert_eq!(seen, [r#"push room:x say {} "5" "1""#]);
    let seen = client.send(r#"[null,"6","room:x","phx_leave",{}]"#);
    let expected = [replied(r#""1""#, r#""6""#, "room:x"), closed(r#""1""#, "room:x")];
    assert_eq!(seen[1..], expected);
}

#[test]
fn refs_are_compared_as_json_and_echoed_as_written() {
    let mut client = Client::v2();
    client.send(r#"["\u0031","1","room:x","phx_join",{}]"#);
    let id = client.newest();
    assert_eq!(client.join_ok(id), [replied(r#""\u0031""#, r#""1""#, "room:x")]);
    let seen = client.send(r#"["1",2,"room:x","say",{}]"#);
    assert_eq!(seen, [r#"push room:x say {} 2 "\u0031""#]);
    client.send(r#"[4,5,"lobby","phx_join",{}]"#);
    let id = client.newest();
    assert_eq!(client.join_ok(id), [replied("4", "5", "lobby")]);
    assert!(client.send(r#"["4","6","lobby","say",{}]"#).is_empty(), "a 4 is no \"4\"");
}

#[test]
fn an_escaped_topic_is_the_topic_it_spells() {
    let mut client = Client::joined();
    let seen = client.send(r#"["1","5","room\u003ax","s\u0061y",{}]"#);
    assert_eq!(seen, [r#"push room:x say {} "5" "1""#]);
}

#[test]
fn a_topic_that_is_no_string_is_unmatched_and_echoed() {
    for topic in ["5", "null", r#"["room:x"]"#, r#"{"a": 1}"#] {
        for event in ["say", "phx_join"] {
            let seen = Client::joined().send(&format!(r#"["1","5",{topic},"{event}",{{}}]"#));
            let reason = r#"{"response":{"reason":"unmatched topic"},"status":"error"}"#;
            assert_eq!(seen, [format!(r#"[null,"5",{topic},"phx_reply",{reason}]"#)]);
        }
    }
}

#[test]
fn an_event_that_is_no_string_crashes_the_channel() {
    for event in ["5", "null", r#"["say"]"#] {
        let seen = Client::joined().send(&format!(r#"["1","5","room:x",{event},{{}}]"#));
        let error = r#"["1","1","room:x","phx_error",{"reason":"channel_crash"}]"#;
        assert_eq!(seen, ["leave room:x", error]);
    }
    let seen = Client::v2().send(r#"["1","5","room:x",5,{}]"#);
    assert_eq!(seen, [refused("null", r#""5""#, "room:x", "unmatched topic")]);
}

#[test]
fn an_event_of_the_protocol_never_reaches_a_channel() {
    let mut client = Client::joined();
    for event in ["phx_reply", "phx_close", "phx_error", "phx_", "phx_x"] {
        let seen = client.send(&format!(r#"["1","5","room:x","{event}",{{}}]"#));
        assert_eq!(seen, [refused(r#""1""#, r#""5""#, "room:x", "reserved event")]);
    }
    assert_eq!(client.send(r#"["1","5","room:x","phx",{}]"#).len(), 1);
}

#[test]
fn events_that_could_be_forged_are_reserved() {
    let reserved =
        ["phx_join", "phx_x", "presence_state", "presence_diff", "presence_count", "disconnect"];
    assert!(reserved.into_iter().all(reserved_event));
    assert!(!["say", "presence", "Phx_join", "disconnected", ""].into_iter().any(reserved_event));
}

#[test]
fn pushes_behind_a_join_follow_its_reply_in_order() {
    let mut client = Client::v2();
    client.send(r#"["1","1","room:x","phx_join",{}]"#);
    assert!(client.send(r#"["1","2","room:x","a",{}]"#).is_empty());
    assert!(client.send(r#"[null,"3","room:x","b",[2]]"#).is_empty());
    assert!(client.send(r#"["0","4","room:x","stale",{}]"#).is_empty());
    assert!(client.send(r#"["1","5","room:x","phx_x",{}]"#).is_empty());
    let id = client.newest();
    let expected = [
        replied(r#""1""#, r#""1""#, "room:x"),
        r#"push room:x a {} "2" "1""#.to_owned(),
        r#"push room:x b [2] "3" "1""#.to_owned(),
        refused(r#""1""#, r#""5""#, "room:x", "reserved event"),
    ];
    assert_eq!(client.join_ok(id), expected);
}

#[test]
fn pushes_behind_a_refused_join_are_unmatched() {
    let mut client = Client::v2();
    client.send(r#"["1","1","room:x","phx_join",{}]"#);
    client.send(r#"["1","2","room:x","a",{}]"#);
    let id = client.newest();
    let expected = [
        refused(r#""1""#, r#""1""#, "room:x", "unauthorized"),
        refused("null", r#""2""#, "room:x", "unmatched topic"),
    ];
    assert_eq!(client.join_error(id), expected);
}

#[test]
fn a_crash_behind_a_join_leaves_later_pushes_unmatched() {
    let mut client = Client::v2();
    client.send(r#"["1","1","room:x","phx_join",{}]"#);
    client.send(r#"["1","2","room:x",2,{}]"#);
    client.send(r#"["1","3","room:x","a",{}]"#);
    let id = client.newest();
    let expected = [
        replied(r#""1""#, r#""1""#, "room:x"),
        "leave room:x".to_owned(),
        r#"["1","1","room:x","phx_error",{"reason":"channel_crash"}]"#.to_owned(),
        refused("null", r#""3""#, "room:x", "unmatched topic"),
    ];
    assert_eq!(client.join_ok(id), expected);
}

#[test]
fn a_pending_join_holds_up_no_other_topic() {
    let mut client = Client::joined();
    client.send(r#"["2","2","lobby","phx_join",{}]"#);
    let seen = client.send(r#"["1","3","room:x","say",{}]"#);
    assert_eq!(seen, [r#"push room:x say {} "3" "1""#]);
}

#[test]
fn an_answer_to_a_channel_that_is_gone_says_nothing() {
    let mut client = Client::joined();
    let id = client.newest();
    client.send(r#"["1","2","room:x","phx_leave",{}]"#);
    client.socket.reply(id, b"null", Status::Ok, Payload::Json(b"{}"));
    client.socket.crash_channel(id);
    assert!(client.drain().is_empty());
}

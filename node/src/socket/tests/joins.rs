//! Joins, leaves and the ends of channels.

use super::*;
use crate::socket::{Status, channels::ChannelState};

#[test]
fn a_join_asks_the_channel_and_its_answer_is_the_reply() {
    let mut client = Client::v2();
    let seen = client.send(r#"["1","2","room:x","phx_join",{"name": "Ada"}]"#);
    assert_eq!(seen, [r#"join room:x {"name": "Ada"}"#]);
    let id = client.newest();
    assert_eq!(client.socket.state(id), Some(ChannelState::Joining));
    client.socket.join_ok(id, br#"{"joined":"room:x"}"#);
    let reply = r#"["1","2","room:x","phx_reply",{"response":{"joined":"room:x"},"status":"ok"}]"#;
    assert_eq!(client.drain(), [reply]);
    assert_eq!(client.socket.state(id), Some(ChannelState::Joined));
    assert_eq!(client.socket.topic(id).map(Topic::as_str), Some("room:x"));
}

#[test]
fn a_refused_join_leaves_nothing_behind() {
    let mut client = Client::v2();
    client.send(r#"["1","2","room:x","phx_join",{}]"#);
    let id = client.newest();
    assert_eq!(client.join_error(id), [refused(r#""1""#, r#""2""#, "room:x", "unauthorized")]);
    assert_eq!(client.socket.state(id), None);
    assert_eq!(client.socket.channels().count(), 0);
    let seen = client.send(r#"["1","3","room:x","say",{}]"#);
    assert_eq!(seen, [refused("null", r#""3""#, "room:x", "unmatched topic")]);
}

#[test]
fn a_join_is_answered_once() {
    let mut client = Client::joined();
    let id = client.newest();
    assert!(client.join_ok(id).is_empty());
    assert!(client.join_error(id).is_empty());
    assert_eq!(client.socket.state(id), Some(ChannelState::Joined));
}

#[test]
fn a_join_whose_handler_panics_is_answered_as_crashed() {
    let mut client = Client::v2();
    client.send(r#"["1","2","room:x","phx_join",{}]"#);
    let id = client.newest();
    client.socket.crash_channel(id);
    let reply = refused(r#""1""#, r#""2""#, "room:x", "join crashed");
    assert_eq!(client.drain(), ["leave room:x".to_owned(), reply]);
    assert!(client.join_ok(id).is_empty());
}

#[test]
fn a_join_payload_that_is_no_object_is_an_empty_object() {
    for payload in ["null", "[1]", r#""{}""#, "7"] {
        let seen = Client::v2().send(&format!(r#"["1","1","room:x","phx_join",{payload}]"#));
        assert_eq!(seen, ["join room:x {}"]);
    }
}

#[test]
fn a_join_that_no_channel_serves_is_unmatched() {
    let seen = Client::v2().send(r#"["1","2","hall","phx_join",{}]"#);
    assert_eq!(seen, [refused("null", r#""2""#, "hall", "unmatched topic")]);
}

#[test]
fn a_join_of_an_invalid_topic_is_refused_as_such() {
    let long = format!("room:{}", "x".repeat(508));
    for topic in ["", "room:\\n", "room:\\u0000", &long] {
        let seen = Client::v2().send(&format!(r#"["1","2","{topic}","phx_join",{{}}]"#));
        assert_eq!(seen, [refused(r#""1""#, r#""2""#, topic, "invalid topic")]);
    }
}

#[test]
fn a_join_without_refs_in_v2_hands_its_ref_to_later_messages() {
    let mut client = Client::v2();
    client.send(r#"[null,"7","room:x","phx_join",{}]"#);
    let id = client.newest();
    assert_eq!(client.join_ok(id), [replied("null", r#""7""#, "room:x")]);
    let push = client.push(id, "presence_state", "{}").expect("a joined channel");
    assert_eq!(push, r#"["7",null,"room:x","presence_state",{}]"#);
    let seen = client.send(r#"["7","8","room:x","say",{}]"#);
    assert!(seen.is_empty(), "its own ref as join_ref is stale: {seen:?}");
    let seen = client.send(r#"[null,"8","room:x","say",{}]"#);
    assert_eq!(seen, [r#"push room:x say {} "8" "7""#]);
    let seen = client.send(r#"[null,"9","room:x","phx_leave",{}]"#);
    let expected = [replied(r#""7""#, r#""9""#, "room:x"), closed("null", "room:x")];
    assert_eq!(seen[0], "leave room:x");
    assert_eq!(seen[1..], expected);
}

#[test]
fn a_leave_is_replied_to_and_closes_the_channel() {
    let mut client = Client::v2();
    client.join("room:x", "20");
    let seen = client.send(r#"["20","23","room:x","phx_leave",{}]"#);
    assert_eq!(
        seen,
        [
            "leave room:x",
            r#"["20","23","room:x","phx_reply",{"response":{},"status":"ok"}]"#,
            r#"["20","20","room:x","phx_close",{}]"#,
        ]
    );
    assert_eq!(client.socket.channels().count(), 0);
}

#[test]
fn a_leave_of_a_topic_that_is_not_joined_is_fine() {
    let seen = Client::v2().send(r#"["1","2","room:x","phx_leave",{}]"#);
    assert_eq!(seen, [replied(r#""1""#, r#""2""#, "room:x")]);
}

#[test]
fn a_leave_ends_a_join_that_is_not_answered_yet() {
    let mut client = Client::v2();
    client.send(r#"["1","1","room:x","phx_join",{}]"#);
    client.send(r#"["1","2","room:x","say",{}]"#);
    let seen = client.send(r#"["1","3","room:x","phx_leave",{}]"#);
    let unmatched = refused("null", r#""2""#, "room:x", "unmatched topic");
    let expected = [
        "leave room:x".to_owned(),
        unmatched,
        replied(r#""1""#, r#""3""#, "room:x"),
        closed(r#""1""#, "room:x"),
    ];
    assert_eq!(seen, expected);
    let id = client.newest();
    assert!(client.join_ok(id).is_empty(), "the late answer says nothing");
}

#[test]
fn a_second_join_replaces_the_first_and_closes_it_after_the_reply() {
    let mut client = Client::joined();
    let former = client.newest();
    let seen = client.send(r#"["5","5","room:x","phx_join",{}]"#);
    assert_eq!(seen, ["leave room:x", "join room:x {}"]);
    let newest = client.newest();
    assert_ne!(former, newest);
    client.socket.reply(former, b"null", Status::Ok, Payload::Json(b"{}"));
    assert!(client.drain().is_empty(), "the former channel speaks no more");
    let expected = [replied(r#""5""#, r#""5""#, "room:x"), closed(r#""1""#, "room:x")];
    assert_eq!(client.join_ok(newest), expected);
    let seen = client.send(r#"["1","6","room:x","say",{}]"#);
    assert!(seen.is_empty(), "a push of the former join is stale: {seen:?}");
}

#[test]
fn a_refused_second_join_closes_the_first_all_the_same() {
    let mut client = Client::joined();
    client.send(r#"["5","5","room:x","phx_join",{}]"#);
    let id = client.newest();
    let refusal = refused(r#""5""#, r#""5""#, "room:x", "unauthorized");
    assert_eq!(client.join_error(id), [refusal, closed(r#""1""#, "room:x")]);
    assert_eq!(client.socket.channels().count(), 0);
}

#[test]
fn a_join_replaces_one_that_is_not_answered_yet() {
    let mut client = Client::v2();
    client.send(r#"["1","1","room:x","phx_join",{}]"#);
    client.send(r#"["1","2","room:x","say",{}]"#);
    let first = client.newest();
    let seen = client.send(r#"["3","3","room:x","phx_join",{}]"#);
    let unmatched = refused("null", r#""2""#, "room:x", "unmatched topic");
    assert_eq!(seen, ["leave room:x".to_owned(), unmatched, "join room:x {}".to_owned()]);
    assert!(client.join_ok(first).is_empty());
    let second = client.newest();
    let expected = [replied(r#""3""#, r#""3""#, "room:x"), closed(r#""1""#, "room:x")];
    assert_eq!(client.join_ok(second), expected);
}

#[test]
fn closes_that_wait_for_a_reply_are_few() {
    let mut client = Client::v2();
    let mut early = Vec::new();
    for n in 0..20 {
        let seen = client.send(&format!(r#"["{n}","{n}","room:x","phx_join",{{}}]"#));
        early.extend(seen.into_iter().filter(|line| line.contains("phx_close")));
    }
    let expected: Vec<_> = (0..11).map(|n| closed(&format!(r#""{n}""#), "room:x")).collect();
    assert_eq!(early, expected);
    let id = client.newest();
    let late: Vec<_> = (11..19).map(|n| closed(&format!(r#""{n}""#), "room:x")).collect();
    assert_eq!(client.join_ok(id)[1..], late);
}

#[test]
fn a_channel_that_crashes_says_so_and_the_others_live_on() {
    let mut client = Client::joined();
    client.send(r#"["1","2","room:x","phx_leave",{}]"#);
    let crashed = client.join("room:x", "30");
    let other = client.join("lobby", "31");
    client.socket.crash_channel(crashed);
    let error = r#"["30","30","room:x","phx_error",{"reason":"channel_crash"}]"#;
    assert_eq!(client.drain(), ["leave room:x", error]);
    assert_eq!(client.socket.channels().collect::<Vec<_>>(), [other]);
    client.socket.crash_channel(crashed);
    assert!(client.drain().is_empty());
}

#[test]
fn ids_survive_as_numbers_and_are_not_used_twice() {
    let mut client = Client::joined();
    let former = client.newest();
    assert_eq!(ChannelId::from_bits(former.to_bits()), former);
    client.send(r#"["1","2","room:x","phx_leave",{}]"#);
    let next = client.join("lobby", "3");
    assert_ne!(former.to_bits(), next.to_bits());
    assert_eq!(client.socket.topic(former), None);
    assert_eq!(client.push(former, "e", "{}"), None);
}

//! What a client may have and do at most.

use std::time::Duration;

use super::*;

fn too_many(join_ref: &str, reference: &str, topic: &str) -> String {
    refused(join_ref, reference, topic, "too many requests")
}

fn limited(limits: Limits) -> Client {
    Client::new(Version::V2, limits)
}

#[test]
fn one_channel_too_many_is_refused_until_one_leaves() {
    let mut client = limited(Limits { channels_max: 2, ..Limits::default() });
    client.join("room:a", "1");
    client.send(r#"["2","2","room:b","phx_join",{}]"#);
    let join = r#"["3","3","room:c","phx_join",{}]"#;
    let refusal = refused(r#""3""#, r#""3""#, "room:c", "too many channels joined");
    assert_eq!(client.send(join), [refusal]);
    let again = client.send(r#"["4","4","room:a","phx_join",{}]"#);
    assert_eq!(again, ["leave room:a", "join room:a {}"], "a rejoin does not count");
    client.send(r#"["4","5","room:a","phx_leave",{}]"#);
    assert_eq!(client.send(join), ["join room:c {}"]);
}

#[test]
fn the_default_limit_is_a_hundred_channels() {
    let mut client = Client::v2();
    for n in 0..100 {
        client.join(&format!("room:{n}"), "1");
    }
    let seen = client.send(r#"["1","1","lobby","phx_join",{}]"#);
    assert_eq!(seen, [refused(r#""1""#, r#""1""#, "lobby", "too many channels joined")]);
}

#[test]
fn sixty_four_pushes_wait_behind_a_join_and_the_next_is_refused() {
    let mut client = Client::v2();
    client.send(r#"["1","1","room:x","phx_join",{}]"#);
    for n in 0..64 {
        assert!(client.send(&format!(r#"["1",{n},"room:x","a",{{}}]"#)).is_empty());
    }
    assert_eq!(client.send(r#"["1",64,"room:x","a",{}]"#), [too_many(r#""1""#, "64", "room:x")]);
    let id = client.newest();
    let seen = client.join_ok(id);
    assert_eq!((seen.len(), seen[64].as_str()), (65, r#"push room:x a {} 63 "1""#));
}

#[test]
fn pushes_behind_joins_share_a_bound_in_bytes() {
    let mut client = Client::v2();
    client.send(r#"["1","1","room:x","phx_join",{}]"#);
    client.send(r#"["2","2","room:y","phx_join",{}]"#);
    let large =
        |topic: &str, bytes: usize| format!(r#"[null,7,"{topic}","a","{}"]"#, "x".repeat(bytes));
    assert!(client.send(&large("room:x", 1 << 20)).is_empty(), "one of any size");
    assert_eq!(client.send(&large("room:y", 1)), [too_many(r#""2""#, "7", "room:y")]);
    let first = client.ids[0];
    assert_eq!(client.join_ok(first).len(), 2);
    assert!(client.send(&large("room:y", 100 << 10)).is_empty(), "room again");
    assert!(client.send(&large("room:y", 100 << 10)).is_empty());
    assert_eq!(client.send(&large("room:y", 100 << 10)), [too_many(r#""2""#, "7", "room:y")]);
    client.send(r#"["2","9","room:y","phx_leave",{}]"#);
    client.send(r#"["3","3","room:y","phx_join",{}]"#);
    assert!(client.send(&large("room:y", 200 << 10)).is_empty(), "a leave gives room too");
}

#[test]
fn joins_over_their_rate_are_refused_and_end_the_former_join() {
    let mut client = limited(Limits { joins_per_second: Some(2), ..Limits::default() });
    client.join("room:a", "1");
    client.join("room:b", "2");
    let seen = client.send(r#"["3","3","room:c","phx_join",{}]"#);
    assert_eq!(seen, [too_many(r#""3""#, r#""3""#, "room:c")]);
    let seen = client.send(r#"["4","4","room:a","phx_join",{}]"#);
    let refusal = too_many(r#""4""#, r#""4""#, "room:a");
    assert_eq!(seen, ["leave room:a".to_owned(), refusal, closed(r#""1""#, "room:a")]);
    client.now = client.now + Duration::from_millis(500);
    assert_eq!(client.send(r#"["5","5","room:c","phx_join",{}]"#), ["join room:c {}"]);
}

#[test]
fn pushes_over_their_rate_are_refused_but_no_heartbeat_or_leave() {
    let mut client = limited(Limits { events_per_second: Some(1), ..Limits::default() });
    client.join("room:a", "1");
    let push = r#"["1","7","room:a","say",{}]"#;
    assert_eq!(client.send(push), [r#"push room:a say {} "7" "1""#]);
    assert_eq!(client.send(push), [too_many(r#""1""#, r#""7""#, "room:a")]);
    assert!(client.send(r#"["0","7","room:a","stale",{}]"#).is_empty());
    assert_eq!(client.send(r#"[null,"8","phoenix","heartbeat",{}]"#).len(), 1);
    client.now = client.now + Duration::from_secs(1);
    assert_eq!(client.send(push).len(), 1);
    assert_eq!(client.send(r#"["1","9","room:a","phx_leave",{}]"#).len(), 3);
}

//! What the idle scenario measures, against a node of the test's own.

use super::super::{
    fake_node::Fault,
    tests::{documented, run},
};

#[test]
fn sockets_are_spread_joined_held_and_weighed() {
    let args = "idle --sockets 40 --hold 100ms --heartbeat 50ms";
    let ended = run(args, 2, Fault::Nothing, |node| {
        let mut topics = node.topics();
        topics.sort();
        topics.dedup();
        assert_eq!(topics.len(), 40, "each has its own topic");
        assert!(node.heartbeats() >= 40, "{}", node.heartbeats());
    })
    .unwrap();
    documented("idle", &ended.json);
    assert_eq!(ended.failure, None);
    assert_eq!(ended.json["bytes_per_socket_settled"], 500.0);
    assert_eq!(
        (&ended.json["open_us"]["count"], &ended.json["joined"]),
        (&40.into(), &true.into())
    );
    assert!(ended.json["heartbeat_us"]["count"].as_u64().unwrap() >= 40);
    assert!(ended.people.contains("a socket     500 B when settled"), "{}", ended.people);
}

#[test]
fn sockets_need_not_join() {
    let args = "idle --sockets 3 --no-join --hold 0s";
    let ended = run(args, 1, Fault::HidesMetrics, |node| {
        assert_eq!(node.topics(), [] as [String; 0]);
    })
    .unwrap();
    assert_eq!((ended.failure, &ended.json["joined"]), (None, &false.into()));
    assert!(ended.json["bytes_per_socket_held"].is_null());
    assert!(ended.people.contains("a socket     unknown"), "{}", ended.people);
}

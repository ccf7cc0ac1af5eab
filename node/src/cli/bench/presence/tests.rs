//! What the presence scenario measures, against a node of the test's own.

use std::time::{Duration, Instant};

use super::{
    super::{
        fake_node::Fault,
        tests::{documented, run},
    },
    Board,
};

#[test]
fn a_client_is_visible_from_the_first_sight_on() {
    let (board, now) = (Board::new(2, 1), Instant::now());
    for (client, late) in [(0, 1), (0, 2), (7, 3)] {
        board.see(client, now + Duration::from_secs(late));
    }
    assert_eq!(board.visible.get(), 1);
    let seen = board.clients.borrow()[0].visible;
    assert_eq!(seen, Some(now + Duration::from_secs(1)));
}

#[test]
fn every_client_is_seen_from_the_other_node() {
    let args = "presence --clients 30 --topics 4";
    let ended = run(args, 2, Fault::Nothing, |node| {
        // The clients, and an observer a topic.
        assert_eq!(node.topics().len(), 34);
        let mut topics = node.topics();
        topics.sort();
        topics.dedup();
        assert_eq!(topics.len(), 4);
    })
    .unwrap();
    documented("presence", &ended.json);
    assert_eq!((ended.failure, &ended.json["missing"]), (None, &0.into()));
    assert!(ended.json["converged_seconds"].is_number());
    assert_eq!(ended.json["incomplete_lists"], 0);
    for field in ["join_reply_us", "join_to_visible_us", "reply_to_visible_us"] {
        assert_eq!(ended.json[field]["count"], 30, "{field}");
    }
    assert!(ended.people.contains("30 clients in 4 topics"), "{}", ended.people);
    assert!(!ended.people.contains("the same node"), "{}", ended.people);
}

#[test]
fn topics_can_take_turns_over_the_nodes() {
    let ended = run("presence --clients 9 --topics 3 --spread", 3, Fault::Nothing, |_| ()).unwrap();
    let urls = |field: &str| ended.json[field].as_array().unwrap().clone();
    let (clients, mut observers) = (urls("client_urls"), urls("observer_urls"));
    observers.rotate_right(1);
    assert_eq!((clients.len(), clients), (3, observers));
    assert_eq!(ended.failure, None);
}

#[test]
fn clients_that_are_never_shown_fail_the_run() {
    let args = "presence --clients 5 --topics 2 --patience 50ms";
    let ended = run(args, 1, Fault::HidesPresence, |_| ()).unwrap();
    assert_eq!(ended.json["missing"], 5);
    let failure = "clients never shown: 5, lists incomplete: 7";
    assert_eq!(ended.failure.as_deref(), Some(failure));
    assert_eq!(
        (&ended.json["converged_seconds"], &ended.json["incomplete_lists"]),
        (&().into(), &7.into())
    );
    assert!(ended.people.contains("7 not whole"), "{}", ended.people);
    assert!(ended.people.contains("(the same node)"), "{}", ended.people);
}

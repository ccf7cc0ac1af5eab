//! What the echo scenario measures, against a node of the test's own.

use super::super::{
    fake_node::Fault,
    tests::{documented, run},
};

const SHORT: &str = "echo --sockets 6 --seconds 0.05 --warmup 20ms --patience 200ms";

#[test]
fn a_push_is_done_when_its_reply_came_whether_or_not_a_copy_does() {
    for fault in [Fault::Nothing, Fault::KeepsOwnCopies] {
        let ended = run(SHORT, 2, fault, |_| ()).unwrap();
        let json = &ended.json;
        documented("echo", json);
        assert_eq!(ended.failure, None);
        assert!(json["deliveries"].as_u64().unwrap() > 0);
        assert_eq!((&json["deliveries"], &json["lost"]), (&json["messages"], &0.into()));
        assert_eq!((&json["in_flight_each"], &json["topics"]), (&1.into(), &6.into()));
        for word in ["6 sockets", "push → reply", "replies      "] {
            assert!(ended.people.contains(word), "{}", ended.people);
        }
    }
}

#[test]
fn a_rate_is_spread_over_all_sockets() {
    let ended = run(&format!("{SHORT} --rate 500"), 1, Fault::Nothing, |_| ()).unwrap();
    assert_eq!((ended.failure, &ended.json["rate_per_second"]), (None, &500.into()));
}

#[test]
fn a_node_that_does_not_answer_pushes_cannot_be_measured_so() {
    let failure = run(SHORT, 1, Fault::AnswersNoMessages, |_| ()).unwrap_err();
    assert!(failure.to_string().contains("ack = true"), "{failure}");
}

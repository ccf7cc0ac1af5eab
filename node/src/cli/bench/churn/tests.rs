//! What the churn scenario measures, against a node of the test's own.

use super::super::{
    fake_node::Fault,
    tests::{documented, run},
};

const SHORT: &str = "churn --sockets 4 --seconds 0.1 --warmup 20ms --patience 300ms";

#[test]
fn sockets_come_and_go_and_each_phase_is_measured() {
    let ended = run(SHORT, 2, Fault::Nothing, |node| {
        assert_eq!(node.topics(), [] as [String; 0], "all have left");
    })
    .unwrap();
    let json = &ended.json;
    documented("churn", json);
    assert_eq!((ended.failure, &json["failed"]), (None, &0.into()));
    let cycles = json["cycles"].as_u64().unwrap();
    assert!(cycles > 0);
    for phase in ["connect", "upgrade", "join", "leave", "close", "cycle"] {
        assert_eq!(json[format!("{phase}_us")]["count"], cycles, "{phase}");
    }
    assert!(ended.people.contains("churn: 4 sockets at a time"), "{}", ended.people);
}

#[test]
fn a_node_that_refuses_ends_the_run() {
    let refused = run(SHORT, 1, Fault::RefusesJoins, |_| ()).unwrap_err();
    assert!(refused.to_string().contains(r#"was refused: {"reason":"no"}"#), "{refused}");
    let refused = run(SHORT, 1, Fault::RefusesUpgrades, |_| ()).unwrap_err();
    assert!(refused.to_string().contains("403"), "{refused}");
}

#[test]
fn a_node_that_does_not_let_go_is_not_waited_for() {
    let late = run(SHORT, 1, Fault::NeverCloses, |_| ()).unwrap_err();
    assert!(late.to_string().ends_with("no answer in time"), "{late}");
}

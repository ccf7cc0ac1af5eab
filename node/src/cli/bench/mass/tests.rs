//! What the mass scenario measures, against a node of the test's own.

use super::super::{
    fake_node::Fault,
    tests::{documented, run},
};

const SHORT: &str =
    "mass --sockets 20 --background-subscribers 3 --background-rate 200 --around 60ms";

#[test]
fn the_background_is_told_before_during_and_after_a_kill() {
    let ended = run(&format!("{SHORT} --event kill"), 2, Fault::Nothing, |_| ()).unwrap();
    let json = &ended.json;
    documented("mass", json);
    assert_eq!((ended.failure, &json["lost"]), (None, &0.into()));
    for part in ["before_us", "during_us", "after_us"] {
        assert!(json[part]["count"].as_u64().unwrap() > 0, "{part}");
    }
    assert_eq!((&json["event"], &json["join_us"]["count"]), (&"kill".into(), &0.into()));
    // The two nodes count one more each time one of them is asked, in their second bucket.
    assert_eq!(json["server_during_us"]["count"], 4);
    let p99 = json["server_during_us"]["p99"].as_f64().unwrap();
    assert!((1_000.0..=5_000.0).contains(&p99), "{p99}");
    assert!(ended.people.contains("20 sockets killed at once"), "{}", ended.people);
}

#[test]
fn all_sockets_join_one_topic() {
    let args = format!("{SHORT} --event join --within 50ms");
    let ended = run(&args, 1, Fault::Nothing, |node| {
        let mut topics = node.topics();
        assert_eq!(topics.len(), 24, "the background, its publisher, and all others");
        topics.sort();
        topics.dedup();
        assert_eq!(topics.len(), 2);
    })
    .unwrap();
    assert_eq!((ended.failure, &ended.json["join_us"]["count"]), (None, &20.into()));
}

#[test]
fn a_node_is_stopped_while_the_background_goes_on_on_the_others() {
    let ended = run(&format!("{SHORT} --event stop"), 3, Fault::Stops, |_| ()).unwrap();
    let json = &ended.json;
    documented("mass", json);
    assert_eq!((ended.failure, &json["lost"]), (None, &0.into()));
    assert_eq!(json["close_codes"], serde_json::json!({"1012": 20}));
    assert_eq!((&json["disconnected"], &json["stopped_url"]), (&0.into(), &json["urls"][2]));
    assert_eq!(json["after_us"]["count"].as_u64().unwrap() % 3, 0, "the background is whole");
    // The two that go on count one more each time one of them is asked.
    assert_eq!(json["server_during_us"]["count"], 4);
    for line in ["20 sockets lose their node", "closed       20 with 1012 by http://"] {
        assert!(ended.people.contains(line), "{}", ended.people);
    }
}

#[test]
fn only_a_node_of_this_machine_with_a_process_of_its_own_is_stopped() {
    let args = format!("{SHORT} --event stop");
    for (listeners, fault, why) in [
        (1, Fault::Nothing, "name two or more"),
        (2, Fault::Nothing, "serves other nodes"),
        (2, Fault::IsElsewhere, "is no `wingbeat serve` of this machine"),
        (2, Fault::HidesMetrics, "404"),
    ] {
        let failure = run(&args, listeners, fault, |_| ()).unwrap_err();
        assert!(failure.to_string().contains(why), "{failure}");
    }
}

#[test]
fn a_node_without_the_histogram_is_measured_from_outside_alone() {
    let args = format!("{SHORT} --event kill");
    let ended = run(&args, 1, Fault::HidesMetrics, |_| ()).unwrap();
    assert_eq!((ended.failure, &ended.json["server_during_us"]), (None, &().into()));
    assert!(ended.people.contains("server p99   unknown before"), "{}", ended.people);
}

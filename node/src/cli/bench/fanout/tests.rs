//! What the fan-out scenario measures, against a node of the test's own.

use super::super::{
    fake_node::Fault,
    tests::{Ended, documented, run},
};

const SHORT: &str = "fanout --subscribers 5 --seconds 0.05 --warmup 20ms --patience 200ms";

fn fanout(more: &str, fault: Fault) -> Ended {
    run(&format!("{SHORT} {more}"), 1, fault, |_| ()).unwrap()
}

#[test]
fn every_message_reaches_every_subscriber() {
    let ended = run(SHORT, 3, Fault::Nothing, |_| ()).unwrap();
    let json = &ended.json;
    documented("fanout", json);
    assert_eq!(ended.failure, None);
    let messages = json["messages"].as_u64().unwrap();
    assert!(messages > 0);
    assert_eq!(json["deliveries"], 5 * messages);
    assert_eq!(json["latency_us"]["count"], 5 * messages);
    assert_eq!(json["subscriber_urls"].as_array().unwrap().len(), 2);
    // Three nodes of one process, which tells one second more each time.
    assert_eq!(json["server"]["processes"], 1);
    assert_eq!(json["server"]["cpu_seconds"], 3.0);
    assert_eq!((&json["in_flight"], &json["rate_per_second"]), (&1.into(), &().into()));
    for word in ["5 subscribers, 100 B payload, 1 in flight", "publish → deliver", "0 lost"] {
        assert!(ended.people.contains(word), "{}", ended.people);
    }
}

#[test]
fn windows_rates_and_payloads_of_all_sizes_lose_nothing() {
    for more in
        ["--in-flight 64 --payload 16", "--payload 70000 --in-flight 4", "--rate 500", "--rate 1"]
    {
        let ended = fanout(more, Fault::Nothing);
        assert_eq!((ended.failure, &ended.json["lost"]), (None, &0.into()), "{more}");
        assert!(ended.json["deliveries"].as_u64().unwrap() > 0, "{more}");
    }
}

#[test]
fn faults_are_counted_and_fail_the_run() {
    for (fault, field, failure) in [
        (Fault::Loses, "lost", "deliveries lost: 1"),
        (Fault::Doubles, "doubled", "deliveries doubled: 1"),
        (Fault::Swaps, "reordered", "deliveries reordered: 1"),
    ] {
        let ended = fanout("--in-flight 2", fault);
        assert_eq!(ended.json[field], 1, "{}", ended.people);
        assert_eq!(ended.failure.as_deref(), Some(failure));
    }
}

#[test]
fn a_subscriber_that_is_cut_off_is_reported_with_the_reason() {
    let ended = fanout("", Fault::Cuts);
    assert_eq!(ended.json["disconnected"], 1);
    let failure = ended.failure.unwrap();
    assert!(failure.contains("subscribers disconnected: 1"), "{failure}");
    assert!(failure.ends_with("closed the socket with code 1013: slow client)"), "{failure}");
}

#[test]
fn a_refused_message_ends_the_run() {
    let failure = run(SHORT, 1, Fault::RefusesMessages, |_| ()).unwrap_err();
    assert!(failure.to_string().ends_with(r#"refused a message: {"reason":"no"}"#), "{failure}");
}

#[test]
fn a_server_without_metrics_can_be_measured_from_outside() {
    let ended = fanout("", Fault::HidesMetrics);
    assert_eq!((ended.failure, &ended.json["server"]), (None, &().into()));
    assert!(ended.people.contains("server CPU   unknown"), "{}", ended.people);
}

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
fn a_search_tells_each_step_and_measures_the_rate_that_held() {
    let ended = fanout("--search 5s --step 20ms", Fault::Nothing);
    assert_eq!(ended.failure, None);
    let search = &ended.json["search"];
    let steps = search["steps"].as_array().unwrap();
    assert!(steps.len() > 1, "{steps:?}");
    assert_eq!(search["rate_per_second"], ended.json["rate_per_second"]);
    assert_eq!(search["bound_us"], 5e6);
    for word in ["RATE", "HELD", "highest rate with p99 within 5.00 s"] {
        assert!(ended.people.contains(word), "{}", ended.people);
    }
}

#[test]
fn those_that_stop_reading_are_neither_waited_for_nor_counted() {
    let ended = fanout("--slow 2", Fault::Nothing);
    let json = &ended.json;
    assert_eq!((ended.failure, &json["lost"]), (None, &0.into()));
    assert_eq!(json["deliveries"], 3 * json["messages"].as_u64().unwrap());
    let slow =
        serde_json::json!({"subscribers": 2, "connected": 2, "disconnected": 0, "close_codes": {}});
    assert_eq!(json["slow"], slow);
    let line = "2 stopped reading, 0 were cut off; 2 are connected";
    assert!(ended.people.contains(line), "{}", ended.people);
}

#[test]
fn somebody_must_read() {
    let failure = run(&format!("{SHORT} --slow 5"), 1, Fault::Nothing, |_| ()).unwrap_err();
    assert_eq!(failure.exit_code(), 2);
}

#[test]
fn several_runs_are_one_report_with_medians() {
    let ended = fanout("--runs 3", Fault::Nothing);
    assert_eq!((ended.failure, &ended.json["runs"]), (None, &3.into()));
    let rate = &ended.json["spread"]["rate"];
    assert_eq!(rate["median"], ended.json["deliveries_per_second"]);
    assert!(rate["min"].as_f64() <= rate["max"].as_f64());
    assert!(ended.people.contains("MEDIAN OF RUNS"), "{}", ended.people);
}

#[test]
fn faults_are_counted_and_fail_the_run() {
    for (fault, field, failure) in [
        (Fault::Loses, "lost", "deliveries lost: 1"),
        (Fault::Doubles, "doubled", "deliveries doubled: 1"),
        (Fault::Swaps, "reordered", "deliveries reordered: 1"),
    ] {
        let ended = fanout("--in-flight 2", fault);
        assert_eq!(ended.json[field], 1, "{fault:?} {}", ended.people);
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

//! What the cross scenario measures, against a node of the test's own.

use super::super::{
    fake_node::Fault,
    tests::{documented, run},
};

const SHORT: &str = "cross --subscribers 4 --seconds 0.05 --warmup 20ms";

#[test]
fn subscribers_are_on_all_nodes_but_the_publishers() {
    let ended = run(SHORT, 3, Fault::Nothing, |_| ()).unwrap();
    let json = &ended.json;
    documented("cross", json);
    assert_eq!(ended.failure, None);
    assert_eq!(json["deliveries"], 4 * json["messages"].as_u64().unwrap());
    let urls = json["subscriber_urls"].as_array().unwrap();
    assert_eq!(urls.len(), 2);
    assert!(!urls.contains(&json["publisher_url"]));
}

#[test]
fn one_node_is_too_few_and_the_message_says_what_to_name() {
    let failure = run(SHORT, 1, Fault::Nothing, |_| ()).unwrap_err();
    assert_eq!(failure.exit_code(), 2);
    assert!(failure.to_string().contains("name two or more, --url http://"), "{failure}");
}

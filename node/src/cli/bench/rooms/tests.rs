//! What the rooms scenario measures, against a node of the test's own.

use super::super::{
    fake_node::Fault,
    tests::{Ended, documented, run},
};

const SHORT: &str = "rooms --topics 4 --members 3 --seconds 0.05 --warmup 20ms --patience 200ms";

fn rooms(more: &str, fault: Fault) -> Ended {
    run(&format!("{SHORT} {more}"), 2, fault, |_| ()).unwrap()
}

#[test]
fn every_message_reaches_every_member_of_its_topic() {
    let ended = run(SHORT, 2, Fault::Nothing, |node| {
        let mut topics = node.topics();
        // The members, and the socket that the node's manners are learnt from.
        assert_eq!(topics.len(), 13);
        topics.sort();
        topics.dedup();
        assert_eq!(topics.len(), 5);
    })
    .unwrap();
    let json = &ended.json;
    documented("rooms", json);
    assert_eq!(ended.failure, None);
    let messages = json["messages"].as_u64().unwrap();
    assert!(messages > 0);
    assert_eq!(json["deliveries"], 3 * messages);
    assert_eq!((&json["in_flight"], &json["topics"]), (&32.into(), &4.into()));
    assert!(ended.people.contains("4 topics of 3 subscribers"), "{}", ended.people);
}

#[test]
fn a_member_without_its_own_copy_only_publishes() {
    let ended = rooms("--in-flight 3", Fault::KeepsOwnCopies);
    assert_eq!((ended.failure, &ended.json["lost"]), (None, &0.into()));
    let messages = ended.json["messages"].as_u64().unwrap();
    assert!(messages > 0);
    assert_eq!(
        (&ended.json["deliveries"], &ended.json["subscribers"]),
        (&(2 * messages).into(), &2.into())
    );
}

#[test]
fn a_socket_may_join_several_topics_and_every_fault_is_still_told() {
    let args = "--topics 7 --topics-each-socket 3";
    let args = format!("{} {args}", SHORT.replace("--topics 4 ", ""));
    for copies in [true, false] {
        let fault = if copies { Fault::Nothing } else { Fault::KeepsOwnCopies };
        let ended = run(&args, 2, fault, |node| {
            // Of 7 topics, and that of the socket that asks for manners.
            assert_eq!(node.topics().len(), 7 * 3 + 1);
        })
        .unwrap();
        let json = &ended.json;
        assert_eq!((ended.failure, &json["lost"]), (None, &0.into()));
        let messages = json["messages"].as_u64().unwrap();
        assert!(messages >= 7);
        assert_eq!(json["deliveries"], if copies { 3 } else { 2 } * messages);
        assert_eq!((&json["sockets"], &json["topics_each_socket"]), (&9.into(), &3.into()));
        assert!(ended.people.contains("subscribers on 9 sockets"), "{}", ended.people);
    }
    for (fault, field) in
        [(Fault::Loses, "lost"), (Fault::Doubles, "doubled"), (Fault::Swaps, "reordered")]
    {
        let ended = run(&format!("{args} --in-flight 8"), 1, fault, |_| ()).unwrap();
        assert_eq!(ended.json[field], 7, "{}", ended.people);
    }
}

#[test]
fn faults_are_counted_over_all_topics() {
    // In each topic, and for the socket that asks for manners, which gets one message only.
    for (fault, field) in
        [(Fault::Loses, "lost"), (Fault::Doubles, "doubled"), (Fault::Swaps, "reordered")]
    {
        let ended = rooms("--in-flight 8", fault);
        assert_eq!(ended.json[field], 4, "{}", ended.people);
        assert!(ended.failure.is_some());
    }
}

//! Broadcasts of one input that follow each other on one topic.

use super::*;

fn publish(registry: &Arc<Registry>, topic: &Topic, payload: &str, flush: &mut Flush) {
    registry.publish(&message(topic, payload), None, flush);
}

/// A mailbox that is on the topic.
type Joined = (Arc<Mailbox>, Subscription);

/// A registry, a topic, and mailboxes with room for so many bytes that have joined it.
fn room<const N: usize>(limits: [usize; N]) -> (Arc<Registry>, Topic, [Joined; N]) {
    let (registry, here) = (Registry::new(), topic("room:a"));
    let subscribed = limits.map(|limit| {
        let mailbox = mailbox(limit);
        let subscription = registry.subscribe(&here, subscriber(&mailbox, Format::V2));
        (mailbox, subscription)
    });
    (registry, here, subscribed)
}

#[test]
fn messages_of_one_input_reach_each_socket_as_one_and_in_order() {
    let (registry, here, [(a, _a), (b, b_is_there)]) = room([LIMIT; 2]);
    drop(b_is_there);
    let _b = registry.subscribe(&here, subscriber(&b, Format::Sse));
    let mut flush = Flush::new();
    for n in 0..3 {
        publish(&registry, &here, &n.to_string(), &mut flush);
    }
    assert!(a.is_empty() && !flush.is_empty(), "more may follow");
    drop(flush);
    assert_eq!(texts(&a), ["V2 room:a e 0V2 room:a e 1V2 room:a e 2"]);
    assert_eq!(texts(&b), ["Sse room:a e 0Sse room:a e 1Sse room:a e 2"]);
    let stats = registry.stats();
    assert_eq!((stats.broadcasts(), stats.deliveries()), (3, 6), "each is counted");
}

#[test]
fn a_message_alone_is_a_broadcast_like_any_other() {
    let (registry, here, [(a, _a)]) = room([LIMIT]);
    let mut flush = Flush::new();
    publish(&registry, &here, "1", &mut flush);
    assert!(flush.write().is_done());
    assert_eq!(texts(&a), ["V2 room:a e 1"]);
    assert_eq!((registry.stats().broadcasts(), registry.stats().deliveries()), (1, 1));
}

#[test]
fn another_topic_or_sender_ends_a_run_and_the_order_stays() {
    let (registry, here, [(a, first)]) = room([LIMIT]);
    let there = topic("room:b");
    let _second = registry.subscribe(&there, subscriber(&a, Format::V2));
    let _third = registry.subscribe(&here, subscriber(&a, Format::V1));
    let mut flush = Flush::new();
    publish(&registry, &here, "1", &mut flush);
    publish(&registry, &there, "2", &mut flush);
    registry.publish(&message(&here, "3"), Some(first.id()), &mut flush);
    registry.publish(&message(&here, "4"), Some(first.id()), &mut flush);
    drop(flush);
    let both = "V1 room:a e 3V1 room:a e 4";
    assert_eq!(texts(&a), ["V2 room:a e 1", "V1 room:a e 1", "V2 room:b e 2", both]);
}

#[test]
fn an_answer_comes_behind_the_messages_before_it() {
    let (registry, here, [(a, _a)]) = room([LIMIT]);
    let mut flush = Flush::new();
    let reply =
        |text: &str, flush: &mut Flush| flush.reply(&a, Bytes::copy_from_slice(text.as_bytes()));
    reply("0", &mut flush);
    assert_eq!(texts(&a), ["0"], "there is nothing to wait for");
    publish(&registry, &here, "1", &mut flush);
    reply("ok 1", &mut flush);
    publish(&registry, &here, "2", &mut flush);
    reply("ok 2", &mut flush);
    flush.settle();
    assert!(flush.is_empty(), "an owner takes them out");
    assert_eq!(texts(&a), ["V2 room:a e 1V2 room:a e 2", "ok 1", "ok 2"]);
}

#[test]
fn a_long_run_is_handed_on_before_it_fills_the_mailboxes_of_those_who_read() {
    let (registry, here, [(a, _a)]) = room([64 << 10]);
    let (kilobyte, mut flush) = ("x".repeat(1 << 10), Flush::new());
    let mut pieces = Vec::new();
    for _ in 0..500 {
        publish(&registry, &here, &kilobyte, &mut flush);
        pieces.extend(texts(&a));
    }
    drop(flush);
    pieces.extend(texts(&a));
    assert_eq!(pieces.concat().matches("V2").count(), 500);
    assert!(pieces.iter().all(|piece| piece.len() < 34 << 10));
}

#[test]
fn messages_without_room_for_all_find_their_own() {
    let (registry, here, [(slow, _slow), (fast, _fast)]) = room([300, LIMIT]);
    let oldest = mailbox(300);
    let overflow = Overflow::DropOldest;
    let oldest_too = Subscriber { overflow, ..subscriber(&oldest, Format::V2) };
    let _oldest = registry.subscribe(&here, oldest_too);
    let mut flush = Flush::new();
    for n in 0..30 {
        publish(&registry, &here, &n.to_string(), &mut flush);
    }
    drop(flush);
    assert_eq!(texts(&slow), ["Close(Slow)"]);
    assert_eq!(texts(&fast).concat().matches("V2").count(), 30);
    assert_eq!(texts(&oldest), [27, 28, 29].map(|n| format!("V2 room:a e {n}")));
    let stats = registry.stats();
    assert_eq!((stats.broadcasts(), stats.overflows(), stats.dropped()), (30, 1, 27));
    assert_eq!(stats.deliveries(), 3 + 30 + 30);
}

#[tokio::test]
async fn a_client_that_does_not_read_gets_each_message_by_itself() {
    let registry = Registry::new();
    let here = topic("room:a");
    let (blocked, _client) = pair(8 << 20).await;
    let much = Bytes::from(vec![0; 4 << 20]);
    assert_eq!(blocked.push_reply([much], &mut Flush::new()), Pushed::Queued);
    let waiting = blocked.len();
    let _blocked = registry.subscribe(&here, subscriber(&blocked, Format::V2));
    let mut flush = Flush::new();
    (0..3).for_each(|n| publish(&registry, &here, &n.to_string(), &mut flush));
    drop(flush);
    assert_eq!(blocked.len() - waiting, 3, "so that the older can give way to the newer");
}

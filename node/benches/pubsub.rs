//! What a broadcast costs between the channel that sends it and the mailboxes that take it.
//!
//! `cargo bench --bench pubsub` prints a table; it asserts nothing.

use std::sync::Arc;

use bytes::Bytes;
use divan::{Bencher, black_box, counter::ItemsCount};
use presence::{NodeIx, Topic};
use wingbeat::pubsub::{
    Broadcast, Flush, Format, Mailbox, Offer, Outlet, Overflow, Registry, Routes, Subscriber,
    Subscription,
};

/// The default limit of a socket's mailbox.
const MAILBOX_BYTES: usize = 256 * 1024;

/// The default number of feed shards does not matter here: nobody is flooded.
const FEED_SHARDS: u16 = 16;

fn main() {
    divan::main();
}

fn encode(_: Format, topic: &str, event: &str, payload: &[u8]) -> Bytes {
    let mut frame = format!("[null,null,\"{topic}\",\"{event}\",").into_bytes();
    frame.extend_from_slice(payload);
    frame.push(b']');
    frame.into()
}

fn topic(name: &str) -> Topic {
    name.parse().unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn mailbox() -> Arc<Mailbox> {
    Mailbox::new(MAILBOX_BYTES, Outlet::Owner)
}

fn drain(mailbox: &Mailbox) {
    while let Some(frame) = mailbox.pop() {
        black_box(frame);
    }
}

fn subscribe_one(registry: &Arc<Registry>, topic: &Topic, mailbox: &Arc<Mailbox>) -> Subscription {
    let subscriber = Subscriber {
        mailbox: Arc::clone(mailbox),
        channel: 1,
        format: Format::V2,
        overflow: Overflow::Disconnect,
        presence_after: None,
    };
    registry.subscribe(topic, subscriber)
}

#[divan::bench(args = [1, 64])]
fn push_and_pop(bencher: Bencher<'_, '_>, batch: usize) {
    let (mailbox, frame) = (mailbox(), Bytes::from(vec![b'x'; 100]));
    let offer = Offer { channel: 1, event: 0, overflow: Overflow::Disconnect };
    bencher.counter(ItemsCount::new(batch)).bench_local(|| {
        for _ in 0..batch {
            black_box(mailbox.push(offer, frame.clone(), &mut Flush::new()));
        }
        drain(&mailbox);
    });
}

/// Messages of one input to so many subscribers, who take them.
#[divan::bench(args = [(1, 1), (1, 100), (1, 10_000), (64, 100)])]
fn publish(bencher: Bencher<'_, '_>, (messages, subscribers): (usize, usize)) {
    let (registry, topic) = (Registry::new(), topic("room:lobby"));
    let mailboxes: Vec<_> = (0..subscribers).map(|_| mailbox()).collect();
    let _subscriptions: Vec<_> =
        mailboxes.iter().map(|mailbox| subscribe_one(&registry, &topic, mailbox)).collect();
    let payload = [b'x'; 100];
    bencher.counter(ItemsCount::new(messages * subscribers)).bench_local(|| {
        let mut flush = Flush::new();
        for _ in 0..messages {
            registry.publish(&Broadcast::new(&topic, "new", &payload, encode), None, &mut flush);
        }
        flush.settle();
        mailboxes.iter().for_each(|mailbox| drain(mailbox));
    });
}

#[divan::bench(args = [1, 100_000])]
fn join_and_leave(bencher: Bencher<'_, '_>, topics: usize) {
    const CROWD: usize = 100_000;
    let (registry, mailbox) = (Registry::new(), mailbox());
    let topics: Vec<_> = (0..topics).map(|n| topic(&format!("user:{n}"))).collect();
    bencher.counter(ItemsCount::new(CROWD)).bench_local(|| {
        let crowd = topics.iter().cycle().take(CROWD);
        let all: Vec<_> = crowd.map(|topic| subscribe_one(&registry, topic, &mailbox)).collect();
        drop(all);
    });
}

/// Half of the peers want the topic.
#[divan::bench(args = [2, 50, 300])]
fn routes_of_a_topic(bencher: Bencher<'_, '_>, peers: u16) {
    let (routes, topic) = (Routes::new(FEED_SHARDS), topic("room:lobby"));
    for peer in (1..=peers).map(NodeIx) {
        routes.link(peer, true);
        routes.interest(topic.hash64(), peer, peer.0 % 2 == 0);
    }
    let hash = topic.hash64();
    bencher.bench_local(|| {
        let mut reached = 0;
        routes.peers(black_box(hash), 0, |_| reached += 1);
        reached
    });
}

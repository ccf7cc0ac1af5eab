//! What a broadcast costs between the channel that sends it and the mailboxes that take it.
//!
//! `cargo bench --bench pubsub` prints one line per case; it asserts nothing.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::{
    collections::VecDeque,
    hint::black_box,
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use presence::{InvalidTopic, NodeIx, Topic};
use wingbeat::pubsub::{Broadcast, Format, Mailbox, Registry, Routes, Subscriber, Subscription};

/// Each case runs at least this long.
const RUN: Duration = Duration::from_millis(300);

/// The default limit of a socket's mailbox.
const MAILBOX_BYTES: usize = 256 * 1024;

/// The default number of feed shards does not matter here: nobody is flooded.
const FEED_SHARDS: u16 = 16;

fn main() -> Result<(), InvalidTopic> {
    println!("{:<44} {:>10} {:>14}", "case", "ns/op", "ops/s");
    mailbox();
    for subscribers in [1, 100, 10_000] {
        broadcast(subscribers)?;
    }
    subscribe(100_000)?;
    for peers in [2, 50, 300] {
        routes(peers)?;
    }
    Ok(())
}

/// Runs `round`, which does `ops` operations, until [`RUN`] has passed.
fn measure(case: &str, ops: u32, mut round: impl FnMut()) {
    let (start, mut rounds) = (Instant::now(), 0_u32);
    while start.elapsed() < RUN {
        round();
        rounds += 1;
    }
    let per_op = start.elapsed().as_secs_f64() / (f64::from(rounds) * f64::from(ops));
    println!("{case:<44} {:>10.1} {:>14.0}", per_op * 1e9, 1.0 / per_op);
}

fn encode(_: Format, topic: &str, event: &str, payload: &[u8]) -> Bytes {
    let mut frame = format!("[null,null,\"{topic}\",\"{event}\",").into_bytes();
    frame.extend_from_slice(payload);
    frame.push(b']');
    frame.into()
}

fn drain(mailbox: &Mailbox) {
    let mut items = VecDeque::new();
    let mut cx = Context::from_waker(Waker::noop());
    while mailbox.poll_drain(&mut cx, &mut items, MAILBOX_BYTES).is_ready() {
        black_box(items.drain(..).count());
    }
}

fn subscribe_one(registry: &Arc<Registry>, topic: &Topic, mailbox: &Arc<Mailbox>) -> Subscription {
    let mailbox = Arc::clone(mailbox);
    let (format, presence_after) = (Format::V2, None);
    registry.subscribe(topic, Subscriber { mailbox, channel: 1, format, presence_after })
}

fn mailbox() {
    let (mailbox, frame) = (Mailbox::new(MAILBOX_BYTES), Bytes::from(vec![b'x'; 100]));
    for batch in [1, 64] {
        measure(&format!("mailbox: {batch} pushes and a drain, per push"), batch, || {
            for _ in 0..batch {
                black_box(mailbox.push(1, frame.clone()));
            }
            drain(&mailbox);
        });
    }
}

fn broadcast(subscribers: u32) -> Result<(), InvalidTopic> {
    let (registry, topic) = (Registry::new(), "room:lobby".parse()?);
    let mailboxes: Vec<_> = (0..subscribers).map(|_| Mailbox::new(MAILBOX_BYTES)).collect();
    let subscriptions: Vec<_> =
        mailboxes.iter().map(|mailbox| subscribe_one(&registry, &topic, mailbox)).collect();
    let payload = [b'x'; 100];
    let case = format!("broadcast to {subscribers} and drain, per delivery");
    measure(&case, 16 * subscribers, || {
        for _ in 0..16 {
            black_box(registry.broadcast(&Broadcast::new(&topic, "new", &payload, encode), None));
        }
        mailboxes.iter().for_each(|mailbox| drain(mailbox));
    });
    drop(subscriptions);
    Ok(())
}

fn subscribe(crowd: u32) -> Result<(), InvalidTopic> {
    let (registry, mailbox) = (Registry::new(), Mailbox::new(MAILBOX_BYTES));
    let one = "room:lobby".parse()?;
    measure("join and leave one topic, per member of 100k", crowd, || {
        let _crowd: Vec<_> = (0..crowd).map(|_| subscribe_one(&registry, &one, &mailbox)).collect();
    });
    let own: Vec<Topic> =
        (0..crowd).map(|n| format!("user:{n}").parse()).collect::<Result<_, _>>()?;
    measure("join and leave a topic of one's own, of 100k", crowd, || {
        let _all: Vec<_> =
            own.iter().map(|topic| subscribe_one(&registry, topic, &mailbox)).collect();
    });
    Ok(())
}

fn routes(peers: u16) -> Result<(), InvalidTopic> {
    let (routes, topic) = (Routes::new(FEED_SHARDS), "room:lobby".parse::<Topic>()?);
    for peer in (1..=peers).map(NodeIx) {
        routes.link(peer, true);
        routes.interest(topic.hash64(), peer, peer.0 % 2 == 0);
    }
    let hash = topic.hash64();
    measure(&format!("routes to half of {peers} peers, per broadcast"), 1, || {
        let mut reached = 0;
        routes.peers(black_box(hash), 0, |_| reached += 1);
        black_box(reached);
    });
    Ok(())
}

//! Who wants a topic.

use divan::Bencher;
use presence::Topic;
use wingbeat::{
    internals::encode,
    pubsub::{Broadcast, Flush, Payload, Registry, Subscription},
};

use super::{PAYLOAD, drain, mailbox, subscribe, topic};

/// Topics that are there besides the one that is looked at.
const OTHERS: usize = 100_000;

fn others(registry: &std::sync::Arc<Registry>) -> Vec<Subscription> {
    let mailbox = mailbox();
    (0..OTHERS).map(|n| subscribe(registry, &topic(&format!("user:{n}")), &mailbox)).collect()
}

/// To one topic, and off it again.
#[divan::bench(args = [0, 1, 1000])]
fn join_and_leave(bencher: Bencher<'_, '_>, there: usize) {
    let (registry, mailbox, here) = (Registry::new(), mailbox(), topic("room:lobby"));
    let _others = others(&registry);
    let _there: Vec<_> = (0..there).map(|_| subscribe(&registry, &here, &mailbox)).collect();
    bencher.bench_local(|| drop(subscribe(&registry, &here, &mailbox)));
}

#[divan::bench(args = ["user:77777", "nobody"])]
fn look_up(bencher: Bencher<'_, '_>, name: &str) {
    let registry = Registry::new();
    let _others = others(&registry);
    let here: Topic = topic(name);
    bencher.bench_local(|| registry.subscribers(divan::black_box(&here)));
}

/// Messages of one input, encoded, into so many mailboxes, and out of them.
#[divan::bench(args = [(1, 1), (1, 100), (1, 10_000), (64, 100)])]
fn publish(bencher: Bencher<'_, '_>, (messages, subscribers): (usize, usize)) {
    let (registry, here) = (Registry::new(), topic("room:lobby"));
    let mailboxes: Vec<_> = (0..subscribers).map(|_| mailbox()).collect();
    let _there: Vec<_> = mailboxes.iter().map(|one| subscribe(&registry, &here, one)).collect();
    bencher.counter(divan::counter::ItemsCount::new(messages * subscribers)).bench_local(|| {
        let mut flush = Flush::new();
        for _ in 0..messages {
            let broadcast = Broadcast::new(&here, "new_msg", Payload::Json(PAYLOAD), encode);
            registry.publish(&broadcast, None, &mut flush);
        }
        drop(flush);
        mailboxes.iter().map(|mailbox| drain(mailbox)).sum::<usize>()
    });
}

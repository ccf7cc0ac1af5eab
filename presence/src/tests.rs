//! What a node's parts see of a shard, and the laws of replication.

mod clients;
mod cluster;
mod counts;
mod hostile;
mod laws;
mod members;
mod moves;
mod observer;
mod oracle;
mod replication;

use std::time::Duration;

use crate::{Applied, Config, Event, NodeIx, Replica, Shard, Time, Topic};

/// The owner of the log, as its replicas number it.
const OWNER: NodeIx = NodeIx(1);

const T0: Time = Time::ZERO;

fn topic(n: u8) -> Topic {
    format!("room:{n}").parse().unwrap()
}

fn replica(name: &str, incarnation: u64) -> Replica {
    Replica { name: name.parse().unwrap(), incarnation }
}

/// A configuration that remembers exactly `tombstones` removals, and interests only shortly.
fn ring(tombstones: usize) -> Config {
    Config {
        tombstones_min: tombstones,
        tombstones_max: tombstones,
        interest_linger: Duration::from_millis(3),
        ..Config::default()
    }
}

fn owner(config: Config) -> Shard {
    Shard::new(config, 0, replica("owner", 1))
}

/// A node that knows the owner, and shows it.
fn viewer(name: &str, config: Config) -> Shard {
    let mut shard = Shard::new(config, 0, replica(name, 1));
    shard.member_up(OWNER, &replica("owner", 1), true, T0);
    shard.saw_head(OWNER, 1, 0, T0);
    shard
}

/// Brings a viewer's replica of an owner up to what another node has of it. The two know the
/// owner by different numbers.
fn pull((to, ix): (&mut Shard, NodeIx), from: (&Shard, NodeIx), max_bytes: usize, now: Time) {
    let mut at = to.position(ix).unwrap().v;
    while let Some(range) = from.0.serve(from.1, at, max_bytes) {
        at = match to.apply(ix, range, now) {
            Applied::Applied { v } => v,
            refused @ (Applied::Duplicate | Applied::Nack { .. } | Applied::Rejected(_)) => {
                panic!("a current range was not applied: {refused:?}")
            }
        };
    }
}

/// Lets the shard do all that is due, and returns its effects.
fn drain(shard: &mut Shard, now: Time) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        while let Some(event) = shard.poll_event() {
            events.push(event);
        }
        if shard.poll_timeout().is_none_or(|at| at > now) {
            return events;
        }
        shard.handle_timeout(now);
    }
}

/// A topic's list, without what differs between nodes.
fn contents(shard: &Shard, topic: &Topic) -> Vec<(String, Vec<u8>, crate::Ref)> {
    let entry = |e: crate::Entry<'_>| (e.key.to_owned(), e.meta.to_vec(), e.reference);
    shard.list(topic).into_iter().map(entry).collect()
}

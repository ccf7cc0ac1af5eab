//! From a track in the library on one node to the diff that a watch reads on the two others.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use wingbeat::{
    Node, NodeHandle, Topic,
    internals::{self, Listed},
};

use crate::{
    Failure, cluster,
    meter::{self, META, Meter, key},
    table::Row,
};

const TOPICS: usize = 50;

const NODES: usize = 3;

/// How long a client stays.
const STAY: Duration = Duration::from_secs(2);

/// Tracks by the clock.
#[derive(Clone, Copy)]
struct Load {
    per_second: u32,
    seconds: u32,
}

const IDLE: Load = Load { per_second: 100, seconds: 5 };

const BUSY: Load = Load { per_second: 5000, seconds: 5 };

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let idle = || run(IDLE);
    let mut rows =
        meter::rows("join visible on another node, idle", (Some(3.0), Some(10.0)), idle)?;
    let what = "the same at 5,000 tracks and 5,000 untracks a second, 50 topics";
    rows.extend(meter::rows(what, (None, Some(25.0)), || run(BUSY))?);
    Ok(rows)
}

/// One run, with nodes of its own.
fn run(load: Load) -> Result<Meter, Failure> {
    let runtime = cluster::runtime()?;
    let nodes = runtime.block_on(cluster::nodes(NODES))?;
    let clients = (load.per_second * load.seconds) as usize;
    let meter = Arc::new(Meter::new(clients, NODES - 1));
    for number in 0..TOPICS {
        let topic = cluster::topic(number)?;
        let others = nodes.iter().enumerate().filter(|(at, _)| *at != number % NODES);
        for (_, node) in others {
            runtime.spawn(meter::watch(node.handle(), topic.clone(), Arc::clone(&meter)));
        }
    }
    // Watches begin, and are told nobody.
    std::thread::sleep(Duration::from_millis(500));
    let last = track_all(&nodes, load, &meter)?;
    runtime.block_on(meter.complete())?;
    drop(last);
    runtime.block_on(cluster::stop(nodes));
    runtime.shutdown_timeout(Duration::from_secs(5));
    Arc::into_inner(meter).ok_or_else(|| "a watch goes on without its node".into())
}

/// Lists clients by the clock, from a thread of its own. One that comes late is timed from when it
/// comes: its lateness is the thread's. Returns those that are still there at the end.
fn track_all(
    nodes: &[Node],
    load: Load,
    meter: &Meter,
) -> Result<VecDeque<(Duration, Listed)>, Failure> {
    let handles: Vec<NodeHandle> = nodes.iter().map(Node::handle).collect();
    let topics: Vec<Topic> = (0..TOPICS).map(cluster::topic).collect::<Result<_, _>>()?;
    let (started, gap) = (Instant::now(), Duration::from_secs(1) / load.per_second);
    let mut listed = VecDeque::new();
    for (client, due) in (0..load.per_second * load.seconds).map(|n| (n as usize, gap * n)) {
        std::thread::sleep(due.saturating_sub(started.elapsed()));
        let topic = client % TOPICS;
        let key = key(client);
        meter.join(client);
        let entry = internals::track(&handles[topic % NODES], &topics[topic], &key, META)?;
        listed.push_back((due, entry));
        while listed.front().is_some_and(|(since, _)| *since + STAY <= due) {
            listed.pop_front();
        }
    }
    Ok(listed)
}

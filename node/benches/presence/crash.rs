//! A node with 50,000 entries is killed: how long the joins of another topic then take to show.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};
use wingbeat::{Node, NodeHandle, PresenceEvent, Topic, internals};

use crate::{
    Failure, RUNS,
    cluster::{self, Process},
    meter::{self, META, Meter, key},
    table::Row,
};

const ENTRIES: usize = 50_000;

/// All are watched.
const TOPICS: usize = 500;

/// Joins of the other topic: one each.
const PROBE_GAP: Duration = Duration::from_millis(4);

/// How long before it is killed, and after all are told.
const MARGIN: Duration = Duration::from_secs(1);

/// How long the others may take to find it dead, and to tell.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let mut runs = [const { Vec::new() }; 3];
    for _ in 0..RUNS {
        let run = run()?;
        for (all, one) in runs.iter_mut().zip(run) {
            all.push(one.as_secs_f64() * 1000.0);
        }
    }
    let [before, during, told] = runs;
    Ok(vec![
        Row::new(
            "a node with 50,000 entries dies: slowest join of another topic",
            "ms",
            20.0,
            during,
        ),
        Row::new("the same in the second before", "ms", None, before),
        Row::new("from its death until the last of the 50,000 leaves is told", "ms", None, told),
    ])
}

/// The slowest join before, the slowest after, and the time from the death until all leaves were
/// told.
fn run() -> Result<[Duration; 3], Failure> {
    let runtime = cluster::runtime()?;
    let nodes = runtime.block_on(cluster::nodes(2))?;
    let seeds: Vec<_> = nodes.iter().filter_map(Node::cluster_address).collect();
    let mut dying = Process::start("dying", &seeds, (ENTRIES, TOPICS))?;
    let left = Arc::new(AtomicUsize::new(0));
    let [there, here] = [nodes[0].handle(), nodes[1].handle()];
    runtime.block_on(filled(&here))?;
    for number in 0..TOPICS {
        runtime.spawn(count_leaves(here.clone(), cluster::topic(number)?, left.clone()));
    }
    // The joins go from the one that stays to the other.
    let (quiet, stop) = (cluster::topic(TOPICS)?, AtomicBool::new(false));
    let meter = Arc::new(Meter::new(1_000_000, 1));
    runtime.spawn(meter::watch(here, quiet.clone(), Arc::clone(&meter)));
    std::thread::sleep(MARGIN);
    let times = std::thread::scope(|scope| {
        let prober = scope.spawn(|| probe(&there, &quiet, &meter, &stop));
        let times = runtime.block_on(die(&mut dying, &left, &meter));
        stop.store(true, Ordering::Relaxed);
        prober.join().map_err(|_| "the prober panicked")??;
        times
    });
    let [killed, told] = times?;
    let before = meter.longest(Duration::ZERO, killed);
    let during = meter.longest(killed, told + MARGIN);
    runtime.block_on(cluster::stop(nodes));
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok([before, during, told.saturating_sub(killed)])
}

/// Waits until all are listed.
async fn filled(node: &NodeHandle) -> Result<(), Failure> {
    let filled = async {
        while node.presence().totals().cluster.entries < ENTRIES {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, filled).await.map_err(|_| "the entries did not arrive".into())
}

async fn count_leaves(node: NodeHandle, topic: Topic, left: Arc<AtomicUsize>) {
    let mut watch = node.presence().watch(&topic);
    while let Some(event) = watch.next().await {
        if let PresenceEvent::Diff(diff) = event {
            left.fetch_add(meter::leaves(diff.bytes()), Ordering::AcqRel);
        }
    }
}

/// Kills the node; when that was, and when all its clients were told to be gone.
async fn die(
    dying: &mut Process,
    left: &AtomicUsize,
    meter: &Meter,
) -> Result<[Duration; 2], Failure> {
    sleep(MARGIN).await;
    let killed = meter.began().elapsed();
    dying.kill()?;
    let all_left = async {
        while left.load(Ordering::Acquire) < ENTRIES {
            sleep(Duration::from_millis(2)).await;
        }
        meter.began().elapsed()
    };
    let told = timeout(PATIENCE, all_left).await.map_err(|_| "not all leaves were told")?;
    sleep(MARGIN).await;
    Ok([killed, told])
}

/// Joins by the clock, each of whom leaves a little later.
fn probe(
    node: &NodeHandle,
    topic: &Topic,
    meter: &Meter,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let started = Instant::now();
    let mut listed = VecDeque::new();
    for client in 0..1_000_000_u32 {
        std::thread::sleep((PROBE_GAP * client).saturating_sub(started.elapsed()));
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = key(client as usize);
        meter.join(client as usize);
        listed.push_back(internals::track(node, topic, &key, META)?);
        if listed.len() > 100 {
            listed.pop_front();
        }
    }
    Ok(())
}

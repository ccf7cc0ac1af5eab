//! The list of a topic with 1,000 entries of another node.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use wingbeat::internals;

use crate::{Failure, cluster, table::Row};

const ENTRIES: usize = 1000;

/// Calls of a run.
const CALLS: u32 = 200;

/// Runs are short, and many.
const RUNS: usize = 9;

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let runtime = cluster::runtime()?;
    let (nodes, topic) = (runtime.block_on(cluster::nodes(2))?, cluster::topic(0)?);
    let handle = nodes[1].handle();
    let listed = cluster::fill(&nodes[0], ENTRIES, 1)?;
    let presence = handle.presence();
    // The list is cached while somebody watches: then there is one who says when it changes.
    let mut watch = presence.watch(&topic);
    runtime.block_on(async {
        while presence.count(&topic) < ENTRIES {
            sleep(Duration::from_millis(5)).await;
        }
        watch.next().await;
    });
    let told = timed(|| Ok(internals::told(&handle, &topic)?))?;
    let cached = timed(|| Ok(presence.list(&topic)))?;
    drop(watch);
    let cold = timed(|| Ok(presence.list(&topic)))?;
    drop(listed);
    runtime.block_on(cluster::stop(nodes));
    Ok(vec![
        Row::new("list of 1,000 as JSON, as one who joins is told it", "µs", 20.0, told),
        Row::new("the same, as the library and the API read it", "µs", None, cached),
        Row::new("the same, cold", "µs", 300.0, cold),
    ])
}

/// The mean time of a call, in microseconds.
fn timed<T>(call: impl Fn() -> Result<T, Failure>) -> Result<Vec<f64>, Failure> {
    let run = || {
        let started = Instant::now();
        for _ in 0..CALLS {
            black_box(call()?);
        }
        Ok(started.elapsed().as_secs_f64() * 1_000_000.0 / f64::from(CALLS))
    };
    (0..RUNS).map(|_| run()).collect()
}

//! A new node comes to a cluster with 100,000 entries.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use wingbeat::Node;

use crate::{Failure, RUNS, cluster, table::Row};

const ENTRIES: usize = 100_000;

const TOPICS: usize = 10_000;

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    cluster::runtime()?.block_on(async {
        let old = cluster::start("old", Vec::new()).await?;
        let listed = cluster::fill(&old, ENTRIES, TOPICS)?;
        let (mut all, mut linked) = (Vec::new(), Vec::new());
        for run in 0..RUNS {
            let (from_start, from_link) = arrive(&old, run).await?;
            all.push(from_start.as_secs_f64() * 1000.0);
            linked.push(from_link.as_secs_f64() * 1000.0);
        }
        drop(listed);
        old.stop().await;
        Ok(vec![
            Row::new("a new node lists 100,000 entries, from its start", "ms", 1000.0, all),
            Row::new("the same, from its link", "ms", None, linked),
        ])
    })
}

/// How long a new node takes from its start, and from its link, until its list is whole.
async fn arrive(old: &Node, run: usize) -> Result<(Duration, Duration), Failure> {
    let seeds = old.cluster_address().into_iter().collect();
    let started = Instant::now();
    let node = cluster::start(&format!("new-{run}"), seeds).await?;
    while node.peers_linked() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let linked = Instant::now();
    let handle = node.handle();
    let whole = async {
        while handle.presence().totals().cluster.entries < ENTRIES {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, whole).await.map_err(|_| "the new node's list is not whole")?;
    let times = (started.elapsed(), linked.elapsed());
    let count =
        |number| Ok::<_, Failure>(handle.presence().counts(&cluster::topic(number)?).entries);
    let listed: usize = (0..TOPICS).map(count).sum::<Result<_, _>>()?;
    if listed != ENTRIES {
        return Err(format!("the new node lists {listed}").into());
    }
    node.stop().await;
    Ok(times)
}

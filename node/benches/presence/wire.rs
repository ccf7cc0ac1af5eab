//! Bytes on the wire of a join that comes alone, between two nodes.
//!
//! QUIC counts the UDP datagrams of the link and their bytes; each has 28 bytes of headers of UDP
//! and IP beside. The join's own datagram is what has left 10 ms after it: acknowledgements wait
//! longer. Joins in whose 10 ms something else left too, a probe perhaps, are left out. All that the
//! join causes is the traffic of both ways over the whole time, less that of as long a time before
//! it in which nobody joined.

use std::time::Duration;

use tokio::time::sleep;
use wingbeat::{Node, internals};

use crate::{
    Failure, RUNS, cluster,
    meter::{META, key},
    table::Row,
};

const JOINS: u32 = 40;

/// Longer than anything waits for company, acknowledgements of acknowledgements among it.
const GAP: Duration = Duration::from_millis(150);

/// After it the join has left, and nothing that answers it.
const LEFT_AFTER: Duration = Duration::from_millis(10);

/// Entries of the same node beside which they join, in so many topics: numbers grow with them.
const OTHERS: (usize, usize) = (100_000, 10_000);

/// Of UDP and IPv4.
const HEADERS: u64 = 28;

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let (mut own, mut there, mut back) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let cost = cluster::runtime()?.block_on(run())?;
        own.push(cost.own);
        there.push(cost.there);
        back.push(cost.back);
    }
    Ok(vec![
        Row::new("an isolated join on the wire, with UDP and IP", "B", 160.0, own),
        Row::new("the same with what it causes later, to the peer", "B", None, there),
        Row::new("what the peer sends for it", "B", None, back),
    ])
}

/// Bytes of one join.
struct Cost {
    /// Of its datagram.
    own: f64,
    /// All that it causes, to the peer.
    there: f64,
    /// All that it causes, of the peer.
    back: f64,
}

async fn run() -> Result<Cost, Failure> {
    let nodes = cluster::nodes(2).await?;
    let (handle, topic) = (nodes[0].handle(), cluster::topic(0)?);
    // The topic is known to the peer then.
    let mut listed = cluster::fill(&nodes[0], OTHERS.0, OTHERS.1)?;
    sleep(Duration::from_secs(2)).await;
    let before = sent(&nodes);
    sleep(GAP * JOINS).await;
    let idle = sent(&nodes);
    let mut own = Vec::new();
    for client in 0..JOINS {
        let before = sent(&nodes);
        listed.push(internals::track(&handle, &topic, &key(OTHERS.0 + client as usize), META)?);
        sleep(LEFT_AFTER).await;
        let after = sent(&nodes);
        if after[0].datagrams == before[0].datagrams + 1 {
            own.push(after[0].bytes - before[0].bytes);
        }
        sleep(GAP - LEFT_AFTER).await;
    }
    let joined = sent(&nodes);
    drop(listed);
    cluster::stop(nodes).await;
    own.sort_unstable();
    let own = own.get(own.len() / 2).copied().ok_or("no join left alone")?;
    let caused = |way: usize| {
        let [before, idle, joined] = [&before, &idle, &joined].map(|sent| sent[way].bytes as f64);
        ((joined - idle) - (idle - before)) / f64::from(JOINS)
    };
    Ok(Cost { own: own as f64, there: caused(0), back: caused(1) })
}

/// What a node has sent to the other.
struct Sent {
    datagrams: u64,
    bytes: u64,
}

fn sent(nodes: &[Node]) -> Vec<Sent> {
    let of = |node: &Node| {
        let links = internals::links(&node.handle());
        let datagrams = links.iter().map(|link| link.udp_sent).sum();
        let bytes: u64 = links.iter().map(|link| link.udp_sent_bytes).sum();
        Sent { datagrams, bytes: bytes + HEADERS * datagrams }
    };
    nodes.iter().map(of).collect()
}

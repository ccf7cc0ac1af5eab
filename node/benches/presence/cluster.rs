//! Nodes that are linked: in this process, or each in one of its own.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};
use wingbeat::{Config, Node, Topic, config::Seed, internals};

use crate::{
    Failure,
    meter::{META, key},
};

/// The first argument of a process that is to be a node.
pub(crate) const NODE_FLAG: &str = "--be-node";

/// How long nodes may take to know each other.
const PATIENCE: Duration = Duration::from_secs(20);

/// After that they are idle: what they tell each other at first is told.
const CALM: Duration = Duration::from_secs(1);

/// The runtime of a node, as the program has it.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_multi_thread().enable_all().event_interval(150).build()?)
}

/// A node that looks for those at `seeds`.
pub(crate) async fn start(name: &str, seeds: Vec<SocketAddr>) -> Result<Node, Failure> {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut config = Config::default();
    config.node.name = Some(name.parse()?);
    config.http.listen = loopback;
    config.cluster.listen = Some(loopback);
    config.cluster.join = seeds.into_iter().map(Seed::Address).collect();
    Ok(Node::start(config).await?)
}

/// So many nodes in this process, each linked with all others.
pub(crate) async fn nodes(count: usize) -> Result<Vec<Node>, Failure> {
    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..count {
        let seeds = nodes.iter().filter_map(Node::cluster_address).collect();
        nodes.push(start(&format!("n{number}"), seeds).await?);
    }
    for node in &nodes {
        linked(node, count - 1).await?;
    }
    sleep(CALM).await;
    Ok(nodes)
}

/// Waits until a node has so many links.
pub(crate) async fn linked(node: &Node, peers: usize) -> Result<(), Failure> {
    let linked = async {
        while node.peers_linked() < peers {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, linked).await.map_err(|_| "the nodes do not find each other".into())
}

pub(crate) async fn stop(nodes: Vec<Node>) {
    futures_util::future::join_all(nodes.into_iter().map(Node::stop)).await;
}

/// A name of 12 bytes.
pub(crate) fn topic(number: usize) -> Result<Topic, Failure> {
    Ok(format!("room:{number:07}").parse()?)
}

/// Lists clients on a node, in turns on so many topics.
pub(crate) fn fill(
    node: &Node,
    entries: usize,
    topics: usize,
) -> Result<Vec<internals::Listed>, Failure> {
    let handle = node.handle();
    let track =
        |client| Ok(internals::track(&handle, &topic(client % topics)?, &key(client), META)?);
    (0..entries).map(track).collect()
}

/// A node in a process of its own. Dropping it kills the process.
pub(crate) struct Process {
    child: Child,
    pub(crate) http: SocketAddr,
    pub(crate) cluster: SocketAddr,
}

impl Process {
    /// Starts one with so many clients listed, in turns on so many topics. It is linked with the seeds
    /// when this returns.
    pub(crate) fn start(
        name: &str,
        seeds: &[SocketAddr],
        (entries, topics): (usize, usize),
    ) -> Result<Self, Failure> {
        let seeds = seeds.iter().map(ToString::to_string);
        let mut child = Command::new(std::env::current_exe()?)
            .args([NODE_FLAG, name, &entries.to_string(), &topics.to_string()])
            .args(seeds)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let (http, cluster) = line.trim().split_once(' ').ok_or("the node did not start")?;
        Ok(Self { child, http: http.parse()?, cluster: cluster.parse()? })
    }

    /// Ends it without a word to anybody.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.kill();
    }
}

/// Is a node until nobody holds the other end of the standard input.
pub(crate) fn be_node(args: &[String]) -> Result<(), Failure> {
    let [name, entries, topics, seeds @ ..] = args else {
        return Err("not the arguments of a node".into());
    };
    let seeds: Vec<SocketAddr> = seeds.iter().map(|seed| seed.parse()).collect::<Result<_, _>>()?;
    let (entries, topics) = (entries.parse()?, topics.parse()?);
    runtime()?.block_on(async {
        let peers = seeds.len();
        let node = start(name, seeds).await?;
        linked(&node, peers).await?;
        let _listed = fill(&node, entries, topics)?;
        let cluster = node.cluster_address().ok_or("a node in no cluster")?;
        println!("{} {cluster}", node.http_address());
        std::io::stdout().flush()?;
        let until = || std::io::stdin().read_to_end(&mut Vec::new());
        tokio::task::spawn_blocking(until).await??;
        node.stop().await;
        Ok(())
    })
}

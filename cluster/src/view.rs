//! What the core tells of itself to whoever asks.

use std::{net::SocketAddr, time::Duration};

use presence::{NodeIx, NodeName, Replica, Time};

use crate::{
    cluster::{Cluster, Shards},
    link::Link,
    node::State,
    wire::Identity,
};

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Joins that waited in vain for a peer.
    pub barrier_timeouts: u64,
    /// Joins that did not wait since too many others did.
    pub barriers_skipped: u64,
    /// Membership packets dropped as there was no link, or its queue was full.
    pub swim_dropped: u64,
    /// Membership packets that made no sense.
    pub swim_refused: u64,
    /// Ranges of own feeds sent.
    pub ranges_sent: u64,
    /// Operations in them.
    pub ops_sent: u64,
    /// Bytes of them.
    pub feed_bytes_sent: u64,
    /// Feed ranges applied.
    pub ranges_applied: u64,
    /// Feed ranges that were known already.
    pub ranges_duplicate: u64,
    /// Ranges of other nodes' feeds sent to peers without a link to these.
    pub ranges_relayed: u64,
    /// Gaps reported to peers.
    pub nacks_sent: u64,
    /// Feeds fetched anew as their checksum was wrong. Should stay 0.
    pub refetches: u64,
    /// Nodes ignored as there were too many members.
    pub members_refused: u64,
}

/// A member as `/api/cluster` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number here.
    pub node: NodeIx,
    /// Its run.
    pub replica: Replica,
    /// Where it can be dialled.
    pub address: Option<SocketAddr>,
    /// Free text.
    pub region: String,
    /// Its release.
    pub version: String,
    /// Whether it counts as alive.
    pub up: bool,
    /// Alive, but a probe failed.
    pub suspect: bool,
    /// It takes no clients any more, and will say goodbye.
    pub draining: bool,
    /// A link to it is up.
    pub linked: bool,
    /// Operations of its feeds that this node knows to be missing here.
    pub lag: u64,
    /// How old what we know of its feeds may be: the time since all that was heard of them was here,
    /// and more would have been heard of. Zero at best; it grows while no feed comes.
    pub stale: Duration,
    /// The peer that relays its feeds, as there is no link to it.
    pub via: Option<NodeName>,
    /// Whether its last digest was equal to ours.
    pub agrees: Option<bool>,
}

impl Cluster {
    /// This run of this node.
    pub fn me(&self) -> &Replica {
        &self.me
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        Stats { swim_refused: self.membership.refused, ..self.stats }
    }

    /// Peers with a link, ascending.
    pub fn linked(&self) -> impl Iterator<Item = NodeIx> {
        self.nodes.links().map(|(ix, _)| ix)
    }

    /// How many peers with a link take clients: all but those that drain.
    pub fn takers(&self) -> usize {
        let takes = |ix: &NodeIx| self.nodes.get(*ix).is_some_and(|node| !node.draining);
        self.linked().filter(takes).count()
    }

    /// Members that count as alive, without this node.
    pub fn up(&self) -> impl Iterator<Item = &Replica> {
        self.nodes.iter().filter(|(_, node)| node.state == State::Up).map(|(_, n)| &n.replica)
    }

    /// Whether all that a linked peer had when its link came up has arrived.
    pub fn caught_up(&self, ix: NodeIx) -> bool {
        self.nodes.get(ix).and_then(|node| node.link.as_ref()).is_some_and(Link::caught_up)
    }

    /// Whether all linked peers have acknowledged all of this node's feeds.
    pub fn is_known(&self) -> bool {
        let has_all = |link: &Link| {
            let mut heads = (0..).zip(&self.heads);
            heads.all(|(shard, head)| link.acked_position(shard) >= *head)
        };
        self.nodes.links().all(|(_, link)| has_all(link))
    }

    /// All nodes known but this one.
    pub fn members(&self, shards: &mut impl Shards, now: Time) -> Vec<Member> {
        let suspects: Vec<&Identity> = self.membership.suspects().collect();
        let members = self.nodes.iter().map(|(ix, node)| {
            let lag = (0..self.config.shards).map(|shard| {
                let position = shards.with(shard, |shard| shard.position(ix));
                position.map_or(0, |at| at.head_seen.saturating_sub(at.v))
            });
            Member {
                node: ix,
                replica: node.replica.clone(),
                address: node.address,
                region: node.region.clone(),
                version: node.version.clone(),
                up: node.state == State::Up,
                suspect: suspects.iter().any(|id| id.name == node.replica.name),
                draining: node.draining,
                linked: node.link.is_some(),
                lag: lag.fold(0, u64::saturating_add),
                stale: node.behind_since.map_or(Duration::ZERO, |since| now.since(since)),
                via: self.relay_of(node),
                agrees: node.agrees,
            }
        });
        members.collect()
    }
}

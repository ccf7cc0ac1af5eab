//! One process: the cores, and what a driver keeps beside them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::watch::Watch;
use cluster::{Cluster, Shards};
use presence::{Diff, Entry, EntryId, NodeIx, NodeName, Ref, Replica, Shard, Time, Topic};

/// A client's number; it is never used again.
pub(crate) type ClientId = u64;

/// A vector of shards, as the core wants them lent.
#[derive(Debug)]
pub(crate) struct Lent(pub(crate) Vec<Shard>);

impl Shards for Lent {
    fn with<R>(&mut self, shard: u16, work: impl FnOnce(&mut Shard) -> R) -> R {
        work(&mut self.0[usize::from(shard)])
    }
}

/// One client that joined one topic.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) topic: Topic,
    pub(crate) key: String,
    pub(crate) entry: Option<EntryId>,
    /// The join was answered, and all peers were waited for.
    pub(crate) confirmed: bool,
    pub(crate) answered: bool,
    /// The last broadcast heard of each publisher's run.
    pub(crate) heard: BTreeMap<(usize, u64), u64>,
}

/// Which peers want broadcasts on topics with a hash, as the driver of a node keeps it.
#[derive(Debug, Default)]
pub(crate) struct Wanted(BTreeMap<u64, BTreeSet<NodeIx>>);

impl Wanted {
    pub(crate) fn set(&mut self, hash: u64, peer: NodeIx, present: bool) {
        let peers = self.0.entry(hash).or_default();
        let _ = if present { peers.insert(peer) } else { peers.remove(&peer) };
        if peers.is_empty() {
            self.0.remove(&hash);
        }
    }
}

/// Entries of a topic up to which each diff is compared with the state told.
const TOLD_MAX: usize = 64;

/// What a client of the topic would show: `presence_state`, then every `presence_diff`.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    pub(crate) watchers: usize,
    pub(crate) version: u64,
    pub(crate) shown: BTreeMap<Ref, String>,
    /// Keys of all joins told.
    pub(crate) joins: Vec<String>,
    /// Which references have joined, and how many members had gone down by then.
    joined: BTreeMap<Ref, u64>,
    /// How many of each key are shown.
    keys: BTreeMap<String, usize>,
    /// Whether it is an error when a key is not shown any more.
    pub(crate) keys_stay: bool,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) me: Replica,
    /// Counts process starts.
    pub(crate) run: u64,
    pub(crate) alive: bool,
    pub(crate) paused_until: Option<Time>,
    pub(crate) cluster: Cluster,
    pub(crate) shards: Lent,
    pub(crate) wanted: Wanted,
    /// By shard: peers that get everything.
    pub(crate) flooded: Vec<BTreeSet<NodeIx>>,
    /// Linked peers: number here → (node of the world, link).
    pub(crate) links: BTreeMap<NodeIx, (usize, u64)>,
    /// Nodes that the core wants a link to.
    pub(crate) kept: BTreeSet<usize>,
    pub(crate) clients: BTreeMap<ClientId, Client>,
    pub(crate) observers: BTreeMap<Topic, Observer>,
    pub(crate) wake_at: Option<Time>,
    pub(crate) sequence: u64,
    pub(crate) watch: Watch,
}

pub(crate) fn address(node: usize) -> SocketAddr {
    let [.., a, b] = node.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, a, b)), 4400)
}

pub(crate) fn node_of(address: SocketAddr) -> usize {
    match address.ip() {
        IpAddr::V4(ip) => {
            let [_, _, a, b] = ip.octets();
            usize::from(a) << 8 | usize::from(b)
        }
        IpAddr::V6(_) => usize::MAX,
    }
}

impl Node {
    pub(crate) fn start(
        number: usize,
        run: u64,
        incarnation: u64,
        config: &Settings,
        seed: u64,
        now: Time,
    ) -> Self {
        let name: NodeName = format!("n{number}").parse().expect("a valid name");
        let me = Replica { name, incarnation };
        let shards = (0..config.cluster.shards)
            .map(|shard| Shard::new(config.presence.clone(), shard, me.clone()));
        Self {
            cluster: Cluster::new(config.cluster.clone(), me.clone(), address(number), seed, now),
            shards: Lent(shards.collect()),
            flooded: vec![BTreeSet::new(); usize::from(config.cluster.shards)],
            me,
            run,
            alive: true,
            paused_until: None,
            wanted: Wanted::default(),
            links: BTreeMap::new(),
            kept: BTreeSet::new(),
            clients: BTreeMap::new(),
            observers: BTreeMap::new(),
            wake_at: None,
            sequence: 0,
            watch: Watch::default(),
        }
    }

    pub(crate) fn shard_of(&self, topic: &Topic) -> u16 {
        let shards = u16::try_from(self.shards.0.len()).expect("few shards");
        presence::shard_of(topic.hash64(), shards)
    }

    pub(crate) fn shard(&mut self, topic: &Topic) -> &mut Shard {
        let shard = self.shard_of(topic);
        &mut self.shards.0[usize::from(shard)]
    }

    /// Peers that a broadcast on the topic goes to: (node of the world, link).
    pub(crate) fn routes(&self, topic: &Topic) -> Vec<(usize, u64)> {
        let flooded = &self.flooded[usize::from(self.shard_of(topic))];
        let interested = self.wanted.0.get(&topic.hash64());
        let wanted =
            |ix: &NodeIx| flooded.contains(ix) || interested.is_some_and(|set| set.contains(ix));
        self.links.iter().filter(|(ix, _)| wanted(ix)).map(|(_, link)| *link).collect()
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Time> {
        let shards = self.shards.0.iter().filter_map(Shard::poll_timeout);
        shards.chain(self.cluster.poll_timeout()).min()
    }

    /// The number that a node has here.
    pub(crate) fn number_of(&self, name: &NodeName) -> Option<NodeIx> {
        self.watch.names.iter().find(|(_, known)| *known == name).map(|(ix, _)| *ix)
    }

    /// What the node lists under the topic: (key, reference), of all nodes.
    pub(crate) fn list(&mut self, topic: &Topic) -> Vec<(String, Ref)> {
        let entries = self.shard(topic).list(topic);
        entries.iter().map(|entry| (entry.key.to_owned(), entry.reference)).collect()
    }

    /// The state a newcomer on the topic is told.
    pub(crate) fn told(&mut self, topic: &Topic) -> (u64, BTreeMap<Ref, String>) {
        let (version, entries) = self.shard(topic).told(topic);
        let shown = entries.iter().map(|entry| (entry.reference, entry.key.to_owned()));
        (version, shown.collect())
    }
}

impl Observer {
    /// Shows a diff; says what no client should ever see. `downs` members of this node have gone down
    /// so far.
    pub(crate) fn fold(&mut self, diff: &Diff, downs: u64) -> Result<(), String> {
        self.check_i6_versions_have_no_gaps(diff).map_err(|why| format!("I6: {why}"))?;
        self.check_i7_joins_and_leaves_pair(diff, downs).map_err(|why| format!("I7: {why}"))
    }

    /// I6, but for what is shown in the end: each diff is the next one, and none is too long.
    fn check_i6_versions_have_no_gaps(&mut self, diff: &Diff) -> Result<(), String> {
        if diff.version != self.version + 1 {
            return Err(format!("diff {} after {}", diff.version, self.version));
        }
        self.version = diff.version;
        let len = diff.joins.len() + diff.leaves.len();
        let keys = diff.joins.iter().chain(&diff.leaves).map(|change| &change.key);
        // The changes of one key that moves are told together.
        let largest = keys.fold(BTreeMap::<_, usize>::new(), |mut all, key| {
            *all.entry(key).or_default() += 1;
            all
        });
        let room = largest.values().max().copied().unwrap_or(0);
        if len > presence::Config::default().diff_events_max + room {
            return Err(format!("diff of {len} changes"));
        }
        Ok(())
    }

    /// I7: a leave is of what is shown; a reference joins once, and again only if its owner was hidden;
    /// an update replaces what leaves with it.
    fn check_i7_joins_and_leaves_pair(&mut self, diff: &Diff, downs: u64) -> Result<(), String> {
        for leave in &diff.leaves {
            if self.shown.remove(&leave.reference).is_none() {
                return Err(format!("leave of {} that was not shown", leave.key));
            }
        }
        self.count_keys(diff);
        for join in &diff.joins {
            if self.shown.insert(join.reference, join.key.to_string()).is_some() {
                return Err(format!("second join of {}", join.key));
            }
            if self.joined.insert(join.reference, downs) == Some(downs) {
                return Err(format!("{} joins again, and was not hidden", join.key));
            }
            self.joins.push(join.key.to_string());
            let replaced = |leave: &presence::Change| {
                Some(leave.reference) == join.previous && leave.key == join.key
            };
            if join.previous.is_some() && !diff.leaves.iter().any(replaced) {
                return Err(format!("join of {} replaces what this diff does not", join.key));
            }
        }
        if self.keys_stay {
            self.check_leaves(diff)?;
        }
        Ok(())
    }
}

impl Observer {
    /// Whether it shows too many to be compared each time.
    pub(crate) fn is_long(&self) -> bool {
        self.shown.len() > TOLD_MAX
    }

    /// Whether it shows what a newcomer would be told now, where that is of its version and small.
    pub(crate) fn is_true(&self, topic: &Topic, shard: &Shard) -> bool {
        if self.is_long() || shard.told_version(topic) != self.version {
            return true;
        }
        let (_, told) = shard.told(topic);
        let shows = |entry: &Entry<'_>| self.shown.contains_key(&entry.reference);
        told.len() == self.shown.len() && told.iter().all(shows)
    }

    /// Shows a state.
    pub(crate) fn start(&mut self, told: BTreeMap<Ref, String>) {
        self.keys.clear();
        for key in told.values() {
            *self.keys.entry(key.clone()).or_default() += 1;
        }
        self.shown = told;
    }

    /// What another entry of its key has covered may join again when that one goes.
    fn count_keys(&mut self, diff: &Diff) {
        for join in &diff.joins {
            *self.keys.entry(join.key.to_string()).or_default() += 1;
        }
        for leave in &diff.leaves {
            if let Some(left) = self.keys.get_mut(&*leave.key) {
                *left -= 1;
            }
        }
        for leave in &diff.leaves {
            match self.keys.get(&*leave.key) {
                Some(0) => drop(self.keys.remove(&*leave.key)),
                Some(_) => drop(self.joined.remove(&leave.reference)),
                None => {}
            }
        }
    }

    /// Whoever has left with a diff is there under another reference.
    fn check_leaves(&self, diff: &Diff) -> Result<(), String> {
        match diff.leaves.iter().find(|leave| !self.keys.contains_key(&*leave.key)) {
            Some(gone) => Err(format!("{} is not shown any more", gone.key)),
            None => Ok(()),
        }
    }
}

/// How all nodes are set.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) cluster: cluster::Config,
    pub(crate) presence: presence::Config,
}

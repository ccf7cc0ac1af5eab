//! Two or three cores wired by hand: what a driver of this crate would notice.

mod barrier;
mod feeds;
mod hostile;
mod members;
mod partition;
mod relay;

use std::{collections::BTreeMap, time::Duration};

use presence::{NodeIx, Replica, Shard, Time, Topic};

use crate::{
    Cluster, Config, Event, Lane, Member, Shards, WireError,
    wire::{Message, Sync},
};

pub(crate) const SHARDS: u16 = 2;

/// Shards in a row.
#[derive(Debug)]
pub(crate) struct Lent(Vec<Shard>);

impl Shards for Lent {
    fn with<R>(&mut self, shard: u16, work: impl FnOnce(&mut Shard) -> R) -> R {
        work(&mut self.0[usize::from(shard)])
    }
}

#[derive(Debug)]
struct Core {
    cluster: Cluster,
    shards: Lent,
    /// Number here → (node of the net, link).
    links: BTreeMap<NodeIx, (usize, u64)>,
    events: Vec<Event>,
}

/// Cores between which frames take no time. A lane that is shut has no room: what is for it waits.
#[derive(Debug)]
struct Net {
    cores: Vec<Core>,
    now: Time,
    ids: u64,
    shut: Vec<(usize, usize, Lane)>,
}

fn config() -> Config {
    Config { shards: SHARDS, ..Config::default() }
}

fn replica(node: usize) -> Replica {
    Replica { name: format!("n{node}").parse().expect("a name"), incarnation: 10 }
}

fn topic(name: &str) -> Topic {
    name.parse().expect("a topic")
}

impl Net {
    /// So many nodes that do not know each other.
    fn apart(nodes: usize, config: &Config) -> Self {
        let now = Time::from_micros(1_000_000);
        let core = |node| {
            let me = replica(node);
            let address = format!("10.0.0.{node}:4400").parse().expect("an address");
            let shards =
                (0..SHARDS).map(|shard| Shard::new(presence::Config::default(), shard, me.clone()));
            Core {
                shards: Lent(shards.collect()),
                cluster: Cluster::new(config.clone(), me, address, node as u64, now),
                links: BTreeMap::new(),
                events: Vec::new(),
            }
        };
        Self { cores: (0..nodes).map(core).collect(), now, ids: 0, shut: Vec::new() }
    }

    /// So many nodes, linked and members of each other.
    fn together(nodes: usize, config: &Config) -> Self {
        let mut net = Self::apart(nodes, config);
        for a in 0..nodes {
            for b in a + 1..nodes {
                net.link(a, b);
            }
        }
        net.pass(Duration::from_secs(2));
        for core in &mut net.cores {
            assert_eq!(core.cluster.up().count(), nodes - 1);
            core.events.clear();
        }
        net
    }

    /// Links two nodes; false when one of them does not want to.
    fn link(&mut self, a: usize, b: usize) -> bool {
        self.ids += 1;
        let mut wanted = true;
        for (node, peer) in [(a, b), (b, a)] {
            let replica = self.cores[peer].cluster.me().clone();
            let core = &mut self.cores[node];
            let up = core.cluster.handle_link_up(self.ids, &replica, &mut core.shards, self.now);
            match up {
                Some(ix) => drop(core.links.insert(ix, (peer, self.ids))),
                None => wanted = false,
            }
        }
        wanted
    }

    fn unlink(&mut self, a: usize, b: usize) {
        for (node, peer) in [(a, b), (b, a)] {
            let ix = self.ix(node, peer);
            let core = &mut self.cores[node];
            let Some((_, id)) = core.links.remove(&ix) else { continue };
            core.cluster.handle_link_down(ix, id, &mut core.shards, self.now);
        }
        self.pump();
    }

    /// The number of a linked peer.
    fn ix(&self, node: usize, peer: usize) -> NodeIx {
        let mut links = self.cores[node].links.iter();
        *links.find(|(_, (other, _))| *other == peer).expect("a link").0
    }

    fn shut(&mut self, from: usize, to: usize) {
        self.shut.extend(Lane::ALL.map(|lane| (from, to, lane)));
    }

    /// Carries frames until there are none.
    fn pump(&mut self) {
        let mut busy = true;
        let mut rounds = 0;
        while busy {
            busy = false;
            rounds += 1;
            assert!(rounds < 1_000, "frames without end");
            for node in 0..self.cores.len() {
                self.drain(node);
                let links: Vec<_> = self.cores[node].links.clone().into_iter().collect();
                for (ix, (peer, link)) in links {
                    for lane in Lane::ALL {
                        busy |= self.carry((node, ix), (peer, link), lane);
                    }
                }
            }
        }
    }

    fn drain(&mut self, node: usize) {
        let core = &mut self.cores[node];
        for (shard, presence) in (0..).zip(&mut core.shards.0) {
            while presence.poll_event().is_some() {}
            core.cluster.handle_head(shard, presence.head());
        }
        while let Some(event) = core.cluster.poll_event() {
            core.events.push(event);
        }
    }

    fn carry(&mut self, (node, ix): (usize, NodeIx), to: (usize, u64), lane: Lane) -> bool {
        let (peer, link) = to;
        let mut busy = false;
        while !self.shut.contains(&(node, peer, lane)) {
            let core = &mut self.cores[node];
            let polled = core.cluster.poll_transmit(ix, lane, 64 << 10, &mut core.shards, self.now);
            let Some(frame) = polled else { break };
            busy = true;
            let core = &mut self.cores[peer];
            let mut links = core.links.iter();
            if let Some((from, _)) = links.find(|(_, known)| **known == (node, link)) {
                let from = *from;
                core.cluster
                    .handle_frame(from, link, &frame, &mut core.shards, self.now)
                    .expect("a sound peer's frames are taken");
            }
        }
        busy
    }

    /// Lets time pass, from deadline to deadline.
    fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        self.pump();
        loop {
            let shards = |core: &Core| core.shards.0.iter().filter_map(Shard::poll_timeout).min();
            let deadlines =
                self.cores.iter_mut().map(|core| (core.cluster.poll_timeout(), shards(core)));
            let next = deadlines.flat_map(|(a, b)| [a, b]).flatten().min();
            let Some(next) = next.filter(|at| *at <= until) else { break };
            self.now = self.now.max(next);
            for core in &mut self.cores {
                for shard in &mut core.shards.0 {
                    shard.handle_timeout(self.now);
                }
                core.cluster.handle_timeout(&mut core.shards, self.now);
            }
            self.pump();
        }
        self.now = until;
    }

    fn track(&mut self, node: usize, name: &str, key: &str) {
        let topic = topic(name);
        let shard = presence::shard_of(topic.hash64(), SHARDS);
        let now = self.now;
        let shard = &mut self.cores[node].shards.0[usize::from(shard)];
        shard.track(&topic, key, b"{}", now).expect("there is room");
        self.drain(node);
    }

    /// Keys as a node lists them.
    fn keys(&self, node: usize, name: &str) -> Vec<String> {
        let topic = topic(name);
        let shard = presence::shard_of(topic.hash64(), SHARDS);
        let list = self.cores[node].shards.0[usize::from(shard)].list(&topic);
        list.iter().map(|entry| entry.key.to_owned()).collect()
    }

    fn members(&mut self, node: usize) -> Vec<Member> {
        let core = &mut self.cores[node];
        core.cluster.members(&mut core.shards, self.now)
    }

    /// The first frame that the node would send to a newcomer.
    fn sync_from(&mut self, node: usize) -> Sync {
        let core = &mut self.cores[node];
        core.cluster.sync_for(NodeIx::SELF, &mut core.shards)
    }

    /// A message that the peer forged, handed to the node.
    fn forge(&mut self, node: usize, peer: usize, message: &Message) -> Result<(), WireError> {
        let ix = self.ix(node, peer);
        let core = &mut self.cores[node];
        let (_, link) = core.links[&ix];
        core.cluster.handle_frame(ix, link, &message.encode(), &mut core.shards, self.now)
    }

    /// What happened on a node since this was last asked.
    fn events(&mut self, node: usize) -> Vec<Event> {
        self.drain(node);
        std::mem::take(&mut self.cores[node].events)
    }
}

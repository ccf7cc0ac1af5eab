//! Four nodes that track, replicate, fall out of sight, come back, restart and are forgotten, as
//! the members' lists of each other say in any order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;

use super::{
    T0, contents,
    counts::recomputed,
    drain,
    observer::{Observer, dispatch},
    pull, replica, ring, topic,
};
use crate::{EntryId, INTEREST_ALL, NodeIx, Range, Shard, Time, Topic, Up};

const NODES: usize = 4;
const TOPICS: u8 = 2;

#[derive(Clone, Debug)]
enum Step {
    Act {
        node: usize,
        act: Act,
    },
    /// Of the log of `owner`, from node `by` to node `to`.
    Send {
        owner: usize,
        by: usize,
        to: usize,
        max_bytes: usize,
    },
    Deliver {
        to: usize,
        pick: u8,
        keep: bool,
    },
    Tell {
        at: usize,
        of: usize,
        news: News,
    },
    Tick {
        micros: u64,
    },
}

/// What clients and operators do to a node.
#[derive(Clone, Copy, Debug)]
enum Act {
    Track {
        topic: u8,
        key: u8,
    },
    Update {
        pick: u8,
    },
    Untrack {
        pick: u8,
    },
    Detach {
        pick: u8,
        lease: Duration,
    },
    Restart,
    Rekey,
    /// The topic's observer leaves, and another comes.
    Observe {
        topic: u8,
    },
}

/// What a node is told of another; `age` is how many incarnations old the news are.
#[derive(Clone, Copy, Debug)]
enum News {
    Up { direct: bool, age: u64 },
    Head,
    Down { age: u64 },
    Depart { lease: Duration },
    Forget { age: u64 },
    Refetch,
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    let max_bytes = prop_oneof![1..200_usize, Just(16 * 1024)];
    let act = prop_oneof![
        8 => (0..TOPICS, 0..3_u8).prop_map(|(topic, key)| Act::Track { topic, key }),
        3 => any::<u8>().prop_map(|pick| Act::Update { pick }),
        6 => any::<u8>().prop_map(|pick| Act::Untrack { pick }),
        4 => (any::<u8>(), lease(10)).prop_map(|(pick, lease)| Act::Detach { pick, lease }),
        1 => Just(Act::Restart),
        1 => Just(Act::Rekey),
        2 => (0..TOPICS).prop_map(|topic| Act::Observe { topic }),
    ];
    let news = prop_oneof![
        12 => (any::<bool>(), 0..2_u64).prop_map(|(direct, age)| News::Up { direct, age }),
        4 => Just(News::Head),
        3 => (0..2_u64).prop_map(|age| News::Down { age }),
        2 => lease(1).prop_map(|lease| News::Depart { lease }),
        2 => (0..2_u64).prop_map(|age| News::Forget { age }),
        1 => Just(News::Refetch),
    ];
    prop_oneof![
        19 => (node(), act).prop_map(|(node, act)| Step::Act { node, act }),
        20 => (node(), node(), node(), max_bytes)
            .prop_map(|(owner, by, to, max_bytes)| Step::Send { owner, by, to, max_bytes }),
        20 => (node(), any::<u8>(), prop::bool::weighted(0.2))
            .prop_map(|(to, pick, keep)| Step::Deliver { to, pick, keep }),
        22 => (node(), node(), news).prop_map(|(at, of, news)| Step::Tell { at, of, news }),
        8 => prop_oneof![0..9_000_u64, Just(1_100_000)].prop_map(|micros| Step::Tick { micros }),
    ]
}

fn lease(seconds_max: u64) -> impl Strategy<Value = Duration> {
    prop_oneof![0..20_u64, Just(seconds_max * 1000)].prop_map(Duration::from_millis)
}

fn ix(node: usize) -> NodeIx {
    NodeIx(u16::try_from(node).unwrap() + 1)
}

struct Node {
    shard: Shard,
    ids: Vec<EntryId>,
    observers: Vec<Observer>,
    /// The topics that other nodes want.
    forward: BTreeSet<(u16, u64)>,
    network: Vec<(usize, Range)>,
    /// Per other node: the incarnation that was shown last, and the one that was forgotten.
    shown: BTreeMap<usize, u64>,
    forgotten: BTreeMap<usize, u64>,
    refetched: BTreeSet<usize>,
}

impl Node {
    fn new(number: usize, incarnation: u64, tombstones: usize) -> Self {
        let mut config = ring(tombstones);
        // Diffs in slices of a few.
        config.diff_events_max = 2 + tombstones;
        let mut shard = Shard::new(config, 0, replica(&format!("n{number}"), incarnation));
        let observe = |t| {
            let mut observer = Observer::new(&mut shard, &topic(t), T0);
            observer.may_rejoin = true;
            observer
        };
        Self {
            observers: (0..TOPICS).map(observe).collect(),
            shard,
            ids: Vec::new(),
            forward: BTreeSet::new(),
            network: Vec::new(),
            shown: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            refetched: BTreeSet::new(),
        }
    }

    fn flush(&mut self, now: Time) {
        let events = drain(&mut self.shard, now);
        for (owner, hash, present) in dispatch(events, &mut self.observers) {
            let is_change = match present {
                true => self.forward.insert((owner, hash)),
                false => self.forward.remove(&(owner, hash)),
            };
            // A run that replaces another says anew what both want.
            assert!(is_change || present, "{hash:x} of {owner} was {present} before");
        }
        self.refetched.retain(|of| self.shard.position(ix(*of)).is_some_and(|p| !p.visible));
        let is_told = self.observers.iter().all(|observer| {
            observer.assert_told(&self.shard);
            self.refetched.is_empty()
        });
        if is_told && self.shard.poll_timeout().is_none() {
            for (t, observer) in (0..).zip(&self.observers) {
                assert_eq!(observer.contents(), contents(&self.shard, &topic(t)));
            }
        }
    }

    /// I5, I16, I18.
    fn check(&mut self) {
        for of in 0..NODES {
            let Some(position) = self.shard.position(ix(of)) else {
                assert!(self.forward.iter().all(|(owner, _)| *owner != ix(of).0));
                continue;
            };
            let forgotten = self.forgotten.get(&of).copied().unwrap_or(0);
            assert!(position.incarnation > forgotten, "a forgotten run came back");
            if position.visible {
                let last = self.shown.insert(of, position.incarnation).unwrap_or(0);
                assert!(position.incarnation >= last, "an older run came back");
            }
        }
        let topics: Vec<Topic> = (0..TOPICS).map(topic).collect();
        let (all, owners) = recomputed(&self.shard, &topics);
        let mut totals = self.shard.totals();
        totals.owners.retain(|_, total| total.entries > 0);
        assert_eq!((totals.cluster, totals.owners), (all, owners));
        for t in topics {
            self.check_queries(&t);
            self.check_listed(&t);
            // What is left of those that said goodbye wants nothing.
            let left = self.shard.raw(&t).into_iter().filter(|entry| entry.3);
            let left: BTreeSet<_> = left.map(|entry| entry.2).collect();
            let others =
                |e: &&crate::Entry<'_>| e.owner != NodeIx::SELF && !left.contains(&e.reference);
            for entry in self.shard.list(&t).iter().filter(others) {
                let position = self.shard.position(entry.owner).unwrap();
                let wants = |hash| self.forward.contains(&(entry.owner.0, hash));
                assert!(
                    !position.is_current() || wants(t.hash64()) || wants(INTEREST_ALL),
                    "an entry of {:?} is shown but it would not be forwarded to",
                    entry.owner
                );
            }
        }
    }

    /// The list is what the rule says of all entries.
    fn check_listed(&self, topic: &Topic) {
        let raw = self.shard.raw(topic);
        let attached = raw.iter().filter(|entry| !entry.3);
        let attached: BTreeSet<_> = attached.map(|entry| entry.1.as_str()).collect();
        let listed = raw.iter().filter(|entry| !entry.3 || !attached.contains(entry.1.as_str()));
        let listed: BTreeSet<_> = listed.map(|entry| entry.2).collect();
        let list = self.shard.list(topic);
        assert_eq!(list.iter().map(|entry| entry.reference).collect::<BTreeSet<_>>(), listed);
        let keys: BTreeSet<_> = list.iter().map(|entry| entry.key).collect();
        assert_eq!(keys, raw.iter().map(|entry| entry.1.as_str()).collect());
    }

    fn check_queries(&self, topic: &Topic) {
        let list = self.shard.list(topic);
        let keys: BTreeSet<_> = list.iter().map(|entry| entry.key).collect();
        let count = self.shard.count(topic);
        assert_eq!((count.entries, count.keys), (list.len(), keys.len()));
        let listed = self.shard.topics("room:", None).find(|(name, _)| *name == topic);
        assert_eq!(listed.map(|(_, count)| count), (!list.is_empty()).then_some(count));
        for key in ["k0", "k1", "k2"] {
            let expected: Vec<_> = list.iter().filter(|e| e.key == key).copied().collect();
            assert_eq!(self.shard.get(topic, key), expected);
        }
        let mut paged = Vec::new();
        let mut after = None;
        loop {
            let page = self.shard.list_page(topic, after, 2);
            paged.extend(page.entries);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(paged, list);
    }
}

struct Model {
    nodes: Vec<Node>,
    tombstones: usize,
    now: Time,
}

impl Model {
    fn new(tombstones: usize) -> Self {
        let nodes = (0..NODES).map(|number| Node::new(number, 1, tombstones)).collect();
        Self { nodes, tombstones, now: T0 }
    }

    fn incarnation(&self, of: usize) -> u64 {
        self.nodes[of].shard.me().incarnation
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Act { node, act } => self.act(node, act),
            Step::Send { owner, by, to, max_bytes } => {
                let known_as = if by == owner { NodeIx::SELF } else { ix(owner) };
                if let Some(position) = self.nodes[to].shard.position(ix(owner)) {
                    let range = self.nodes[by].shard.serve(known_as, position.v, max_bytes);
                    self.nodes[to].network.extend(range.map(|range| (owner, range)));
                }
            }
            Step::Deliver { to, pick, keep } => {
                let node = &mut self.nodes[to];
                let Some(at) = usize::from(pick).checked_rem(node.network.len()) else {
                    return;
                };
                let (owner, range) = node.network[at].clone();
                if !keep {
                    node.network.swap_remove(at);
                }
                if owner != to {
                    node.shard.apply(ix(owner), range, self.now);
                }
            }
            Step::Tell { at, of, news } if at != of => {
                self.tell(at, of, news);
                self.nodes[at].flush(self.now);
                self.nodes[at].check();
            }
            Step::Tell { .. } => {}
            Step::Tick { micros } => {
                self.now = Time::from_micros(self.now.as_micros() + micros);
                self.nodes.iter_mut().for_each(|node| node.flush(self.now));
            }
        }
    }

    fn act(&mut self, number: usize, act: Act) {
        let now = self.now;
        let incarnation = self.incarnation(number) + 1;
        let node = &mut self.nodes[number];
        match act {
            Act::Track { topic: t, key } => {
                let id = node.shard.track(&topic(t), &format!("k{key}"), b"{}", now).unwrap();
                node.ids.push(id);
            }
            Act::Update { pick } => {
                let Some(at) = usize::from(pick).checked_rem(node.ids.len()) else {
                    return;
                };
                node.shard.update(node.ids[at], &[pick], now).unwrap();
            }
            Act::Untrack { pick } => {
                let Some(at) = usize::from(pick).checked_rem(node.ids.len()) else {
                    return;
                };
                assert!(node.shard.untrack(node.ids.swap_remove(at), now));
            }
            Act::Detach { pick, lease } => {
                let Some(at) = usize::from(pick).checked_rem(node.ids.len()) else {
                    return;
                };
                assert!(node.shard.detach(node.ids.swap_remove(at), lease, now));
            }
            Act::Restart => *node = Node::new(number, incarnation, self.tombstones),
            Act::Observe { topic: t } => {
                node.flush(now);
                node.shard.unobserve(&topic(t), now);
                node.observers[usize::from(t)] = Observer::new(&mut node.shard, &topic(t), now);
                node.observers[usize::from(t)].may_rejoin = true;
            }
            Act::Rekey => {
                node.shard.rekey(incarnation, now);
                assert!(node.ids.iter().all(|id| node.shard.entry(*id).is_some()));
                node.flush(now);
            }
        }
    }

    fn tell(&mut self, at: usize, of: usize, news: News) {
        let now = self.now;
        let current = self.incarnation(of);
        let head = self.nodes[of].shard.head();
        let node = &mut self.nodes[at];
        let known = node.shard.position(ix(of)).map(|position| position.incarnation);
        match news {
            News::Up { direct, age } => {
                let incarnation = current.saturating_sub(age).max(1);
                // Only a running process speaks for itself.
                let direct = direct && incarnation == current;
                let run = replica(&format!("n{of}"), incarnation);
                let up = node.shard.member_up(ix(of), &run, direct, now);
                if direct && !matches!(up, Up::Ignored { .. }) {
                    node.forgotten.remove(&of);
                }
            }
            News::Head => node.shard.saw_head(ix(of), current, head, now),
            News::Down { age } => {
                let incarnation = current.saturating_sub(age);
                node.shard.member_down(ix(of), incarnation, now);
                if known.is_some_and(|known| known <= incarnation) {
                    node.refetched.remove(&of);
                    assert!(!node.shard.position(ix(of)).unwrap().visible);
                }
            }
            News::Depart { lease } => node.shard.member_depart(ix(of), current, lease, now),
            News::Forget { age } => {
                let incarnation = current.saturating_sub(age);
                node.shard.member_forget(ix(of), incarnation, now);
                if known.is_some_and(|known| known <= incarnation) {
                    node.forgotten.insert(of, incarnation);
                }
            }
            News::Refetch => {
                node.shard.refetch(ix(of), now);
                node.refetched.extend(known.map(|_| of));
            }
        }
    }

    /// What those that said goodbye left is gone; all see each other again, and catch up.
    fn heal(&mut self, max_bytes: usize) {
        self.wait(2);
        self.agree(max_bytes);
        // The leases of own entries are over.
        self.wait(20);
        self.agree(max_bytes);
        self.wait(1);
        for node in &mut self.nodes {
            node.flush(self.now);
            assert_eq!((node.shard.detached(), node.shard.poll_timeout()), (0, None));
            node.check();
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now = Time::from_micros(self.now.as_micros() + seconds * 1_000_000);
        self.nodes.iter_mut().for_each(|node| node.flush(self.now));
    }

    /// Each has what the others have. Returns whether all show each other.
    fn exchange(&mut self, max_bytes: usize) -> bool {
        let mut all_shown = true;
        for (at, of) in pairs() {
            self.tell(at, of, News::Up { direct: true, age: 0 });
            self.tell(at, of, News::Head);
            let [to, from] = self.nodes.get_disjoint_mut([at, of]).unwrap();
            let to = (&mut to.shard, ix(of));
            pull(to, (&from.shard, NodeIx::SELF), max_bytes, self.now);
            all_shown &= self.nodes[at].shard.position(ix(of)).unwrap().visible;
        }
        all_shown
    }

    fn agree(&mut self, max_bytes: usize) {
        if !self.exchange(max_bytes) {
            // Those that were up and down again and again are held back, for so long at most.
            self.wait(5);
            self.exchange(max_bytes);
        }
        for (at, of) in pairs() {
            let position = self.nodes[at].shard.position(ix(of)).unwrap();
            assert!(position.visible && position.is_current());
            assert_eq!(position.checksum, self.nodes[of].shard.checksum());
        }
        for t in (0..TOPICS).map(topic) {
            let own = |node: &Node| -> Vec<_> {
                let raw = node.shard.raw(&t).into_iter();
                raw.filter(|entry| entry.0 == NodeIx::SELF).map(|e| (e.1, e.2, e.3)).collect()
            };
            let all: Vec<_> = self.nodes.iter().flat_map(own).collect();
            let attached: BTreeSet<_> = all.iter().filter(|e| !e.2).map(|e| &e.0).collect();
            let listed = all.iter().filter(|e| !e.2 || !attached.contains(&e.0)).map(|e| e.1);
            let listed: BTreeSet<_> = listed.collect();
            for node in &self.nodes {
                let list: BTreeSet<_> = node.shard.list(&t).iter().map(|e| e.reference).collect();
                assert_eq!(list, listed);
                node.check_listed(&t);
            }
        }
    }
}

/// Every node and each of its peers.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..NODES).flat_map(|at| (0..NODES).map(move |of| (at, of))).filter(|(at, of)| at != of)
}

proptest! {
    /// I2, I3, I4, I5, I6, I16, I18.
    #[test]
    fn nodes_agree_after_whatever_their_member_lists_said(
        tombstones in 0..4_usize,
        steps in prop::collection::vec(step(), 0..150),
        max_bytes in prop_oneof![1..200_usize, Just(16 * 1024)],
    ) {
        let mut model = Model::new(tombstones);
        for step in &steps {
            model.run(step);
        }
        model.heal(max_bytes);
    }
}

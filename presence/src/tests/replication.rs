//! One owner and three replicas, with ranges lost, doubled, reordered, cut small and relayed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    OWNER, T0, contents, drain,
    observer::{Observer, dispatch},
    owner, pull, replica, ring, topic, viewer,
};
use crate::{Actor, Applied, Dot, EntryId, NodeIx, Range, Ref, Shard, Time};

const TOPICS: u8 = 2;

#[derive(Clone, Debug)]
enum Step {
    Write(Write),
    /// Puts a range of the owner's log as known to node `by` (0 is the owner) on the way to `to`.
    Send {
        by: usize,
        to: usize,
        cursor: Cursor,
        max_bytes: usize,
    },
    Deliver {
        to: usize,
        pick: u8,
        keep: bool,
    },
    Tick {
        micros: u64,
    },
}

#[derive(Clone, Copy, Debug)]
enum Write {
    Track { topic: u8, key: u8 },
    Update { pick: u8 },
    Untrack { pick: u8 },
}

#[derive(Clone, Copy, Debug)]
enum Cursor {
    True,
    Behind(u64),
    Ahead(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let cursor = prop_oneof![
        4 => Just(Cursor::True),
        1 => (1..6_u64).prop_map(Cursor::Behind),
        1 => (1..4_u64).prop_map(Cursor::Ahead),
    ];
    let max_bytes = prop_oneof![1..200_usize, Just(16 * 1024)];
    let write = prop_oneof![
        3 => (0..TOPICS, 0..3_u8).prop_map(|(topic, key)| Write::Track { topic, key }),
        2 => any::<u8>().prop_map(|pick| Write::Update { pick }),
        3 => any::<u8>().prop_map(|pick| Write::Untrack { pick }),
    ];
    prop_oneof![
        8 => write.prop_map(Step::Write),
        6 => (0..4_usize, 1..4_usize, cursor, max_bytes)
            .prop_map(|(by, to, cursor, max_bytes)| Step::Send { by, to, cursor, max_bytes }),
        6 => (1..4_usize, any::<u8>(), prop::bool::weighted(0.3))
            .prop_map(|(to, pick, keep)| Step::Deliver { to, pick, keep }),
        2 => (0..9_000_u64).prop_map(|micros| Step::Tick { micros }),
    ]
}

/// The owner's history: what each tenant's operations were. A tenant's meta is its number and
/// version, so that entries found anywhere can be traced back.
#[derive(Default)]
struct History {
    /// Per tenant: the sequence numbers of its puts, and of its removal.
    tenants: BTreeMap<u32, (Vec<u64>, Option<u64>)>,
    live: Vec<(EntryId, u32)>,
}

impl History {
    fn meta(tenant: u32, version: usize) -> Vec<u8> {
        format!("{tenant}.{version}").into_bytes()
    }

    fn run(&mut self, owner: &mut Shard, write: Write, now: Time) {
        match write {
            Write::Track { topic: t, key } => {
                let tenant = u32::try_from(self.tenants.len()).unwrap();
                let meta = Self::meta(tenant, 0);
                let id = owner.track(&topic(t), &format!("k{key}"), &meta, now).unwrap();
                self.tenants.insert(tenant, (vec![owner.head()], None));
                self.live.push((id, tenant));
            }
            Write::Update { pick } if !self.live.is_empty() => {
                let (id, tenant) = self.live[usize::from(pick) % self.live.len()];
                let puts = &mut self.tenants.get_mut(&tenant).unwrap().0;
                owner.update(id, &Self::meta(tenant, puts.len()), now).unwrap();
                puts.push(owner.head());
            }
            Write::Untrack { pick } if !self.live.is_empty() => {
                let at = usize::from(pick) % self.live.len();
                let (id, tenant) = self.live.swap_remove(at);
                assert!(owner.untrack(id, now));
                self.tenants.get_mut(&tenant).unwrap().1 = Some(owner.head());
            }
            Write::Update { .. } | Write::Untrack { .. } => {}
        }
    }

    /// At position v a replica shows each entry that lives at the owner with a last change up to
    /// v, and nothing whose successor or removal is up to v.
    fn check(&self, node: &Shard) {
        let v = node.position(OWNER).unwrap().v;
        let actor = Actor { replica: replica("owner", 1), shard: 0 };
        let mut shown = BTreeSet::new();
        for t in 0..TOPICS {
            for entry in node.list(&topic(t)) {
                let meta = std::str::from_utf8(entry.meta).unwrap();
                let (tenant, version) = meta.split_once('.').unwrap();
                let tenant: u32 = tenant.parse().unwrap();
                let (puts, removed) = &self.tenants[&tenant];
                let seq = puts[version.parse::<usize>().unwrap()];
                assert_eq!(entry.reference, Ref::of(&Dot::new(actor.clone(), seq)));
                assert!(shown.insert((tenant, seq)));
                let current = removed.unwrap_or(*puts.last().unwrap());
                assert!(current == seq || current > v, "{meta} is outdated at {v}");
            }
        }
        for (tenant, (puts, removed)) in &self.tenants {
            let seq = *puts.last().unwrap();
            if removed.is_none() && seq <= v {
                assert!(shown.contains(&(*tenant, seq)), "tenant {tenant} is missing at {v}");
            }
        }
    }
}

struct Model {
    owner: Shard,
    nodes: Vec<Shard>,
    observers: Vec<Vec<Observer>>,
    network: Vec<Vec<Range>>,
    history: History,
    now: Time,
}

impl Model {
    fn new(tombstones: usize) -> Self {
        let mut nodes: Vec<_> =
            ["a", "b", "c"].iter().map(|name| viewer(name, ring(tombstones))).collect();
        let observe = |node: &mut Shard| -> Vec<_> {
            (0..TOPICS).map(|t| Observer::new(node, &topic(t), T0)).collect()
        };
        Self {
            owner: owner(ring(tombstones)),
            observers: nodes.iter_mut().map(observe).collect(),
            nodes,
            network: vec![Vec::new(); 3],
            history: History::default(),
            now: T0,
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Send { by, to, cursor, max_bytes } => {
                let v = self.nodes[to - 1].position(OWNER).unwrap().v;
                let from = match cursor {
                    Cursor::True => v,
                    Cursor::Behind(n) => v.saturating_sub(n),
                    Cursor::Ahead(n) => v + n,
                };
                let range = match by.checked_sub(1) {
                    None => self.owner.serve(NodeIx::SELF, from, max_bytes),
                    Some(relay) => self.nodes[relay].serve(OWNER, from, max_bytes),
                };
                self.network[to - 1].extend(range);
            }
            Step::Deliver { to, pick, keep } => self.deliver(to - 1, usize::from(pick), keep),
            Step::Tick { micros } => {
                self.now = Time::from_micros(self.now.as_micros() + micros);
                drain(&mut self.owner, self.now);
                for at in 0..self.nodes.len() {
                    self.flush(at);
                }
            }
            Step::Write(write) => self.history.run(&mut self.owner, write, self.now),
        }
    }

    fn deliver(&mut self, to: usize, pick: usize, keep: bool) {
        let queue = &mut self.network[to];
        if queue.is_empty() {
            return;
        }
        let at = pick % queue.len();
        let range = if keep { queue[at].clone() } else { queue.swap_remove(at) };
        let node = &mut self.nodes[to];
        let before = node.position(OWNER).unwrap();
        let applied = node.apply(OWNER, range, self.now);
        let after = node.position(OWNER).unwrap();
        assert!(after.v >= before.v && after.head_seen >= before.head_seen);
        assert!(!matches!(applied, Applied::Rejected(_)), "{applied:?}");
        self.history.check(node);
        self.observers[to].iter().for_each(|observer| observer.assert_told(node));
    }

    /// Once all that is due was told, observers know the list.
    fn flush(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let events = drain(node, self.now);
        dispatch(events, &mut self.observers[at]);
        if node.poll_timeout().is_none() {
            for (t, observer) in (0..).zip(&self.observers[at]) {
                assert_eq!(observer.contents(), contents(node, &topic(t)));
            }
        }
    }

    fn settle(&mut self, max_bytes: usize) {
        self.now = Time::from_micros(self.now.as_micros() + 10_000);
        for at in 0..self.nodes.len() {
            let (to, from) = ((&mut self.nodes[at], OWNER), (&self.owner, NodeIx::SELF));
            pull(to, from, max_bytes, self.now);
            self.history.check(&self.nodes[at]);
            self.flush(at);
            let node = &self.nodes[at];
            assert_eq!(node.poll_timeout(), None);
            let position = node.position(OWNER).unwrap();
            assert!(position.is_current());
            assert_eq!((position.v, position.checksum), (self.owner.head(), self.owner.checksum()));
            for t in 0..TOPICS {
                assert_eq!(contents(node, &topic(t)), contents(&self.owner, &topic(t)));
            }
        }
    }
}

proptest! {
    /// I1, I2, I3, I6, I7.
    #[test]
    fn replicas_agree_whatever_happens_on_the_way(
        tombstones in 0..5_usize,
        steps in prop::collection::vec(step(), 0..90),
        max_bytes in prop_oneof![1..200_usize, Just(16 * 1024)],
    ) {
        let mut model = Model::new(tombstones);
        for step in &steps {
            model.run(step);
        }
        model.settle(max_bytes);
    }
}

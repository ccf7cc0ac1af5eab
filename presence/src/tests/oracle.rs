//! The same histories given to `crdts::Orswot`, the textbook set without tombstones.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{T0, pull, replica, ring, topic};
use crate::{
    EntryId, NodeIx, Shard,
    crdts::{CmRDT as _, Orswot, orswot},
};

const NODES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Track {
        node: usize,
    },
    Update {
        node: usize,
        pick: u8,
    },
    Untrack {
        node: usize,
        pick: u8,
    },
    /// One operation of `from`'s for the set, one small range of its log.
    Deliver {
        from: usize,
        to: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..NODES).prop_map(|node| Step::Track { node }),
        2 => (0..NODES, any::<u8>()).prop_map(|(node, pick)| Step::Update { node, pick }),
        2 => (0..NODES, any::<u8>()).prop_map(|(node, pick)| Step::Untrack { node, pick }),
        5 => (0..NODES, 0..NODES).prop_map(|(from, to)| Step::Deliver { from, to }),
    ]
}

struct Node {
    shard: Shard,
    live: Vec<(EntryId, String)>,
    set: Orswot<String, usize>,
    /// The set's own operations, and how many of each other node's were applied.
    written: Vec<orswot::Op<String, usize>>,
    applied: [usize; NODES],
}

fn ix(node: usize) -> NodeIx {
    NodeIx(u16::try_from(node).unwrap() + 1)
}

impl Node {
    fn new(number: usize) -> Self {
        let name = |n: usize| replica(&format!("n{n}"), 1);
        let mut shard = Shard::new(ring(1), 0, name(number));
        for other in (0..NODES).filter(|other| *other != number) {
            shard.member_up(ix(other), &name(other), true, T0);
            shard.saw_head(ix(other), 1, 0, T0);
        }
        let (live, written) = (Vec::new(), Vec::new());
        Self { shard, live, set: Orswot::new(), written, applied: [0; NODES] }
    }

    fn add(&mut self, number: usize, member: &str) {
        let context = self.set.read_ctx().derive_add_ctx(number);
        let op = self.set.add(member.to_owned(), context);
        self.set.apply(op.clone());
        self.written.push(op);
    }

    fn remove(&mut self, member: &String) {
        let context = self.set.contains(member).derive_rm_ctx();
        let op = self.set.rm(member.clone(), context);
        self.set.apply(op.clone());
        self.written.push(op);
    }

    fn listed(&self) -> BTreeSet<String> {
        let list = self.shard.list(&topic(0));
        list.iter().map(|e| String::from_utf8(e.meta.to_vec()).unwrap()).collect()
    }

    fn expected(&self) -> BTreeSet<String> {
        self.set.read().val.into_iter().collect()
    }
}

fn run(nodes: &mut [Node], step: &Step, serial: usize) {
    let member = |node: usize| format!("{node}:{serial}");
    match *step {
        Step::Track { node: number } => {
            let node = &mut nodes[number];
            let meta = member(number);
            let id = node.shard.track(&topic(0), "k", meta.as_bytes(), T0).unwrap();
            node.add(number, &meta);
            node.live.push((id, meta));
        }
        Step::Update { node: number, pick } => {
            let node = &mut nodes[number];
            let Some(at) = usize::from(pick).checked_rem(node.live.len()) else {
                return;
            };
            let (id, old) = node.live[at].clone();
            let meta = member(number);
            node.shard.update(id, meta.as_bytes(), T0).unwrap();
            node.remove(&old);
            node.add(number, &meta);
            node.live[at].1 = meta;
        }
        Step::Untrack { node, pick } => {
            let node = &mut nodes[node];
            let Some(at) = usize::from(pick).checked_rem(node.live.len()) else {
                return;
            };
            let (id, old) = node.live.swap_remove(at);
            node.shard.untrack(id, T0);
            node.remove(&old);
        }
        Step::Deliver { from, to } => {
            let Ok([from_node, node]) = nodes.get_disjoint_mut([from, to]) else {
                return;
            };
            if let Some(op) = from_node.written.get(node.applied[from]) {
                node.set.apply(op.clone());
                node.applied[from] += 1;
            }
            let v = node.shard.position(ix(from)).unwrap().v;
            if let Some(range) = from_node.shard.serve(NodeIx::SELF, v, 50) {
                node.shard.apply(ix(from), range, T0);
            }
        }
    }
}

proptest! {
    #[test]
    fn feeds_end_with_the_same_set_as_an_orswot(steps in prop::collection::vec(step(), 0..120)) {
        let mut nodes: Vec<_> = (0..NODES).map(Node::new).collect();
        for (serial, step) in steps.iter().enumerate() {
            run(&mut nodes, step, serial);
        }
        for from in 0..NODES {
            for to in (0..NODES).filter(|to| *to != from) {
                let [from_node, node] = nodes.get_disjoint_mut([from, to]).unwrap();
                for op in &from_node.written[node.applied[from]..] {
                    node.set.apply(op.clone());
                }
                pull((&mut node.shard, ix(from)), (&from_node.shard, NodeIx::SELF), 50, T0);
            }
        }
        for node in &nodes {
            prop_assert_eq!(node.listed(), node.expected());
            prop_assert_eq!(node.listed(), nodes[0].listed());
        }
    }
}

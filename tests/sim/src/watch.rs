//! What is watched at every moment: positions and runs as each node has them.

use std::collections::BTreeMap;

use presence::{NodeIx, NodeName};

use crate::world::World;

/// What one node has seen of the runs of the others.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) names: BTreeMap<NodeIx, NodeName>,
    seen: BTreeMap<NodeName, Seen>,
    refetches: u64,
    /// Members that went down so far.
    pub(crate) downs: u64,
    /// Of those, the ones that were running then.
    pub(crate) false_downs: u64,
}

/// Of one name.
#[derive(Debug)]
struct Seen {
    incarnation: u64,
    forgotten: bool,
    /// By shard.
    positions: Vec<u64>,
}

impl Watch {
    pub(crate) fn forgotten(&mut self, ix: NodeIx, name: &NodeName) {
        self.names.remove(&ix);
        if let Some(seen) = self.seen.get_mut(name) {
            seen.forgotten = true;
        }
    }
}

impl World {
    /// I2 and I5: of a run that is known, positions never go back, but for a feed that is fetched anew;
    /// of a name, runs never go back, and a forgotten one comes back only over its own link.
    pub(crate) fn watch(&mut self, node: usize, ix: NodeIx) {
        let place = &mut self.nodes[node];
        let Some(name) = place.watch.names.get(&ix).cloned() else { return };
        let refetches = place.cluster.stats().refetches;
        let refetched = std::mem::replace(&mut place.watch.refetches, refetches) != refetches;
        let linked = place.links.contains_key(&ix);
        let shards = place.shards.0.len();
        let mut wrong = Vec::new();
        for (number, shard) in place.shards.0.iter().enumerate() {
            let Some(at) = shard.position(ix) else { continue };
            let fresh = || Seen {
                incarnation: at.incarnation,
                forgotten: false,
                positions: vec![0; shards],
            };
            let seen = place.watch.seen.entry(name.clone()).or_insert_with(fresh);
            if at.incarnation < seen.incarnation {
                wrong.push(format!("I5: n{node} shows an older run of {name}"));
            } else if at.incarnation > seen.incarnation {
                *seen = fresh();
            } else if seen.forgotten {
                if !linked && at.visible {
                    wrong.push(format!("I5: n{node} shows {name}, which it had forgotten"));
                }
                *seen = fresh();
            } else if at.v < seen.positions[number] && !refetched {
                let before = seen.positions[number];
                wrong.push(format!("I2: n{node} has {name} at {}, not at {before}", at.v));
            }
            seen.positions[number] = at.v;
        }
        for why in wrong {
            self.note(Err(why));
        }
    }
}

//! What is watched at every moment: positions and runs as each node has them.

use std::collections::BTreeMap;

use presence::{NodeIx, NodeName, Position};

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

impl Seen {
    fn fresh(incarnation: u64, shards: usize) -> Self {
        Self { incarnation, forgotten: false, positions: vec![0; shards] }
    }

    /// I2: of a run that is known, positions never go back.
    fn check_i2_positions_never_go_back(&self, shard: usize, v: u64) -> Result<(), String> {
        let before = self.positions[shard];
        if v < before { Err(format!("I2: is at {v}, not at {before}")) } else { Ok(()) }
    }

    /// I5: runs never go back, and one that was forgotten comes back only over its own link.
    fn check_i5_runs_never_go_back(&self, at: &Position, linked: bool) -> Result<(), String> {
        if at.incarnation < self.incarnation {
            return Err("I5: is shown as an older run".to_owned());
        }
        if at.incarnation == self.incarnation && self.forgotten && at.visible && !linked {
            return Err("I5: is shown, and was forgotten".to_owned());
        }
        Ok(())
    }
}

impl World {
    /// I2 and I5, of what a node has of another at this moment. A feed that is fetched anew goes back.
    pub(crate) fn watch(&mut self, node: usize, ix: NodeIx) {
        let place = &mut self.nodes[node];
        let Some(name) = place.watch.names.get(&ix).cloned() else { return };
        let refetches = place.cluster.stats().refetches;
        let refetched = std::mem::replace(&mut place.watch.refetches, refetches) != refetches;
        let linked = place.links.contains_key(&ix);
        let shards = place.shards.0.len();
        let mut checks = Vec::new();
        for (number, shard) in place.shards.0.iter().enumerate() {
            let Some(at) = shard.position(ix) else { continue };
            let fresh = || Seen::fresh(at.incarnation, shards);
            let seen = place.watch.seen.entry(name.clone()).or_insert_with(fresh);
            checks.push(seen.check_i5_runs_never_go_back(&at, linked));
            if at.incarnation > seen.incarnation || seen.forgotten {
                *seen = fresh();
            } else if at.incarnation == seen.incarnation && !refetched {
                checks.push(seen.check_i2_positions_never_go_back(number, at.v));
            }
            seen.positions[number] = at.v;
        }
        for why in checks.into_iter().filter_map(Result::err) {
            self.note(Err(format!("n{node} {name}: {why}")));
        }
    }
}

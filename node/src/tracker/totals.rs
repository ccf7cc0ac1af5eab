//! How much is listed in all shards.

use std::collections::BTreeMap;

use presence::{NodeName, Total};

use super::Tracker;

/// How much is listed, in all and by nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresenceTotals {
    /// On all nodes together. A topic that several have clients in counts once.
    pub cluster: Total,
    /// By node, this one too. One that is down, or is not known well enough to be shown, has nothing
    /// listed.
    pub nodes: BTreeMap<NodeName, Total>,
}

impl Tracker {
    /// How much is listed. One shard is asked after another, so it is of no single moment.
    pub(crate) fn totals(&self) -> PresenceTotals {
        let mut all = PresenceTotals::default();
        for shard in 0..self.shards() {
            self.with(shard, |shard| {
                let totals = shard.totals();
                add(&mut all.cluster, totals.cluster);
                for (ix, total) in totals.owners {
                    if let Some(name) = shard.name_of(ix) {
                        add(all.nodes.entry(name.clone()).or_default(), total);
                    }
                }
            });
        }
        all
    }
}

fn add(sum: &mut Total, total: Total) {
    sum.topics += total.topics;
    sum.entries += total.entries;
}

//! Whether a part of the cluster seems to be cut off.
//!
//! A node that is down and has not said goodbye has crashed, or is cut off, or sleeps: nobody can tell
//! which from here. So the rule is as plain as what is known: a partition is suspected from the moment
//! when a member goes down without a goodbye until none such is left. It stops counting when it is up
//! again, when a later run of it is, when its goodbye comes, or when it is forgotten. In a partition each
//! side misses at least one node of the other, so both say so, however they are divided.

use std::time::Duration;

use presence::{NodeIx, Time};

use crate::{
    cluster::Cluster,
    event::Event,
    node::{Node, State},
};

/// A partition that is suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// When the first member went missing.
    pub since: Time,
    /// Members that are down without a goodbye.
    pub missing: usize,
    /// Those, those that are up, and this node.
    pub members: usize,
}

fn is_missing(node: &Node) -> bool {
    node.state != State::Up && !node.left
}

impl Cluster {
    /// The partition that is suspected, if one is.
    pub fn partition(&self) -> Option<Partition> {
        let since = self.suspected_since?;
        let missing = self.missing.len();
        let members = missing + self.up().count() + 1;
        Some(Partition { since, missing, members })
    }

    /// Finds out anew whether a partition is suspected, after this node came, went or left.
    pub(crate) fn settle_partition(&mut self, ix: NodeIx, now: Time) {
        self.missing.remove(&ix);
        if self.nodes.get(ix).is_some_and(is_missing) {
            self.missing.insert(ix);
        }
        let missing = self.missing.first().and_then(|ix| self.nodes.get(*ix));
        match (self.suspected_since, missing) {
            (None, Some(missing)) => {
                let missing = missing.replica.name.clone();
                self.suspected_since = Some(now);
                self.events.push_back(Event::PartitionSuspected { missing });
            }
            (Some(since), None) => {
                self.suspected_since = None;
                let lasted: Duration = now.since(since);
                self.events.push_back(Event::PartitionOver { lasted });
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

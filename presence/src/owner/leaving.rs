//! Owners that are gone, and whose memory is still to be freed.

use std::collections::{BTreeSet, VecDeque};

use super::OwnerId;
use crate::{NodeIx, Time};

/// First come, first freed.
#[derive(Debug, Default)]
pub(super) struct Leaving(VecDeque<Leaver>);

#[derive(Debug)]
struct Leaver {
    id: OwnerId,
    ix: NodeIx,
    since: Time,
    /// Interests that a later owner under the same node's number spoke of: that one's word counts.
    taken_over: BTreeSet<u64>,
}

impl Leaving {
    pub(super) fn push(&mut self, id: OwnerId, ix: NodeIx, since: Time) {
        self.0.push_back(Leaver { id, ix, since, taken_over: BTreeSet::new() });
    }

    pub(super) fn pop(&mut self) -> Option<OwnerId> {
        self.0.pop_front().map(|leaver| leaver.id)
    }

    pub(super) fn first(&self) -> Option<OwnerId> {
        self.0.front().map(|leaver| leaver.id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// When the first one came.
    pub(super) fn since(&self) -> Option<Time> {
        self.0.front().map(|leaver| leaver.since)
    }

    /// Whether a change of an owner's interest is about what its node wants now. A change by the
    /// node's present run is noted.
    pub(super) fn is_news(&mut self, (id, ix): (OwnerId, NodeIx), hash: u64) -> bool {
        if let Some(leaver) = self.0.iter().find(|leaver| leaver.id == id) {
            return !leaver.taken_over.contains(&hash);
        }
        for leaver in self.0.iter_mut().filter(|leaver| leaver.ix == ix) {
            leaver.taken_over.insert(hash);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IX: NodeIx = NodeIx(4);

    #[test]
    fn what_the_next_run_wants_is_not_taken_back() {
        let mut leaving = Leaving::default();
        let (first, second, third) = (OwnerId::at(1), OwnerId::at(2), OwnerId::at(3));
        leaving.push(first, IX, Time::ZERO);
        assert!(leaving.is_news((second, IX), 7));
        assert!(leaving.is_news((OwnerId::at(9), NodeIx(5)), 8));
        assert!(!leaving.is_news((first, IX), 7));
        assert!(leaving.is_news((first, IX), 8));
        // A third run.
        leaving.push(second, IX, Time::ZERO);
        assert!(leaving.is_news((third, IX), 9));
        assert_eq!(leaving.pop(), Some(first));
        assert!(leaving.is_news((second, IX), 7));
        assert!(!leaving.is_news((second, IX), 9));
        assert_eq!((leaving.first(), leaving.len()), (Some(second), 1));
    }
}

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
    /// Of one that said goodbye: the slots before this hold no interest any more.
    sifted: u32,
    /// Interests that a later owner under the same node's number spoke of: that one's word counts.
    taken_over: BTreeSet<u64>,
}

impl Leaving {
    pub(super) fn push(&mut self, id: OwnerId, ix: NodeIx, since: Time) {
        self.0.push_back(Leaver { id, ix, since, sifted: 0, taken_over: BTreeSet::new() });
    }

    pub(super) fn remove(&mut self, id: OwnerId) {
        self.0.retain(|leaver| leaver.id != id);
    }

    /// The first one that can be freed.
    pub(super) fn first(&self, can_be: impl Fn(OwnerId) -> bool) -> Option<OwnerId> {
        self.0.iter().map(|leaver| leaver.id).find(|id| can_be(*id))
    }

    /// The next slot of one that keeps its entries for a while; `width` tells how many it has.
    pub(super) fn next_slot(&mut self, width: impl Fn(OwnerId) -> u32) -> Option<(OwnerId, u32)> {
        let leaver = self.0.iter_mut().find(|leaver| leaver.sifted < width(leaver.id))?;
        leaver.sifted += 1;
        Some((leaver.id, leaver.sifted - 1))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// When the first one came of which something can be freed; `width` is how many slots there are of
    /// one that keeps its entries for a while.
    pub(super) fn since(&self, width: impl Fn(OwnerId) -> Option<u32>) -> Option<Time> {
        let has_work =
            |leaver: &&Leaver| width(leaver.id).is_none_or(|width| leaver.sifted < width);
        self.0.iter().find(has_work).map(|leaver| leaver.since)
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
        leaving.remove(first);
        assert!(leaving.is_news((second, IX), 7));
        assert!(!leaving.is_news((second, IX), 9));
        assert_eq!((leaving.first(|_| true), leaving.len()), (Some(second), 1));
    }

    #[test]
    fn one_that_keeps_its_entries_is_looked_through_once() {
        let mut leaving = Leaving::default();
        let (kept, freed) = (OwnerId::at(1), OwnerId::at(2));
        leaving.push(kept, IX, Time::ZERO);
        leaving.push(freed, IX, Time::from_micros(1));
        let width = |id| (id == kept).then_some(2);
        assert_eq!(leaving.first(|id| id != kept), Some(freed));
        assert_eq!(leaving.since(width), Some(Time::ZERO));
        let mut next = || leaving.next_slot(|id| width(id).unwrap_or(0));
        assert_eq!((next(), next(), next()), (Some((kept, 0)), Some((kept, 1)), None));
        assert_eq!(leaving.since(width), Some(Time::from_micros(1)));
        leaving.remove(freed);
        assert_eq!(leaving.since(width), None);
    }
}

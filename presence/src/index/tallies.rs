//! How much each owner has in all topics of a shard.

use crate::owner::OwnerId;

/// By owners. An owner's number is given to another once nothing is left of it, so a tally that is
/// taken over is zero.
#[derive(Debug, Default)]
pub(super) struct Tallies(Vec<Tally>);

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    entries: usize,
    topics: usize,
}

impl Tallies {
    /// An entry more; `opens`: the first of its owner's in its topic.
    pub(super) fn add(&mut self, owner: OwnerId, opens: bool) {
        if self.0.len() <= owner.index() {
            self.0.resize(owner.index() + 1, Tally::default());
        }
        let tally = &mut self.0[owner.index()];
        tally.entries += 1;
        tally.topics += usize::from(opens);
    }

    /// An entry less; `closes`: the last of its owner's in its topic.
    pub(super) fn remove(&mut self, owner: OwnerId, closes: bool) {
        if let Some(tally) = self.0.get_mut(owner.index()) {
            tally.entries = tally.entries.saturating_sub(1);
            tally.topics = tally.topics.saturating_sub(usize::from(closes));
        }
    }

    /// (entries, topics) of an owner.
    pub(super) fn of(&self, owner: OwnerId) -> (usize, usize) {
        self.0.get(owner.index()).map_or((0, 0), |tally| (tally.entries, tally.topics))
    }
}

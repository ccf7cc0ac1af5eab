//! How many there are: followed by topic, and in all.

use std::collections::BTreeMap;

use super::{Count, Shard};
use crate::{
    NodeIx, NodeName, Time, Topic,
    index::Roster,
    listed,
    owner::{OwnerId, Owners},
};

/// How much is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Topics with an entry.
    pub topics: usize,
    /// Entries.
    pub entries: usize,
}

/// How much is listed in a shard; a topic is in one shard, so those of several add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Of all owners together.
    pub cluster: Total,
    /// By owners that are known; one that is not shown has nothing listed. What an earlier run of a
    /// node has left for a lease is of none of them.
    pub owners: BTreeMap<NodeIx, Total>,
}

impl Shard {
    /// One more who follows how many are on a topic. It knows what [`Self::counted`] gives, and
    /// needs all [`crate::Event::Count`] with higher versions.
    ///
    /// They come at once after a pause, then at most each [`crate::Config::count_interval`], and
    /// the last one always comes.
    pub fn observe_count(&mut self, topic: &Topic, _now: Time) {
        let store = &mut self.store;
        store.counter.observe(topic, &store.owners, &mut store.index);
    }

    /// One less.
    pub fn unobserve_count(&mut self, topic: &Topic, _now: Time) {
        if let Some(id) = self.store.index.id(topic) {
            self.store.counter.unobserve(id, &mut self.store.index);
        }
    }

    /// How many are on a topic at present, and the version of it: counts with higher versions are
    /// not older.
    pub fn counted(&self, topic: &Topic) -> (u64, Count) {
        (self.store.counter.version(self.store.index.id(topic)), self.count(topic))
    }

    /// One more who wants [`crate::Event::Opened`] for each topic that gets its first entry.
    pub fn observe_openings(&mut self) {
        self.store.index.note_openings(true);
    }

    /// One less.
    pub fn unobserve_openings(&mut self) {
        self.store.index.note_openings(false);
    }

    /// Whether no entry of the topic is known, of any owner, and nothing is to be told of one: its
    /// next entry is an [`crate::Event::Opened`].
    pub fn is_closed(&self, topic: &Topic) -> bool {
        let index = &self.store.index;
        let members =
            index.id(topic).and_then(|id| index.roster(id)).map_or(0, |r| r.members().len());
        members == 0 && self.told(topic).1.is_empty()
    }

    /// The name of an owner that is known.
    pub fn name_of(&self, ix: NodeIx) -> Option<&NodeName> {
        self.store.owners.of(ix).map(|owner| &owner.replica.name)
    }

    /// How much is listed. Takes a time proportional to the owners and to the topics with detached
    /// entries, while no owner with entries is hidden or has said goodbye; then to the entries.
    pub fn totals(&self) -> Totals {
        let (owners, index) = (&self.store.owners, &self.store.index);
        let mut totals = Totals::default();
        if owners.any_departed() {
            totals.owners.extend(owners.all().map(|owner| (owner.ix, Total::default())));
            index.with_prefix("", None).for_each(|roster| totals.add(owners, roster));
            return totals;
        }
        let mut hidden = 0;
        for (id, owner) in owners.numbered() {
            let (entries, topics) = index.tally(id);
            let total = totals.owners.entry(owner.ix).or_default();
            if owner.is_shown() {
                total.topics += topics;
                total.entries += entries;
                totals.cluster.entries += entries;
            } else {
                hidden += entries;
            }
        }
        totals.cluster.topics = index.topics();
        if hidden > 0 {
            totals.cluster.topics = self.topics("", None).count();
        }
        index.with_detached().for_each(|roster| totals.take_off(owners, roster));
        totals
    }
}

impl Totals {
    /// Takes off what one topic has that is not listed, of owners that are shown.
    fn take_off(&mut self, owners: &Owners, roster: &Roster) {
        let mut here: BTreeMap<OwnerId, (usize, usize)> = BTreeMap::new();
        for member in roster.members().iter().filter(|member| owners.is_shown(member.owner)) {
            let (all, listed) = here.entry(member.owner).or_default();
            *all += 1;
            *listed += usize::from(listed::is_listed(owners, roster, member));
        }
        for (id, (all, listed)) in here {
            self.cluster.entries -= all - listed;
            if let Some(owner) = owners.get(id) {
                let total = self.owners.entry(owner.ix).or_default();
                total.entries -= all - listed;
                total.topics -= usize::from(listed == 0);
            }
        }
    }

    /// Adds what one topic has that is listed.
    fn add(&mut self, owners: &Owners, roster: &Roster) {
        let mut here: BTreeMap<OwnerId, usize> = BTreeMap::new();
        let listed = roster.members().iter();
        for member in listed.filter(|member| listed::is_listed(owners, roster, member)) {
            *here.entry(member.owner).or_default() += 1;
        }
        self.cluster.topics += usize::from(!here.is_empty());
        for (id, entries) in here {
            self.cluster.entries += entries;
            // A node's number may be another one's by now, or that of a later run.
            if let Some(owner) = owners.get(id).filter(|_| owners.is_latest(id)) {
                let total = self.owners.entry(owner.ix).or_default();
                total.entries += entries;
                total.topics += 1;
            }
        }
    }
}

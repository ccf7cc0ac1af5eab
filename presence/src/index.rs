//! Which entries a topic has: the reading side of all logs of a shard.

mod lookup;
mod order;
mod roster;
mod tallies;

use std::{
    cmp::Ordering,
    collections::{BTreeSet, VecDeque},
    hash::{BuildHasher as _, Hasher as _},
};

use foldhash::{SharedSeed, quality::SeedableRandomState};
use siphasher::sip::SipHasher13;

pub(crate) use self::{
    lookup::Lookup,
    roster::{Counting, Member, Moved, Roster},
};
use self::{order::Order, tallies::Tallies};
use crate::{Topic, owner::OwnerId, table::Table};

/// A topic's small number while something refers to the topic; then it is given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TopicId(u32);

/// All topics of a shard that have entries, of whatever owner, or are pinned.
#[derive(Debug)]
pub(crate) struct Index {
    seed: u64,
    hasher: SeedableRandomState,
    rosters: Table<Option<Roster>>,
    free: Vec<TopicId>,
    ids: Lookup<TopicId>,
    /// The topics with members, by name.
    order: Order,
    tallies: Tallies,
    /// Topics whose members are counted, and that have lost or got some.
    changed: BTreeSet<TopicId>,
    /// Topics with a detached member.
    detached: BTreeSet<TopicId>,
    /// Who wants to know of topics that get their first member.
    openings: u32,
    opened: VecDeque<Topic>,
}

impl TopicId {
    /// The topic in a place of a table by topics.
    pub(crate) fn at(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// Its place in a table by topics.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Index {
    /// Who chooses topics and keys must not know the seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            hasher: SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
            rosters: Table::default(),
            free: Vec::new(),
            ids: Lookup::default(),
            order: Order::default(),
            tallies: Tallies::default(),
            changed: BTreeSet::new(),
            detached: BTreeSet::new(),
            openings: 0,
            opened: VecDeque::new(),
        }
    }

    /// Adds an entry, and returns the topic's number and the entry's place in it.
    pub(crate) fn insert(
        &mut self,
        topic: &Topic,
        owner: OwnerId,
        slot: u32,
        key: &str,
    ) -> (TopicId, u32) {
        let id = self.intern(topic);
        let hash = self.hash(key);
        let Some(roster) = self.roster_mut(id) else {
            return (id, 0);
        };
        let is_first = roster.members().is_empty();
        let is_owners_first = !roster.has_owner(owner);
        let pos = roster.insert(owner, slot, hash);
        self.tallies.add(owner, is_owners_first);
        if is_first {
            let compare = compare(&self.rosters, topic.as_str());
            self.order.insert(id, compare);
            if self.openings > 0 {
                self.opened.push_back(topic.clone());
            }
        }
        self.mark(id);
        (id, pos)
    }

    /// Removes the entry at a place; a topic that nothing refers to any more is forgotten.
    pub(crate) fn remove(&mut self, id: TopicId, pos: u32) -> Option<Moved> {
        let roster = self.roster_mut(id)?;
        let owner = roster.members().get(pos as usize)?.owner;
        let had_detached = roster.has_detached();
        let moved = roster.remove(pos);
        let (is_empty, is_owners_last) = (roster.members().is_empty(), !roster.has_owner(owner));
        let was_detached = had_detached && !roster.has_detached();
        self.tallies.remove(owner, is_owners_last);
        if was_detached {
            self.detached.remove(&id);
        }
        self.mark(id);
        if is_empty {
            let name = self.name(id)?.clone();
            self.order.remove(id, compare(&self.rosters, name.as_str()));
            self.release(id);
        }
        moved
    }

    /// Keeps a topic, even without members.
    pub(crate) fn pin(&mut self, topic: &Topic) -> TopicId {
        let id = self.intern(topic);
        if let Some(roster) = self.roster_mut(id) {
            roster.pinned = true;
        }
        id
    }

    /// No longer keeps a topic without members.
    pub(crate) fn unpin(&mut self, id: TopicId) {
        if let Some(roster) = self.roster_mut(id) {
            roster.pinned = false;
        }
        self.release(id);
    }

    /// Keeps a topic, even without members, and notes it when members come or go.
    pub(crate) fn start_counting(&mut self, topic: &Topic) -> TopicId {
        let id = self.intern(topic);
        if let Some(roster) = self.roster_mut(id)
            && roster.counting == Counting::Off
        {
            roster.counting = Counting::Same;
        }
        id
    }

    /// Notes nothing of a topic any more.
    pub(crate) fn stop_counting(&mut self, id: TopicId) {
        if let Some(roster) = self.roster_mut(id) {
            roster.counting = Counting::Off;
        }
        self.changed.remove(&id);
        self.release(id);
    }

    /// Members of the topic are about to be counted: what comes from here on is noted.
    pub(crate) fn count_anew(&mut self, id: TopicId) -> Option<&Roster> {
        let roster = self.roster_mut(id)?;
        roster.counting = Counting::Same;
        Some(roster)
    }

    /// Notes that a topic whose members are counted has to be looked at.
    pub(crate) fn mark(&mut self, id: TopicId) {
        if let Some(roster) = self.roster_mut(id)
            && roster.counting == Counting::Same
        {
            roster.counting = Counting::Changed;
            self.changed.insert(id);
        }
    }

    /// A topic that was noted.
    pub(crate) fn pop_changed(&mut self) -> Option<TopicId> {
        self.changed.pop_first()
    }

    /// Whether there is one.
    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Notes topics that get their first member: for so many more, or fewer.
    pub(crate) fn note_openings(&mut self, more: bool) {
        let change = if more { u32::checked_add } else { u32::checked_sub };
        self.openings = change(self.openings, 1).unwrap_or(self.openings);
        if self.openings == 0 {
            self.opened = VecDeque::new();
        }
    }

    /// A topic that got its first member.
    pub(crate) fn pop_opened(&mut self) -> Option<Topic> {
        self.opened.pop_front()
    }

    /// What an owner has in all topics: (entries, topics).
    pub(crate) fn tally(&self, owner: OwnerId) -> (usize, usize) {
        self.tallies.of(owner)
    }

    /// How many topics have members.
    pub(crate) fn topics(&self) -> usize {
        self.order.len()
    }

    /// Whether observers knew the entry as it is, and from now on do.
    pub(crate) fn set_told(&mut self, id: TopicId, pos: u32, told: bool) -> bool {
        let member = self.roster_mut(id).and_then(|r| r.members_mut().get_mut(pos as usize));
        member.is_some_and(|member| std::mem::replace(&mut member.told, told))
    }

    /// Notes whether the client of an entry is gone.
    pub(crate) fn set_detached(&mut self, id: TopicId, pos: u32, detached: bool) {
        if let Some(roster) = self.roster_mut(id)
            && roster.set_detached(pos, detached)
        {
            self.note_detached(id);
            self.mark(id);
        }
    }

    /// Topics with a detached member.
    pub(crate) fn with_detached(&self) -> impl Iterator<Item = &Roster> {
        self.detached.iter().filter_map(|id| self.roster(*id))
    }

    fn note_detached(&mut self, id: TopicId) {
        if self.roster(id).is_some_and(Roster::has_detached) {
            self.detached.insert(id);
        } else {
            self.detached.remove(&id);
        }
    }

    /// The entry at a place of a topic.
    pub(crate) fn member(&self, id: TopicId, pos: u32) -> Option<&Member> {
        self.roster(id)?.members().get(pos as usize)
    }

    /// A topic's number, if it has one.
    pub(crate) fn id(&self, topic: &Topic) -> Option<TopicId> {
        let rosters = &self.rosters;
        self.ids
            .get(self.hasher.hash_one(topic), |id| name(rosters, *id) == topic.as_str())
            .copied()
    }

    pub(crate) fn name(&self, id: TopicId) -> Option<&Topic> {
        self.roster(id).map(|roster| &roster.name)
    }

    pub(crate) fn roster(&self, id: TopicId) -> Option<&Roster> {
        self.rosters.get(id.index())?.as_ref()
    }

    pub(crate) fn roster_mut(&mut self, id: TopicId) -> Option<&mut Roster> {
        self.rosters.get_mut(id.index())?.as_mut()
    }

    /// The topics with members whose names start with `prefix` and come after `after`, in order.
    pub(crate) fn with_prefix<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Roster> {
        let start = after.map_or(prefix, |after| after.max(prefix));
        self.order
            .from(compare(&self.rosters, start))
            .filter_map(|id| self.roster(id))
            .skip_while(move |roster| Some(roster.name.as_str()) == after)
            .take_while(move |roster| roster.name.as_str().starts_with(prefix))
    }

    fn intern(&mut self, topic: &Topic) -> TopicId {
        if let Some(id) = self.id(topic) {
            return id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.rosters.push(None);
            TopicId::at(self.rosters.len() - 1)
        });
        let Self { rosters, hasher, ids, .. } = self;
        rosters[id.index()] = Some(Roster::new(topic.clone()));
        ids.insert(hasher.hash_one(topic), id, |id| hasher.hash_one(name(rosters, *id)));
        id
    }

    fn release(&mut self, id: TopicId) {
        let unused = |roster: &&Roster| {
            let is_kept = roster.pinned || roster.counting != Counting::Off;
            roster.members().is_empty() && !is_kept
        };
        let Self { rosters, hasher, ids, .. } = self;
        if let Some(roster) = rosters.get(id.index()).and_then(Option::as_ref).filter(unused) {
            let hash = hasher.hash_one(&roster.name);
            ids.remove(hash, |other| *other == id, |id| hasher.hash_one(name(rosters, *id)));
            rosters[id.index()] = None;
            self.free.push(id);
        }
    }

    /// Equal hashes are taken for equal keys when keys are counted, hence a keyed strong one.
    pub(crate) fn hash(&self, key: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.seed, 0);
        hasher.write(key.as_bytes());
        hasher.finish()
    }
}

/// The name of a topic that is known.
fn name(rosters: &Table<Option<Roster>>, id: TopicId) -> &str {
    rosters.get(id.index()).and_then(Option::as_ref).map_or("", |roster| roster.name.as_str())
}

/// How topics' names compare with this one.
fn compare(rosters: &Table<Option<Roster>>, with: &str) -> impl Fn(TopicId) -> Ordering {
    move |id| name(rosters, id).cmp(with)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Topic {
        name.parse().unwrap()
    }

    #[test]
    fn a_topic_is_forgotten_with_its_last_entry_unless_pinned() {
        let mut index = Index::new(1);
        let (id, pos) = index.insert(&topic("a"), OwnerId::SELF, 0, "k");
        index.pin(&topic("a"));
        assert_eq!(index.remove(id, pos), None);
        assert_eq!(index.id(&topic("a")), Some(id));
        index.unpin(id);
        assert_eq!(index.id(&topic("a")), None);
        // Its number is used again.
        assert_eq!(index.insert(&topic("b"), OwnerId::SELF, 0, "k").0, id);
        assert_eq!(index.ids.len(), 1);
    }

    #[test]
    fn names_come_in_order_within_the_prefix() {
        let mut index = Index::new(1);
        for name in ["room:b", "lobby", "room:a", "rooms", "room:c"] {
            index.insert(&topic(name), OwnerId::SELF, 0, "k");
        }
        index.pin(&topic("room:empty"));
        let names = |prefix, after| -> Vec<String> {
            index.with_prefix(prefix, after).map(|roster| roster.name.to_string()).collect()
        };
        assert_eq!(names("room:", None), ["room:a", "room:b", "room:c"]);
        assert_eq!(names("room:", Some("room:a")), ["room:b", "room:c"]);
        assert_eq!(names("room:", Some("a")), ["room:a", "room:b", "room:c"]);
        assert_eq!(names("", None).len(), 5);
        assert_eq!(names("x", None).len(), 0);
    }
}

//! Which entries a topic has: the reading side of all logs of a shard.

mod lookup;
mod order;
mod roster;

use std::{
    cmp::Ordering,
    hash::{BuildHasher as _, Hasher as _},
};

use foldhash::{SharedSeed, quality::SeedableRandomState};
use siphasher::sip::SipHasher13;

use self::order::Order;
pub(crate) use self::{
    lookup::Lookup,
    roster::{Member, Moved, Roster},
};
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
        let pos = roster.insert(owner, slot, hash);
        if is_first {
            let compare = compare(&self.rosters, topic.as_str());
            self.order.insert(id, compare);
        }
        (id, pos)
    }

    /// Removes the entry at a place; a topic that nothing refers to any more is forgotten.
    pub(crate) fn remove(&mut self, id: TopicId, pos: u32) -> Option<Moved> {
        let roster = self.roster_mut(id)?;
        let moved = roster.remove(pos);
        if roster.members().is_empty() {
            let name = roster.name.clone();
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

    /// Whether observers knew the entry as it is, and from now on do.
    pub(crate) fn set_told(&mut self, id: TopicId, pos: u32, told: bool) -> bool {
        let member = self.roster_mut(id).and_then(|r| r.members_mut().get_mut(pos as usize));
        member.is_some_and(|member| std::mem::replace(&mut member.told, told))
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

    /// The entries of a topic with this key, and perhaps, once in 2^64, others.
    pub(crate) fn find(&self, topic: &Topic, key: &str) -> impl Iterator<Item = Member> {
        let roster = self.id(topic).and_then(|id| self.roster(id));
        roster.map(|roster| roster.find(self.hash(key))).unwrap_or_default().into_iter()
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
        let unused = |roster: &&Roster| roster.members().is_empty() && !roster.pinned;
        let Self { rosters, hasher, ids, .. } = self;
        if let Some(roster) = rosters.get(id.index()).and_then(Option::as_ref).filter(unused) {
            let hash = hasher.hash_one(&roster.name);
            ids.remove(hash, |other| *other == id, |id| hasher.hash_one(name(rosters, *id)));
            rosters[id.index()] = None;
            self.free.push(id);
        }
    }

    /// Equal hashes are taken for equal keys when keys are counted, hence a keyed strong one.
    fn hash(&self, key: &str) -> u64 {
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

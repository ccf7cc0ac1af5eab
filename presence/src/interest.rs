//! Which topics this node wants the broadcasts of, and for how long.
//!
//! An interest is one slot of this node's own log. It is put before the first subscriber or entry
//! of its topic and removed some time after the last, so a peer that knows an entry knows the
//! interest too, and a topic that is left and joined again costs no message.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::BuildHasher as _,
};

use foldhash::{SharedSeed, quality::SeedableRandomState};

use crate::{
    INTEREST_ALL, Time,
    feed::{Feed, Held},
    index::Lookup,
    table::Table,
};

/// The own interests and their holders. Their hashes are in the slots of this node's log.
#[derive(Debug)]
pub(crate) struct Interests {
    max: usize,
    hasher: SeedableRandomState,
    slots: Lookup<u32>,
    /// By slot; 0 where there is no interest, or one that lingers.
    holders: Table<u32>,
    /// Those without holders, by the time at which they are removed.
    lingering: BTreeSet<(Time, u64)>,
    /// When each of those is removed.
    ends: BTreeMap<u64, Time>,
}

/// What [`Interests::acquire`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// It is in this slot already.
    Held(u32),
    /// A slot must be put for this hash, and given to [`Interests::insert`].
    Fresh(u64),
}

impl Interests {
    /// Up to `max` hashes, and the interest in everything for all further ones.
    pub(crate) fn new(seed: u64, max: usize) -> Self {
        Self {
            max,
            hasher: SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
            slots: Lookup::default(),
            holders: Table::default(),
            lingering: BTreeSet::new(),
            ends: BTreeMap::new(),
        }
    }

    /// One more holder.
    pub(crate) fn acquire(&mut self, hash: u64, feed: &Feed) -> Acquired {
        let known = self.slot(hash, feed).is_some();
        let taken = self.slots.len() - usize::from(self.slot(INTEREST_ALL, feed).is_some());
        let hash = if known || taken < self.max { hash } else { INTEREST_ALL };
        let Some(slot) = self.slot(hash, feed) else {
            return Acquired::Fresh(hash);
        };
        let holders = &mut self.holders[slot as usize];
        *holders += 1;
        if *holders == 1
            && let Some(until) = self.ends.remove(&hash)
        {
            self.lingering.remove(&(until, hash));
        }
        Acquired::Held(slot)
    }

    /// A fresh interest has been put into a slot, for its first holder.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32, feed: &Feed) {
        let Self { hasher, slots, holders, .. } = self;
        slots.insert(hasher.hash_one(Some(hash)), slot, |slot| {
            hasher.hash_one(hash_in(*slot, feed))
        });
        holders.grow_to(slot as usize + 1, || 0);
        holders[slot as usize] = 1;
    }

    /// One holder less; the last one's interest stays until `until`.
    ///
    /// A hash that has no slot was acquired when there were too many: it is held by the interest
    /// in everything. Should it have got a slot since, for a later holder, then the slot is
    /// released first: what is left is wider than needed, never narrower.
    pub(crate) fn release(&mut self, hash: u64, until: Time, feed: &Feed) {
        let slot = self.slot(hash, feed).filter(|slot| self.holders[*slot as usize] > 0);
        let hash = if slot.is_some() { hash } else { INTEREST_ALL };
        let Some(slot) = slot.or_else(|| self.slot(INTEREST_ALL, feed)) else {
            return;
        };
        let holders = &mut self.holders[slot as usize];
        match *holders {
            0 => {}
            1 => {
                *holders = 0;
                self.ends.insert(hash, until);
                self.lingering.insert((until, hash));
            }
            _ => *holders -= 1,
        }
    }

    /// When the next interest is to be removed.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.lingering.first().map(|(until, _)| *until)
    }

    /// Forgets one interest whose time is over, and returns its slot to be emptied.
    pub(crate) fn expire(&mut self, now: Time, feed: &Feed) -> Option<u32> {
        let (until, hash) = *self.lingering.first()?;
        if until > now {
            return None;
        }
        self.lingering.pop_first();
        self.ends.remove(&hash);
        let Self { hasher, slots, .. } = self;
        slots.remove(
            hasher.hash_one(Some(hash)),
            |slot| hash_in(*slot, feed) == Some(hash),
            |slot| hasher.hash_one(hash_in(*slot, feed)),
        )
    }

    /// The slot of an interest, if it has one.
    fn slot(&self, hash: u64, feed: &Feed) -> Option<u32> {
        let is_it = |slot: &u32| hash_in(*slot, feed) == Some(hash);
        self.slots.get(self.hasher.hash_one(Some(hash)), is_it).copied()
    }
}

/// The hash of the interest in a slot.
fn hash_in(slot: u32, feed: &Feed) -> Option<u64> {
    match feed.slot(slot)?.held {
        Held::Interest { hash } => Some(hash),
        Held::Presence { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts a fresh interest into a slot.
    fn hold((interests, feed): (&mut Interests, &mut Feed), hash: u64, slot: u32) {
        assert_eq!(interests.acquire(hash, feed), Acquired::Fresh(hash));
        let seq = feed.v() + 1;
        feed.append(slot, seq, seq, Held::Interest { hash });
        interests.insert(hash, slot, feed);
    }

    const fn at(micros: u64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn the_last_holder_leaves_it_lingering() {
        let mut feed = Feed::default();
        let mut interests = Interests::new(1, 10);
        hold((&mut interests, &mut feed), 7, 0);
        assert_eq!(interests.acquire(7, &feed), Acquired::Held(0));
        interests.release(7, at(5), &feed);
        assert_eq!(interests.next_deadline(), None);
        interests.release(7, at(6), &feed);
        assert_eq!(interests.next_deadline(), Some(at(6)));
        assert_eq!(interests.expire(at(5), &feed), None);
        assert_eq!(interests.expire(at(6), &feed), Some(0));
        assert_eq!(interests.acquire(7, &feed), Acquired::Fresh(7));
    }

    #[test]
    fn a_lingering_interest_is_held_again_without_a_change() {
        let mut feed = Feed::default();
        let mut interests = Interests::new(1, 10);
        hold((&mut interests, &mut feed), 7, 0);
        interests.release(7, at(5), &feed);
        assert_eq!(interests.acquire(7, &feed), Acquired::Held(0));
        assert_eq!(interests.expire(at(99), &feed), None);
        interests.release(7, at(100), &feed);
        interests.release(7, at(1), &feed);
        assert_eq!(interests.next_deadline(), Some(at(100)));
    }

    #[test]
    fn too_many_are_held_by_the_interest_in_everything() {
        let mut feed = Feed::default();
        let mut interests = Interests::new(1, 1);
        hold((&mut interests, &mut feed), 7, 0);
        assert_eq!(interests.acquire(8, &feed), Acquired::Fresh(INTEREST_ALL));
        feed.append(1, 2, 2, Held::Interest { hash: INTEREST_ALL });
        interests.insert(INTEREST_ALL, 1, &feed);
        assert_eq!(interests.acquire(9, &feed), Acquired::Held(1));
        assert_eq!(interests.acquire(7, &feed), Acquired::Held(0));
        interests.release(8, at(1), &feed);
        assert_eq!(interests.next_deadline(), None);
        interests.release(9, at(2), &feed);
        assert_eq!(interests.expire(at(2), &feed), Some(1));
    }
}

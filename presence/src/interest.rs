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

use crate::{INTEREST_ALL, Time, index::Lookup};

/// The own interests and their holders.
#[derive(Debug)]
pub(crate) struct Interests {
    max: usize,
    hasher: SeedableRandomState,
    holds: Lookup<Hold>,
    /// Those without holders, by the time at which they are removed.
    lingering: BTreeSet<(Time, u64)>,
    /// When each of those is removed.
    ends: BTreeMap<u64, Time>,
}

#[derive(Debug)]
struct Hold {
    hash: u64,
    slot: u32,
    holders: u32,
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
            holds: Lookup::default(),
            lingering: BTreeSet::new(),
            ends: BTreeMap::new(),
        }
    }

    /// One more holder.
    pub(crate) fn acquire(&mut self, hash: u64) -> Acquired {
        let known = self.get(hash).is_some();
        let taken = self.holds.len() - usize::from(self.get(INTEREST_ALL).is_some());
        let hash = if known || taken < self.max { hash } else { INTEREST_ALL };
        let Some(hold) = self.get_mut(hash) else {
            return Acquired::Fresh(hash);
        };
        let slot = hold.slot;
        hold.holders += 1;
        if hold.holders == 1
            && let Some(until) = self.ends.remove(&hash)
        {
            self.lingering.remove(&(until, hash));
        }
        Acquired::Held(slot)
    }

    /// The slot of a fresh interest, with its first holder.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32) {
        let Self { hasher, holds, .. } = self;
        let hold = Hold { hash, slot, holders: 1 };
        holds.insert(hasher.hash_one(hash), hold, |hold| hasher.hash_one(hold.hash));
    }

    /// One holder less; the last one's interest stays until `until`.
    ///
    /// A hash that has no slot was acquired when there were too many: it is held by the interest
    /// in everything. Should it have got a slot since, for a later holder, then the slot is
    /// released first: what is left is wider than needed, never narrower.
    pub(crate) fn release(&mut self, hash: u64, until: Time) {
        let is_held = |hold: &Hold| hold.holders > 0;
        let hash = if self.get(hash).is_some_and(is_held) { hash } else { INTEREST_ALL };
        let Some(hold) = self.get_mut(hash) else {
            return;
        };
        match hold.holders {
            0 => {}
            1 => {
                hold.holders = 0;
                self.ends.insert(hash, until);
                self.lingering.insert((until, hash));
            }
            _ => hold.holders -= 1,
        }
    }

    /// When the next interest is to be removed.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.lingering.first().map(|(until, _)| *until)
    }

    /// Forgets one interest whose time is over, and returns its slot to be emptied.
    pub(crate) fn expire(&mut self, now: Time) -> Option<u32> {
        let (until, hash) = *self.lingering.first()?;
        if until > now {
            return None;
        }
        self.lingering.pop_first();
        self.ends.remove(&hash);
        let Self { hasher, holds, .. } = self;
        let found = |hold: &Hold| hold.hash == hash;
        let gone = holds.remove(hasher.hash_one(hash), found, |hold| hasher.hash_one(hold.hash));
        gone.map(|hold| hold.slot)
    }

    fn get(&self, hash: u64) -> Option<&Hold> {
        self.holds.get(self.hasher.hash_one(hash), |hold| hold.hash == hash)
    }

    fn get_mut(&mut self, hash: u64) -> Option<&mut Hold> {
        self.holds.get_mut(self.hasher.hash_one(hash), |hold| hold.hash == hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(interests: &mut Interests, hash: u64, slot: u32) {
        assert_eq!(interests.acquire(hash), Acquired::Fresh(hash));
        interests.insert(hash, slot);
    }

    const fn at(micros: u64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn the_last_holder_leaves_it_lingering() {
        let mut interests = Interests::new(1, 10);
        hold(&mut interests, 7, 0);
        assert_eq!(interests.acquire(7), Acquired::Held(0));
        interests.release(7, at(5));
        assert_eq!(interests.next_deadline(), None);
        interests.release(7, at(6));
        assert_eq!(interests.next_deadline(), Some(at(6)));
        assert_eq!(interests.expire(at(5)), None);
        assert_eq!(interests.expire(at(6)), Some(0));
        assert_eq!(interests.acquire(7), Acquired::Fresh(7));
    }

    #[test]
    fn a_lingering_interest_is_held_again_without_a_change() {
        let mut interests = Interests::new(1, 10);
        hold(&mut interests, 7, 0);
        interests.release(7, at(5));
        assert_eq!(interests.acquire(7), Acquired::Held(0));
        assert_eq!(interests.expire(at(99)), None);
        interests.release(7, at(100));
        interests.release(7, at(1));
        assert_eq!(interests.next_deadline(), Some(at(100)));
    }

    #[test]
    fn too_many_are_held_by_the_interest_in_everything() {
        let mut interests = Interests::new(1, 1);
        hold(&mut interests, 7, 0);
        assert_eq!(interests.acquire(8), Acquired::Fresh(INTEREST_ALL));
        interests.insert(INTEREST_ALL, 1);
        assert_eq!(interests.acquire(9), Acquired::Held(1));
        assert_eq!(interests.acquire(7), Acquired::Held(0));
        interests.release(8, at(1));
        assert_eq!(interests.next_deadline(), None);
        interests.release(9, at(2));
        assert_eq!(interests.expire(at(2)), Some(1));
    }
}

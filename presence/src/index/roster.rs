//! The entries of one topic, of all owners.

use std::cell::Cell;

use smallvec::SmallVec;

use super::Lookup;
use crate::{Topic, owner::OwnerId};

/// With more members than this, keys and owners are indexed; a scan is as fast below.
const SCAN_MAX: usize = 32;

const NIL: u32 = u32::MAX;

/// Members in a cache line.
const LINE: usize = 64 / size_of::<Member>();

/// One entry of a topic: where it is stored, and what its key hashes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) slot: u32,
    pub(crate) owner: OwnerId,
    /// Of a topic that is observed: whether the observers know the entry as it is. Without
    /// meaning where a first old value is pending.
    pub(crate) told: bool,
    /// Its client's socket is gone.
    pub(crate) detached: bool,
    /// What its key hashes to; equal only for equal keys, but once in 2^64.
    pub(crate) key: u64,
}

/// The last member took the place of a removed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) owner: OwnerId,
    pub(crate) slot: u32,
}

/// A topic's name and members.
#[derive(Debug)]
pub(crate) struct Roster {
    pub(crate) name: Topic,
    /// Most topics have few members, and many have one.
    members: SmallVec<[Member; 1]>,
    crowd: Option<Box<Crowd>>,
    /// Members that are detached.
    detached: u32,
    /// How many members others cover, and the epoch of the owners that this was counted in.
    covered: Cell<Option<(u64, u32)>>,
    /// Whether the topic is kept without members.
    pub(crate) pinned: bool,
    /// Whether somebody follows how many members there are.
    pub(crate) counting: Counting,
}

/// Whether somebody follows how many members a topic has; it is kept without members then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Counting {
    #[default]
    Off,
    /// No member came or went since it was looked at.
    Same,
    Changed,
}

/// What is kept of many members.
#[derive(Debug, Default)]
struct Crowd {
    shares: Vec<Share>,
    /// The newest member of each key.
    heads: Lookup<u32>,
    /// The next newer and the next older member with the same key, of each member.
    links: Vec<(u32, u32)>,
}

/// How many of the members one owner has.
#[derive(Clone, Copy, Debug)]
struct Share {
    owner: OwnerId,
    members: u32,
}

impl Roster {
    pub(crate) fn new(name: Topic) -> Self {
        Self {
            name,
            members: SmallVec::new(),
            crowd: None,
            detached: 0,
            covered: Cell::new(None),
            pinned: false,
            counting: Counting::Off,
        }
    }

    /// Adds an entry whose key has the hash `key`, and returns its place.
    pub(crate) fn insert(&mut self, owner: OwnerId, slot: u32, key: u64) -> u32 {
        let pos = u32::try_from(self.members.len()).unwrap_or(NIL);
        if self.members.len() == self.members.capacity() {
            self.members.reserve_exact(room(self.members.len()));
        }
        self.members.push(Member { slot, owner, told: false, detached: false, key });
        if let Some(crowd) = &mut self.crowd {
            crowd.push(&self.members);
        } else if self.members.len() > SCAN_MAX {
            let mut crowd = Box::<Crowd>::default();
            for len in 1..=self.members.len() {
                crowd.push(&self.members[..len]);
            }
            self.crowd = Some(crowd);
        }
        pos
    }

    /// Removes the entry at `pos`; another one may have to be told its new place, `pos`.
    pub(crate) fn remove(&mut self, pos: u32) -> Option<Moved> {
        let index = pos as usize;
        if index >= self.members.len() {
            return None;
        }
        if let Some(crowd) = &mut self.crowd {
            crowd.swap_remove(index, &self.members);
        }
        let gone = self.members.swap_remove(index);
        self.detached -= u32::from(gone.detached);
        if self.members.len() < SCAN_MAX / 2 {
            self.crowd = None;
        }
        if self.members.capacity() > 64 && self.members.len() < self.members.capacity() / 4 {
            // There is no half of it: room for some more comes with the next one.
            self.members.shrink_to_fit();
        }
        self.members.get(index).map(|moved| Moved { owner: moved.owner, slot: moved.slot })
    }

    /// The members with a key of this hash: nearly always all have the same key.
    pub(crate) fn find(&self, key: u64) -> SmallVec<[Member; 4]> {
        match &self.crowd {
            None => self.members.iter().filter(|member| member.key == key).copied().collect(),
            Some(crowd) => {
                let found = crowd.chain(key, &self.members);
                found.filter_map(|at| self.members.get(at as usize)).copied().collect()
            }
        }
    }

    /// Whether one of the members with a key of this hash is it, asking the newest first where there
    /// are many.
    pub(crate) fn any(&self, key: u64, mut is_it: impl FnMut(&Member) -> bool) -> bool {
        match &self.crowd {
            None => self.members.iter().any(|member| member.key == key && is_it(member)),
            Some(crowd) => {
                let mut chain = crowd.chain(key, &self.members);
                chain.any(|at| self.members.get(at as usize).is_some_and(&mut is_it))
            }
        }
    }

    /// How many members others cover, if that is known in this epoch of the owners.
    pub(crate) fn covered(&self, epoch: u64) -> Option<u32> {
        self.covered.get().filter(|(known, _)| *known == epoch).map(|(_, covered)| covered)
    }

    /// Notes how many members others cover in this epoch.
    pub(crate) fn set_covered(&self, epoch: u64, covered: u32) {
        self.covered.set(Some((epoch, covered)));
    }

    /// Notes that of the members of one key others cover so many now.
    pub(crate) fn change_covered(&self, epoch: u64, (before, now): (u32, u32)) {
        if let Some(covered) = self.covered(epoch) {
            self.set_covered(epoch, covered.saturating_sub(before).saturating_add(now));
        }
    }

    /// Notes whether the client of the entry at `pos` is gone; whether that is news.
    pub(crate) fn set_detached(&mut self, pos: u32, detached: bool) -> bool {
        let Some(member) = self.members.get_mut(pos as usize) else { return false };
        let before = std::mem::replace(&mut member.detached, detached);
        self.detached = self.detached + u32::from(detached) - u32::from(before);
        before != detached
    }

    /// Whether a member is detached.
    pub(crate) fn has_detached(&self) -> bool {
        self.detached > 0
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn members_mut(&mut self) -> &mut [Member] {
        &mut self.members
    }

    /// Whether this owner has a member.
    pub(crate) fn has_owner(&self, owner: OwnerId) -> bool {
        match &self.crowd {
            None => self.members.iter().any(|member| member.owner == owner),
            Some(crowd) => crowd.shares.iter().any(|share| share.owner == owner),
        }
    }

    /// The members of the owners that pass, and the different keys among these.
    ///
    /// O(owners) where all pass, else O(members).
    pub(crate) fn count(&self, pass: impl Fn(OwnerId) -> bool) -> (usize, usize) {
        match &self.crowd {
            None => {
                let passing = || self.members.iter().filter(|member| pass(member.owner));
                let is_first = |(at, member): &(usize, &Member)| {
                    passing().take(*at).all(|before| before.key != member.key)
                };
                (passing().count(), passing().enumerate().filter(is_first).count())
            }
            Some(crowd) => {
                let shares = crowd.shares.iter().filter(|share| pass(share.owner));
                let members = shares.map(|share| share.members as usize).sum();
                if members == self.members.len() {
                    (members, crowd.heads.len())
                } else {
                    (members, crowd.keys(&self.members, pass))
                }
            }
        }
    }
}

impl Crowd {
    /// Follows the last member, that was just added.
    fn push(&mut self, members: &[Member]) {
        let Some(Member { owner, key, .. }) = members.last().copied() else {
            return;
        };
        match self.shares.iter_mut().find(|share| share.owner == owner) {
            Some(share) => share.members += 1,
            None => self.shares.push(Share { owner, members: 1 }),
        }
        let at = u32::try_from(self.links.len()).unwrap_or(NIL);
        let older = match self.heads.get_mut(key, |head| key_of(members, *head) == key) {
            Some(head) => std::mem::replace(head, at),
            None => {
                self.heads.insert(key, at, |head| key_of(members, *head));
                NIL
            }
        };
        self.set_newer(older, at);
        self.links.push((NIL, older));
    }

    /// Follows `swap_remove(index)`, just before it.
    fn swap_remove(&mut self, index: usize, members: &[Member]) {
        let gone = members[index];
        if let Some(at) = self.shares.iter().position(|share| share.owner == gone.owner) {
            self.shares[at].members -= 1;
            if self.shares[at].members == 0 {
                self.shares.swap_remove(at);
            }
        }
        let here = u32::try_from(index).unwrap_or(NIL);
        let (newer, older) = self.links[index];
        self.set_older(newer, (here, older), members);
        self.set_newer(older, newer);
        // Unlinked; now the last one moves here.
        let last = self.links.len() - 1;
        if last != index {
            let (newer, older) = self.links[last];
            let there = u32::try_from(last).unwrap_or(NIL);
            self.set_older(newer, (there, here), members);
            self.set_newer(older, here);
        }
        self.links.swap_remove(index);
    }

    /// The member `at` is followed by `new` in place of `old`; `NIL` stands for the head.
    fn set_older(&mut self, at: u32, (old, new): (u32, u32), members: &[Member]) {
        if let Some(link) = self.links.get_mut(at as usize) {
            link.1 = new;
            return;
        }
        let key = key_of(members, old);
        if new == NIL {
            let hash_of = |head: &u32| key_of(members, *head);
            self.heads.remove(key, |head| *head == old, hash_of);
        } else if let Some(head) = self.heads.get_mut(key, |head| *head == old) {
            *head = new;
        }
    }

    fn set_newer(&mut self, at: u32, newer: u32) {
        if let Some(link) = self.links.get_mut(at as usize) {
            link.0 = newer;
        }
    }

    fn chain(&self, key: u64, members: &[Member]) -> impl Iterator<Item = u32> {
        let head = self.heads.get(key, |head| key_of(members, *head) == key).copied();
        std::iter::successors(head, |at| {
            self.links.get(*at as usize).map(|link| link.1).filter(|older| *older != NIL)
        })
    }

    /// Different keys of the members whose owners pass: each is counted at the newest of these.
    fn keys(&self, members: &[Member], pass: impl Fn(OwnerId) -> bool) -> usize {
        let passes = |at: u32| members.get(at as usize).map(|member| pass(member.owner));
        let is_newest = |newer: u32| {
            let mut at = newer;
            while let Some(passes) = passes(at) {
                if passes {
                    return false;
                }
                at = self.links[at as usize].0;
            }
            true
        };
        let passing = members.iter().zip(&self.links).filter(|(member, _)| pass(member.owner));
        passing.filter(|(_, (newer, _))| is_newest(*newer)).count()
    }
}

/// For how many more members there is to be room beside so many: a half, in whole cache lines with the
/// allocator's word. The blocks that are outgrown are then of sizes that others have a use for.
fn room(members: usize) -> usize {
    (members + members / 2 + 1) / LINE * LINE + LINE - 1 - members
}

fn key_of(members: &[Member], at: u32) -> u64 {
    members.get(at as usize).map_or(0, |member| member.key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Small and large rosters, with and without the index, agree with a plain list.
        #[test]
        fn a_roster_is_a_list_with_counts(
            steps in prop::collection::vec((any::<bool>(), 0..3_u16, 0..6_u64, any::<u16>()), 0..250),
        ) {
            let mut roster = Roster::new("t".parse().unwrap());
            let mut model: Vec<(u32, u16, u64)> = Vec::new();
            for (slot, (remove, owner, key, pick)) in (0..).zip(steps) {
                // Three adds to a removal, so that some runs grow past the threshold.
                if remove && pick % 3 == 0 && !model.is_empty() {
                    let at = usize::from(pick) % model.len();
                    let moved = roster.remove(u32::try_from(at).unwrap());
                    model.swap_remove(at);
                    let expected =
                        model.get(at).map(|m| Moved { owner: OwnerId::at(m.1), slot: m.0 });
                    prop_assert_eq!(moved, expected);
                } else {
                    let pos = roster.insert(OwnerId::at(owner), slot, key);
                    prop_assert_eq!(pos as usize, model.len());
                    model.push((slot, owner, key));
                }
                for hidden in 0..4 {
                    let shown = || model.iter().filter(|m| m.1 != hidden);
                    let keys: BTreeSet<_> = shown().map(|m| m.2).collect();
                    let count = roster.count(|owner| owner != OwnerId::at(hidden));
                    prop_assert_eq!(count, (shown().count(), keys.len()));
                }
                for key in 0..6 {
                    let found: BTreeSet<_> = roster.find(key).iter().map(|m| m.slot).collect();
                    let expected: BTreeSet<_> =
                        model.iter().filter(|m| m.2 == key).map(|m| m.0).collect();
                    prop_assert_eq!(found, expected);
                }
                for owner in 0..3 {
                    let expected = model.iter().any(|m| m.1 == owner);
                    prop_assert_eq!(roster.has_owner(OwnerId::at(owner)), expected);
                }
            }
        }
    }
}

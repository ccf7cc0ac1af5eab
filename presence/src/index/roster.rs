//! The entries of one topic, of all owners.

use smallvec::SmallVec;

use super::Lookup;
use crate::{NodeIx, Topic};

/// With more members than this the keys are indexed; a scan is as fast below.
const SCAN_MAX: usize = 32;

const NIL: u32 = u32::MAX;

/// One entry of a topic: where it is stored, and what its key hashes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) slot: u32,
    pub(crate) owner: NodeIx,
    /// Of a topic that is observed: whether the observers know the entry as it is. Without
    /// meaning where a first old value is pending.
    pub(crate) told: bool,
    key: u64,
}

/// How many entries of a topic one owner has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) owner: NodeIx,
    pub(crate) entries: u32,
}

/// The last member took the place of a removed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) owner: NodeIx,
    pub(crate) slot: u32,
}

/// A topic's name and members.
#[derive(Debug)]
pub(crate) struct Roster {
    pub(crate) name: Topic,
    members: Vec<Member>,
    shares: SmallVec<[Share; 2]>,
    /// Different keys, of all owners.
    keys: u32,
    runs: Option<Box<Runs>>,
    /// Whether the topic is kept without members.
    pub(crate) pinned: bool,
}

/// The members with one key, chained.
#[derive(Debug)]
struct Runs {
    heads: Lookup<u64, u32>,
    /// The previous and next member with the same key; the same length as the members.
    links: Vec<(u32, u32)>,
}

impl Roster {
    pub(crate) fn new(name: Topic) -> Self {
        Self {
            name,
            members: Vec::new(),
            shares: SmallVec::new(),
            keys: 0,
            runs: None,
            pinned: false,
        }
    }

    /// Adds an entry whose key has the hash `key`, and returns its place. `seed` is for the index.
    pub(crate) fn insert(&mut self, owner: NodeIx, slot: u32, key: u64, seed: u64) -> u32 {
        let pos = u32::try_from(self.members.len()).unwrap_or(NIL);
        self.keys += u32::from(!self.has(key));
        if self.members.is_empty() {
            // Most topics have few members, and many have one.
            self.members.reserve_exact(1);
        }
        self.members.push(Member { slot, owner, told: false, key });
        match self.shares.iter_mut().find(|share| share.owner == owner) {
            Some(share) => share.entries += 1,
            None => self.shares.push(Share { owner, entries: 1 }),
        }
        if let Some(runs) = &mut self.runs {
            runs.push(key);
        } else if self.members.len() > SCAN_MAX {
            let mut runs = Runs { heads: Lookup::new(seed), links: Vec::new() };
            for member in &self.members {
                runs.push(member.key);
            }
            self.runs = Some(Box::new(runs));
        }
        pos
    }

    /// Removes the entry at `pos`; another one may have to be told its new place, `pos`.
    pub(crate) fn remove(&mut self, pos: u32) -> Option<Moved> {
        let index = pos as usize;
        let gone = *self.members.get(index)?;
        if let Some(runs) = &mut self.runs {
            runs.swap_remove(index, &self.members);
        }
        self.members.swap_remove(index);
        if let Some(at) = self.shares.iter().position(|share| share.owner == gone.owner) {
            self.shares[at].entries -= 1;
            if self.shares[at].entries == 0 {
                self.shares.swap_remove(at);
            }
        }
        self.keys -= u32::from(!self.has(gone.key));
        if self.members.len() < SCAN_MAX / 2 {
            self.runs = None;
        }
        if self.members.capacity() > 64 && self.members.len() < self.members.capacity() / 4 {
            self.members.shrink_to(self.members.len() * 2);
        }
        self.members.get(index).map(|moved| Moved { owner: moved.owner, slot: moved.slot })
    }

    /// The members with a key of this hash: nearly always all have the same key.
    pub(crate) fn find(&self, key: u64) -> SmallVec<[Member; 4]> {
        match &self.runs {
            None => self.members.iter().filter(|member| member.key == key).copied().collect(),
            Some(runs) => {
                runs.chain(key).filter_map(|at| self.members.get(at as usize)).copied().collect()
            }
        }
    }

    fn has(&self, key: u64) -> bool {
        match &self.runs {
            None => self.members.iter().any(|member| member.key == key),
            Some(runs) => runs.heads.get(&key).is_some(),
        }
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn members_mut(&mut self) -> &mut [Member] {
        &mut self.members
    }

    pub(crate) fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// Different keys, of all owners, hidden ones too.
    pub(crate) fn keys(&self) -> u32 {
        self.keys
    }

    /// Different keys of the members that pass. O(members).
    pub(crate) fn keys_where(&self, pass: impl Fn(&Member) -> bool) -> usize {
        let mut keys: Vec<u64> =
            self.members.iter().filter(|m| pass(m)).map(|member| member.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.len()
    }
}

impl Runs {
    /// Follows the member that was just added.
    fn push(&mut self, key: u64) {
        let at = u32::try_from(self.links.len()).unwrap_or(NIL);
        let next = self.heads.insert(key, at).unwrap_or(NIL);
        self.set_prev(next, at);
        self.links.push((NIL, next));
    }

    /// Follows `swap_remove(index)`, just before it.
    fn swap_remove(&mut self, index: usize, members: &[Member]) {
        let (prev, next) = self.links[index];
        self.set_next(members[index].key, prev, next);
        self.set_prev(next, prev);
        // Unlinked; now the last one moves here.
        let last = self.links.len() - 1;
        if last != index {
            let (prev, next) = self.links[last];
            let here = u32::try_from(index).unwrap_or(NIL);
            self.set_next(members[last].key, prev, here);
            self.set_prev(next, here);
        }
        self.links.swap_remove(index);
    }

    fn set_next(&mut self, key: u64, at: u32, next: u32) {
        match self.links.get_mut(at as usize) {
            Some(link) => link.1 = next,
            None if next == NIL => drop(self.heads.remove(&key)),
            None => drop(self.heads.insert(key, next)),
        }
    }

    fn set_prev(&mut self, at: u32, prev: u32) {
        if let Some(link) = self.links.get_mut(at as usize) {
            link.0 = prev;
        }
    }

    fn chain(&self, key: u64) -> impl Iterator<Item = u32> {
        let head = self.heads.get(&key).copied();
        std::iter::successors(head, |at| {
            self.links.get(*at as usize).map(|link| link.1).filter(|next| *next != NIL)
        })
    }
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
                        model.get(at).map(|m| Moved { owner: NodeIx(m.1), slot: m.0 });
                    prop_assert_eq!(moved, expected);
                } else {
                    let pos = roster.insert(NodeIx(owner), slot, key, 1);
                    prop_assert_eq!(pos as usize, model.len());
                    model.push((slot, owner, key));
                }
                let keys: BTreeSet<_> = model.iter().map(|m| m.2).collect();
                prop_assert_eq!(roster.keys() as usize, keys.len());
                for key in 0..6 {
                    let found: BTreeSet<_> = roster.find(key).iter().map(|m| m.slot).collect();
                    let expected: BTreeSet<_> =
                        model.iter().filter(|m| m.2 == key).map(|m| m.0).collect();
                    prop_assert_eq!(found, expected);
                }
                for owner in 0..3 {
                    let share = roster.shares().iter().find(|s| s.owner == NodeIx(owner));
                    let expected = model.iter().filter(|m| m.1 == owner).count();
                    prop_assert_eq!(share.map_or(0, |s| s.entries) as usize, expected);
                }
            }
        }
    }
}

//! One writer's log: what each of its slots holds, in the order of the last changes.
//!
//! The owner and every replica of it keep the same structure. A slot that changes moves to the
//! end of the order, so the log has one place per live slot however often it changes, and what a
//! reader at position `p` misses is the end of the order, down to `p`. What is gone leaves a
//! tombstone in a ring; what the ring has dropped is below the `horizon`, and said by a bitmap of
//! the slots that live ([`serve`]).

mod serve;

use std::collections::VecDeque;

use crate::{index::TopicId, range::Pair, table::Table};

/// No slot.
const NIL: u32 = u32::MAX;

/// Changes between two marks of the order.
const MARK_EVERY: usize = 256;

/// One owner's log in one shard, at its owner or at a replica.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    v: u64,
    horizon: u64,
    checksum: u64,
    slots: Table<Slot>,
    ends: Option<Ends>,
    live: usize,
    ring: VecDeque<Tombstone>,
    /// Some places of the order, by rising sequence number. One is stale once its slot changed.
    marks: Vec<Mark>,
    unmarked: usize,
}

/// A place for one tenant at a time.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The last change; 0 in an empty slot.
    pub(crate) seq: u64,
    /// The tenant's first change.
    pub(crate) born: u64,
    prev: u32,
    next: u32,
    pub(crate) held: Held,
}

/// What a slot holds.
#[derive(Debug)]
pub(crate) enum Held {
    Presence {
        topic: TopicId,
        /// Where the topic's members list the entry.
        pos: u32,
        pair: Pair,
    },
    Interest {
        hash: u64,
    },
}

/// A tenant that was taken out of its slot.
#[derive(Debug)]
pub(crate) struct Former {
    pub(crate) seq: u64,
    pub(crate) born: u64,
    pub(crate) held: Held,
}

impl Former {
    /// As [`Slot::version`].
    pub(crate) fn version(&self) -> u64 {
        version_of(self.seq, &self.held)
    }
}

fn version_of(seq: u64, held: &Held) -> u64 {
    match held {
        Held::Presence { pair, .. } => pair.version().unwrap_or(seq),
        Held::Interest { .. } => seq,
    }
}

/// The slots changed longest ago and last.
#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
}

#[derive(Clone, Copy, Debug)]
struct Tombstone {
    seq: u64,
    slot: u32,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    seq: u64,
    slot: u32,
}

impl Slot {
    const EMPTY: Self =
        Self { seq: 0, born: 0, prev: NIL, next: NIL, held: Held::Interest { hash: 0 } };

    fn is_live(&self) -> bool {
        self.seq > 0
    }

    /// The change that the tenant's reference is of: the last one, but for its detaching.
    pub(crate) fn version(&self) -> u64 {
        version_of(self.seq, &self.held)
    }
}

impl Feed {
    /// Takes the tenant out of a slot, leaving no trace: a change or a tombstone must follow,
    /// unless a bitmap said it.
    pub(crate) fn take(&mut self, at: u32) -> Option<Former> {
        let slot = self.slots.get_mut(at as usize).filter(|slot| slot.is_live())?;
        let Slot { seq, born, prev, next, held } = std::mem::replace(slot, Slot::EMPTY);
        self.link(prev, next);
        self.live -= 1;
        self.checksum = self.checksum.wrapping_sub(mix(at, seq));
        Some(Former { seq, born, held })
    }

    /// Puts a tenant into an empty slot, as the last change.
    pub(crate) fn append(&mut self, at: u32, seq: u64, born: u64, held: Held) {
        let index = at as usize;
        self.slots.grow_to(index + 1, || Slot::EMPTY);
        debug_assert!(!self.slots[index].is_live(), "a slot has one tenant");
        let prev = self.ends.map_or(NIL, |ends| ends.last);
        self.slots[index] = Slot { seq, born, prev, next: NIL, held };
        let first = match self.ends {
            Some(ends) => {
                self.slots[ends.last as usize].next = at;
                ends.first
            }
            None => at,
        };
        self.ends = Some(Ends { first, last: at });
        self.live += 1;
        self.checksum = self.checksum.wrapping_add(mix(at, seq));
        self.v = self.v.max(seq);
        self.unmarked += 1;
        if self.unmarked >= MARK_EVERY {
            self.mark(Mark { seq, slot: at });
        }
    }

    /// Remembers that a slot was emptied by the change `seq`.
    pub(crate) fn bury(&mut self, slot: u32, seq: u64) {
        self.ring.push_back(Tombstone { seq, slot });
        self.v = self.v.max(seq);
    }

    /// Forgets the oldest tombstones beyond `capacity`.
    pub(crate) fn trim(&mut self, capacity: usize) {
        while self.ring.len() > capacity {
            let Some(oldest) = self.ring.pop_front() else {
                break;
            };
            self.horizon = self.horizon.max(oldest.seq);
        }
    }

    /// Everything up to `to` is reflected; removals up to `horizon` may not be in the ring.
    pub(crate) fn advance(&mut self, to: u64, horizon: u64) {
        self.v = self.v.max(to);
        self.horizon = self.horizon.max(horizon);
    }

    /// Forgets where the topic lists a slot's entry, and learns it anew.
    pub(crate) fn relocate(&mut self, at: u32, to: u32) {
        let held = self.slots.get_mut(at as usize).map(|slot| &mut slot.held);
        if let Some(Held::Presence { pos, .. }) = held {
            *pos = to;
        }
    }

    /// Knows nothing of the log any more; its slots are still to be emptied.
    pub(crate) fn disown(&mut self) {
        self.v = 0;
        self.horizon = 0;
        self.ring.clear();
    }

    /// Numbers the live slots 1, 2, … in their order, as if they were put just now by a new run
    /// of the owner that never removed anything.
    pub(crate) fn renumber(&mut self) {
        let order: Vec<u32> = self.live().map(|(at, _)| at).collect();
        self.v = 0;
        self.horizon = 0;
        self.checksum = 0;
        self.ring.clear();
        for at in order {
            self.v += 1;
            let slot = &mut self.slots[at as usize];
            (slot.seq, slot.born) = (self.v, self.v);
            if let Held::Presence { pair, .. } = &mut slot.held
                && pair.version().is_some()
            {
                *pair = pair.detached(self.v);
            }
            self.checksum = self.checksum.wrapping_add(mix(at, self.v));
        }
        self.remark();
    }

    /// The position: all changes up to it are reflected.
    pub(crate) fn v(&self) -> u64 {
        self.v
    }

    /// A sum over all live slots and their sequence numbers: equal for equal contents.
    pub(crate) fn checksum(&self) -> u64 {
        self.checksum
    }

    /// Live slots.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Slots in use or used before: the next fresh one.
    pub(crate) fn width(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(NIL)
    }

    /// A live slot.
    pub(crate) fn slot(&self, at: u32) -> Option<&Slot> {
        self.slots.get(at as usize).filter(|slot| slot.is_live())
    }

    /// The live slot whose last change is the oldest.
    pub(crate) fn oldest(&self) -> Option<u32> {
        self.ends.map(|ends| ends.first)
    }

    /// The live slots, in the order of their last changes.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.live_from(self.oldest())
    }

    fn live_from(&self, start: Option<u32>) -> impl Iterator<Item = (u32, &Slot)> {
        let mut at = start.unwrap_or(NIL);
        std::iter::from_fn(move || {
            let slot = self.slots.get(at as usize)?;
            let found = (at, slot);
            at = slot.next;
            Some(found)
        })
    }

    /// The live slot with the lowest sequence number above `seq`.
    fn after(&self, seq: u64) -> Option<u32> {
        // A reader that keeps up is near the end.
        let mut found = None;
        let mut at = self.ends.map_or(NIL, |ends| ends.last);
        for _ in 0..MARK_EVERY {
            match self.slots.get(at as usize) {
                Some(slot) if slot.seq > seq => (found, at) = (Some(at), slot.prev),
                Some(_) | None => return found,
            }
        }
        let below = &self.marks[..self.marks.partition_point(|mark| mark.seq <= seq)];
        let valid = below
            .iter()
            .rev()
            .find(|mark| self.slot(mark.slot).is_some_and(|slot| slot.seq == mark.seq));
        let start = valid.map(|mark| mark.slot).or(self.oldest());
        self.live_from(start).find(|(_, slot)| slot.seq > seq).map(|(at, _)| at)
    }

    fn link(&mut self, prev: u32, next: u32) {
        if let Some(slot) = self.slots.get_mut(prev as usize) {
            slot.next = next;
        }
        if let Some(slot) = self.slots.get_mut(next as usize) {
            slot.prev = prev;
        }
        let Some(mut ends) = self.ends else { return };
        if prev == NIL {
            ends.first = next;
        }
        if next == NIL {
            ends.last = prev;
        }
        self.ends = (ends.first != NIL).then_some(ends);
    }

    fn mark(&mut self, mark: Mark) {
        self.marks.push(mark);
        self.unmarked = 0;
        // Most of so many are stale; a walk over all is paid for by the changes since the last.
        if self.marks.len() > 2 * (self.live / MARK_EVERY) + 16 {
            self.remark();
        }
    }

    fn remark(&mut self) {
        let places = self.live().step_by(MARK_EVERY);
        self.marks = places.map(|(slot, held)| Mark { seq: held.seq, slot }).collect();
        self.unmarked = 0;
    }
}

/// Spreads a slot and a sequence number over 64 bits (the finisher of SplitMix64). Releases agree
/// on it.
fn mix(slot: u32, seq: u64) -> u64 {
    let mut word = seq ^ u64::from(slot).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interest(hash: u64) -> Held {
        Held::Interest { hash }
    }

    fn seqs(feed: &Feed) -> Vec<u64> {
        feed.live().map(|(_, slot)| slot.seq).collect()
    }

    #[test]
    fn a_slot_is_small() {
        assert_eq!(size_of::<Slot>(), 48);
    }

    #[test]
    fn a_change_moves_to_the_end() {
        let mut feed = Feed::default();
        for at in 0..3 {
            feed.append(at, u64::from(at) + 1, u64::from(at) + 1, interest(7));
        }
        assert_eq!(seqs(&feed), [1, 2, 3]);
        let former = feed.take(1).unwrap();
        assert_eq!((former.seq, former.born), (2, 2));
        feed.append(1, 4, 2, former.held);
        assert_eq!(seqs(&feed), [1, 3, 4]);
        assert!(feed.take(0).is_some());
        feed.bury(0, 5);
        assert_eq!(seqs(&feed), [3, 4]);
        assert!(feed.take(0).is_none());
        assert_eq!((feed.v(), feed.len()), (5, 2));
    }

    #[test]
    fn equal_contents_have_equal_checksums_whatever_came_before() {
        let (mut a, mut b) = (Feed::default(), Feed::default());
        a.append(0, 1, 1, interest(1));
        a.append(1, 2, 2, interest(2));
        a.take(0);
        a.bury(0, 3);
        b.append(1, 2, 2, interest(2));
        assert_eq!(a.checksum(), b.checksum());
        b.take(1);
        assert_eq!(b.checksum(), 0);
    }

    #[test]
    fn any_position_is_found_among_many_changes() {
        let mut feed = Feed::default();
        let mut seq = 0;
        for round in 0..6_u32 {
            for at in (0..3000).filter(|at| round == 0 || at % (round + 1) == 0) {
                feed.take(at);
                seq += 1;
                feed.append(at, seq, seq, interest(1));
            }
        }
        let order = seqs(&feed);
        for probe in 0..=seq {
            let found = feed.after(probe).map(|at| feed.slots[at as usize].seq);
            assert_eq!(found, order.iter().copied().find(|seq| *seq > probe), "after {probe}");
        }
        assert!(feed.marks.len() < 3000 / MARK_EVERY * 2 + 17);
    }

    #[test]
    fn a_dropped_tombstone_raises_the_horizon() {
        let mut feed = Feed::default();
        for seq in 1..=4 {
            feed.bury(0, seq);
        }
        feed.trim(1);
        assert_eq!((feed.horizon, feed.ring.len()), (3, 1));
    }

    #[test]
    fn renumbering_keeps_the_order() {
        let mut feed = Feed::default();
        for (at, seq) in [(5, 10), (2, 20), (9, 30)] {
            feed.append(at, seq, seq, interest(1));
        }
        feed.bury(7, 31);
        feed.trim(0);
        feed.renumber();
        let numbered: Vec<_> = feed.live().map(|(at, slot)| (at, slot.seq, slot.born)).collect();
        assert_eq!(numbered, [(5, 1, 1), (2, 2, 2), (9, 3, 3)]);
        assert_eq!((feed.v(), feed.horizon), (3, 0));
    }
}

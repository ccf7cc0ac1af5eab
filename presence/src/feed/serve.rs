//! What a reader at some position misses, cut into messages.

use std::collections::BTreeMap;

use super::{Feed, Held, Slot, Tombstone};
use crate::{
    index::{Index, TopicId},
    range::{Bitmap, Op, Range, Value},
};

/// Bytes that a range with a bitmap may have: a message is 64 KiB, and one entry of the largest
/// size may come on top of what is counted here.
const BYTES_WITH_BITMAP_MAX: usize = 46 * 1024;

/// Bytes of one operation beside key, meta and topic: tags and numbers at their longest.
const OP_BYTES: usize = 32;

impl Feed {
    /// The changes after `from`, about `max_bytes` of them once encoded but at least one; `None`
    /// for a reader that is not behind.
    ///
    /// A range with a bitmap carries four times as many bytes of changes, where a message has
    /// room for them: a long catch-up needs the bitmap every time.
    pub(crate) fn serve(
        &self,
        from: u64,
        max_bytes: usize,
        (incarnation, head): (u64, u64),
        index: &Index,
    ) -> Option<Range> {
        if from >= self.v {
            return None;
        }
        let retain = (0 < from && from < self.horizon).then(|| self.tenants_at(from));
        let spent = retain.as_ref().map_or(0, |bits| 9 * bits.0.len());
        let room = (4 * spent).min(BYTES_WITH_BITMAP_MAX.saturating_sub(spent));
        let mut cut = Cut::new(max_bytes.saturating_sub(spent).max(room));
        let first_dead = self.ring.partition_point(|tombstone| tombstone.seq <= from);
        let mut dead = self.ring.range(first_dead..).peekable();
        let mut live = self.live_from(self.after(from)).peekable();
        let mut whole = true;
        loop {
            let dead_first = match (dead.peek(), live.peek()) {
                (None, None) => break,
                (Some(tombstone), Some((_, slot))) => tombstone.seq < slot.seq,
                (dead, _) => dead.is_some(),
            };
            let fits = if dead_first {
                dead.next().is_none_or(|tombstone| cut.remove(*tombstone))
            } else {
                live.next().is_none_or(|(at, slot)| cut.put(at, slot, index))
            };
            if !fits {
                whole = false;
                break;
            }
        }
        let last = cut.ops.last().map_or(self.v, Op::seq);
        Some(Range {
            incarnation,
            from,
            to: if whole { self.v } else { last },
            head: head.max(self.v),
            horizon: self.horizon,
            retain,
            topics: cut.topics,
            ops: cut.ops,
        })
    }

    /// The slots whose tenant was there at `seq` and is there still.
    fn tenants_at(&self, seq: u64) -> Bitmap {
        let mut bits = Bitmap::default();
        for (at, slot) in (0..).zip(self.slots.iter()) {
            if slot.is_live() && slot.born <= seq {
                bits.insert(at);
            }
        }
        bits
    }
}

/// A range being filled.
struct Cut {
    left: usize,
    topics: Vec<crate::Topic>,
    numbers: BTreeMap<TopicId, u32>,
    ops: Vec<Op>,
}

impl Cut {
    fn new(bytes: usize) -> Self {
        Self { left: bytes, topics: Vec::new(), numbers: BTreeMap::new(), ops: Vec::new() }
    }

    /// Whether the operation was taken; the first always is.
    fn remove(&mut self, tombstone: Tombstone) -> bool {
        let fits = self.spend(OP_BYTES);
        if fits {
            self.ops.push(Op::Remove { slot: tombstone.slot, seq: tombstone.seq });
        }
        fits
    }

    fn put(&mut self, at: u32, slot: &Slot, index: &Index) -> bool {
        let value = match &slot.held {
            Held::Interest { hash } => {
                if !self.spend(OP_BYTES) {
                    return false;
                }
                Value::Interest { hash: *hash }
            }
            Held::Presence { topic, pair, .. } => {
                let Some(name) = index.name(*topic) else {
                    return true;
                };
                let named = self.numbers.get(topic).copied();
                let name_bytes = if named.is_some() { 0 } else { name.as_str().len() + 4 };
                if !self.spend(OP_BYTES + pair.0.len() + name_bytes) {
                    return false;
                }
                let number = named.unwrap_or_else(|| {
                    let number = u32::try_from(self.topics.len()).unwrap_or(u32::MAX);
                    self.topics.push(name.clone());
                    self.numbers.insert(*topic, number);
                    number
                });
                Value::Presence { topic: number, kv: pair.0.clone() }
            }
        };
        self.ops.push(Op::Put { slot: at, seq: slot.seq, born: slot.born, value });
        true
    }

    fn spend(&mut self, bytes: usize) -> bool {
        let fits = self.ops.is_empty() || bytes <= self.left;
        if fits {
            self.left = self.left.saturating_sub(bytes);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(hash: u64) -> Held {
        Held::Interest { hash }
    }

    fn serve(feed: &Feed, from: u64, max_bytes: usize) -> Option<Range> {
        feed.serve(from, max_bytes, (1, 0), &Index::new(0))
    }

    /// Slots 0, 1, 2 put by 1, 2, 3; slot 1 emptied by 4 and put again by 5.
    fn feed() -> Feed {
        let mut feed = Feed::default();
        for at in 0..3 {
            feed.append(at, u64::from(at) + 1, u64::from(at) + 1, held(u64::from(at) + 1));
        }
        feed.take(1);
        feed.bury(1, 4);
        feed.append(1, 5, 5, held(9));
        feed
    }

    #[test]
    fn a_range_names_each_slot_once_and_every_removal() {
        let range = serve(&feed(), 0, 10_000).unwrap();
        assert_eq!(range.ops.iter().map(Op::seq).collect::<Vec<_>>(), [1, 3, 4, 5]);
        assert_eq!((range.to, range.head, range.retain), (5, 5, None));
        assert_eq!(serve(&feed(), 5, 10_000), None);
        assert_eq!(serve(&feed(), 99, 10_000), None);
    }

    #[test]
    fn a_cut_range_ends_at_its_last_operation() {
        let range = serve(&feed(), 0, 1).unwrap();
        assert_eq!((range.from, range.to, range.head, range.ops.len()), (0, 1, 5, 1));
        let range = serve(&feed(), 1, 2 * OP_BYTES).unwrap();
        assert_eq!((range.from, range.to, range.ops.len()), (1, 4, 2));
    }

    #[test]
    fn a_reader_below_the_horizon_gets_the_bitmap() {
        let mut feed = feed();
        feed.trim(0);
        assert_eq!(serve(&feed, 0, 10_000).unwrap().retain, None);
        // Slot 1 has another tenant than at 2.
        assert_eq!(serve(&feed, 2, 10_000).unwrap().retain, Some(Bitmap(vec![0b1])));
        assert_eq!(serve(&feed, 4, 10_000).unwrap().retain, None);
        // An update is by the tenant that was there.
        let former = feed.take(0).unwrap();
        feed.append(0, 6, former.born, former.held);
        assert_eq!(serve(&feed, 2, 10_000).unwrap().retain, Some(Bitmap(vec![0b1])));
    }

    #[test]
    fn the_largest_bitmap_and_the_largest_entry_fit_one_message() {
        let mut feed = Feed::default();
        for at in 0..crate::SLOTS_MAX {
            feed.append(at, u64::from(at) + 1, u64::from(at) + 1, held(1));
        }
        feed.bury(0, u64::from(crate::SLOTS_MAX) + 1);
        feed.trim(0);
        let range = serve(&feed, u64::from(crate::SLOTS_MAX) - 5000, 16 * 1024).unwrap();
        assert!(range.validate().is_ok());
        let bitmap = 9 * range.retain.unwrap().0.len();
        let entry = OP_BYTES + 11 + crate::KEY_LEN_MAX + crate::META_LEN_MAX + 4 + 512;
        let header = 100;
        assert!(bitmap + (range.ops.len() - 1) * OP_BYTES + entry + header <= 64 * 1024);
    }
}

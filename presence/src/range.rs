//! A stretch of one owner's log, as it travels between nodes.

use std::ops::RangeInclusive;

use crate::{KEY_LEN_MAX, META_LEN_MAX, SLOTS_MAX, Topic};

/// No sequence number is above it: an owner would need 10,000 years at a change a nanosecond.
const SEQ_MAX: u64 = u64::MAX >> 1;

/// All that happened in one owner's log after `from`, up to and with `to`.
///
/// Of a slot that changed more than once only the last change is in it, so the sequence numbers
/// have gaps, but nothing in between is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The owner's run.
    pub incarnation: u64,
    /// The position that the range continues.
    pub from: u64,
    /// The position after it.
    pub to: u64,
    /// The highest position of the owner that the sender knows of.
    pub head: u64,
    /// Removals up to this sequence number may be missing from `ops`.
    pub horizon: u64,
    /// Given when `0 < from < horizon`: a bit for each slot whose tenant at `from` still lives.
    /// It says for the missing removals what they would have said.
    pub retain: Option<Bitmap>,
    /// The topics that `ops` refer to.
    pub topics: Vec<Topic>,
    /// The changes, in the order of their sequence numbers.
    pub ops: Vec<Op>,
}

/// One bit a slot, slot 0 in the lowest bit of the first word. Slots beyond the end are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap(
    /// The words.
    pub Vec<u64>,
);

/// One change of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The slot holds this value, whatever it held before.
    Put {
        /// The slot.
        slot: u32,
        /// The change's sequence number.
        seq: u64,
        /// The sequence number of the first change of this tenant: an update keeps it.
        born: u64,
        /// The value.
        value: Value,
    },
    /// The slot is empty.
    Remove {
        /// The slot.
        slot: u32,
        /// The change's sequence number.
        seq: u64,
    },
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An entry of a topic.
    Presence {
        /// Index into [`Range::topics`].
        topic: u32,
        /// The key's length (2 bytes, little endian), the key, the meta. The length's highest bit says
        /// that the entry is *detached*: its client's socket is gone. Then the sequence number that its
        /// reference is of (8 bytes, little endian) stands before the key.
        kv: Box<[u8]>,
    },
    /// The owner wants the broadcasts of a topic.
    Interest {
        /// [`Topic::hash64`], or [`crate::INTEREST_ALL`].
        hash: u64,
    },
}

/// Why a [`Range`] cannot have come from a sound sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRange {
    /// Not `from <= to <= head`, not `horizon <= head`, or absurdly high.
    #[error("positions contradict each other")]
    Positions,
    /// The bitmap is missing, not wanted, or longer than any owner has slots.
    #[error("retain bitmap is missing, unwanted or too long")]
    Retain,
    /// The sequence numbers do not rise, or leave the range.
    #[error("operation {seq} is out of order or range")]
    Order {
        /// The operation's sequence number.
        seq: u64,
    },
    /// A slot at or over [`SLOTS_MAX`].
    #[error("slot {slot}, limit {SLOTS_MAX}")]
    Slot {
        /// The slot.
        slot: u32,
    },
    /// An operation names a topic that is not in the table, or the table is too long.
    #[error("topic table does not fit the operations")]
    Topics,
    /// A key and meta that are cut short, too long, or not UTF-8.
    #[error("key and meta of operation {seq} are malformed")]
    Pair {
        /// The operation's sequence number.
        seq: u64,
    },
}

impl Bitmap {
    /// Whether the slot's bit is set.
    pub fn contains(&self, slot: u32) -> bool {
        self.0.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// Sets the slot's bit.
    pub(crate) fn insert(&mut self, slot: u32) {
        let word = slot as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (slot % 64);
    }
}

impl Op {
    /// The change's sequence number.
    pub fn seq(&self) -> u64 {
        match self {
            Self::Put { seq, .. } | Self::Remove { seq, .. } => *seq,
        }
    }

    /// The changed slot.
    pub fn slot(&self) -> u32 {
        match self {
            Self::Put { slot, .. } | Self::Remove { slot, .. } => *slot,
        }
    }
}

impl Range {
    /// Whether removals may be missing, so that only a replica at exactly `from` may apply it.
    pub(crate) fn is_exact(&self) -> bool {
        self.from < self.horizon
    }

    /// Checks everything that can be checked without knowing the owner.
    pub(crate) fn validate(&self) -> Result<(), InvalidRange> {
        if self.from > self.to || self.to.max(self.horizon) > self.head || self.head > SEQ_MAX {
            return Err(InvalidRange::Positions);
        }
        let wanted = self.from > 0 && self.is_exact();
        let fits = |bits: &Bitmap| bits.0.len() <= SLOTS_MAX as usize / 64;
        if self.retain.is_some() != wanted || !self.retain.as_ref().is_none_or(fits) {
            return Err(InvalidRange::Retain);
        }
        if self.topics.len() > self.ops.len() {
            return Err(InvalidRange::Topics);
        }
        let mut last = self.from;
        for op in &self.ops {
            if op.seq() <= last || op.seq() > self.to {
                return Err(InvalidRange::Order { seq: op.seq() });
            }
            last = op.seq();
            self.validate_op(op)?;
        }
        Ok(())
    }

    fn validate_op(&self, op: &Op) -> Result<(), InvalidRange> {
        if op.slot() >= SLOTS_MAX {
            return Err(InvalidRange::Slot { slot: op.slot() });
        }
        let Op::Put { seq, born, value, .. } = op else {
            return Ok(());
        };
        if *born == 0 || born > seq {
            return Err(InvalidRange::Order { seq: *seq });
        }
        let Value::Presence { topic, kv } = value else {
            return Ok(());
        };
        if *topic as usize >= self.topics.len() {
            return Err(InvalidRange::Topics);
        }
        let is_sound = Pair::is_sound(kv, *born..=*seq);
        if is_sound { Ok(()) } else { Err(InvalidRange::Pair { seq: *seq }) }
    }
}

/// A key and a meta in one allocation, laid out as in [`Value::Presence`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair(pub(crate) Box<[u8]>);

/// Beside a key's length: the entry's client's socket is gone. No key is that long.
const DETACHED: u16 = 1 << 15;

const _: () = assert!(KEY_LEN_MAX < DETACHED as usize);

impl Pair {
    /// The caller has checked the lengths.
    pub(crate) fn new(key: &str, meta: &[u8]) -> Self {
        Self::lay_out(key, meta, None)
    }

    /// The same, of a client whose socket is gone. Its reference stays that of the change `version`.
    pub(crate) fn detached(&self, version: u64) -> Self {
        Self::lay_out(self.key(), self.meta(), Some(version))
    }

    fn lay_out(key: &str, meta: &[u8], version: Option<u64>) -> Self {
        let len = u16::try_from(key.len()).unwrap_or(DETACHED - 1);
        let len = if version.is_some() { len | DETACHED } else { len }.to_le_bytes();
        let version = version.map(u64::to_le_bytes);
        let version = version.as_ref().map_or(&[][..], |bytes| bytes);
        Self([&len[..], version, key.as_bytes(), meta].concat().into_boxed_slice())
    }

    pub(crate) fn key(&self) -> &str {
        let key = Parts::of(&self.0).map(|parts| parts.key);
        key.and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default()
    }

    pub(crate) fn meta(&self) -> &[u8] {
        Parts::of(&self.0).map(|parts| parts.meta).unwrap_or_default()
    }

    /// Of a detached entry: the change that its reference is of.
    pub(crate) fn version(&self) -> Option<u64> {
        Parts::of(&self.0)?.version
    }

    fn is_sound(kv: &[u8], tenancy: RangeInclusive<u64>) -> bool {
        Parts::of(kv).is_some_and(|parts| {
            parts.key.len() <= KEY_LEN_MAX
                && parts.meta.len() <= META_LEN_MAX
                && parts.version.is_none_or(|version| tenancy.contains(&version))
                && std::str::from_utf8(parts.key).is_ok()
        })
    }
}

/// What [`Value::Presence`] is laid out from.
struct Parts<'a> {
    version: Option<u64>,
    key: &'a [u8],
    meta: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(kv: &'a [u8]) -> Option<Self> {
        let (len, rest) = kv.split_first_chunk::<2>()?;
        let len = u16::from_le_bytes(*len);
        let (version, rest) = if len & DETACHED == 0 {
            (None, rest)
        } else {
            let (version, rest) = rest.split_first_chunk::<8>()?;
            (Some(u64::from_le_bytes(*version)), rest)
        };
        let (key, meta) = rest.split_at_checked(usize::from(len & !DETACHED))?;
        Some(Self { version, key, meta })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(slot: u32, seq: u64) -> Op {
        let value = Value::Presence { topic: 0, kv: Pair::new("k", b"{}").0 };
        Op::Put { slot, seq, born: seq, value }
    }

    fn sound() -> Range {
        Range {
            incarnation: 1,
            from: 4,
            to: 9,
            head: 12,
            horizon: 6,
            retain: Some(Bitmap(vec![0b101])),
            topics: vec!["t".parse().unwrap()],
            ops: vec![put(0, 5), Op::Remove { slot: 1, seq: 7 }, put(1, 9)],
        }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Range), why: InvalidRange) {
        let mut range = sound();
        change(&mut range);
        assert_eq!(range.validate(), Err(why));
    }

    #[test]
    fn a_sound_range_is_accepted() {
        assert_eq!(sound().validate(), Ok(()));
    }

    #[test]
    fn a_detached_pair_keeps_key_and_meta() {
        let pair = Pair::new("key", b"{}").detached(5);
        assert_eq!((pair.key(), pair.meta(), pair.version()), ("key", &b"{}"[..], Some(5)));
        assert_eq!(Pair::new("key", b"{}").version(), None);
        let value = Value::Presence { topic: 0, kv: pair.0 };
        let mut range = sound();
        range.ops[0] = Op::Put { slot: 0, seq: 5, born: 5, value };
        assert_eq!(range.validate(), Ok(()));
    }

    #[test]
    fn positions_must_agree() {
        refused(|r| r.from = 10, InvalidRange::Positions);
        refused(|r| r.head = 8, InvalidRange::Positions);
        refused(|r| r.horizon = 13, InvalidRange::Positions);
        refused(|r| r.head = u64::MAX, InvalidRange::Positions);
    }

    #[test]
    fn the_bitmap_comes_when_needed_and_only_then() {
        refused(|r| r.retain = None, InvalidRange::Retain);
        refused(|r| r.horizon = 4, InvalidRange::Retain);
        refused(|r| r.retain = Some(Bitmap(vec![0; 5121])), InvalidRange::Retain);
    }

    #[test]
    fn operations_rise_within_the_range() {
        refused(|r| r.ops[0] = put(0, 4), InvalidRange::Order { seq: 4 });
        refused(|r| r.ops[2] = put(0, 10), InvalidRange::Order { seq: 10 });
        refused(|r| r.ops.swap(0, 1), InvalidRange::Order { seq: 5 });
        let unborn = Op::Put { slot: 0, seq: 5, born: 6, value: Value::Interest { hash: 1 } };
        refused(|r| r.ops[0] = unborn, InvalidRange::Order { seq: 5 });
    }

    #[test]
    fn slots_topics_and_pairs_are_bounded() {
        refused(|r| r.ops[0] = put(SLOTS_MAX, 5), InvalidRange::Slot { slot: SLOTS_MAX });
        refused(|r| r.topics.clear(), InvalidRange::Topics);
        refused(|r| r.topics = vec!["t".parse().unwrap(); 4], InvalidRange::Topics);
        let detached = |version| Pair::new("k", b"{}").detached(version).0.into_vec();
        let unsound = [
            b"\x01".to_vec(),
            b"\x02\x00a".to_vec(),
            b"\x01\x00\xff".to_vec(),
            b"\x01\x80a".to_vec(),
            vec![0; 2 + META_LEN_MAX + 1],
            detached(4),
            detached(6),
        ];
        for kv in unsound {
            let value = Value::Presence { topic: 0, kv: kv.into() };
            let op = Op::Put { slot: 0, seq: 5, born: 5, value };
            refused(|r| r.ops[0] = op, InvalidRange::Pair { seq: 5 });
        }
    }
}

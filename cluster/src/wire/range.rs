//! Stretches of feeds: sequence numbers as steps, strings and values borrowed from the frame.

use std::borrow::Cow;

use bincode::{BorrowDecode, Encode};
use bytes::Bytes;
use presence::{Bitmap, Op, Range, Topic, Value};

use super::{Parts, frame, malformed};
use crate::error::WireError;

/// Operations of the sender's own feed of one shard.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FeedRange {
    pub(crate) shard: u16,
    /// Bumped by each rewind; ranges of an older one are ignored.
    pub(crate) epoch: u32,
    /// Somebody waits for the acknowledgement.
    pub(crate) ack_now: bool,
    pub(crate) range: Range,
}

#[derive(Encode, BorrowDecode)]
struct RangeHeader<'a> {
    shard: u16,
    epoch: u32,
    ack_now: bool,
    incarnation: u64,
    from: u64,
    /// to − from
    len: u64,
    /// head − to
    ahead: u64,
    horizon: u64,
    /// Words of the bitmap, little endian.
    retain: Option<Cow<'a, [u8]>>,
    topics: Vec<&'a str>,
    ops: Vec<WireOp<'a>>,
}

/// `step` counts from the sequence number before, the first from the range's start; `age` is seq − born.
#[derive(Encode, BorrowDecode)]
enum WireOp<'a> {
    Presence { slot: u32, step: u64, age: u64, topic: u32, kv: &'a [u8] },
    Interest { slot: u32, step: u64, age: u64, hash: u64 },
    Remove { slot: u32, step: u64 },
}

impl FeedRange {
    /// A frame of the kind, with `lead` before the range.
    pub(super) fn encode(&self, kind: u8, lead: impl Encode) -> Bytes {
        let range = &self.range;
        let mut before = range.from;
        let mut step = |seq: u64| {
            let step = seq.wrapping_sub(before);
            before = seq;
            step
        };
        let ops = range.ops.iter().map(|op| match op {
            Op::Put { slot, seq, born, value } => {
                let (slot, age, step) = (*slot, seq.wrapping_sub(*born), step(*seq));
                match value {
                    Value::Presence { topic, kv } => {
                        WireOp::Presence { slot, step, age, topic: *topic, kv }
                    }
                    Value::Interest { hash } => WireOp::Interest { slot, step, age, hash: *hash },
                }
            }
            Op::Remove { slot, seq } => WireOp::Remove { slot: *slot, step: step(*seq) },
        });
        let header = RangeHeader {
            shard: self.shard,
            epoch: self.epoch,
            ack_now: self.ack_now,
            incarnation: range.incarnation,
            from: range.from,
            len: range.to.wrapping_sub(range.from),
            ahead: range.head.wrapping_sub(range.to),
            horizon: range.horizon,
            ops: ops.collect(),
            retain: range
                .retain
                .as_ref()
                .map(|bitmap| bitmap.0.iter().flat_map(|word| word.to_le_bytes()).collect()),
            topics: range.topics.iter().map(Topic::as_str).collect(),
        };
        frame(kind, &(lead, header), &[])
    }

    /// The range, and what came before it.
    pub(super) fn decode<'a, L: BorrowDecode<'a, ()>>(
        parts: &Parts<'a>,
    ) -> Result<(L, Self), WireError> {
        let (lead, header): (L, RangeHeader<'_>) = parts.whole("range")?;
        let mut seq = header.from;
        let to = header.from.wrapping_add(header.len);
        let ops = header.ops.into_iter().map(|op| {
            let (WireOp::Presence { step, .. }
            | WireOp::Interest { step, .. }
            | WireOp::Remove { step, .. }) = op;
            seq = seq.wrapping_add(step);
            let put = |slot, age, value| Op::Put { slot, seq, born: seq.wrapping_sub(age), value };
            match op {
                WireOp::Presence { slot, age, topic, kv, .. } => {
                    put(slot, age, Value::Presence { topic, kv: kv.into() })
                }
                WireOp::Interest { slot, age, hash, .. } => {
                    put(slot, age, Value::Interest { hash })
                }
                WireOp::Remove { slot, .. } => Op::Remove { slot, seq },
            }
        });
        let ops = ops.collect();
        let topics = header.topics.iter().map(|name| {
            name.parse::<Topic>().map_err(|error| malformed("range", error.to_string()))
        });
        let feed = Self {
            shard: header.shard,
            epoch: header.epoch,
            ack_now: header.ack_now,
            range: Range {
                incarnation: header.incarnation,
                from: header.from,
                to,
                head: to.wrapping_add(header.ahead),
                horizon: header.horizon,
                retain: header.retain.as_deref().map(bitmap).transpose()?,
                topics: topics.collect::<Result<_, _>>()?,
                ops,
            },
        };
        Ok((lead, feed))
    }
}

fn bitmap(bytes: &[u8]) -> Result<Bitmap, WireError> {
    match bytes.as_chunks::<8>() {
        (words, []) => Ok(Bitmap(words.iter().map(|word| u64::from_le_bytes(*word)).collect())),
        (_, rest) => Err(malformed("range", format!("{} odd bytes of bitmap", rest.len()))),
    }
}

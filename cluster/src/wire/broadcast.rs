//! Broadcasts: a short header, then the payload untouched.

use bincode::{BorrowDecode, Encode};
use bytes::Bytes;

use super::{Parts, frame, ignorable, kind, malformed};
use crate::error::WireError;

/// What a broadcast's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// A JSON text.
    Json,
    /// Bytes.
    Binary,
    /// An event and a payload within the event, in bytes of the node's own.
    User,
}

/// A broadcast as it crosses between nodes; the payload follows the header untouched.
///
/// The origin is the link's peer, as broadcasts are never relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broadcast<'a> {
    /// Where to.
    pub topic: &'a str,
    /// Event name.
    pub event: &'a str,
    /// What the payload is.
    pub kind: PayloadKind,
    /// The origin's count of broadcasts in the topic's shard, from 1.
    pub sequence: u64,
}

#[derive(Encode, BorrowDecode)]
struct BroadcastHeader<'a> {
    topic: &'a str,
    event: &'a str,
    kind: u8,
    namespace: u16,
    sequence: u64,
    /// Blocks that an older release skips.
    extensions: &'a [u8],
}

/// The first part of a broadcast's frame; the raw payload is to follow it.
pub fn encode_broadcast(broadcast: &Broadcast<'_>) -> Bytes {
    let header = BroadcastHeader {
        topic: broadcast.topic,
        event: broadcast.event,
        kind: match broadcast.kind {
            PayloadKind::Json => 0,
            PayloadKind::Binary => 1,
            PayloadKind::User => 2,
        },
        namespace: 0,
        sequence: broadcast.sequence,
        extensions: &[],
    };
    frame(kind::BROADCAST, &header, &[])
}

/// Takes a broadcast's frame apart; `None` for a kind that may be ignored, and for a broadcast of
/// another namespace than the only one there is.
pub fn decode_broadcast(frame: &Bytes) -> Result<Option<(Broadcast<'_>, Bytes)>, WireError> {
    let parts = Parts::of(frame)?;
    if parts.kind != kind::BROADCAST {
        return ignorable(parts.kind).map(|()| None);
    }
    let header: BroadcastHeader<'_> = parts.header("broadcast")?;
    let kind = match header.kind {
        0 => PayloadKind::Json,
        1 => PayloadKind::Binary,
        2 => PayloadKind::User,
        other => return Err(malformed("broadcast", format!("payload kind {other}"))),
    };
    if header.namespace != 0 {
        return Ok(None);
    }
    let broadcast =
        Broadcast { topic: header.topic, event: header.event, kind, sequence: header.sequence };
    Ok(Some((broadcast, frame.slice(parts.payload_at..))))
}

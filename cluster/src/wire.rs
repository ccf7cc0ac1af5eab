//! The bytes between nodes. Only this file and those under it name bincode.
//!
//! A frame is `kind (u8) | header length | header | payload`. The length is one byte; 255 says that the
//! next four are it (u32, little endian). Headers are bincode (standard configuration, varints) under
//! a limit; payloads are raw. A receiver ignores kinds from
//! 0x80 on that it does not know, so that a later release can add what an older one may miss.
//! A header gets a new field only together with a new [`WIRE_VERSIONS`].

mod broadcast;
mod longpoll;
mod range;
mod relay;
mod request;
mod swim;

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use bincode::{BorrowDecode, Decode, Encode};
use bytes::Bytes;

pub use self::{
    broadcast::{Broadcast, PayloadKind, decode_broadcast, encode_broadcast},
    longpoll::{
        ClientFrame, SessionAnswer, SessionId, SessionRequest, decode_session_answer,
        decode_session_request, encode_session_answer, encode_session_request,
    },
    request::{
        Topics, TopicsRequest, decode_topics, decode_topics_request, encode_topics,
        encode_topics_request,
    },
};
pub(crate) use self::{
    range::FeedRange,
    relay::{Pull, PullAnswer, Relayed},
    swim::{Identity, MemberRecord, NameKey, SwimCodec},
};
use crate::error::WireError;

/// Wire versions that this release speaks.
#[cfg(not(any(feature = "wire-next", feature = "wire-only-next")))]
pub const WIRE_VERSIONS: RangeInclusive<u16> = 1..=1;
/// Wire versions of a test build that stands for the next release.
#[cfg(all(feature = "wire-next", not(feature = "wire-only-next")))]
pub const WIRE_VERSIONS: RangeInclusive<u16> = 1..=2;
/// Wire versions of a test build that stands for a release two steps ahead.
#[cfg(feature = "wire-only-next")]
pub const WIRE_VERSIONS: RangeInclusive<u16> = 2..=2;

/// Bytes of the longest header, and of what decoding one may allocate.
pub const HEADER_LEN_MAX: usize = 1 << 20;

/// Bytes of the longest frame of one core to another: what is more goes in several.
pub const FRAME_LEN_MAX: usize = 64 * 1024;

/// Bytes before a short header: kind and length.
const PREFIX_LEN: usize = 2;

/// Stands for a length that is in the next four bytes.
const LONG: u8 = 0xff;

mod kind {
    pub(super) const SWIM: u8 = 0x01;
    pub(super) const SYNC: u8 = 0x02;
    pub(super) const RANGE: u8 = 0x03;
    pub(super) const ACK: u8 = 0x04;
    pub(super) const NACK: u8 = 0x05;
    pub(super) const DIGEST: u8 = 0x06;
    pub(super) const DIGEST_REQUEST: u8 = 0x07;
    pub(super) const SUMS: u8 = 0x08;
    pub(super) const DISCONNECT: u8 = 0x09;
    pub(super) const LEAVE: u8 = 0x0a;
    pub(super) const PULL: u8 = 0x0b;
    pub(super) const PULL_ANSWER: u8 = 0x0c;
    pub(super) const PULL_END: u8 = 0x0d;
    pub(super) const RELAYED: u8 = 0x0e;
    pub(super) const MEMBERS: u8 = 0x0f;
    pub(super) const BROADCAST: u8 = 0x10;
    pub(super) const DRAINING: u8 = 0x11;
    pub(super) const TOPICS_REQUEST: u8 = 0x20;
    pub(super) const TOPICS: u8 = 0x21;
    pub(super) const SESSION_POLL: u8 = 0x22;
    pub(super) const SESSION_FRAMES: u8 = 0x23;
    pub(super) const SESSION_ANSWER: u8 = 0x24;
    /// From here on, kinds that a receiver may ignore.
    pub(super) const IGNORABLE: u8 = 0x80;
    pub(super) const DEPARTED: u8 = 0x81;
}

/// What one node says to another, but for broadcasts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    /// A packet of the membership protocol.
    Swim(Bytes),
    /// First frame of a link's control lane.
    Sync(Sync),
    /// Operations of the sender's own feed.
    Range(FeedRange),
    /// What the sender has applied of the receiver's feeds: (shard, position).
    Ack(Positions),
    /// The receiver must resume this feed of its own at `position`.
    Nack(Nack),
    /// A summary of all that the sender knows.
    Digest(Digest),
    /// The receiver's summary does not match: say more.
    DigestRequest,
    /// (head, checksum) of each of the sender's feeds.
    Sums(Sums),
    /// Close all sockets with this id.
    Disconnect(String),
    /// The sender takes no clients any more and sends its own away.
    Draining,
    /// The sender is going for good. Its entries have this lease left, in milliseconds; 0 is none.
    Leave(u64),
    /// The sender wants the feeds of a node that it has no link to.
    Pull(Pull),
    /// Whether the sender relays them.
    PullAnswer(PullAnswer),
    /// The sender does not need the pull with this number any more.
    PullEnd(u64),
    /// Operations of another node's feed, which the receiver has pulled.
    Relayed(Relayed),
    /// A node said goodbye to the sender.
    Departed(Departed),
    /// Further members that the sender knows, behind its sync.
    Members(Vec<MemberRecord>),
}

/// First frame of a link's control lane.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Sync {
    /// The sender's membership identity.
    pub(crate) identity: Identity,
    /// Free text.
    pub(crate) region: String,
    /// Release.
    pub(crate) version: String,
    /// Head of each of the sender's feeds.
    pub(crate) heads: Vec<u64>,
    /// What the sender has of the receiver's feeds; empty when of another incarnation or none.
    pub(crate) positions: Vec<u64>,
    /// Members the sender knows, as many as a frame holds; the rest follows.
    pub(crate) members: Vec<MemberRecord>,
}

/// Applied positions.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Positions {
    /// The incarnation of the receiver that the positions are of.
    pub(crate) incarnation: u64,
    /// (shard, position).
    pub(crate) positions: Vec<(u16, u64)>,
}

/// A request to resume a feed.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Nack {
    pub(crate) incarnation: u64,
    pub(crate) shard: u16,
    pub(crate) position: u64,
}

/// A summary of all that a node knows.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Digest {
    /// Hash of the vector clock over all feeds known.
    pub(crate) clock: u64,
    /// Hash over (head, checksum) of the sender's own feeds.
    pub(crate) own: u64,
}

/// (head, checksum) of each of the sender's feeds.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Sums {
    pub(crate) incarnation: u64,
    pub(crate) feeds: Vec<(u64, u64)>,
}

/// A run of a node that is gone for good.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Departed {
    pub(crate) name: String,
    pub(crate) incarnation: u64,
    /// What is left of the lease of its entries, in milliseconds; 0 is none.
    pub(crate) lease: u64,
}

// === encoding ===

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<HEADER_LEN_MAX>()
}

fn frame(kind: u8, header: &impl Encode, payload: &[u8]) -> Bytes {
    let mut frame = vec![kind, 0];
    // Writing to a Vec cannot fail, and none of our headers has a type that refuses to encode.
    let written = bincode::encode_into_std_write(header, &mut frame, bincode::config::standard());
    debug_assert!(written.is_ok(), "headers always encode");
    let len = frame.len() - PREFIX_LEN;
    frame[1] = u8::try_from(len).unwrap_or(LONG);
    if frame[1] == LONG {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        frame.splice(PREFIX_LEN..PREFIX_LEN, len.to_le_bytes());
    }
    frame.extend_from_slice(payload);
    frame.into()
}

impl Message {
    pub(crate) fn encode(&self) -> Bytes {
        match self {
            Self::Swim(packet) => frame(kind::SWIM, &(), packet),
            Self::Sync(sync) => frame(kind::SYNC, sync, &[]),
            Self::Range(range) => range.encode(kind::RANGE, ()),
            Self::Ack(positions) => frame(kind::ACK, positions, &[]),
            Self::Nack(nack) => frame(kind::NACK, nack, &[]),
            Self::Digest(digest) => frame(kind::DIGEST, digest, &[]),
            Self::DigestRequest => frame(kind::DIGEST_REQUEST, &(), &[]),
            Self::Sums(sums) => frame(kind::SUMS, sums, &[]),
            Self::Disconnect(socket_id) => frame(kind::DISCONNECT, socket_id, &[]),
            Self::Draining => frame(kind::DRAINING, &(), &[]),
            Self::Leave(lease) => frame(kind::LEAVE, lease, &[]),
            Self::Pull(pull) => frame(kind::PULL, pull, &[]),
            Self::PullAnswer(answer) => frame(kind::PULL_ANSWER, answer, &[]),
            Self::PullEnd(pull) => frame(kind::PULL_END, pull, &[]),
            Self::Departed(departed) => frame(kind::DEPARTED, departed, &[]),
            Self::Members(members) => frame(kind::MEMBERS, members, &[]),
            Self::Relayed(relayed) => relayed.feed.encode(kind::RELAYED, relayed.pull),
        }
    }

    /// Reads a frame; `None` for a kind that may be ignored.
    pub(crate) fn decode(frame: &Bytes) -> Result<Option<Self>, WireError> {
        let len = frame.len();
        if len > FRAME_LEN_MAX {
            return Err(WireError::TooLong { len, limit: FRAME_LEN_MAX });
        }
        let parts = Parts::of(frame)?;
        Ok(Some(match parts.kind {
            kind::SWIM => {
                let () = parts.header("swim")?;
                Self::Swim(frame.slice(parts.payload_at..))
            }
            kind::SYNC => Self::Sync(parts.whole("sync")?),
            kind::RANGE => {
                let ((), range) = FeedRange::decode(&parts)?;
                Self::Range(range)
            }
            kind::ACK => Self::Ack(parts.whole("ack")?),
            kind::NACK => Self::Nack(parts.whole("nack")?),
            kind::DIGEST => Self::Digest(parts.whole("digest")?),
            kind::DIGEST_REQUEST => {
                let () = parts.whole("digest request")?;
                Self::DigestRequest
            }
            kind::SUMS => Self::Sums(parts.whole("sums")?),
            kind::DISCONNECT => Self::Disconnect(parts.whole("disconnect")?),
            kind::DRAINING => {
                let () = parts.whole("draining")?;
                Self::Draining
            }
            kind::PULL => Self::Pull(parts.whole("pull")?),
            kind::PULL_ANSWER => Self::PullAnswer(parts.whole("pull answer")?),
            kind::PULL_END => Self::PullEnd(parts.whole("pull end")?),
            kind::RELAYED => {
                let (pull, feed) = FeedRange::decode(&parts)?;
                Self::Relayed(Relayed { pull, feed })
            }
            kind::MEMBERS => Self::Members(parts.whole("members")?),
            kind::LEAVE => Self::Leave(parts.whole("leave")?),
            kind::DEPARTED => Self::Departed(parts.whole("departed")?),
            other => return ignorable(other).map(|()| None),
        }))
    }
}

fn ignorable(kind: u8) -> Result<(), WireError> {
    if kind >= kind::IGNORABLE { Ok(()) } else { Err(WireError::UnknownKind { kind }) }
}

/// A frame taken apart.
struct Parts<'a> {
    kind: u8,
    header: &'a [u8],
    payload: &'a [u8],
    /// Where in the frame the payload starts.
    payload_at: usize,
}

impl<'a> Parts<'a> {
    fn of(frame: &'a [u8]) -> Result<Self, WireError> {
        let short = WireError::Short { len: frame.len() };
        let Some((&[kind, len], rest)) = frame.split_first_chunk::<PREFIX_LEN>() else {
            return Err(short);
        };
        let (len, rest) = match rest.split_first_chunk::<4>() {
            Some((long, rest)) if len == LONG => (u32::from_le_bytes(*long), rest),
            None if len == LONG => return Err(short),
            Some(_) | None => (len.into(), rest),
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > HEADER_LEN_MAX {
            return Err(WireError::TooLong { len, limit: HEADER_LEN_MAX });
        }
        let (header, payload) = rest.split_at_checked(len).ok_or(short)?;
        Ok(Self { kind, header, payload, payload_at: frame.len() - payload.len() })
    }

    /// The header of a frame that has a payload.
    fn header<T: BorrowDecode<'a, ()>>(&self, name: &'static str) -> Result<T, WireError> {
        let header = self.header;
        match bincode::borrow_decode_from_slice(header, config()) {
            Ok((value, used)) if used == header.len() => Ok(value),
            Ok((_, used)) => Err(too_many(name, header.len() - used)),
            Err(error) => Err(malformed(name, error.to_string())),
        }
    }

    /// The header of a frame that has nothing else.
    fn whole<T: BorrowDecode<'a, ()>>(&self, name: &'static str) -> Result<T, WireError> {
        match self.payload.len() {
            0 => self.header(name),
            len => Err(too_many(name, len)),
        }
    }
}

fn too_many(kind: &'static str, len: usize) -> WireError {
    malformed(kind, format!("{len} bytes too many"))
}

fn malformed(kind: &'static str, why: String) -> WireError {
    WireError::Malformed { kind, why }
}

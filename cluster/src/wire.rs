//! The bytes between nodes. The only file that names bincode.
//!
//! A frame is `kind (u8) | header length (u32, little endian) | header | payload`. Headers are bincode
//! (standard configuration, varints) under a limit; payloads are raw. A receiver ignores kinds from
//! 0x80 on that it does not know, so that a later release can add what an older one may miss.
//! A header gets a new field only together with a new [`WIRE_VERSIONS`].

use std::{net::SocketAddr, ops::RangeInclusive, sync::Arc};

use bincode::{BorrowDecode, Decode, Encode};
use bytes::{Buf, BufMut, Bytes};
use presence::{Bitmap, NodeName, Op, Range, Topic, Value};

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

/// Bytes before the header: kind and length.
const PREFIX_LEN: usize = 5;

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
    pub(super) const BROADCAST: u8 = 0x10;
    pub(super) const TOPICS_REQUEST: u8 = 0x20;
    pub(super) const TOPICS: u8 = 0x21;
    /// From here on, kinds that a receiver may ignore.
    pub(super) const IGNORABLE: u8 = 0x80;
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
    /// The sender is going for good.
    Leave,
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
    /// Members the sender knows; given to a peer that it does not know as a member yet.
    pub(crate) members: Vec<MemberRecord>,
}

/// A member as the membership protocol keeps it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct MemberRecord {
    pub(crate) identity: Identity,
    pub(crate) incarnation: u16,
    /// 0 alive, 1 suspect, 2 down.
    pub(crate) state: u8,
}

/// Who a member is to the membership protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: NodeName,
    pub(crate) address: SocketAddr,
    /// Of the process.
    pub(crate) incarnation: u64,
    /// Bumped when a false "down" must be outlived.
    pub(crate) renewal: u32,
}

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

/// What a broadcast's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// A JSON text.
    Json,
    /// Bytes.
    Binary,
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

#[derive(Encode, BorrowDecode)]
struct RangeHeader<'a> {
    shard: u16,
    epoch: u32,
    ack_now: bool,
    incarnation: u64,
    from: u64,
    to: u64,
    head: u64,
    horizon: u64,
    /// Words of the bitmap, little endian.
    retain: Option<Vec<u8>>,
    topics: Vec<&'a str>,
    ops: Vec<WireOp<'a>>,
}

/// `step` counts from the sequence number before; `age` is seq − born.
#[derive(Encode, BorrowDecode)]
enum WireOp<'a> {
    Presence { slot: u32, step: u64, age: u64, topic: u32, kv: &'a [u8] },
    Interest { slot: u32, step: u64, age: u64, hash: u64 },
    Remove { slot: u32, step: u64 },
}

/// A question to a peer, asked on a stream of its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TopicsRequest {
    /// Only topics that start so.
    pub prefix: String,
    /// Most topics in the answer.
    pub limit: u32,
}

/// The answer: topics with the peer's own subscribers, ordered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Topics {
    /// (topic, subscribers).
    pub topics: Vec<(String, u32)>,
}

// === encoding ===

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<HEADER_LEN_MAX>()
}

fn frame(kind: u8, header: &impl Encode, payload: &[u8]) -> Bytes {
    let mut frame = vec![kind, 0, 0, 0, 0];
    // Writing to a Vec cannot fail, and none of our headers has a type that refuses to encode.
    let written = bincode::encode_into_std_write(header, &mut frame, bincode::config::standard());
    debug_assert!(written.is_ok(), "headers always encode");
    let len = u32::try_from(frame.len() - PREFIX_LEN).unwrap_or(u32::MAX);
    frame[1..PREFIX_LEN].copy_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(payload);
    frame.into()
}

/// The first part of a broadcast's frame; the raw payload is to follow it.
pub fn encode_broadcast(broadcast: &Broadcast<'_>) -> Bytes {
    let header = BroadcastHeader {
        topic: broadcast.topic,
        event: broadcast.event,
        kind: match broadcast.kind {
            PayloadKind::Json => 0,
            PayloadKind::Binary => 1,
        },
        namespace: 0,
        sequence: broadcast.sequence,
        extensions: &[],
    };
    frame(kind::BROADCAST, &header, &[])
}

/// Takes a broadcast's frame apart; `None` for a kind that may be ignored.
pub fn decode_broadcast(frame: &Bytes) -> Result<Option<(Broadcast<'_>, Bytes)>, WireError> {
    let (kind, header, payload) = split(frame)?;
    if kind != kind::BROADCAST {
        return ignorable(kind).map(|()| None);
    }
    let header: BroadcastHeader<'_> = decode("broadcast", header)?;
    let kind = match header.kind {
        0 => PayloadKind::Json,
        1 => PayloadKind::Binary,
        other => return Err(malformed("broadcast", format!("payload kind {other}"))),
    };
    let broadcast = Broadcast {
        topic: header.topic,
        event: header.event,
        kind,
        sequence: header.sequence,
    };
    Ok(Some((broadcast, frame.slice(payload..))))
}

/// A question as a request body.
pub fn encode_topics_request(request: &TopicsRequest) -> Bytes {
    frame(kind::TOPICS_REQUEST, request, &[])
}

/// Reads a question.
pub fn decode_topics_request(body: &Bytes) -> Result<TopicsRequest, WireError> {
    match split(body)? {
        (kind::TOPICS_REQUEST, header, _) => decode("topics request", header),
        (kind, ..) => Err(WireError::UnknownKind { kind }),
    }
}

/// An answer as a response body.
pub fn encode_topics(topics: &Topics) -> Bytes {
    frame(kind::TOPICS, topics, &[])
}

/// Reads an answer.
pub fn decode_topics(body: &Bytes) -> Result<Topics, WireError> {
    match split(body)? {
        (kind::TOPICS, header, _) => decode("topics", header),
        (kind, ..) => Err(WireError::UnknownKind { kind }),
    }
}

impl Message {
    pub(crate) fn encode(&self) -> Bytes {
        match self {
            Self::Swim(packet) => frame(kind::SWIM, &(), packet),
            Self::Sync(sync) => frame(kind::SYNC, sync, &[]),
            Self::Range(range) => encode_range(range),
            Self::Ack(positions) => frame(kind::ACK, positions, &[]),
            Self::Nack(nack) => frame(kind::NACK, nack, &[]),
            Self::Digest(digest) => frame(kind::DIGEST, digest, &[]),
            Self::DigestRequest => frame(kind::DIGEST_REQUEST, &(), &[]),
            Self::Sums(sums) => frame(kind::SUMS, sums, &[]),
            Self::Disconnect(socket_id) => frame(kind::DISCONNECT, socket_id, &[]),
            Self::Leave => frame(kind::LEAVE, &(), &[]),
        }
    }

    /// Reads a frame; `None` for a kind that may be ignored.
    pub(crate) fn decode(frame: &Bytes) -> Result<Option<Self>, WireError> {
        let (kind, header, payload) = split(frame)?;
        Ok(Some(match kind {
            kind::SWIM => Self::Swim(frame.slice(payload..)),
            kind::SYNC => Self::Sync(decode("sync", header)?),
            kind::RANGE => Self::Range(decode_range(header)?),
            kind::ACK => Self::Ack(decode("ack", header)?),
            kind::NACK => Self::Nack(decode("nack", header)?),
            kind::DIGEST => Self::Digest(decode("digest", header)?),
            kind::DIGEST_REQUEST => Self::DigestRequest,
            kind::SUMS => Self::Sums(decode("sums", header)?),
            kind::DISCONNECT => Self::Disconnect(decode("disconnect", header)?),
            kind::LEAVE => Self::Leave,
            other => return ignorable(other).map(|()| None),
        }))
    }
}

fn ignorable(kind: u8) -> Result<(), WireError> {
    if kind >= kind::IGNORABLE { Ok(()) } else { Err(WireError::UnknownKind { kind }) }
}

/// Kind, header, and where the payload starts.
fn split(frame: &[u8]) -> Result<(u8, &[u8], usize), WireError> {
    let short = WireError::Short { len: frame.len() };
    let Some((&[kind, a, b, c, d], rest)) = frame.split_first_chunk::<PREFIX_LEN>() else {
        return Err(short);
    };
    let len = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if len > HEADER_LEN_MAX {
        return Err(WireError::TooLong { len, limit: HEADER_LEN_MAX });
    }
    match rest.get(..len) {
        Some(header) => Ok((kind, header, PREFIX_LEN + len)),
        None => Err(short),
    }
}

fn decode<'a, T: BorrowDecode<'a, ()>>(
    kind: &'static str,
    header: &'a [u8],
) -> Result<T, WireError> {
    match bincode::borrow_decode_from_slice(header, config()) {
        Ok((value, used)) if used == header.len() => Ok(value),
        Ok((_, used)) => Err(malformed(kind, format!("{} bytes too many", header.len() - used))),
        Err(error) => Err(malformed(kind, error.to_string())),
    }
}

fn malformed(kind: &'static str, why: String) -> WireError {
    WireError::Malformed { kind, why }
}

fn encode_range(feed: &FeedRange) -> Bytes {
    let range = &feed.range;
    let mut before = 0;
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
        shard: feed.shard,
        epoch: feed.epoch,
        ack_now: feed.ack_now,
        incarnation: range.incarnation,
        from: range.from,
        to: range.to,
        head: range.head,
        horizon: range.horizon,
        ops: ops.collect(),
        retain: range.retain.as_ref().map(|bitmap| {
            bitmap.0.iter().flat_map(|word| word.to_le_bytes()).collect()
        }),
        topics: range.topics.iter().map(Topic::as_str).collect(),
    };
    frame(kind::RANGE, &header, &[])
}

fn decode_range(header: &[u8]) -> Result<FeedRange, WireError> {
    let header: RangeHeader<'_> = decode("range", header)?;
    let mut seq = 0_u64;
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
            WireOp::Interest { slot, age, hash, .. } => put(slot, age, Value::Interest { hash }),
            WireOp::Remove { slot, .. } => Op::Remove { slot, seq },
        }
    });
    let ops = ops.collect();
    let topics = header.topics.iter().map(|name| {
        name.parse::<Topic>().map_err(|error| malformed("range", error.to_string()))
    });
    Ok(FeedRange {
        shard: header.shard,
        epoch: header.epoch,
        ack_now: header.ack_now,
        range: Range {
            incarnation: header.incarnation,
            from: header.from,
            to: header.to,
            head: header.head,
            horizon: header.horizon,
            retain: header.retain.map(|bytes| {
                let (words, _) = bytes.as_chunks::<8>();
                Bitmap(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
            }),
            topics: topics.collect::<Result<_, _>>()?,
            ops,
        },
    })
}

impl Encode for Identity {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        encoder: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        (self.name.as_str(), self.address, self.incarnation, self.renewal).encode(encoder)
    }
}

impl<Context> Decode<Context> for Identity {
    fn decode<D: bincode::de::Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let (name, address, incarnation, renewal): (Arc<str>, SocketAddr, u64, u32) =
            Decode::decode(decoder)?;
        let name = name.parse().map_err(|error: presence::InvalidNodeName| {
            bincode::error::DecodeError::OtherString(error.to_string())
        })?;
        Ok(Self { name, address, incarnation, renewal })
    }
}

bincode::impl_borrow_decode!(Identity);

// === the membership protocol's packets ===

/// Encodes foca's headers and members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SwimCodec;

/// Why foca's data does not encode or decode.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SwimCodecError {
    #[error("no room for {0} bytes")]
    Full(usize),
    #[error("malformed: {0}")]
    Malformed(String),
}

#[derive(Encode, Decode)]
struct SwimHeader {
    source: Identity,
    source_incarnation: u16,
    destination: Identity,
    tag: u8,
    probe: u8,
    about: Option<Identity>,
}

fn put(value: &impl Encode, mut buffer: impl BufMut) -> Result<(), SwimCodecError> {
    let bytes = bincode::encode_to_vec(value, bincode::config::standard())
        .map_err(|error| SwimCodecError::Malformed(error.to_string()))?;
    if buffer.remaining_mut() < bytes.len() {
        return Err(SwimCodecError::Full(bytes.len()));
    }
    buffer.put_slice(&bytes);
    Ok(())
}

fn take<T: Decode<()>>(mut buffer: impl Buf) -> Result<T, SwimCodecError> {
    let (value, used) = bincode::decode_from_slice(buffer.chunk(), config())
        .map_err(|error| SwimCodecError::Malformed(error.to_string()))?;
    buffer.advance(used);
    Ok(value)
}

impl foca::Codec<Identity> for SwimCodec {
    type Error = SwimCodecError;

    fn encode_header(
        &mut self,
        header: &foca::Header<Identity>,
        buffer: impl BufMut,
    ) -> Result<(), SwimCodecError> {
        use foca::Message as M;
        let (tag, probe, about) = match &header.message {
            M::Ping(probe) => (0, *probe, None),
            M::Ack(probe) => (1, *probe, None),
            M::PingReq { target, probe_number } => (2, *probe_number, Some(target)),
            M::IndirectPing { origin, probe_number } => (3, *probe_number, Some(origin)),
            M::IndirectAck { target, probe_number } => (4, *probe_number, Some(target)),
            M::ForwardedAck { origin, probe_number } => (5, *probe_number, Some(origin)),
            M::Announce => (6, 0, None),
            M::Feed => (7, 0, None),
            M::Gossip => (8, 0, None),
            M::Broadcast => (9, 0, None),
            M::TurnUndead => (10, 0, None),
        };
        let header = SwimHeader {
            source: header.src.clone(),
            source_incarnation: header.src_incarnation,
            destination: header.dst.clone(),
            tag,
            probe,
            about: about.cloned(),
        };
        put(&header, buffer)
    }

    fn decode_header(
        &mut self,
        buffer: impl Buf,
    ) -> Result<foca::Header<Identity>, SwimCodecError> {
        use foca::Message as M;
        let header: SwimHeader = take(buffer)?;
        let probe_number = header.probe;
        let message = match (header.tag, header.about) {
            (0, None) => M::Ping(probe_number),
            (1, None) => M::Ack(probe_number),
            (2, Some(target)) => M::PingReq { target, probe_number },
            (3, Some(origin)) => M::IndirectPing { origin, probe_number },
            (4, Some(target)) => M::IndirectAck { target, probe_number },
            (5, Some(origin)) => M::ForwardedAck { origin, probe_number },
            (6, None) => M::Announce,
            (7, None) => M::Feed,
            (8, None) => M::Gossip,
            (9, None) => M::Broadcast,
            (10, None) => M::TurnUndead,
            (tag, _) => return Err(SwimCodecError::Malformed(format!("message tag {tag}"))),
        };
        Ok(foca::Header {
            src: header.source,
            src_incarnation: header.source_incarnation,
            dst: header.destination,
            message,
        })
    }

    fn encode_member(
        &mut self,
        member: &foca::Member<Identity>,
        buffer: impl BufMut,
    ) -> Result<(), SwimCodecError> {
        put(&MemberRecord::from(member), buffer)
    }

    fn decode_member(
        &mut self,
        buffer: impl Buf,
    ) -> Result<foca::Member<Identity>, SwimCodecError> {
        let record: MemberRecord = take(buffer)?;
        record.into_member().ok_or_else(|| SwimCodecError::Malformed("member state".to_owned()))
    }
}

impl From<&foca::Member<Identity>> for MemberRecord {
    fn from(member: &foca::Member<Identity>) -> Self {
        Self {
            identity: member.id().clone(),
            incarnation: member.incarnation(),
            state: match member.state() {
                foca::State::Alive => 0,
                foca::State::Suspect => 1,
                foca::State::Down => 2,
            },
        }
    }
}

impl MemberRecord {
    /// `None` when the state is none.
    pub(crate) fn into_member(self) -> Option<foca::Member<Identity>> {
        let state = match self.state {
            0 => foca::State::Alive,
            1 => foca::State::Suspect,
            2 => foca::State::Down,
            _ => return None,
        };
        Some(foca::Member::new(self.identity, self.incarnation, state))
    }
}

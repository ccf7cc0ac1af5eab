//! The membership protocol's identities and packets.

use std::{fmt, hash::Hasher as _, net::SocketAddr};

use bincode::{Decode, Encode, de::read::Reader as _, error::DecodeError};
use bytes::{Buf, BufMut};
use presence::{NODE_NAME_LEN_MAX, NodeName, Replica};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::config;

/// Who a member is to the membership protocol.
#[derive(Clone, Debug, Eq)]
pub(crate) struct Identity {
    pub(crate) name: NodeName,
    pub(crate) address: SocketAddr,
    /// Of the process.
    pub(crate) incarnation: u64,
    /// Bumped when a false "down" must be outlived.
    pub(crate) renewal: u32,
    /// Stands for the name.
    key: NameKey,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        let of = |id: &Self| (id.incarnation, id.renewal, id.key, id.address);
        of(self) == of(other)
    }
}

/// 128 bits of a hash of a name. foca looks for a member by comparing with each, thousands of times a
/// second in a large cluster; to compare and copy names there would take most of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameKey(u128);

impl NameKey {
    fn of(name: &NodeName) -> Self {
        let mut hasher = SipHasher24::new();
        hasher.write(name.as_str().as_bytes());
        Self(hasher.finish128().as_u128())
    }
}

/// A member as the membership protocol keeps it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct MemberRecord {
    pub(crate) identity: Identity,
    pub(crate) incarnation: u16,
    /// 0 alive, 1 suspect, 2 down.
    pub(crate) state: u8,
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
    ) -> Result<Self, DecodeError> {
        let name = decode_name(decoder)?;
        let (address, incarnation, renewal): (SocketAddr, u64, u32) = Decode::decode(decoder)?;
        Ok(Self::new(name, address, incarnation, renewal))
    }
}

bincode::impl_borrow_decode!(Identity);

/// Reads a name without a copy of its own: a newcomer is told of all members by each.
fn decode_name<D: bincode::de::Decoder>(decoder: &mut D) -> Result<NodeName, DecodeError> {
    let malformed = |why: &dyn fmt::Display| DecodeError::OtherString(why.to_string());
    let len = usize::try_from(u64::decode(decoder)?).map_err(|error| malformed(&error))?;
    let mut room = [0; NODE_NAME_LEN_MAX];
    let bytes = room.get_mut(..len).ok_or_else(|| malformed(&"a name that is too long"))?;
    decoder.claim_bytes_read(len)?;
    decoder.reader().read(bytes)?;
    let name = std::str::from_utf8(bytes).map_err(|error| malformed(&error))?;
    name.parse().map_err(|error: presence::InvalidNodeName| malformed(&error))
}

impl Identity {
    pub(crate) fn new(name: NodeName, address: SocketAddr, incarnation: u64, renewal: u32) -> Self {
        Self { key: NameKey::of(&name), name, address, incarnation, renewal }
    }

    pub(crate) fn key(&self) -> NameKey {
        self.key
    }

    /// Who it is to all but the membership protocol.
    pub(crate) fn replica(&self) -> Replica {
        Replica { name: self.name.clone(), incarnation: self.incarnation }
    }
}

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
    /// Says that a member is gone.
    pub(crate) fn down(identity: Identity) -> Self {
        Self { identity, incarnation: 0, state: 2 }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.state == 0
    }

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

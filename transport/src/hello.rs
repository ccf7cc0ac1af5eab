//! The bytes of the hello: written and read by hand, every length checked before anything is
//! allocated for it. The order of the messages is told in [`handshake`](crate::handshake).

use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    config::{HELLO_LEN_MAX, Identity, NAME_LEN_MAX},
    proof::PROOF_LEN,
};

/// What a dialler's first bytes are, ending in the version of the hello itself.
const MAGIC: [u8; 8] = *b"wingbea\x01";
/// The fixed part of an [`Opening`], up to and with the length of the cluster name.
pub(crate) const OPENING_HEAD_LEN: usize = MAGIC.len() + 2 + 2 + PROOF_LEN + 1;
/// The length of an [`Answer`].
pub(crate) const ANSWER_LEN: usize = 2 + PROOF_LEN;
/// The longest [`Hello`]; the slack leaves room for fields that a later release may add.
pub(crate) const HELLO_BYTES_MAX: usize = HELLO_LEN_MAX + NAME_LEN_MAX + 1024;
/// The length of a [`Verdict`].
pub(crate) const VERDICT_LEN: usize = 9;

/// The message makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A dialler's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) wire: (u16, u16),
    pub(crate) proof: [u8; PROOF_LEN],
    pub(crate) cluster: String,
}

impl Opening {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(OPENING_HEAD_LEN + self.cluster.len());
        out.put_slice(&MAGIC);
        out.put_u16_le(self.wire.0);
        out.put_u16_le(self.wire.1);
        out.put_slice(&self.proof);
        put_name(&mut out, &self.cluster);
        out.freeze()
    }

    /// How many bytes of cluster name follow this head.
    pub(crate) fn name_len(head: &[u8; OPENING_HEAD_LEN]) -> Result<usize, Malformed> {
        if head[..MAGIC.len()] != MAGIC {
            return Err(Malformed);
        }
        Ok(usize::from(head[OPENING_HEAD_LEN - 1]))
    }

    pub(crate) fn decode(head: &[u8; OPENING_HEAD_LEN], name: &[u8]) -> Result<Self, Malformed> {
        if name.len() != Self::name_len(head)? {
            return Err(Malformed);
        }
        let mut fields = &head[MAGIC.len()..];
        let wire = (fields.get_u16_le(), fields.get_u16_le());
        let mut proof = [0; PROOF_LEN];
        fields.copy_to_slice(&mut proof);
        let cluster = text(name)?;
        if wire.0 > wire.1 || cluster.is_empty() {
            return Err(Malformed);
        }
        Ok(Self { wire, proof, cluster })
    }
}

/// An acceptor's answer to an [`Opening`] that it believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) wire: u16,
    pub(crate) proof: [u8; PROOF_LEN],
}

impl Answer {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(ANSWER_LEN);
        out.put_u16_le(self.wire);
        out.put_slice(&self.proof);
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8; ANSWER_LEN]) -> Self {
        let mut fields = bytes.as_slice();
        let wire = fields.get_u16_le();
        let mut proof = [0; PROOF_LEN];
        fields.copy_to_slice(&mut proof);
        Self { wire, proof }
    }
}

/// Who is speaking; the same message in both directions, preceded by its length (u32).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) name: String,
    pub(crate) incarnation: u64,
    /// The latest link of the receiver's choosing that the sender had and lost; 0 for none.
    pub(crate) lost: u64,
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) payload: Bytes,
}

impl Hello {
    pub(crate) fn new(identity: &Identity, advertise: Option<SocketAddr>, lost: u64) -> Self {
        let Identity { name, incarnation, hello } = identity.clone();
        Self { name, incarnation, lost, advertise, payload: hello }
    }

    /// The message with its length before it.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32_le(0);
        put_name(&mut out, &self.name);
        out.put_u64_le(self.incarnation);
        out.put_u64_le(self.lost);
        put_address(&mut out, self.advertise);
        // An identity's payload is at most `HELLO_LEN_MAX`.
        out.put_u32_le(u32::try_from(self.payload.len()).unwrap_or(u32::MAX));
        out.put_slice(&self.payload);
        let len = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
        out[..4].copy_from_slice(&len.to_le_bytes());
        out.freeze()
    }

    /// Reads a message without its length. What follows the known fields is left unread: a later
    /// release may have put it there.
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, Malformed> {
        let name = take_name(&mut bytes)?;
        let incarnation = bytes.try_get_u64_le().map_err(|_| Malformed)?;
        let lost = bytes.try_get_u64_le().map_err(|_| Malformed)?;
        let advertise = take_address(&mut bytes)?;
        let len = bytes.try_get_u32_le().map_err(|_| Malformed)? as usize;
        if name.is_empty() || len > HELLO_LEN_MAX || len > bytes.len() {
            return Err(Malformed);
        }
        Ok(Self { name, incarnation, lost, advertise, payload: bytes.split_to(len) })
    }
}

/// The last word of each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To the side that chooses: this connection may become the link. `lost` as in [`Hello`].
    Ready { lost: u64 },
    /// From the side that chooses: it is the link; `turn` numbers its choices.
    Go { turn: u64 },
}

impl Verdict {
    pub(crate) fn encode(self) -> [u8; VERDICT_LEN] {
        let (kind, number) = match self {
            Self::Ready { lost } => (1, lost),
            Self::Go { turn } => (2, turn),
        };
        let mut out = [0; VERDICT_LEN];
        out[0] = kind;
        out[1..].copy_from_slice(&number.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; VERDICT_LEN]) -> Result<Self, Malformed> {
        let mut number = &bytes[1..];
        let number = number.get_u64_le();
        match bytes[0] {
            1 => Ok(Self::Ready { lost: number }),
            2 => Ok(Self::Go { turn: number }),
            _ => Err(Malformed),
        }
    }
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed)
}

/// Names are at most 255 bytes: [`Config`](crate::Config) and [`Identity`] are checked first.
fn put_name(out: &mut BytesMut, name: &str) {
    let name = &name.as_bytes()[..name.len().min(NAME_LEN_MAX)];
    out.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.put_slice(name);
}

fn take_name(bytes: &mut Bytes) -> Result<String, Malformed> {
    let len = usize::from(bytes.try_get_u8().map_err(|_| Malformed)?);
    if len > bytes.len() {
        return Err(Malformed);
    }
    text(&bytes.split_to(len))
}

fn put_address(out: &mut BytesMut, address: Option<SocketAddr>) {
    match address.map(|address| (address.ip(), address.port())) {
        None => out.put_u8(0),
        Some((IpAddr::V4(ip), port)) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
            out.put_u16_le(port);
        }
        Some((IpAddr::V6(ip), port)) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
            out.put_u16_le(port);
        }
    }
}

fn take_address(bytes: &mut Bytes) -> Result<Option<SocketAddr>, Malformed> {
    let ip: IpAddr = match bytes.try_get_u8().map_err(|_| Malformed)? {
        0 => return Ok(None),
        4 => {
            let mut octets = [0; 4];
            bytes.try_copy_to_slice(&mut octets).map_err(|_| Malformed)?;
            octets.into()
        }
        6 => {
            let mut octets = [0; 16];
            bytes.try_copy_to_slice(&mut octets).map_err(|_| Malformed)?;
            octets.into()
        }
        _ => return Err(Malformed),
    };
    let port = bytes.try_get_u16_le().map_err(|_| Malformed)?;
    Ok(Some(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> impl Strategy<Value = Hello> {
        (
            "[a-zä]{1,60}",
            any::<u64>(),
            any::<u64>(),
            any::<Option<SocketAddr>>(),
            prop::collection::vec(any::<u8>(), 0..2000),
        )
            .prop_map(|(name, incarnation, lost, advertise, payload)| Hello {
                name,
                incarnation,
                lost,
                // A hello carries neither flow label nor scope.
                advertise: advertise.map(|a| SocketAddr::new(a.ip(), a.port())),
                payload: payload.into(),
            })
    }

    fn opening() -> impl Strategy<Value = Opening> {
        ("[a-z]{1,200}", any::<u16>(), any::<u16>(), any::<[u8; PROOF_LEN]>()).prop_map(
            |(cluster, a, b, proof)| Opening { wire: (a.min(b), a.max(b)), proof, cluster },
        )
    }

    fn split(encoded: &[u8]) -> ([u8; OPENING_HEAD_LEN], &[u8]) {
        let (head, name) = encoded.split_at(OPENING_HEAD_LEN);
        (head.try_into().expect("the head's length"), name)
    }

    proptest! {
        #[test]
        fn every_message_reads_as_it_was_written(
            hello in hello(), opening in opening(), wire: u16, proof: [u8; PROOF_LEN], n: u64,
        ) {
            let encoded = hello.encode();
            prop_assert_eq!(encoded.len() - 4, u32::from_le_bytes(encoded[..4].try_into()?) as usize);
            prop_assert_eq!(Hello::decode(encoded.slice(4..)), Ok(hello));
            let encoded = opening.encode();
            let (head, name) = split(&encoded);
            prop_assert_eq!(Opening::name_len(&head), Ok(name.len()));
            prop_assert_eq!(Opening::decode(&head, name), Ok(opening));
            let answer = Answer { wire, proof };
            prop_assert_eq!(Answer::decode(answer.encode().as_ref().try_into()?), answer);
            for verdict in [Verdict::Ready { lost: n }, Verdict::Go { turn: n }] {
                prop_assert_eq!(Verdict::decode(&verdict.encode()), Ok(verdict));
            }
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_read_but_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            if let Ok(hello) = Hello::decode(bytes.clone().into()) {
                prop_assert!(hello.name.len() + hello.payload.len() <= bytes.len());
            }
            if bytes.len() >= OPENING_HEAD_LEN {
                let (mut head, name) = split(&bytes);
                head[..MAGIC.len()].copy_from_slice(&MAGIC);
                let _ = Opening::decode(&head, name);
            }
        }

        #[test]
        fn a_cut_or_bent_hello_never_panics(hello in hello(), cut: prop::sample::Index, at: prop::sample::Index, bit in 0u8..8) {
            let encoded = hello.encode().slice(4..);
            prop_assert_eq!(Hello::decode(encoded.slice(..cut.index(encoded.len()))), Err(Malformed));
            let mut bent = encoded.to_vec();
            bent[at.index(encoded.len())] ^= 1 << bit;
            let _ = Hello::decode(bent.into());
        }
    }

    #[test]
    fn fields_of_a_later_release_are_passed_over() {
        let hello = Hello {
            name: "a".into(),
            incarnation: 1,
            lost: 0,
            advertise: None,
            payload: Bytes::from_static(b"x"),
        };
        let mut longer = hello.encode().slice(4..).to_vec();
        longer.extend_from_slice(b"something new");
        assert_eq!(Hello::decode(longer.into()), Ok(hello));
    }
}

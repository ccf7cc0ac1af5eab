//! What a message carries.

use bytes::Bytes;
use cluster::wire::PayloadKind;

/// The payload of one message, within the bytes that it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// JSON, encoded and well-formed.
    Json(&'a [u8]),
    /// Any bytes: for clients of V2 over a WebSocket or TCP. Other formats have no form for them.
    Binary(&'a [u8]),
    /// A realtime-style client's broadcast, of its own event and payload. To other clients it is an
    /// event `broadcast` with an object around both.
    User(UserBroadcast<'a>),
}

/// An event and a payload of the users' own, as clients of `@supabase/realtime-js` send them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserBroadcast<'a> {
    /// Bytes of the event, bytes of the metadata, and what the payload is.
    head: [u8; 3],
    /// Event, metadata, payload.
    tail: &'a [u8],
}

/// In the third byte of a user broadcast: its payload is any bytes.
const BYTES: u8 = 0;
/// Its payload is JSON.
const JSON: u8 = 1;

impl<'a> Payload<'a> {
    /// The payload that bytes of a kind are; `None` when they are none of that kind.
    pub fn new(kind: PayloadKind, bytes: &'a [u8]) -> Option<Self> {
        Some(match kind {
            PayloadKind::Json => Self::Json(bytes),
            PayloadKind::Binary => Self::Binary(bytes),
            PayloadKind::User => Self::User(UserBroadcast::read(bytes)?),
        })
    }

    /// What its bytes are.
    pub const fn kind(self) -> PayloadKind {
        match self {
            Self::Json(_) => PayloadKind::Json,
            Self::Binary(_) => PayloadKind::Binary,
            Self::User(_) => PayloadKind::User,
        }
    }

    /// How many bytes it has.
    #[expect(clippy::len_without_is_empty, reason = "JSON never is, and nobody asks")]
    pub const fn len(self) -> usize {
        let [head, tail] = self.parts();
        head.len() + tail.len()
    }

    /// Appends its bytes.
    pub fn append_to(self, out: &mut Vec<u8>) {
        self.parts().iter().for_each(|part| out.extend_from_slice(part));
    }

    /// A copy of its bytes.
    pub fn to_bytes(self) -> Bytes {
        match self {
            Self::Json(bytes) | Self::Binary(bytes) => Bytes::copy_from_slice(bytes),
            Self::User(_) => self.parts().concat().into(),
        }
    }

    const fn parts(&self) -> [&[u8]; 2] {
        match self {
            Self::Json(bytes) | Self::Binary(bytes) => [&[], bytes],
            Self::User(UserBroadcast { head, tail }) => [head, tail],
        }
    }
}

impl<'a> UserBroadcast<'a> {
    /// Takes the parts of a frame: `len(event), len(metadata), encoding`, then event, metadata and
    /// payload. `None` when they are too short, the event is no UTF-8, or the encoding neither 0 for
    /// bytes nor 1 for JSON.
    pub fn new(head: [u8; 3], tail: &'a [u8]) -> Option<Self> {
        let [event_len, metadata_len, encoding] = head;
        let user = Self { head, tail };
        let whole = tail.len() >= usize::from(event_len) + usize::from(metadata_len);
        let known = matches!(encoding, BYTES | JSON);
        (whole && known && std::str::from_utf8(&tail[..event_len.into()]).is_ok()).then_some(user)
    }

    /// Reads its one form in bytes; `None` when they are none.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&head, tail) = bytes.split_first_chunk()?;
        Self::new(head, tail)
    }

    /// Makes its one form in bytes. `None` when the event is longer than 255 bytes.
    pub fn encode(event: &str, payload: &[u8], json: bool) -> Option<Vec<u8>> {
        let head = [u8::try_from(event.len()).ok()?, 0, if json { JSON } else { BYTES }];
        Some([head.as_slice(), event.as_bytes(), payload].concat())
    }

    /// `len(event), len(metadata), encoding`
    pub(crate) const fn head(&self) -> [u8; 3] {
        self.head
    }

    /// Event, metadata, payload, one behind the other.
    pub(crate) const fn tail(&self) -> &'a [u8] {
        self.tail
    }

    /// The users' event.
    pub fn event(&self) -> &'a str {
        std::str::from_utf8(&self.tail[..self.head[0].into()]).unwrap_or_default()
    }

    /// JSON that goes beside the payload; often nothing.
    pub fn metadata(&self) -> &'a [u8] {
        &self.tail[self.head[0].into()..self.payload_start()]
    }

    /// The users' payload.
    pub fn payload(&self) -> &'a [u8] {
        &self.tail[self.payload_start()..]
    }

    /// Whether the payload is JSON.
    pub const fn is_json(&self) -> bool {
        self.head[2] == JSON
    }

    fn payload_start(&self) -> usize {
        usize::from(self.head[0]) + usize::from(self.head[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_survives_as_its_kind_and_its_bytes() {
        let user = UserBroadcast::new([2, 3, 1], b"evmet{}").expect("whole");
        for payload in [Payload::Json(b"{}"), Payload::Binary(b"\0"), Payload::User(user)] {
            let bytes = payload.to_bytes();
            assert_eq!(bytes.len(), payload.len());
            assert_eq!(Payload::new(payload.kind(), &bytes), Some(payload));
        }
        assert_eq!(
            (user.event(), user.metadata(), user.payload()),
            ("ev", &b"met"[..], &b"{}"[..])
        );
    }

    #[test]
    fn a_user_broadcast_that_is_none_is_not_read() {
        for bytes in
            [&b""[..], b"\x01\0", b"\x02\0\x01a", b"\x01\x01\x01a", b"\0\0\x02", b"\x01\0\0\xff"]
        {
            assert_eq!(Payload::new(PayloadKind::User, bytes), None, "{bytes:?}");
        }
        assert!(Payload::new(PayloadKind::User, b"\0\0\0").is_some(), "of nothing");
    }

    #[test]
    fn what_is_encoded_reads_back() {
        let bytes = UserBroadcast::encode("é", b"[1]", true).expect("short");
        let Some(Payload::User(user)) = Payload::new(PayloadKind::User, &bytes) else {
            panic!("no user broadcast");
        };
        assert_eq!((user.event(), user.payload(), user.is_json()), ("é", &b"[1]"[..], true));
        assert_eq!(UserBroadcast::encode(&"x".repeat(256), b"", false), None);
    }
}

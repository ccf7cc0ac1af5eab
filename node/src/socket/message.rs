//! A frame's envelope, and what the two wire formats share.

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;

use super::{action::Close, v1, v2};
use crate::websocket::FrameBuf;

/// Bytes of the longest `ref` or `join_ref` as written in the frame; a longer one ends the socket.
///
/// Refs of channels are kept as long as the channel, so a frame's size is no bound for them.
pub(super) const REF_LEN_MAX: usize = 1024;

/// Prefix of the events that are the protocol's own.
const PROTOCOL_PREFIX: &str = "phx_";

/// Events that a relay's clients may not publish, besides those of the protocol.
const FORGEABLE: [&str; 4] = ["presence_state", "presence_diff", "presence_count", DISCONNECT];

/// A wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    /// Objects: `{"topic", "event", "payload", "ref", "join_ref"?}`.
    V1,
    /// Arrays: `[join_ref, ref, topic, event, payload]`.
    V2,
}

impl Version {
    /// The format that the connect parameter `vsn` asks for: `1.0.x`, also when missing, or `2.0.x`.
    ///
    /// `None` for every other text: the connect is to be refused.
    pub(crate) fn parse(vsn: Option<&str>) -> Option<Self> {
        let Some(vsn) = vsn else {
            return Some(Self::V1);
        };
        let (version, patch) = match vsn.split_at_checked(4)? {
            ("1.0.", patch) => (Self::V1, patch),
            ("2.0.", patch) => (Self::V2, patch),
            _ => return None,
        };
        let digits = !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit());
        (digits && (patch == "0" || !patch.starts_with('0'))).then_some(version)
    }

    /// The raw `ref` of a heartbeat as the official client writes it, without decoding the frame.
    ///
    /// `None` says nothing: decode the frame.
    pub(super) fn scan_heartbeat(self, frame: &[u8]) -> Option<&[u8]> {
        match self {
            Self::V1 => None,
            Self::V2 => v2::scan_heartbeat(frame),
        }
    }

    /// Takes a text frame apart.
    ///
    /// # Errors
    /// The socket's end, when the frame is no JSON, has another shape or a `ref` that is too long.
    pub(super) fn decode(self, frame: &str) -> Result<Envelope<'_>, Close> {
        let envelope = match self {
            Self::V1 => v1::decode(frame),
            Self::V2 => v2::decode(frame),
        };
        let envelope = envelope.map_err(|_| Close::UNDECODABLE)?;
        if has_lone_surrogate(frame.as_bytes()) {
            return Err(Close::UNDECODABLE);
        }
        if envelope.join_ref.len().max(envelope.reference.len()) > REF_LEN_MAX {
            return Err(Close::REF_TOO_LONG);
        }
        Ok(envelope)
    }

    /// The answer to one request.
    pub(super) fn encode_reply(self, reply: &Reply<'_>) -> FrameBuf {
        match self {
            Self::V1 => v1::encode_reply(reply),
            Self::V2 => v2::encode_reply(reply),
        }
    }

    /// A message to one client.
    pub(super) fn encode_message(self, message: &Message<'_>) -> FrameBuf {
        let mut frame = FrameBuf::with_capacity(message.len());
        let out = frame.payload_mut();
        self.put_head(out, message);
        out.extend_from_slice(message.payload);
        self.put_tail(out, message);
        frame
    }

    /// A message to one client around a payload that many share: what goes before and behind it.
    pub(super) fn encode_around(self, message: &Message<'_>) -> (Vec<u8>, Bytes) {
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        self.put_head(&mut head, message);
        self.put_tail(&mut tail, message);
        (head, tail.into())
    }

    fn put_head(self, out: &mut Vec<u8>, message: &Message<'_>) {
        match self {
            Self::V1 => v1::put_head(out, message),
            Self::V2 => v2::put_head(out, message),
        }
    }

    fn put_tail(self, out: &mut Vec<u8>, message: &Message<'_>) {
        match self {
            Self::V1 => v1::put_tail(out, message.reference, Name::Text(message.topic)),
            Self::V2 => out.push(b']'),
        }
    }
}

/// The frame of a message to every subscriber of a topic; `payload` is JSON and goes in verbatim.
///
/// Encode it once per version, not once per subscriber.
pub(crate) fn encode_broadcast(
    version: Version,
    topic: &str,
    event: &str,
    payload: &[u8],
) -> FrameBuf {
    match version {
        Version::V1 => v1::encode_broadcast(topic, event, payload),
        Version::V2 => v2::encode_broadcast(topic, event, payload),
    }
}

/// Whether `event` belongs to the protocol alone: no client pushes it to a channel.
pub(super) fn protocol_event(event: &str) -> bool {
    event.starts_with(PROTOCOL_PREFIX)
}

/// The event that closes the sockets of an id, on whose topic it is broadcast, instead of being delivered.
pub(crate) const DISCONNECT: &str = "disconnect";

/// Bytes of the longest event name: binary frames have a byte for it.
pub(crate) const EVENT_LEN_MAX: usize = 255;

/// Whether a relay refuses `event` from clients: the protocol's own events, presence that could be
/// forged, and the order to disconnect.
pub(crate) fn reserved_event(event: &str) -> bool {
    protocol_event(event) || FORGEABLE.contains(&event)
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Done.
    Ok,
    /// Refused; the response says why.
    Error,
}

impl Status {
    /// The word in the frame.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
        }
    }
}

/// A `ref` or `join_ref` as the client wrote it: raw JSON of any type, at most 1,024 bytes.
///
/// It is echoed byte for byte. Cloning it copies a pointer.
#[derive(Clone)]
pub(crate) struct Ref(Option<Arc<[u8]>>);

impl Ref {
    /// `null`.
    pub(crate) const NULL: Self = Self(None);

    /// A ref that outlives its frame.
    pub(crate) fn copied(raw: &str) -> Self {
        if raw == "null" { Self::NULL } else { Self(Some(raw.as_bytes().into())) }
    }

    /// The raw JSON.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(b"null")
    }

    /// Whether `raw` means the same ref: of the same type, with the same text however escaped.
    pub(super) fn matches(&self, raw: &str) -> bool {
        let own = self.as_bytes();
        if own == raw.as_bytes() {
            return true;
        }
        let Ok(own) = std::str::from_utf8(own) else {
            return false;
        };
        (own.contains('\\') || raw.contains('\\'))
            && text(own).is_some_and(|own| Some(own) == text(raw))
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

/// A client's frame taken apart: each part is the raw JSON of the frame, nothing is unescaped.
///
/// A V1 frame without `join_ref` has `null` here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope<'a> {
    /// Of the join that the frame belongs to.
    pub(super) join_ref: &'a str,
    /// Of this request.
    pub(super) reference: &'a str,
    /// Any JSON; a channel's is a string.
    pub(super) topic: &'a str,
    /// Any JSON; a channel's is a string.
    pub(super) event: &'a str,
    /// Any JSON, checked to be well-formed.
    pub(super) payload: &'a str,
}

/// A topic in a frame to the client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name<'a> {
    /// JSON as the client wrote it, a string or not, to be echoed.
    Raw(&'a str),
    /// Text, to be quoted.
    Text(&'a str),
}

/// The answer to one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'a> {
    /// Raw JSON.
    pub(super) join_ref: &'a [u8],
    /// Raw JSON: that of the request.
    pub(super) reference: &'a [u8],
    /// The request's topic.
    pub(super) topic: Name<'a>,
    /// How it went.
    pub(super) status: Status,
    /// A JSON object.
    pub(super) response: &'a [u8],
}

/// A message to one client that answers no request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// Raw JSON.
    pub(super) join_ref: &'a [u8],
    /// Raw JSON.
    pub(super) reference: &'a [u8],
    /// The channel's topic.
    pub(super) topic: &'a str,
    /// Text.
    pub(super) event: &'a str,
    /// JSON.
    pub(super) payload: &'a [u8],
}

impl Message<'_> {
    /// Bytes of its frame in either version, unless names need escapes.
    fn len(&self) -> usize {
        const FIXED: usize = br#"{"event":"","payload":,"ref":,"topic":""}"#.len();
        FIXED
            + self.join_ref.len()
            + self.reference.len()
            + self.topic.len()
            + self.event.len()
            + self.payload.len()
    }
}

/// The text of a raw JSON string; `None` when the JSON is something else.
pub(super) fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Appends a topic.
pub(super) fn put_name(out: &mut Vec<u8>, name: Name<'_>) {
    match name {
        Name::Raw(raw) => out.extend_from_slice(raw.as_bytes()),
        Name::Text(text) => put_string(out, text),
    }
}

/// Appends `text` as a JSON string.
pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    } else {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

/// `text` as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    put_string(&mut out, text);
    // It was text, and JSON of text is text.
    String::from_utf8(out).unwrap_or_default()
}

/// Appends the payload of a reply.
pub(super) fn put_response(out: &mut Vec<u8>, status: Status, response: &[u8]) {
    out.extend_from_slice(br#"{"response":"#);
    out.extend_from_slice(response);
    out.extend_from_slice(br#","status":""#);
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(br#""}"#);
}

/// Bytes that `name` takes unless it needs escapes.
pub(super) fn name_len(name: Name<'_>) -> usize {
    match name {
        Name::Raw(raw) => raw.len(),
        Name::Text(text) => text.len() + 2,
    }
}

/// Whether well-formed JSON has an escape for half of a surrogate pair.
///
/// `serde_json` does not look into strings that stay raw, yet such a string is no text: other
/// clients' decoders refuse it, and would lose their connection by a payload of this one.
pub(crate) fn has_lone_surrogate(json: &[u8]) -> bool {
    // The standard library's search, an order of magnitude faster than the loop.
    if !json.contains(&b'\\') {
        return false;
    }
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        rest = &rest[at..];
        let skip = match code_unit(rest) {
            None => 2,
            Some(0xd800..=0xdbff) => match rest.get(6..).and_then(code_unit) {
                Some(0xdc00..=0xdfff) => 12,
                _ => return true,
            },
            Some(0xdc00..=0xdfff) => return true,
            Some(_) => 6,
        };
        rest = rest.get(skip..).unwrap_or_default();
    }
    false
}

/// The UTF-16 code unit of the `\uXXXX` that `json` starts with.
fn code_unit(json: &[u8]) -> Option<u16> {
    let digits = json.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

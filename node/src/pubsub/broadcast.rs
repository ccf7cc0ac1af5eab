//! One message to one topic, encoded once per wire format.

use std::{cell::OnceCell, fmt};

use bytes::{Bytes, BytesMut};
use presence::Topic;

use super::Payload;

/// How a subscriber wants its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Phoenix V1: `{"topic":…,"event":…,"payload":…,"ref":null,"join_ref":null}`.
    V1,
    /// Phoenix V2: `[null,null,topic,event,payload]`, and binary messages of kind 2.
    V2,
    /// V1, compressed for clients that asked for permessage-deflate.
    V1Deflated,
    /// V2, compressed likewise; binary messages are not.
    V2Deflated,
    /// Without the Phoenix envelope, for `/api/subscribe`: `{"topic":…,"event":…,"payload":…}`.
    Sse,
    /// What [`Self::V2`] is, behind its length in four bytes.
    Tcp,
    /// The text of V1 as one JSON string: an element of a poll's answer.
    PollV1,
    /// The text of V2 likewise.
    PollV2,
    /// For the node's own code: channels that see broadcasts before their clients do.
    Tap,
}

impl Format {
    /// How many there are.
    pub(super) const COUNT: usize = 9;

    const fn index(self) -> usize {
        self as usize
    }

    /// What stands between two frames.
    const fn separator(self) -> &'static [u8] {
        match self {
            Self::PollV1 | Self::PollV2 => b",",
            Self::V1
            | Self::V2
            | Self::V1Deflated
            | Self::V2Deflated
            | Self::Sse
            | Self::Tcp
            | Self::Tap => b"",
        }
    }
}

/// Makes one frame of (format, topic, event, payload); `None` when the format has no form for it.
/// Whoever knows the envelopes gives it.
pub type Encode = fn(Format, &str, &str, Payload<'_>) -> Option<Bytes>;

/// A message to a topic, on its way to this node's subscribers.
///
/// Nothing is encoded before a subscriber needs it, and nothing twice.
pub struct Broadcast<'a> {
    topic: &'a Topic,
    event: &'a str,
    payload: Payload<'a>,
    encode: Encode,
    frames: PerFormat<Option<Bytes>>,
}

/// Several broadcasts to one topic, encoded together: one frame behind the other.
pub(super) struct Joined<'a> {
    broadcasts: Vec<Broadcast<'a>>,
    frames: PerFormat<(Bytes, usize)>,
}

/// One value for each format, made when it is needed.
struct PerFormat<T>([OnceCell<T>; Format::COUNT]);

impl<'a> Broadcast<'a> {
    /// A message.
    pub const fn new(
        topic: &'a Topic,
        event: &'a str,
        payload: Payload<'a>,
        encode: Encode,
    ) -> Self {
        Self { topic, event, payload, encode, frames: PerFormat::new() }
    }

    /// Where it goes.
    pub const fn topic(&self) -> &'a Topic {
        self.topic
    }

    /// Its event's name.
    pub const fn event(&self) -> &'a str {
        self.event
    }

    /// Its payload, as it came.
    pub const fn payload(&self) -> Payload<'a> {
        self.payload
    }

    pub(super) const fn encode(&self) -> Encode {
        self.encode
    }

    /// The frame in `format`: encoded by the first call, the same bytes from then on. `None` when the
    /// format has no form for it.
    pub fn frame(&self, format: Format) -> Option<&Bytes> {
        let encode = || (self.encode)(format, self.topic.as_str(), self.event, self.payload);
        self.frames.get(format, encode).as_ref()
    }
}

impl<'a> Joined<'a> {
    pub(super) const fn new(broadcasts: Vec<Broadcast<'a>>) -> Self {
        Self { broadcasts, frames: PerFormat::new() }
    }

    /// The broadcasts, one by one.
    pub(super) fn broadcasts(&self) -> &[Broadcast<'a>] {
        &self.broadcasts
    }

    /// All frames in `format` that there are, and how many: joined by the first call, the same bytes
    /// from then on.
    pub(super) fn frames(&self, format: Format) -> &(Bytes, usize) {
        self.frames.get(format, || {
            let frames = || self.broadcasts.iter().filter_map(|one| one.frame(format));
            let separator = format.separator();
            let len = frames().map(|frame| frame.len() + separator.len()).sum();
            let (mut joined, mut count) = (BytesMut::with_capacity(len), 0);
            for frame in frames() {
                if count > 0 {
                    joined.extend_from_slice(separator);
                }
                joined.extend_from_slice(frame);
                count += 1;
            }
            (joined.freeze(), count)
        })
    }
}

impl<T> PerFormat<T> {
    const fn new() -> Self {
        Self([const { OnceCell::new() }; Format::COUNT])
    }

    fn get(&self, format: Format, make: impl FnOnce() -> T) -> &T {
        self.0[format.index()].get_or_init(make)
    }
}

impl fmt::Debug for Broadcast<'_> {
    /// Leaves the payload out: it is the client's own, and may be long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast")
            .field("topic", &self.topic)
            .field("event", &self.event)
            .field("payload_len", &self.payload.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text has a form everywhere, bytes in V2 alone.
    fn encode(format: Format, topic: &str, event: &str, payload: Payload<'_>) -> Option<Bytes> {
        let payload_bytes = payload.to_bytes();
        let text = String::from_utf8_lossy(&payload_bytes);
        let has_form = matches!(payload, Payload::Json(_)) || format == Format::V2;
        has_form.then(|| format!("{format:?} {topic} {event} {text}").into())
    }

    #[test]
    fn each_format_is_encoded_once_and_shared() {
        let topic = "room:a".parse().unwrap();
        let broadcast = Broadcast::new(&topic, "new", Payload::Json(b"{}"), encode);

        let first = broadcast.frame(Format::V2).unwrap().clone();
        assert_eq!(first, "V2 room:a new {}");
        assert_eq!(broadcast.frame(Format::V2).unwrap().as_ptr(), first.as_ptr(), "the same bytes");
        assert_eq!(broadcast.frame(Format::V1).unwrap(), "V1 room:a new {}");
        assert_eq!(broadcast.frame(Format::Sse).unwrap(), "Sse room:a new {}");
    }

    #[test]
    fn frames_that_have_a_form_are_joined_as_their_format_wants_it() {
        let topic = "t".parse().unwrap();
        let payloads = [Payload::Json(b"1"), Payload::Binary(b"2"), Payload::Json(b"3")];
        let broadcasts = payloads.map(|payload| Broadcast::new(&topic, "e", payload, encode));
        let joined = Joined::new(broadcasts.into());
        assert_eq!(joined.frames(Format::V2), &("V2 t e 1V2 t e 2V2 t e 3".into(), 3));
        assert_eq!(joined.frames(Format::V1), &("V1 t e 1V1 t e 3".into(), 2));
        assert_eq!(joined.frames(Format::PollV2), &("PollV2 t e 1,PollV2 t e 3".into(), 2));
    }
}

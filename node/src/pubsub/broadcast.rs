//! One message to one topic, encoded once per wire format.

use std::{cell::OnceCell, fmt};

use bytes::Bytes;
use presence::Topic;

/// How a subscriber wants its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Phoenix V1: `{"topic":…,"event":…,"payload":…,"ref":null,"join_ref":null}`.
    V1,
    /// Phoenix V2: `[null,null,topic,event,payload]`.
    V2,
    /// V1, compressed for clients that asked for permessage-deflate.
    V1Deflated,
    /// V2, compressed likewise.
    V2Deflated,
    /// Without the Phoenix envelope, for `/api/subscribe`: `{"topic":…,"event":…,"payload":…}`.
    Sse,
}

impl Format {
    /// How many there are.
    pub(super) const COUNT: usize = 5;

    pub(super) const fn index(self) -> usize {
        match self {
            Self::V1 => 0,
            Self::V2 => 1,
            Self::V1Deflated => 2,
            Self::V2Deflated => 3,
            Self::Sse => 4,
        }
    }
}

/// Makes one frame of (format, topic, event, payload). Whoever knows the envelopes gives it.
pub type Encode = fn(Format, &str, &str, &[u8]) -> Bytes;

/// A message to a topic, on its way to this node's subscribers.
///
/// Nothing is encoded before a subscriber needs it, and nothing twice.
pub struct Broadcast<'a> {
    topic: &'a Topic,
    event: &'a str,
    payload: &'a [u8],
    encode: Encode,
    frames: [OnceCell<Bytes>; Format::COUNT],
}

impl<'a> Broadcast<'a> {
    /// A message whose payload is encoded JSON.
    pub fn new(topic: &'a Topic, event: &'a str, payload: &'a [u8], encode: Encode) -> Self {
        Self { topic, event, payload, encode, frames: [const { OnceCell::new() }; Format::COUNT] }
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
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    pub(super) const fn encode(&self) -> Encode {
        self.encode
    }

    /// The frame in `format`: encoded by the first call, the same bytes from then on.
    pub fn frame(&self, format: Format) -> &Bytes {
        self.frames[format.index()]
            .get_or_init(|| (self.encode)(format, self.topic.as_str(), self.event, self.payload))
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

    fn encode(format: Format, topic: &str, event: &str, payload: &[u8]) -> Bytes {
        format!("{format:?} {topic} {event} {}", String::from_utf8_lossy(payload)).into()
    }

    #[test]
    fn each_format_is_encoded_once_and_shared() {
        let topic = "room:a".parse().unwrap();
        let broadcast = Broadcast::new(&topic, "new", b"{}", encode);

        let first = broadcast.frame(Format::V2).clone();
        assert_eq!(first, "V2 room:a new {}");
        assert_eq!(broadcast.frame(Format::V2).as_ptr(), first.as_ptr(), "the same bytes");
        assert_eq!(broadcast.frame(Format::V1), "V1 room:a new {}");
        assert_eq!(broadcast.frame(Format::Sse), "Sse room:a new {}");
    }
}

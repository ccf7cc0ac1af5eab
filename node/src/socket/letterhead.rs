//! The frames of one channel, made without its session.

use presence::Topic;

use super::{
    Frame,
    message::{Message, Name, Ref, Reply, Status, Version},
    v2_binary,
};
use crate::pubsub::Payload;

/// What all frames of one channel share: for a channel's own task, which answers its client while the
/// session goes on.
#[derive(Debug)]
pub(crate) struct Letterhead {
    version: Version,
    join_ref: Ref,
    topic: Topic,
}

impl Letterhead {
    pub(super) fn new(version: Version, join_ref: &Ref, topic: &Topic) -> Self {
        Self { version, join_ref: join_ref.clone(), topic: topic.clone() }
    }

    /// The channel's topic.
    pub(crate) fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The answer to a push; `None` when there is no form for it.
    pub(crate) fn reply(&self, to: &Ref, status: Status, response: Payload<'_>) -> Option<Frame> {
        reply(self.version, (&self.join_ref, &self.topic), to.as_bytes(), status, response)
    }

    /// A message to the channel's client alone; `None` when there is no form for it.
    pub(crate) fn message(&self, event: &str, payload: Payload<'_>) -> Option<Frame> {
        let topic = self.topic.as_str();
        match payload {
            Payload::Json(payload) => {
                let (join_ref, reference) = (self.join_ref.as_bytes(), b"null");
                let message = Message { join_ref, reference, topic, event, payload };
                Some(Frame::Text(self.version.encode_message(&message)))
            }
            Payload::User(_) => None,
            Payload::Binary(_) if self.version == Version::V1 => None,
            Payload::Binary(data) => {
                v2_binary::encode_push(&self.join_ref, topic, event, data).map(Frame::Binary)
            }
        }
    }
}

/// The answer to a push of a channel, by its `join_ref` and topic; `None` when there is no form for it.
pub(super) fn reply(
    version: Version,
    (join_ref, topic): (&Ref, &Topic),
    reference: &[u8],
    status: Status,
    response: Payload<'_>,
) -> Option<Frame> {
    let topic = topic.as_str();
    match response {
        Payload::Json(response) => {
            let (join_ref, topic) = (join_ref.as_bytes(), Name::Text(topic));
            let reply = Reply { join_ref, reference, topic, status, response };
            Some(Frame::Text(version.encode_reply(&reply)))
        }
        Payload::User(_) => None,
        Payload::Binary(_) if version == Version::V1 => None,
        Payload::Binary(data) => {
            v2_binary::encode_reply(join_ref, reference, topic, status, data).map(Frame::Binary)
        }
    }
}

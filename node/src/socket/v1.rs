//! V1 text frames: `{"topic", "event", "payload", "ref", "join_ref"?}`.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::message::{Envelope, Message, Name, Reply, put_name, put_response, put_string};
use crate::websocket::FrameBuf;

/// Room for the braces, keys and fixed words of any frame.
const FIXED_LEN: usize = 96;

/// Takes a frame apart. Other keys are ignored; of a repeated key the last one counts.
pub(super) fn decode(frame: &str) -> serde_json::Result<Envelope<'_>> {
    serde_json::from_str::<Object<'_>>(frame).map(|object| object.0)
}

/// `{"event":"phx_reply","payload":{"response":…,"status":…},"ref":…,"topic":…}`: V1 clients get
/// no `join_ref`.
pub(super) fn encode_reply(reply: &Reply<'_>) -> FrameBuf {
    let mut frame =
        FrameBuf::with_capacity(FIXED_LEN + reply.reference.len() + reply.response.len() + 64);
    let out = frame.payload_mut();
    out.extend_from_slice(br#"{"event":"phx_reply","payload":"#);
    put_response(out, reply.status, reply.response);
    put_tail(out, reply.reference, reply.topic);
    frame
}

/// `{"event":…,"payload":`
pub(super) fn put_head(out: &mut Vec<u8>, message: &Message<'_>) {
    out.extend_from_slice(br#"{"event":"#);
    put_string(out, message.event);
    out.extend_from_slice(br#","payload":"#);
}

/// `{"topic":…,"event":…,"payload":…,"ref":null,"join_ref":null}`
pub(super) fn encode_broadcast(topic: &str, event: &str, payload: &[u8]) -> FrameBuf {
    let mut frame = FrameBuf::with_capacity(FIXED_LEN + topic.len() + event.len() + payload.len());
    let out = frame.payload_mut();
    out.extend_from_slice(br#"{"topic":"#);
    put_string(out, topic);
    out.extend_from_slice(br#","event":"#);
    put_string(out, event);
    out.extend_from_slice(br#","payload":"#);
    out.extend_from_slice(payload);
    out.extend_from_slice(br#","ref":null,"join_ref":null}"#);
    frame
}

/// `,"ref":…,"topic":…}`
pub(super) fn put_tail(out: &mut Vec<u8>, reference: &[u8], topic: Name<'_>) {
    out.extend_from_slice(br#","ref":"#);
    out.extend_from_slice(reference);
    out.extend_from_slice(br#","topic":"#);
    put_name(out, topic);
    out.push(b'}');
}

/// The frame, as serde reads it. A derived one would take arrays too and refuse repeated keys.
struct Object<'a>(Envelope<'a>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor).map(Self)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    JoinRef,
    Ref,
    Topic,
    Event,
    Payload,
    #[serde(other)]
    Other,
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with topic, event, payload and ref")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let (mut join_ref, mut reference, mut topic) = (None, None, None);
        let (mut event, mut payload) = (None, None);
        while let Some(key) = object.next_key::<Key>()? {
            let part = match key {
                Key::JoinRef => &mut join_ref,
                Key::Ref => &mut reference,
                Key::Topic => &mut topic,
                Key::Event => &mut event,
                Key::Payload => &mut payload,
                Key::Other => {
                    object.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *part = Some(object.next_value::<&RawValue>()?.get());
        }
        Ok(Envelope {
            join_ref: join_ref.unwrap_or("null"),
            reference: reference.ok_or_else(|| Error::missing_field("ref"))?,
            topic: topic.ok_or_else(|| Error::missing_field("topic"))?,
            event: event.ok_or_else(|| Error::missing_field("event"))?,
            payload: payload.ok_or_else(|| Error::missing_field("payload"))?,
        })
    }
}

//! V2 text frames: `[join_ref, ref, topic, event, payload]`.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::message::{
    Envelope, Message, Name, REF_LEN_MAX, Reply, Version, name_len, put_name, put_response,
    put_string,
};
use crate::websocket::FrameBuf;

/// Brackets, commas, quotes and the fixed words of a reply: what its capacity needs besides its
/// parts.
const REPLY_LEN: usize = br#"[,,,"phx_reply",{"response":,"status":"error"}]"#.len();

/// The raw `ref` of `[null,"7","phoenix","heartbeat",{}]`, written exactly so.
pub(super) fn scan_heartbeat(frame: &[u8]) -> Option<&[u8]> {
    const HEAD: &[u8] = b"[null,";
    let text = frame
        .strip_prefix(HEAD)?
        .strip_prefix(b"\"")?
        .strip_suffix(br#"","phoenix","heartbeat",{}]"#)?;
    let plain = text.len() <= REF_LEN_MAX - 2 && text.iter().all(u8::is_ascii_alphanumeric);
    plain.then(|| &frame[HEAD.len()..HEAD.len() + text.len() + 2])
}

/// Takes a frame apart; elements after the fifth are ignored.
pub(super) fn decode(frame: &str) -> serde_json::Result<Envelope<'_>> {
    serde_json::from_str::<Array<'_>>(frame).map(|array| array.0)
}

/// `[join_ref,ref,topic,"phx_reply",{"response":…,"status":…}]`
pub(super) fn encode_reply(reply: &Reply<'_>) -> FrameBuf {
    let mut frame = FrameBuf::with_capacity(
        REPLY_LEN
            + reply.join_ref.len()
            + reply.reference.len()
            + name_len(reply.topic)
            + reply.response.len(),
    );
    let out = frame.payload_mut();
    put_refs(out, reply.join_ref, reply.reference);
    put_name(out, reply.topic);
    out.extend_from_slice(br#","phx_reply","#);
    put_response(out, reply.status, reply.response);
    out.push(b']');
    frame
}

/// `[join_ref,ref,topic,event,`
pub(super) fn put_head(out: &mut Vec<u8>, message: &Message<'_>) {
    put_refs(out, message.join_ref, message.reference);
    put_name(out, Name::Text(message.topic));
    out.push(b',');
    put_string(out, message.event);
    out.push(b',');
}

/// `[null,null,topic,event,payload]`
pub(super) fn encode_broadcast(topic: &str, event: &str, payload: &[u8]) -> FrameBuf {
    let null = b"null";
    Version::V2.encode_message(&Message { join_ref: null, reference: null, topic, event, payload })
}

fn put_refs(out: &mut Vec<u8>, join_ref: &[u8], reference: &[u8]) {
    out.push(b'[');
    out.extend_from_slice(join_ref);
    out.push(b',');
    out.extend_from_slice(reference);
    out.push(b',');
}

/// The frame, as serde reads it.
struct Array<'a>(Envelope<'a>);

impl<'de> Deserialize<'de> for Array<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ArrayVisitor).map(Self)
    }
}

struct ArrayVisitor;

impl<'de> Visitor<'de> for ArrayVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of 5 elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut parts = [""; 5];
        for (at, part) in parts.iter_mut().enumerate() {
            let raw: Option<&RawValue> = array.next_element()?;
            *part = raw.ok_or_else(|| Error::invalid_length(at, &self))?.get();
        }
        while array.next_element::<IgnoredAny>()?.is_some() {}
        let [join_ref, reference, topic, event, payload] = parts;
        Ok(Envelope { join_ref, reference, topic, event, payload })
    }
}

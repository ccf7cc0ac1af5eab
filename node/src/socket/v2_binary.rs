//! V2 binary frames: a kind, the lengths of names in a byte each, the names, then bytes as they are.
//!
//! A name of more than 255 bytes has no binary form. A `join_ref` or `ref` of the client that is no
//! string stands in a binary frame as its JSON, and null as nothing.

use std::borrow::Cow;

use super::message::{Ref, Status, text};
use crate::websocket::FrameBuf;

/// A push, of the client or to it alone.
const PUSH: u8 = 0;
/// The answer to a push.
const REPLY: u8 = 1;
/// A message to every subscriber of a topic.
const BROADCAST: u8 = 2;

/// A client's frame taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoded<'a> {
    /// Of the join that the frame belongs to.
    pub(super) join_ref: &'a str,
    /// Of this request.
    pub(super) reference: &'a str,
    pub(super) topic: &'a str,
    pub(super) event: &'a str,
    pub(super) data: &'a [u8],
}

/// Takes a client's push apart: `0, len(join_ref), len(ref), len(topic), len(event), join_ref, ref,
/// topic, event, data`. `None` for another kind, a frame that is too short, and names that are no UTF-8.
pub(super) fn decode(frame: &[u8]) -> Option<Decoded<'_>> {
    let (&[kind, join_ref, reference, topic, event], mut rest) = frame.split_first_chunk()?;
    if kind != PUSH {
        return None;
    }
    let mut name = |len: u8| std::str::from_utf8(rest.split_off(..usize::from(len))?).ok();
    Some(Decoded {
        join_ref: name(join_ref)?,
        reference: name(reference)?,
        topic: name(topic)?,
        event: name(event)?,
        data: rest,
    })
}

/// `0, len(join_ref), len(topic), len(event), join_ref, topic, event, data`
pub(super) fn encode_push(
    join_ref: &Ref,
    topic: &str,
    event: &str,
    data: &[u8],
) -> Option<FrameBuf> {
    let join_ref = plain(join_ref.as_bytes());
    encode(PUSH, &[&join_ref, topic.as_bytes(), event.as_bytes()], data)
}

/// `1, len(join_ref), len(ref), len(topic), len(status), join_ref, ref, topic, status, data`
pub(super) fn encode_reply(
    join_ref: &Ref,
    reference: &[u8],
    topic: &str,
    status: Status,
    data: &[u8],
) -> Option<FrameBuf> {
    let (join_ref, reference) = (plain(join_ref.as_bytes()), plain(reference));
    let status = status.as_str().as_bytes();
    encode(REPLY, &[&join_ref, &reference, topic.as_bytes(), status], data)
}

/// `2, len(topic), len(event), topic, event, data`
pub(crate) fn encode_broadcast(topic: &str, event: &str, data: &[u8]) -> Option<FrameBuf> {
    encode(BROADCAST, &[topic.as_bytes(), event.as_bytes()], data)
}

fn encode(kind: u8, names: &[&[u8]], data: &[u8]) -> Option<FrameBuf> {
    let names_len: usize = names.iter().map(|name| name.len() + 1).sum();
    let mut frame = FrameBuf::with_capacity(1 + names_len + data.len());
    let out = frame.payload_mut();
    out.push(kind);
    for name in names {
        out.push(u8::try_from(name.len()).ok()?);
    }
    names.iter().for_each(|name| out.extend_from_slice(name));
    out.extend_from_slice(data);
    Some(frame)
}

/// The text of a ref.
fn plain(raw: &[u8]) -> Cow<'_, [u8]> {
    if raw == b"null" {
        return Cow::Borrowed(b"");
    }
    match std::str::from_utf8(raw).ok().and_then(text) {
        Some(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
        Some(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        None => Cow::Borrowed(raw),
    }
}

//! V2 binary frames: a kind, the lengths of names in a byte each, the names, then bytes as they are.
//!
//! A name of more than 255 bytes has no binary form. A `join_ref` or `ref` of the client that is no
//! string stands in a binary frame as its JSON, and null as nothing.

use std::borrow::Cow;

use super::message::{Ref, Status, text};
use crate::{
    pubsub::{Payload, UserBroadcast},
    websocket::FrameBuf,
};

/// A push, of the client or to it alone.
const PUSH: u8 = 0;
/// The answer to a push.
const REPLY: u8 = 1;
/// A message to every subscriber of a topic.
const BROADCAST: u8 = 2;
/// A push of a realtime-style client: an event and a payload of its users' own.
const USER_PUSH: u8 = 3;
/// The same, to every such client of a topic.
const USER_BROADCAST: u8 = 4;

/// The event that stands for all user broadcasts.
pub(crate) const USER_EVENT: &str = "broadcast";

/// A client's frame taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoded<'a> {
    /// Of the join that the frame belongs to.
    pub(super) join_ref: &'a str,
    /// Of this request.
    pub(super) reference: &'a str,
    pub(super) topic: &'a str,
    pub(super) event: &'a str,
    pub(super) payload: Payload<'a>,
}

/// Takes a client's push apart: `0, len(join_ref), len(ref), len(topic), len(event), join_ref, ref,
/// topic, event, data`, or if `user_broadcasts` are taken `3, len(join_ref), len(ref), len(topic),
/// len(event), len(metadata), encoding, join_ref, ref, topic, event, metadata, data`. `None` for another
/// kind, a frame that is too short, and names that are no UTF-8.
pub(super) fn decode(frame: &[u8], user_broadcasts: bool) -> Option<Decoded<'_>> {
    match frame.split_first()? {
        (&PUSH, rest) => decode_push(rest),
        (&USER_PUSH, rest) if user_broadcasts => decode_user_push(rest),
        _ => None,
    }
}

fn decode_push(frame: &[u8]) -> Option<Decoded<'_>> {
    let (&[join_ref, reference, topic, event], mut rest) = frame.split_first_chunk()?;
    Some(Decoded {
        join_ref: take_name(&mut rest, join_ref)?,
        reference: take_name(&mut rest, reference)?,
        topic: take_name(&mut rest, topic)?,
        event: take_name(&mut rest, event)?,
        payload: Payload::Binary(rest),
    })
}

fn decode_user_push(frame: &[u8]) -> Option<Decoded<'_>> {
    let (&[join_ref, reference, topic, event, metadata, encoding], mut rest) =
        frame.split_first_chunk()?;
    Some(Decoded {
        join_ref: take_name(&mut rest, join_ref)?,
        reference: take_name(&mut rest, reference)?,
        topic: take_name(&mut rest, topic)?,
        event: USER_EVENT,
        payload: Payload::User(UserBroadcast::new([event, metadata, encoding], rest)?),
    })
}

fn take_name<'a>(rest: &mut &'a [u8], len: u8) -> Option<&'a str> {
    std::str::from_utf8(rest.split_off(..usize::from(len))?).ok()
}

/// The same user push with names in UTF-8; `None` if they are, or if it is none. `@supabase/realtime-js`
/// writes the characters of a name as a byte each.
pub(crate) fn user_push_in_utf8(frame: &[u8]) -> Option<Vec<u8>> {
    const NAMES: usize = 5;
    let (&[USER_PUSH, head @ ..], mut rest) = frame.split_first_chunk::<7>()? else {
        return None;
    };
    let mut names = Vec::with_capacity(NAMES);
    for len in &head[..NAMES] {
        names.push(rest.split_off(..usize::from(*len))?);
    }
    if names.iter().all(|name| std::str::from_utf8(name).is_ok()) {
        return None;
    }
    let names: Vec<String> = names.iter().map(|name| in_utf8(name)).collect();
    let mut out = vec![USER_PUSH];
    for name in &names {
        out.push(u8::try_from(name.len()).ok()?);
    }
    out.push(head[NAMES]);
    names.iter().for_each(|name| out.extend_from_slice(name.as_bytes()));
    out.extend_from_slice(rest);
    Some(out)
}

fn in_utf8(name: &[u8]) -> String {
    let latin = || name.iter().map(|byte| char::from(*byte)).collect();
    std::str::from_utf8(name).map_or_else(|_| latin(), ToOwned::to_owned)
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

/// `4, len(topic), len(event), len(metadata), encoding, topic, event, metadata, payload`
pub(crate) fn encode_user_broadcast(topic: &str, user: &UserBroadcast<'_>) -> Option<FrameBuf> {
    let tail = user.tail();
    let mut frame = FrameBuf::with_capacity(5 + topic.len() + tail.len());
    let out = frame.payload_mut();
    out.extend_from_slice(&[USER_BROADCAST, u8::try_from(topic.len()).ok()?]);
    out.extend_from_slice(&user.head());
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(tail);
    Some(frame)
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

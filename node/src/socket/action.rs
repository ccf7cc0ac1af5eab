//! The effects of a session, and the queue of them.

use std::{borrow::Cow, collections::VecDeque};

use bytes::Bytes;
use cluster::wire::PayloadKind;
use presence::Topic;

use crate::{pubsub::Payload, websocket::FrameBuf};

use super::{
    channels::{Channel, ChannelId},
    letterhead,
    message::{Envelope, Message, Name, Ref, Reply, Status, Version},
};

/// The response that says nothing.
pub(super) const EMPTY: &[u8] = b"{}";

const UNMATCHED_TOPIC: &[u8] = br#"{"reason":"unmatched topic"}"#;

/// An effect for the driver.
#[derive(Debug)]
pub(crate) enum Action<D> {
    /// Write this frame to the client, after those before it.
    Send(Frame),
    /// Ask a channel to take a client in; answer with
    /// [`Socket::join_ok`](super::Socket::join_ok) or
    /// [`Socket::join_error`](super::Socket::join_error).
    Join {
        /// The new channel.
        id: ChannelId,
        /// What the router gave for the topic.
        route: usize,
        /// Its topic.
        topic: Topic,
        /// Raw JSON object; `{}` when the client sent something else.
        payload: Bytes,
    },
    /// A channel ended: drop its subscription and presence. The client's frames about it follow.
    ///
    /// Every channel that an [`Action::Join`] began gets one, but for those that
    /// [`Socket::join_error`](super::Socket::join_error) refused.
    Leave {
        /// The former channel's topic, which may be joined again already by another channel.
        topic: Topic,
        /// What the driver kept with it.
        data: Option<D>,
        /// Why it ended.
        why: Ended,
    },
    /// A client's message that waited for its channel's join; answer with
    /// [`Socket::reply`](super::Socket::reply), or not.
    Push {
        /// The channel.
        id: ChannelId,
        /// What the router gave for the topic.
        route: usize,
        /// Any text, also empty or long, that does not begin with `phx_`.
        event: Box<str>,
        /// What the bytes of the payload are.
        kind: PayloadKind,
        /// Raw JSON of any type, or bytes.
        payload: Bytes,
        /// What to reply to; null when the client expects no reply.
        reference: Ref,
    },
}

/// Why a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its client left.
    Left,
    /// Its client joined the topic anew.
    Replaced,
    /// It stopped by itself.
    Stopped,
    /// It crashed.
    Crashed,
}

/// A client's message for a joined channel, within its frame; answer with
/// [`Socket::reply`](super::Socket::reply), or not.
#[derive(Debug)]
pub(crate) struct Push<'a> {
    /// The channel.
    pub(crate) id: ChannelId,
    /// What the router gave for the topic.
    pub(crate) route: usize,
    /// Any text, also empty or long, that does not begin with `phx_`.
    pub(crate) event: Cow<'a, str>,
    /// Raw JSON of any type, or bytes.
    pub(crate) payload: Payload<'a>,
    /// Raw JSON: what to reply to; null when the client expects no reply.
    pub(crate) reference: Cow<'a, str>,
}

/// A message to the client. How it goes on the wire is the connection's own:
/// [`Framing`](crate::framing::Framing).
#[derive(Debug)]
pub(crate) enum Frame {
    /// Text of the socket's version.
    Text(FrameBuf),
    /// A binary message of V2.
    Binary(FrameBuf),
}

/// The end of the socket: what the close frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({code})")]
pub(crate) struct Close {
    /// The WebSocket close code.
    pub(crate) code: u16,
    /// For people; at most 123 bytes.
    pub(crate) reason: &'static str,
}

impl Close {
    /// A frame is no JSON, or of another shape than the connect's version has.
    pub(crate) const UNDECODABLE: Self = Self { code: 1011, reason: "frame cannot be decoded" };
    /// A `ref` or `join_ref` is over 1,024 bytes.
    pub(crate) const REF_TOO_LONG: Self = Self { code: 1011, reason: "ref is too long" };
    /// Bytes that are no text, from a client of V1.
    pub(crate) const BINARY: Self = Self { code: 1011, reason: "binary frames are for vsn 2.0.0" };
}

/// Actions that the driver has not taken yet, and the frames to say what the session decided.
///
/// Its bound is what one input can cause, for the driver drains it after each.
#[derive(Debug)]
pub(super) struct Outbox<D> {
    version: Version,
    actions: VecDeque<Action<D>>,
}

impl<D> Outbox<D> {
    /// An empty queue; frames are of this version.
    pub(super) fn new(version: Version) -> Self {
        Self { version, actions: VecDeque::new() }
    }

    /// Adds an action.
    pub(super) fn push(&mut self, action: Action<D>) {
        self.actions.push_back(action);
    }

    /// Takes the oldest action.
    pub(super) fn pop(&mut self) -> Option<Action<D>> {
        let action = self.actions.pop_front();
        if action.is_none() {
            // An idle socket keeps no room.
            self.actions = VecDeque::new();
        }
        action
    }

    /// Takes the oldest action if it is a frame.
    pub(super) fn pop_frame(&mut self) -> Option<Frame> {
        match self.actions.pop_front()? {
            Action::Send(frame) => Some(frame),
            other @ (Action::Join { .. } | Action::Leave { .. } | Action::Push { .. }) => {
                self.actions.push_front(other);
                None
            }
        }
    }

    /// Answers a heartbeat.
    pub(super) fn heartbeat(&mut self, reference: &[u8]) {
        self.send_reply(&Reply {
            join_ref: b"null",
            reference,
            topic: Name::Text("phoenix"),
            status: Status::Ok,
            response: EMPTY,
        });
    }

    /// Answers a request that names no channel of this socket, with its own refs and topic.
    pub(super) fn answer(&mut self, envelope: &Envelope<'_>, status: Status, response: &[u8]) {
        self.send_reply(&Reply {
            join_ref: envelope.join_ref.as_bytes(),
            reference: envelope.reference.as_bytes(),
            topic: Name::Raw(envelope.topic),
            status,
            response,
        });
    }

    /// Refuses a request of a topic that is not joined, or that no channel serves.
    pub(super) fn unmatched(&mut self, topic: Name<'_>, reference: &[u8]) {
        self.send_reply(&Reply {
            join_ref: b"null",
            reference,
            topic,
            status: Status::Error,
            response: UNMATCHED_TOPIC,
        });
    }

    /// Answers a channel's join.
    pub(super) fn answer_join(
        &mut self,
        channel: &Channel<D>,
        reference: &Ref,
        status: Status,
        response: &[u8],
    ) {
        self.send_reply(&Reply {
            join_ref: channel.expected.as_bytes(),
            reference: reference.as_bytes(),
            topic: Name::Text(channel.topic.as_str()),
            status,
            response,
        });
    }

    /// Answers any other request to a channel. False, and nothing is sent, when there is no form for it.
    pub(super) fn reply(
        &mut self,
        channel: &Channel<D>,
        reference: &[u8],
        status: Status,
        response: Payload<'_>,
    ) -> bool {
        let channel = (&channel.carried, &channel.topic);
        let frame = letterhead::reply(self.version, channel, reference, status, response);
        let sent = frame.is_some();
        self.actions.extend(frame.map(Action::Send));
        sent
    }

    /// Closes former joins of a topic.
    pub(super) fn close(&mut self, topic: &Topic, join_refs: &[Ref]) {
        for join_ref in join_refs {
            self.end(topic, join_ref, "phx_close", EMPTY);
        }
    }

    /// The last frame of a channel: the `join_ref` that the client knows is also its `ref`.
    pub(super) fn end(&mut self, topic: &Topic, join_ref: &Ref, event: &str, payload: &[u8]) {
        let frame = self.version.encode_message(&Message {
            join_ref: join_ref.as_bytes(),
            reference: join_ref.as_bytes(),
            topic: topic.as_str(),
            event,
            payload,
        });
        self.send_text(frame);
    }

    fn send_reply(&mut self, reply: &Reply<'_>) {
        let frame = self.version.encode_reply(reply);
        self.send_text(frame);
    }

    fn send_text(&mut self, frame: FrameBuf) {
        self.push(Action::Send(Frame::Text(frame)));
    }
}

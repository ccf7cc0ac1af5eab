//! What the benches need of the node's inside: the codec, a client's session, entries without a
//! client, and what goes over links. No API.

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use presence::{Time, Topic, TrackError};
use transport::LinkStats;

use crate::{
    NodeHandle,
    framing::Framing,
    pubsub::{Flush, Format, Mailbox, Payload},
    socket::{Action, Close, Limits, Push, Socket, Status, Version},
    tracker::{Hears, Interest, Tracked},
    websocket::{Decoder, Message, Rules, Violation},
};

const RULES: Rules = Rules { message_max: 1 << 20, inflate: true };

/// The frame of a broadcast in a format, as a node encodes it; `None` when it has no form there.
pub fn encode(format: Format, topic: &str, event: &str, payload: Payload<'_>) -> Option<Bytes> {
    crate::wire_format::encode(format, topic, event, payload)
}

/// An entry without a client. Dropping it takes it off the list, then lets the interest go.
#[derive(Debug)]
pub struct Listed {
    _tracked: Tracked,
    _interest: Interest,
}

/// Lists somebody on a topic, as the join of a client does once the peers know of the interest.
///
/// # Errors
/// See [`TrackError`].
pub fn track(
    node: &NodeHandle,
    topic: &Topic,
    key: &str,
    meta: &[u8],
) -> Result<Listed, TrackError> {
    let tracker = &node.shared().tracker;
    let interest = tracker.interest(topic);
    Ok(Listed { _tracked: tracker.track(topic, key, meta)?, _interest: interest })
}

/// What one who begins to watch a topic is told: `{key: {"metas": [meta, …]}}`.
///
/// # Errors
/// Never: only listing a client can fail, and nobody is listed here.
pub fn told(node: &NodeHandle, topic: &Topic) -> Result<Bytes, TrackError> {
    let tracker = &node.shared().tracker;
    let told = tracker.watch(topic, Hears::Changes, None, |state| state.payload.clone())?;
    Ok(told.2)
}

/// What went over the links that are up.
pub fn links(node: &NodeHandle) -> Vec<LinkStats> {
    let links = node.shared().transport.as_ref().map(|transport| transport.links());
    links.unwrap_or_default().iter().map(|link| link.stats()).collect()
}

/// The bytes of a client without its task: what was read goes in, events of joined topics and
/// answers come out.
#[derive(Debug)]
pub struct Session {
    decoder: Decoder,
    socket: Socket<()>,
}

/// A client's bytes cannot be read: its socket would be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client broke a rule")]
pub struct Refused;

impl From<Violation> for Refused {
    fn from(_: Violation) -> Self {
        Self
    }
}

impl From<Close> for Refused {
    fn from(_: Close) -> Self {
        Self
    }
}

impl Session {
    /// A client of V2 that has joined nothing.
    pub fn new() -> Self {
        let limits = Arc::new(Limits::default());
        let socket = Socket::new(Version::V2, &limits, Time::ZERO);
        Self { decoder: Decoder::default(), socket }
    }

    /// Takes what was read of a client: its messages are only taken out of their frames.
    ///
    /// # Errors
    /// When a frame breaks a rule.
    pub fn decode(
        &mut self,
        read: &mut [u8],
        mut on_text: impl FnMut(&str),
    ) -> Result<(), Refused> {
        let done = self.decoder.decode(read, &RULES, |message| {
            if let Message::Text(text) = message {
                on_text(text);
            }
            Ok(ControlFlow::Continue(()))
        });
        done.map(drop)
    }

    /// Takes one text message. What it asks of a joined topic is handed on and acknowledged; a join is
    /// let in.
    ///
    /// # Errors
    /// When the message cannot be decoded.
    pub fn handle(
        &mut self,
        text: &str,
        mailbox: &Arc<Mailbox>,
        flush: &mut Flush,
        on_push: impl FnOnce(&str, Payload<'_>, &mut Flush),
    ) -> Result<(), Refused> {
        if let Some(push) = self.socket.handle_text(text, &|_| Some(0), Time::ZERO)? {
            let Push { id, event, payload, reference, .. } = push;
            on_push(&event, payload, flush);
            self.socket.reply(id, reference.as_bytes(), Status::Ok, Payload::Json(b"{}"));
        }
        while let Some(action) = self.socket.poll_action() {
            match action {
                Action::Send(frame) => {
                    let frame = Framing::WebSocket { deflate: false }.frame(frame);
                    frame.into_iter().for_each(|frame| flush.reply(mailbox, frame));
                }
                Action::Join { id, .. } => self.socket.join_ok(id, b"{}"),
                Action::Leave { .. } | Action::Push { .. } => {}
            }
        }
        Ok(())
    }

    /// Takes what was read of a client, as [`decode`](Self::decode) and [`handle`](Self::handle) do.
    ///
    /// # Errors
    /// When a frame breaks a rule, or a message cannot be decoded.
    pub fn read(
        &mut self,
        read: &mut [u8],
        mailbox: &Arc<Mailbox>,
        flush: &mut Flush,
        mut on_push: impl FnMut(&str, Payload<'_>, &mut Flush),
    ) -> Result<(), Refused> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let done = decoder.decode(read, &RULES, |message| {
            if let Message::Text(text) = message {
                self.handle(text, mailbox, flush, &mut on_push)?;
            }
            Ok(ControlFlow::Continue(()))
        });
        self.decoder = decoder;
        done.map(drop)
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

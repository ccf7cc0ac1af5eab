//! Requests that reached another node than their session's: handed to it, and answered for it.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use cluster::wire::{self, ClientFrame, SessionAnswer, SessionId, SessionRequest};
use presence::NodeName;
use tracing::warn;
use transport::{Fate, Link, Responder};

use crate::endpoint::longpoll::{
    Sessions,
    answer::Receipt,
    door::{Polled, Posted},
    frames,
};

/// Bytes of a client's frames that one request carries, unless one frame is longer.
const PART: usize = 1024 * 1024;

/// What a poll brings, wherever its session is.
#[derive(Debug)]
pub(super) enum Outcome {
    Gone,
    Nothing,
    Messages(Bytes, Receipt),
}

impl From<Polled> for Outcome {
    fn from(polled: Polled) -> Self {
        match polled {
            Polled::Gone => Self::Gone,
            Polled::Nothing => Self::Nothing,
            Polled::Messages(batch) => {
                Self::Messages(batch.messages().clone(), Receipt::Own(batch))
            }
        }
    }
}

/// Polls a session of the peer. Dropping the future takes the poll back there.
pub(super) async fn poll(sessions: &Sessions, link: &Link, session: SessionId) -> Outcome {
    sessions.stats().forwarded.fetch_add(1, Ordering::Relaxed);
    let request = wire::encode_session_request(&SessionRequest::Poll(session));
    // A link that goes down takes its sessions with it, as far as this node can tell.
    let Ok(answer) = link.ask(request).await else {
        return Outcome::Gone;
    };
    match wire::decode_session_answer(answer.body()) {
        Ok(SessionAnswer::Messages(messages)) => Outcome::Messages(messages, Receipt::Peer(answer)),
        Ok(SessionAnswer::Nothing) => Outcome::Nothing,
        Ok(SessionAnswer::Gone | SessionAnswer::Taken | SessionAnswer::Undecodable) | Err(_) => {
            Outcome::Gone
        }
    }
}

/// Hands frames to a session of the peer, each part after the one before it was taken.
pub(super) async fn post(
    sessions: &Sessions,
    link: &Link,
    session: SessionId,
    frames: Vec<ClientFrame>,
) -> Posted {
    for part in frames::parts(frames, PART) {
        sessions.stats().forwarded.fetch_add(1, Ordering::Relaxed);
        let request = wire::encode_session_request(&SessionRequest::Frames(session, part));
        let Ok(answer) = link.ask(request).await else {
            return Posted::Gone;
        };
        match wire::decode_session_answer(&answer.take()) {
            Ok(SessionAnswer::Taken) => {}
            Ok(SessionAnswer::Undecodable) => return Posted::Undecodable,
            Ok(SessionAnswer::Gone | SessionAnswer::Nothing | SessionAnswer::Messages(_))
            | Err(_) => return Posted::Gone,
        }
    }
    Posted::Taken
}

/// Answers a peer's request for one of this node's sessions.
pub(crate) async fn answer(
    node: NodeName,
    sessions: Arc<Sessions>,
    request: SessionRequest,
    mut reply: Responder,
) {
    match request {
        SessionRequest::Poll(session) => {
            let polled = tokio::select! {
                polled = sessions.poll(session) => polled,
                () = reply.abandoned() => return,
            };
            answer_poll(&node, polled, reply).await;
        }
        SessionRequest::Frames(session, frames) => {
            let answer = match sessions.post(session, frames).await {
                Posted::Gone => SessionAnswer::Gone,
                Posted::Taken => SessionAnswer::Taken,
                Posted::Undecodable => SessionAnswer::Undecodable,
            };
            // It is short.
            drop(reply.send(wire::encode_session_answer(&answer)));
        }
    }
}

async fn answer_poll(node: &NodeName, polled: Polled, reply: Responder) {
    let (answer, batch) = match polled {
        Polled::Gone => (SessionAnswer::Gone, None),
        Polled::Nothing => (SessionAnswer::Nothing, None),
        Polled::Messages(batch) => (SessionAnswer::Messages(batch.messages().clone()), Some(batch)),
    };
    match (reply.send(wire::encode_session_answer(&answer)), batch) {
        (Ok(sent), Some(batch)) => match sent.fate().await {
            Fate::Taken => batch.take(),
            Fate::NotTaken => drop(batch),
            Fate::Unknown => batch.lose(),
        },
        (Err(error), Some(batch)) => {
            // No poll through a peer could ever get it. The client is told that the session is gone.
            warn!(%node, len = batch.messages().len(), "a message to a long-poll client dropped: {error}");
            batch.take();
        }
        (Ok(_) | Err(_), None) => {}
    }
}

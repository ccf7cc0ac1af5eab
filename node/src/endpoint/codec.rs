//! What a client's bytes mean, and what its connection itself says, by the kind of that.

use std::{
    ops::ControlFlow,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;

use super::driver::End;
use crate::websocket::{Decoder, Message, Rules, close, pong};

/// How a client's bytes become messages.
pub(super) trait Codec: Default + Unpin {
    /// Takes the next bytes, which it may change, and hands on each message that they make whole, until
    /// `on_message` wants no more for now. Returns how many of the last bytes were not taken then: they
    /// come first at the next call.
    ///
    /// # Errors
    /// The first rule that was broken, or the first error of `on_message`. What comes later is ignored.
    fn decode(
        &mut self,
        bytes: &mut [u8],
        rules: &Rules,
        on_message: impl FnMut(Heard<'_>) -> Result<ControlFlow<()>, End>,
    ) -> Result<usize, End>;

    /// The last words to a client: why its connection is closed.
    fn last_words(code: u16, reason: &str) -> Bytes;

    /// Ready when the client is to be told that the node is there. So long as `idle_timeout` a client may
    /// be silent.
    fn poll_heartbeat(&mut self, _: &mut Context<'_>, _idle_timeout: Duration) -> Poll<Bytes> {
        Poll::Pending
    }
}

/// One message of a client.
pub(super) enum Heard<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// A question whether the node is there, with its answer.
    Ping(Bytes),
    Pong,
    /// The client's last message, with its code if it gave one.
    Closed(Option<u16>),
}

/// The frames of RFC 6455.
#[derive(Debug, Default)]
pub(super) struct WebSocket(Decoder);

impl Codec for WebSocket {
    fn decode(
        &mut self,
        bytes: &mut [u8],
        rules: &Rules,
        mut on_message: impl FnMut(Heard<'_>) -> Result<ControlFlow<()>, End>,
    ) -> Result<usize, End> {
        self.0.decode(bytes, rules, |message| {
            on_message(match message {
                Message::Text(text) => Heard::Text(text),
                Message::Binary(bytes) => Heard::Binary(bytes),
                Message::Ping(payload) => Heard::Ping(pong(payload)),
                Message::Pong(_) => Heard::Pong,
                Message::Close(code) => Heard::Closed(code),
            })
        })
    }

    fn last_words(code: u16, reason: &str) -> Bytes {
        close(code, reason)
    }
}

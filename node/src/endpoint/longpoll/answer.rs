//! The body of an answer to a poll, which knows whether its messages reached the client.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame};

use crate::endpoint::longpoll::door::Batch;

/// Who is told that the messages are on their way for good. Dropping it says that they are not.
#[derive(Debug)]
pub(super) enum Receipt {
    /// This node's session.
    Own(Batch),
    /// The session's node.
    Peer(transport::Answer),
}

/// How often the body has to be asked for more until what it gave before is surely written: the
/// connection asks twice in a row before it flushes.
const PAUSES: u8 = 2;

/// An answer with messages.
///
/// Its last bytes, without which it is no JSON, come after those before them have been written to the
/// connection, and its end after those. Once the system has heard that the client is gone, one of these
/// writes fails; then the body is dropped before its end, and with it the receipt: the messages go to
/// the next poll. Its length is not told beforehand: it would be its end.
#[derive(Debug)]
pub(super) struct Messages {
    pieces: VecDeque<Bytes>,
    /// How often it still waits before it goes on.
    pauses: u8,
    receipt: Option<Receipt>,
}

impl Messages {
    /// `head`, then the messages, then `tail`.
    pub(super) fn new(head: String, messages: Bytes, tail: &'static str, receipt: Receipt) -> Self {
        let pieces = [head.into(), messages, tail.into()].into();
        Self { pieces, pauses: 0, receipt: Some(receipt) }
    }
}

impl Body for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.pauses > 0 {
            self.pauses -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(piece) = self.pieces.pop_front() {
            // The first goes with the second.
            self.pauses = if self.pieces.len() < 2 { PAUSES } else { 0 };
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(receipt) = self.receipt.take() {
            receipt.sign();
        }
        Poll::Ready(None)
    }
}

impl Receipt {
    fn sign(self) {
        match self {
            Self::Own(batch) => batch.take(),
            Self::Peer(answer) => drop(answer.take()),
        }
    }
}

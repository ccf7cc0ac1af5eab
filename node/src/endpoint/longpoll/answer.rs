//! The body of an answer to a poll, which knows whether its messages reached the client.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::endpoint::longpoll::door::Batch;

/// Who is told that the messages are on their way for good. Dropping it says that they are not.
#[derive(Debug)]
pub(super) enum Receipt {
    /// This node's session.
    Own(Batch),
    /// The session's node.
    Peer(transport::Answer),
}

/// How long the last bytes wait for those before them to be far from this machine.
///
/// A client that has gone, or goes while it reads, is heard of meanwhile if it is this far away at most.
/// What waits for it is worth more than that time: nobody polls where every millisecond counts.
pub(super) const HOLD: Duration = Duration::from_millis(10);

/// How often the body has to be asked for more until what it gave before is surely written: the
/// connection asks twice in a row before it flushes.
const PAUSES: u8 = 2;

/// The session's node cannot be told any more that the client has the messages.
#[derive(Debug)]
pub(super) struct Unlinked;

/// An answer with messages.
///
/// Its last bytes, without which it is no JSON, come [`HOLD`] after those before them have been written to
/// the connection, and its end after those. Once the system has heard that the client is gone, the
/// connection ends, or one of these writes fails; then the body is dropped before its end, and with it the
/// receipt: the messages go to the next poll. Its length is not told beforehand: it would be its end.
#[derive(Debug)]
pub(super) struct Messages {
    pieces: VecDeque<Bytes>,
    /// How often it still waits before it goes on.
    pauses: u8,
    hold: Pin<Box<Sleep>>,
    receipt: Option<Receipt>,
    /// A stopping node waits for it.
    _answered: TaskTrackerToken,
}

impl Messages {
    /// `head`, then the messages, then `tail`.
    pub(super) fn new(
        head: String,
        messages: Bytes,
        tail: &'static str,
        receipt: Receipt,
        answered: TaskTrackerToken,
    ) -> Self {
        let pieces = [head.into(), messages, tail.into()].into();
        let hold = Box::pin(sleep(HOLD));
        Self { pieces, pauses: 0, hold, receipt: Some(receipt), _answered: answered }
    }

    /// Ready when the last bytes may go.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unlinked>> {
        ready!(self.hold.as_mut().poll(cx));
        let linked = self.receipt.as_ref().is_none_or(Receipt::can_be_signed);
        Poll::Ready(if linked { Ok(()) } else { Err(Unlinked) })
    }
}

impl Body for Messages {
    type Data = Bytes;
    type Error = Unlinked;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unlinked>>> {
        if self.pauses > 0 {
            self.pauses -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.pieces.len() == 1
            && let Err(unlinked) = ready!(self.poll_hold(cx))
        {
            return Poll::Ready(Some(Err(unlinked)));
        }
        if let Some(piece) = self.pieces.pop_front() {
            // The first goes with the second.
            self.pauses = if self.pieces.len() < 2 { PAUSES } else { 0 };
            self.hold.as_mut().reset(Instant::now() + HOLD);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(receipt) = self.receipt.take() {
            receipt.sign();
        }
        Poll::Ready(None)
    }
}

impl fmt::Display for Unlinked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the node of the session is gone")
    }
}

impl std::error::Error for Unlinked {}

impl Receipt {
    fn can_be_signed(&self) -> bool {
        match self {
            Self::Own(_) => true,
            Self::Peer(answer) => answer.is_linked(),
        }
    }

    fn sign(self) {
        match self {
            Self::Own(batch) => batch.take(),
            Self::Peer(answer) => drop(answer.take()),
        }
    }
}

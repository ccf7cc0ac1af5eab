//! The task of one session: a socket whose client asks for its messages from time to time.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use cluster::wire::ClientFrame;
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep},
};
use tracing::debug;

use crate::{
    endpoint::{
        connection::Connection,
        longpoll::{
            door::{Door, Polling, Posted},
            sessions::Entry,
        },
    },
    pubsub::{Flush, Mailbox, Writing},
    socket::Close,
};

/// How long a client may take from one poll to the next, after the first one's window.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// Frames of the mailbox in one answer, and their bytes unless it is one: the rest waits for the next
/// poll.
const ANSWER_FRAMES: usize = 256;
const ANSWER_BYTES: usize = 256 * 1024;

/// Bytes of a client's frames that are handled at a time.
///
/// Their answers must cause less than a mailbox holds.
const SLICE: usize = 16 * 1024;

/// A session as a future: it ends with the session.
pub(super) struct Session {
    connection: Connection,
    entry: Entry,
    /// The client's frames that are being taken.
    posting: Option<Box<Posting>>,
    /// What they caused is being written.
    writing: Option<Writing>,
    timer: Pin<Box<Sleep>>,
    timing: Timing,
}

struct Posting {
    /// In reverse.
    frames: Vec<ClientFrame>,
    done: oneshot::Sender<Posted>,
}

/// What the timer ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Timing {
    /// The waiting poll.
    Window,
    /// The session, which nobody polls.
    Grace,
    /// Nothing: messages are on their way.
    Nothing,
    /// The session, at once.
    Lost,
}

/// Why a session ends.
enum End {
    /// Nobody has polled it.
    Unpolled,
    /// Nobody can say what its client has heard.
    Lost,
    /// From within, or by the client's own fault.
    Close(Close),
}

impl Session {
    pub(super) fn new(connection: Connection, entry: Entry) -> Self {
        let timer = Box::pin(sleep(entry.window() + GRACE));
        let timing = Timing::Grace;
        Self { connection, entry, posting: None, writing: None, timer, timing }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            // First this, so that whoever asks from here on wakes us.
            self.door().register(cx);
            if let Some(reason) = self.connection.mailbox.closed() {
                return Poll::Ready(End::Close(self.connection.close_of(reason)));
            }
            if let Some(writing) = &mut self.writing {
                ready!(Pin::new(writing).poll(cx));
                self.writing = None;
            }
            let mut flush = Flush::new();
            match self.connection.poll_control(cx, &mut flush) {
                Poll::Ready(Some(reason)) => {
                    return Poll::Ready(End::Close(self.connection.close_of(reason)));
                }
                Poll::Ready(None) => {
                    self.writing = Some(flush.write());
                    continue;
                }
                Poll::Pending => {}
            }
            let mailbox = &self.connection.mailbox;
            if self.door().answer(|| next_messages(mailbox)) {
                continue;
            }
            match self.take_frames() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(close) => return Poll::Ready(End::Close(close)),
            }
            ready!(self.poll_timer(cx));
            match self.timing {
                Timing::Lost => return Poll::Ready(End::Lost),
                Timing::Grace => return Poll::Ready(End::Unpolled),
                Timing::Window | Timing::Nothing => self.door().answer_nothing(),
            }
        }
    }

    /// Ready when the time of the poll, or of the session, is over.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (timing, time) = match self.door().polling(cx) {
            Polling::Begun => {
                self.timing = Timing::Nothing;
                (Timing::Window, self.entry.window())
            }
            Polling::Waiting => (Timing::Window, self.entry.window()),
            Polling::Writing => (Timing::Nothing, Duration::ZERO),
            Polling::Idle => (Timing::Grace, self.entry.window() + GRACE),
            Polling::Lost => (Timing::Lost, Duration::ZERO),
        };
        if timing != self.timing {
            self.timing = timing;
            self.timer.as_mut().reset(Instant::now() + time);
        }
        match timing {
            Timing::Nothing => Poll::Pending,
            Timing::Lost => Poll::Ready(()),
            Timing::Window | Timing::Grace => self.timer.as_mut().poll(cx),
        }
    }

    /// Takes some of the client's frames; false when there are none, or the client has to read first, or a
    /// channel has to catch up.
    fn take_frames(&mut self) -> Result<bool, Close> {
        if self.connection.is_held() {
            let mut flush = Flush::new();
            let goes_on = self.connection.go_on(&mut flush).is_some();
            if goes_on {
                self.writing = Some(flush.write());
                self.answer_taken();
            }
            return Ok(goes_on);
        }
        if self.posting.is_none()
            && let Some(frames) = self.entry.door().take_frames()
        {
            self.posting = Some(Box::new(Posting::new(frames)));
        }
        let Some(mut posting) = self.posting.take() else {
            return Ok(false);
        };
        let shared = Arc::clone(&self.connection.shared);
        if self.connection.mailbox.bytes() > shared.config.limits.mailbox_bytes.bytes() / 2 {
            self.posting = Some(posting);
            return Ok(false);
        }
        let mut flush = Flush::of_input(shared.registry.latency());
        let mut left = SLICE;
        while left > 0
            && !self.connection.is_held()
            && let Some(frame) = posting.frames.pop()
        {
            left = left.saturating_sub(frame.bytes().len());
            shared.stats.frames_in.fetch_add(1, Ordering::Relaxed);
            if let Err(close) = self.handle(&frame, &mut flush) {
                posting.end(Posted::Undecodable);
                return Err(close);
            }
        }
        self.writing = Some(flush.write());
        self.posting = Some(posting);
        self.answer_taken();
        Ok(true)
    }

    /// Answers a POST of which nothing is left to take.
    fn answer_taken(&mut self) {
        let taken = |posting: &mut Box<Posting>| posting.frames.is_empty();
        if !self.connection.is_held()
            && let Some(posting) = self.posting.take_if(taken)
        {
            posting.end(Posted::Taken);
        }
    }

    fn handle(&mut self, frame: &ClientFrame, flush: &mut Flush) -> Result<(), Close> {
        match frame {
            ClientFrame::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => self.connection.handle_text(text, flush),
                Err(_) => Err(Close { code: 1007, reason: "not UTF-8" }),
            },
            ClientFrame::Binary(bytes) => self.connection.handle_binary(bytes, flush),
        }
    }

    fn door(&self) -> &Arc<Door> {
        self.entry.door()
    }

    /// Leaves all topics.
    fn end(&mut self, end: &End) {
        let node = &self.connection.shared.name;
        match end {
            End::Unpolled => debug!(%node, "long-poll session ended: nobody polled it"),
            End::Lost => {
                debug!(%node, "long-poll session ended: a peer was lost with an answer on its way");
            }
            End::Close(Close { code, reason }) => {
                debug!(%node, code, "long-poll session ended: {reason}");
            }
        }
        self.connection.ended();
    }
}

impl Future for Session {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let end = ready!(self.poll_open(cx));
        self.end(&end);
        Poll::Ready(())
    }
}

impl Posting {
    fn new(frames: super::door::Frames) -> Self {
        let super::door::Frames { mut frames, done, .. } = frames;
        frames.reverse();
        Self { frames, done }
    }

    fn end(self, posted: Posted) {
        // Its client may have gone.
        let _ = self.done.send(posted);
    }
}

/// What the mailbox holds, as much as one answer takes, with commas between. A large message comes
/// alone: whatever becomes of it, others do not share it.
fn next_messages(mailbox: &Mailbox) -> Option<Bytes> {
    let mut messages = Vec::from(mailbox.pop()?);
    for _ in 1..ANSWER_FRAMES {
        let Some(left) = ANSWER_BYTES.checked_sub(messages.len() + 1) else { break };
        let Some(next) = mailbox.pop_up_to(left) else { break };
        messages.push(b',');
        messages.extend_from_slice(&next);
    }
    Some(messages.into())
}

//! The task of one socket: reads its client, and ends it. Writing is done by whoever has something for
//! the client; this goes on where the client did not take all.

use std::{
    cell::RefCell,
    ops::ControlFlow,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use crate::{
    endpoint::{
        codec::{Codec, Heard},
        connection::{Connection, SLOW},
        listener::Open,
        stream::Stream,
    },
    pubsub::{CloseReason, Flush, Writing},
    socket::Close,
    websocket::Violation,
};

/// Bytes read at a time.
///
/// All of it is handled before anything is written: it must cause less than a mailbox holds.
const SCRATCH: usize = 16 * 1024;

/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long it may take with a slow client, which hears why only once it reads again.
const SLOW_CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

thread_local! {
    /// What all sockets of a thread are read into: an idle one owns no buffer.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// One client's socket as a future: it ends with the socket.
pub(super) struct Driver<S, C> {
    connection: Connection,
    stream: S,
    codec: C,
    /// What the client's last frames caused is being written.
    writing: Option<Writing>,
    closing: Option<Box<Closing>>,
    _open: Open,
}

/// The closing handshake: our close frame is on its way, then the end of the stream is awaited.
struct Closing {
    timeout: Pin<Box<Sleep>>,
    /// The client closed first: it waits for nothing but our answer.
    answer: bool,
    shut: bool,
}

/// Why nothing more is read.
pub(super) enum End {
    /// The client is to be told.
    Close(Close),
    /// The client closed: it is answered.
    Closed(Option<u16>),
    /// The client is gone.
    Gone,
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        let (code, reason) = violation.close();
        Self::Close(Close { code, reason })
    }
}

impl From<Close> for End {
    fn from(close: Close) -> Self {
        Self::Close(close)
    }
}

impl<S: Stream, C: Codec> Driver<S, C> {
    /// `read` was read from the stream already.
    pub(super) fn new(connection: Connection, stream: S, read: &[u8], open: Open) -> Self {
        let codec = C::default();
        let (writing, closing) = (None, None);
        let mut driver = Self { connection, stream, codec, writing, closing, _open: open };
        if !read.is_empty()
            && let Err(end) = driver.handle(&mut read.to_vec())
        {
            driver.end(&end);
        }
        driver
    }

    /// Ready when nothing more is to be read.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if let Some(writing) = &mut self.writing {
                ready!(Pin::new(writing).poll(cx));
                self.writing = None;
            }
            let mut flush = Flush::new();
            let control = self.connection.poll_control(cx, &mut flush);
            if let Poll::Ready(Some(reason)) = control {
                let gone = reason == CloseReason::Gone;
                let close = || End::Close(self.connection.close_of(reason));
                return Poll::Ready(if gone { End::Gone } else { close() });
            }
            if control.is_ready() {
                self.writing = Some(flush.write());
                continue;
            }
            let idle_timeout = self.connection.shared.config.http.idle_timeout;
            if let Poll::Ready(heartbeat) = self.codec.poll_heartbeat(cx, idle_timeout) {
                flush.reply(&self.connection.mailbox, heartbeat);
                self.writing = Some(flush.write());
                continue;
            }
            let mailbox = &self.connection.mailbox;
            let written = self.stream.poll_write(cx, mailbox, self.connection.now());
            // A client that asks for more than it reads waits until it has read.
            if written.is_pending() && mailbox.has_unread() {
                // Its heartbeats lie unread: whether it is still there shows in what it takes.
                mailbox.hear(self.connection.now());
                return Poll::Pending;
            }
            let done = if self.connection.is_held() { self.go_on() } else { self.poll_read(cx) };
            if let Err(end) = ready!(done) {
                return Poll::Ready(end);
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        READ.with_borrow_mut(|scratch| {
            let read = ready!(self.stream.poll_read(cx, &self.connection.mailbox, scratch));
            Poll::Ready(match read {
                Ok(0) | Err(_) => Err(End::Gone),
                Ok(len) => self.handle(&mut scratch[..len]),
            })
        })
    }

    /// Goes on with what was read, if the channel that it waits for has room by now. Whatever makes room
    /// wakes this task.
    fn go_on(&mut self) -> Poll<Result<(), End>> {
        let mut flush = Flush::of_input(self.connection.shared.registry.latency());
        let done = match self.connection.go_on(&mut flush) {
            Some(mut rest) => self.take(&mut rest, flush),
            None => {
                self.connection.mailbox.stop_listening();
                return Poll::Pending;
            }
        };
        Poll::Ready(done)
    }

    /// Takes what the client sent, and writes what came of it once it is all taken.
    fn handle(&mut self, bytes: &mut [u8]) -> Result<(), End> {
        let flush = Flush::of_input(self.connection.shared.registry.latency());
        self.take(bytes, flush)
    }

    fn take(&mut self, bytes: &mut [u8], mut flush: Flush) -> Result<(), End> {
        let rules = self.connection.rules();
        self.connection.mailbox.hear(self.connection.now());
        let mut frames = 0;
        let connection = &mut self.connection;
        let done = self.codec.decode(bytes, &rules, |message| {
            frames += 1;
            match message {
                Heard::Text(text) => connection.handle_text(text, &mut flush)?,
                Heard::Binary(bytes) => connection.handle_binary(bytes, &mut flush)?,
                Heard::Ping(answer) => flush.reply(&connection.mailbox, answer),
                Heard::Pong => {}
                Heard::Closed(code) => return Err(End::Closed(code)),
            }
            Ok(if connection.is_held() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        });
        self.connection.shared.stats.frames_in.fetch_add(frames, Ordering::Relaxed);
        let writing = flush.write();
        if !writing.is_done() {
            self.writing = Some(writing);
        }
        let left = done?;
        if left > 0 {
            self.connection.keep(&bytes[bytes.len() - left..]);
        }
        Ok(())
    }

    /// Leaves all topics and begins to close.
    fn end(&mut self, end: &End) {
        self.connection.ended();
        let mut patience = CLOSE_TIMEOUT;
        let last = match end {
            &End::Close(Close { code, reason }) => {
                if code == SLOW {
                    patience = SLOW_CLOSE_TIMEOUT;
                }
                C::last_words(code, reason)
            }
            End::Closed(code) => C::last_words(code.unwrap_or(1000), ""),
            End::Gone => {
                self.connection.mailbox.abandon();
                return;
            }
        };
        let mut flush = Flush::new();
        self.connection.mailbox.push_last(last, &mut flush);
        drop(flush);
        let timeout = Box::pin(sleep(patience));
        let answer = matches!(end, End::Closed(_));
        self.closing = Some(Box::new(Closing { timeout, answer, shut: false }));
    }

    /// Ready when the client has our close frame, and has closed too or had its time.
    fn poll_close(&mut self, cx: &mut Context<'_>, closing: &mut Closing) -> Poll<()> {
        if closing.timeout.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mailbox = &self.connection.mailbox;
        // First this: whoever is writing now wakes us if it cannot go on.
        let flushed = mailbox.poll_flushed(cx);
        ready!(self.stream.poll_write(cx, mailbox, self.connection.now()));
        if flushed.is_pending() {
            ready!(mailbox.poll_flushed(cx));
        }
        if closing.answer {
            return Poll::Ready(());
        }
        if !closing.shut {
            ready!(self.stream.poll_shutdown(cx, mailbox));
            closing.shut = true;
        }
        // Bytes left unread when the connection ends would reset it, and the client would not see the
        // code.
        READ.with_borrow_mut(|scratch| {
            loop {
                match ready!(self.stream.poll_read(cx, mailbox, scratch)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => {}
                }
            }
        })
    }
}

impl<S: Stream, C: Codec> Future for Driver<S, C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.closing.is_none() {
            let end = ready!(self.poll_open(cx));
            self.end(&end);
        }
        let Some(mut closing) = self.closing.take() else {
            return Poll::Ready(());
        };
        let closed = self.poll_close(cx, &mut closing);
        self.closing = Some(closing);
        closed
    }
}

#[cfg(test)]
pub(super) mod tests;

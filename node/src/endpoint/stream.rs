//! What carries a socket's bytes: plain TCP, which anybody may write to, or any other stream, which
//! only its owner can use.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Read as _},
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use crate::pubsub::Mailbox;

/// Frames that a stream's owner takes out of the mailbox at a time.
const TAKEN_FRAMES: usize = 64;

/// Bytes that the owner takes at a time.
const TAKEN_BYTES: usize = 64 * 1024;

/// The stream of one socket, as its task uses it. What is to be written is in the mailbox.
pub(super) trait Stream: Unpin {
    /// Reads once.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mailbox: &Mailbox,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>>;

    /// Goes on writing; ready when there is nothing left, or somebody else to do it. Errors are the
    /// next read's.
    fn poll_write(&mut self, cx: &mut Context<'_>, mailbox: &Mailbox, now: u32) -> Poll<()>;

    /// Says that nothing more is written.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>, mailbox: &Mailbox) -> Poll<()>;
}

/// Plain TCP. The connection is the mailbox's, and whoever pushes writes.
#[derive(Debug)]
pub(super) struct Direct;

impl Direct {
    /// Reads once the connection is readable: no buffer waits for that.
    fn try_read(stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
        let mut drained = None;
        let read = stream.try_io(Interest::READABLE, || {
            let read = (&*SockRef::from(stream)).read(into)?;
            if (1..into.len()).contains(&read) {
                // Tells the reactor so, which spares a read that finds nothing. Within one call, so
                // that what comes after this read is not taken for what it has read.
                drained = Some(read);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(read)
        });
        drained.map_or(read, Ok)
    }
}

impl Stream for Direct {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mailbox: &Mailbox,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = mailbox.socket() else {
            return Poll::Ready(Ok(0));
        };
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match Self::try_read(stream, into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, mailbox: &Mailbox, now: u32) -> Poll<()> {
        mailbox.poll_write(cx, now)
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>, mailbox: &Mailbox) -> Poll<()> {
        if let Some(stream) = mailbox.socket() {
            // It fails on a connection that has ended.
            let _ = SockRef::from(stream).shutdown(Shutdown::Write);
        }
        Poll::Ready(())
    }
}

/// Any other stream, such as one within TLS.
#[derive(Debug)]
pub(super) struct Streamed<S> {
    stream: S,
    /// Taken from the mailbox; of the first, what is not written yet.
    taken: VecDeque<Bytes>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Streamed<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, taken: VecDeque::new() }
    }

    /// Takes frames until they are worth a write. True if there are any.
    fn take(&mut self, mailbox: &Mailbox) -> bool {
        let mut bytes: usize = self.taken.iter().map(Bytes::len).sum();
        while self.taken.len() < TAKEN_FRAMES && bytes < TAKEN_BYTES {
            let Some(frame) = mailbox.pop() else {
                break;
            };
            bytes += frame.len();
            self.taken.push_back(frame);
        }
        !self.taken.is_empty()
    }

    fn poll_write_taken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); TAKEN_FRAMES];
        for (slice, frame) in slices.iter_mut().zip(&self.taken) {
            *slice = IoSlice::new(frame);
        }
        let slices = &slices[..self.taken.len().min(TAKEN_FRAMES)];
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn written(&mut self, mut bytes: usize) {
        while let Some(first) = self.taken.front_mut() {
            if first.len() > bytes {
                return first.advance(bytes);
            }
            bytes -= first.len();
            self.taken.pop_front();
        }
        // An idle socket keeps no room.
        self.taken = VecDeque::new();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Streamed<S> {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        _: &Mailbox,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(into);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, mailbox: &Mailbox, now: u32) -> Poll<()> {
        while self.take(mailbox) {
            match self.poll_write_taken(cx) {
                Poll::Ready(Ok(bytes @ 1..)) => {
                    self.written(bytes);
                    mailbox.note_progress();
                }
                Poll::Ready(_) => {
                    self.taken.clear();
                    mailbox.abandon();
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    mailbox.note_blocked(now);
                    return Poll::Pending;
                }
            }
        }
        // An error shows at the next read or write.
        Pin::new(&mut self.stream).poll_flush(cx).map(drop)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>, _: &Mailbox) -> Poll<()> {
        Pin::new(&mut self.stream).poll_shutdown(cx).map(drop)
    }
}

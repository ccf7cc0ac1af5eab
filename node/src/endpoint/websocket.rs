//! Frames of one WebSocket. The only file that names the WebSocket library.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Sink as _, SinkExt as _, Stream as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWrite as _,
    net::TcpStream,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        error::CapacityError,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{
    endpoint::{
        connection::{Connection, Outgoing},
        patient::Patient,
    },
    node::Shared,
    socket::Close,
};

/// Bytes read at a time. The library's default of 128 KiB would be kept by every idle socket.
const READ_BUFFER: usize = 1024;

/// Bytes gathered before they are written.
const WRITE_BUFFER: usize = 16 * 1024;

/// Bytes handed to the library before it must have written them: what a client does not read waits
/// in its mailbox, where it is counted.
const UNWRITTEN_MAX: usize = 64 * 1024;

/// Bytes of a pong's frame besides its payload.
const PONG_OVERHEAD: usize = 14;

/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes read at a time from a client that is being closed.
const DISCARD: usize = 16 * 1024;

/// The answer to a client's key (RFC 6455, section 4.2.2).
pub(super) fn accept_key(key: &[u8]) -> String {
    derive_accept_key(key)
}

/// Serves one client until it or the node ends it.
pub(super) async fn run(upgraded: Upgraded, connection: Connection, shared: &Arc<Shared>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(usize::MAX)
        .max_message_size(Some(shared.config.http.max_frame_size.bytes()))
        .max_frame_size(Some(shared.config.http.max_frame_size.bytes()));
    let Ok(parts) = upgraded.downcast::<TokioIo<Patient>>() else {
        // Every listener hands out streams of this kind.
        return;
    };
    let stream = parts.io.into_inner().into_inner();
    let read = parts.read_buf.to_vec();
    let socket =
        WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await;
    let idle = shared.config.http.idle_timeout;
    let mut driver = Driver {
        socket,
        connection,
        unwritten: 0,
        blocked_since: None,
        idle,
        heard_at: Instant::now(),
    };
    let end = driver.run().await;
    driver.connection.ended();
    if let End::Close(close) = end {
        // The client is told why; whether it hears it is not our concern any more.
        drop(timeout(CLOSE_TIMEOUT, driver.close(close)).await);
    }
}

struct Driver {
    socket: WebSocketStream<TcpStream>,
    connection: Connection,
    /// Bytes handed to the library since it last wrote all.
    unwritten: usize,
    /// Since when it could not write all.
    blocked_since: Option<Instant>,
    idle: Duration,
    heard_at: Instant,
}

enum End {
    /// Tell the client why, then end.
    Close(Close),
    /// The client is gone.
    Gone,
}

impl Driver {
    async fn run(&mut self) -> End {
        let mut timer = pin!(sleep_until(self.heard_at + self.idle));
        std::future::poll_fn(|cx| self.poll(cx, timer.as_mut())).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<End> {
        loop {
            if let Poll::Ready(end) = self.poll_write(cx) {
                return Poll::Ready(end);
            }
            // A client that asks for more than it reads waits until it has read.
            if self.blocked_since.is_some() && self.unwritten > 2 * UNWRITTEN_MAX {
                break;
            }
            match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    self.heard_at = Instant::now();
                    if let Err(end) = self.handle(message) {
                        return Poll::Ready(end);
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(end_of(&error)),
                Poll::Ready(None) => return Poll::Ready(End::Gone),
                Poll::Pending => break,
            }
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.heard_at + self.idle <= now {
                return Poll::Ready(End::Close(IDLE));
            }
            let first = self.blocked_since.unwrap_or(now).min(self.heard_at);
            if first + self.idle <= now {
                return Poll::Ready(End::Close(self.connection.stalled()));
            }
            // Moved here only, so a frame costs no timer.
            timer.as_mut().reset(first + self.idle);
        }
        Poll::Pending
    }

    fn handle(&mut self, message: Message) -> Result<(), End> {
        let done = match message {
            Message::Text(text) => self.connection.handle_text(&text.into()),
            Message::Binary(bytes) => self.connection.handle_binary(&bytes),
            Message::Ping(payload) => {
                // The library answers it by itself, without regard to what waits already.
                self.unwritten += payload.len() + PONG_OVERHEAD;
                Ok(())
            }
            // The library answers a close too.
            Message::Pong(_) | Message::Frame(_) | Message::Close(_) => Ok(()),
        };
        done.map_err(End::Close)
    }

    /// Writes what waits, many frames in one write.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let mut fed = false;
            while self.unwritten < UNWRITTEN_MAX {
                match self.connection.poll_outgoing(cx) {
                    Poll::Ready(Outgoing::Frame(frame)) => {
                        self.unwritten += frame.len();
                        fed = true;
                        if self.feed(frame).is_err() {
                            return Poll::Ready(End::Gone);
                        }
                    }
                    Poll::Ready(Outgoing::Close(close)) => {
                        return Poll::Ready(End::Close(close));
                    }
                    Poll::Pending => break,
                }
            }
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.unwritten = 0;
                    self.blocked_since = None;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                Poll::Pending => {
                    self.blocked_since.get_or_insert_with(Instant::now);
                    // A client that does not read is given up while we wait for it.
                    return match self.connection.poll_given_up(cx) {
                        Poll::Ready(close) => Poll::Ready(End::Close(close)),
                        Poll::Pending => Poll::Pending,
                    };
                }
            }
            if !fed {
                return Poll::Pending;
            }
        }
    }

    fn feed(&mut self, frame: bytes::Bytes) -> Result<(), ()> {
        // Frames are JSON of our own encoding, so always UTF-8.
        let text = Utf8Bytes::try_from(frame).map_err(drop)?;
        Pin::new(&mut self.socket).start_send(Message::Text(text)).map_err(drop)
    }

    async fn close(&mut self, close: Close) {
        let frame = CloseFrame { code: CloseCode::from(close.code), reason: close.reason.into() };
        if self.socket.send(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        let stream = self.socket.get_mut();
        let shut = std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_shutdown(cx)).await;
        if shut.is_ok() {
            discard(stream).await;
        }
    }
}

/// Reads until the client has closed too. Bytes left unread when the connection ends would reset it, and
/// the client would not see the code.
async fn discard(stream: &TcpStream) {
    let mut scratch = vec![0; DISCARD];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut scratch) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

const IDLE: Close = Close { code: 1002, reason: "no frame within the idle timeout" };

fn end_of(error: &Error) -> End {
    let close = |code, reason| End::Close(Close { code, reason });
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            close(1009, "frame is over the limit")
        }
        Error::Protocol(_) => close(1002, "WebSocket protocol violated"),
        Error::Utf8(_) => End::Close(Close::NOT_UTF8),
        Error::Capacity(_)
        | Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Tls(_)
        | Error::WriteBufferFull(_)
        | Error::AttackAttempt
        | Error::Url(_)
        | Error::Http(_)
        | Error::HttpFormat(_) => End::Gone,
    }
}

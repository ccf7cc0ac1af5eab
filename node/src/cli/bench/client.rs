//! A light Phoenix client: one TCP stream, no buffers while idle, one read a wake-up.

use std::{
    cell::RefCell,
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{
    super::{Failure, url::BaseUrl},
    engine::Dial,
    message::{Envelope, push},
    websocket::{self, FrameError, Kind},
};

/// How long a connection and its upgrade may take, each. Generous: thousands come at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a reply may take.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of the longest answer to the upgrade.
const HEAD_LEN_MAX: usize = 8 * 1024;

/// Bytes read at a time, into a buffer that all clients of a thread share.
const SCRATCH: usize = 64 * 1024;

/// Bytes of a buffer that is kept when it has run empty.
const KEPT: usize = 4 * 1024;

/// The sample key of RFC 6455, section 1.3, and the only answer to it: the key proves that the
/// server speaks WebSocket, it is no secret.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The `ref` of a join.
pub(super) const JOIN: &str = "1";

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// Where clients of a node connect to.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    url: BaseUrl,
    address: SocketAddr,
}

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("the node closed the connection")]
    Ended,
    #[error("the node closed the socket with code {code}{}{reason}", separator(.reason))]
    Closed { code: u16, reason: String },
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the node sent {0}")]
    Frame(#[from] FrameError),
}

/// Why there is no connection, or no channel.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no {0} in time")]
    Late(&'static str),
    #[error("the node did not upgrade to WebSocket: {0}")]
    Upgrade(String),
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("the join of {topic} was refused: {reason}")]
    Refused { topic: String, reason: String },
}

fn separator(reason: &str) -> &'static str {
    if reason.is_empty() { "" } else { ": " }
}

impl Endpoint {
    /// Finds the node's address.
    pub(super) async fn resolve(url: &str) -> Result<Self, Failure> {
        let url = BaseUrl::parse(url)?;
        let nowhere = |why: &dyn fmt::Display| {
            Failure::Unreachable(format!("cannot reach {url} ({why}): is the name right?"))
        };
        let found = lookup_host(url.target()).await.map(|mut addresses| addresses.next());
        match found {
            Ok(Some(address)) => Ok(Self { url, address }),
            Ok(None) => Err(nowhere(&"no address")),
            Err(error) => Err(nowhere(&error)),
        }
    }

    /// Finds the addresses of several nodes.
    pub(super) async fn resolve_all(urls: &[String]) -> Result<Vec<Self>, Failure> {
        let mut nodes = Vec::with_capacity(urls.len());
        for url in urls {
            nodes.push(Self::resolve(url).await?);
        }
        Ok(nodes)
    }

    /// Opens a socket. `user` needs no escapes in a URL.
    pub(super) async fn open(&self, user: Option<&str>) -> Result<Connection, OpenError> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address)).await;
        let stream = stream.map_err(|_| OpenError::Late("connection"))?;
        let stream = stream.map_err(OpenError::Connect)?;
        stream.set_nodelay(true).map_err(OpenError::Connect)?;
        let upgraded = timeout(CONNECT_TIMEOUT, self.upgrade(stream, user)).await;
        upgraded.map_err(|_| OpenError::Late("answer to the upgrade"))?
    }

    async fn upgrade(
        &self,
        stream: TcpStream,
        user: Option<&str>,
    ) -> Result<Connection, OpenError> {
        let unwritten = self.request(user).into_bytes();
        let mut connection = Connection { stream, unread: Vec::new(), unwritten };
        poll_fn(|cx| connection.poll_flush(cx)).await.map_err(Lost::Broken)?;
        let end = loop {
            if let Some(end) = upgraded(&connection.unread).map_err(OpenError::Upgrade)? {
                break end;
            }
            connection.read_head().await?;
        };
        // Frames may have come with the answer.
        connection.unread.drain(..end);
        connection.unread.shrink_to_fit();
        Ok(connection)
    }

    /// The upgrade, as it is sent.
    fn request(&self, user: Option<&str>) -> String {
        let path = self.url.path("/socket/websocket?vsn=2.0.0");
        let user = user.map_or_else(String::new, |user| format!("&user_id={user}"));
        format!(
            "GET {path}{user} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
            self.url.authority()
        )
    }

    /// For clients that another loop opens.
    pub(super) fn dial(&self) -> Dial {
        let request = self.request(None).into_bytes().into();
        Dial { address: self.address, request, slow: false }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// Where the answer to an upgrade ends; `None` while it is not all there, an error if it is no
/// success.
pub(super) fn upgraded(answer: &[u8]) -> Result<Option<usize>, String> {
    match answer.windows(4).position(|window| window == b"\r\n\r\n") {
        Some(end) => {
            check_upgrade(&String::from_utf8_lossy(&answer[..end]))?;
            Ok(Some(end + 4))
        }
        None if answer.len() > HEAD_LEN_MAX => Err("an endless answer".to_owned()),
        None => Ok(None),
    }
}

fn check_upgrade(head: &str) -> Result<(), String> {
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        return Err(format!("it answered {status:?}"));
    }
    let accepted = lines.filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == ACCEPT
    });
    if accepted { Ok(()) } else { Err("its Sec-WebSocket-Accept is wrong".to_owned()) }
}

/// One client.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// The start of a frame whose end has not come.
    unread: Vec<u8>,
    /// Frames that the stream has not taken.
    unwritten: Vec<u8>,
}

impl Connection {
    /// Queues a text frame; [`exchange`](Self::exchange) writes it.
    pub(super) fn send(&mut self, text: &[u8]) {
        websocket::put_text(&mut self.unwritten, text);
    }

    /// Writes what is queued, waits for bytes, and hands over each text frame that is all there,
    /// with the time when it was read. May hand over none. Safe to cancel.
    pub(super) async fn exchange(
        &mut self,
        mut received: impl FnMut(&[u8], Instant),
    ) -> Result<(), Lost> {
        poll_fn(|cx| self.poll_exchange(cx, &mut received)).await
    }

    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        received: &mut impl FnMut(&[u8], Instant),
    ) -> Poll<Result<(), Lost>> {
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Err(error.into()));
        }
        SCRATCH_BUFFER.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            if let Err(error) = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                return Poll::Ready(Err(error.into()));
            }
            let now = Instant::now();
            Poll::Ready(match buffer.filled() {
                [] => Err(Lost::Ended),
                bytes => self.take(bytes, &mut |text| received(text, now)),
            })
        })
    }

    /// Reads a part of the answer to the upgrade.
    async fn read_head(&mut self) -> Result<(), Lost> {
        let read = poll_fn(|cx| {
            SCRATCH_BUFFER.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
                self.unread.extend_from_slice(buffer.filled());
                Poll::Ready(Ok::<_, io::Error>(buffer.filled().len()))
            })
        });
        if read.await? == 0 { Err(Lost::Ended) } else { Ok(()) }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unwritten))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unwritten.drain(..written);
        }
        if self.unwritten.capacity() > KEPT {
            self.unwritten = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Hands over the frames of newly read bytes, and keeps the rest.
    fn take(&mut self, bytes: &[u8], received: &mut impl FnMut(&[u8])) -> Result<(), Lost> {
        if self.unread.is_empty() {
            let used = self.frames(bytes, received)?;
            self.unread.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut unread = std::mem::take(&mut self.unread);
        unread.extend_from_slice(bytes);
        let used = self.frames(&unread, received)?;
        unread.drain(..used);
        if !unread.is_empty() || unread.capacity() <= KEPT {
            self.unread = unread;
        }
        Ok(())
    }

    /// Hands over the whole frames at the start of `bytes`, and gives how many bytes they took.
    fn frames(&mut self, bytes: &[u8], received: &mut impl FnMut(&[u8])) -> Result<usize, Lost> {
        let mut used = 0;
        while let Some(frame) = websocket::decode(&bytes[used..])? {
            let payload = &bytes[used..][frame.payload.clone()];
            match frame.kind {
                Kind::Text => received(payload),
                Kind::Binary | Kind::Pong => {}
                Kind::Ping => websocket::put_pong(&mut self.unwritten, payload),
                Kind::Close => return Err(closed(payload)),
            }
            used += frame.payload.end;
        }
        Ok(used)
    }

    /// Joins a topic, and gives when it asked and when it was answered. Frames that come before the
    /// answer, and others that come with it, go to `received`.
    pub(super) async fn join(
        &mut self,
        topic: &str,
        mut received: impl FnMut(&[u8], Instant),
    ) -> Result<Joined, OpenError> {
        self.send(push(JOIN, topic, "phx_join", "{}").as_bytes());
        let asked = Instant::now();
        let mut answer = None;
        // What came with the answer to the upgrade is no answer to this.
        let answered = async {
            while answer.is_none() {
                self.exchange(|frame, now| match reply_to(JOIN, frame) {
                    Some(reply) => answer = Some((reply, now)),
                    None => received(frame, now),
                })
                .await?;
            }
            Ok::<_, Lost>(())
        };
        let in_time = timeout(REPLY_TIMEOUT, answered).await;
        in_time.map_err(|_| OpenError::Late("reply to the join"))??;
        match answer {
            Some((Ok(()), answered)) => Ok(Joined { asked, answered }),
            Some((Err(reason), _)) => Err(OpenError::Refused { topic: topic.to_owned(), reason }),
            None => Err(Lost::Ended.into()),
        }
    }
}

/// When a client joined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined {
    pub(super) asked: Instant,
    pub(super) answered: Instant,
}

/// What a reply to the push of that `ref` says; `None` for any other frame.
pub(super) fn reply_to(reference: &str, frame: &[u8]) -> Option<Result<(), String>> {
    let envelope = Envelope::scan(frame)?;
    if envelope.reference != reference.as_bytes() {
        return None;
    }
    envelope.reply()
}

/// What a close frame says.
pub(super) fn closed(payload: &[u8]) -> Lost {
    match payload {
        [a, b, reason @ ..] => Lost::Closed {
            code: u16::from_be_bytes([*a, *b]),
            reason: String::from_utf8_lossy(reason).into_owned(),
        },
        _ => Lost::Ended,
    }
}

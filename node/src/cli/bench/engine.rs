//! All sockets of a load scenario on one thread: one poll, one read buffer, no task and no timer a
//! socket. What a client is told goes to a [`Handler`] as slices of what was read.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Registry, Token, event::Event, net::TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{
    super::Failure,
    client::{Lost, OpenError, closed, upgraded},
    websocket::{self, Kind},
};

/// Bytes read at a time.
const SCRATCH: usize = 64 * 1024;

/// Events taken at a time.
const EVENTS: usize = 1_024;

/// Bytes of a buffer that is kept when it has run empty.
const KEPT: usize = 4 * 1024;

/// Bytes of the receive buffer of a client that is meant to be slow: the node notices sooner.
const SLOW_RECEIVE_BUFFER: usize = 4 * 1024;

/// Who is told what happens to sockets, and may write to any of them.
pub(super) trait Handler {
    /// A socket has a connection; its upgrade is on the way.
    fn connected(&mut self, _sockets: &mut Sockets, _id: usize, _now: Instant) {}

    /// A socket is a WebSocket.
    fn upgraded(&mut self, sockets: &mut Sockets, id: usize, now: Instant);

    /// A text frame came.
    fn frame(&mut self, sockets: &mut Sockets, id: usize, frame: &[u8], now: Instant);

    /// What a socket had to be read has been handed over.
    fn drained(&mut self, _sockets: &mut Sockets) {}

    /// A socket has ended, and its place is free.
    fn ended(&mut self, sockets: &mut Sockets, id: usize, why: OpenError, now: Instant);
}

/// Where a client connects to, and what it says first.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) address: SocketAddr,
    /// The upgrade.
    pub(super) request: Rc<[u8]>,
    /// The kernel keeps next to nothing for it.
    pub(super) slow: bool,
}

/// The loop.
#[derive(Debug)]
pub(super) struct Engine {
    poll: Poll,
    events: Events,
    scratch: Box<[u8]>,
    pub(super) sockets: Sockets,
}

/// Places for sockets, numbered from 0.
#[derive(Debug)]
pub(super) struct Sockets {
    registry: Registry,
    slots: Vec<Slot>,
    /// Places with bytes that were queued since the last flush; few.
    queued: Vec<usize>,
}

/// One place; cheap while it is idle.
#[derive(Debug, Default)]
struct Slot {
    stream: Option<TcpStream>,
    phase: Phase,
    /// The start of a frame whose end has not come.
    unread: Vec<u8>,
    /// Bytes that the stream has not taken.
    unwritten: Vec<u8>,
}

/// How far a socket is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Connecting,
    Upgrading,
    Open,
    /// It has sent a close frame.
    Closing,
    /// And it has got one with this code: the node ends the connection.
    Closed {
        code: u16,
    },
}

impl Engine {
    /// A loop with so many places.
    pub(super) fn new(places: usize) -> Result<Self, Failure> {
        let poll = Poll::new().map_err(|error| no_poll(&error))?;
        let registry = poll.registry().try_clone().map_err(|error| no_poll(&error))?;
        let slots = std::iter::repeat_with(Slot::default).take(places).collect();
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            scratch: vec![0; SCRATCH].into(),
            sockets: Sockets { registry, slots, queued: Vec::new() },
        })
    }

    /// Waits until something happens, at most for so long, and handles it.
    pub(super) fn turn(
        &mut self,
        timeout: Duration,
        handler: &mut impl Handler,
    ) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled.map_err(|error| no_poll(&error))?,
        }
        for event in &self.events {
            self.sockets.ready(event, &mut self.scratch, handler);
        }
        Ok(())
    }
}

fn no_poll(error: &io::Error) -> Failure {
    Failure::failed(format_args!("cannot wait for sockets: {error}"))
}

impl Sockets {
    /// Begins to connect the socket of a place; the handler is told what comes of it.
    pub(super) fn open(&mut self, id: usize, dial: &Dial) -> Result<(), OpenError> {
        let mut stream = connect(dial).map_err(OpenError::Connect)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut stream, Token(id), interest).map_err(OpenError::Connect)?;
        if let Some(slot) = self.slots.get_mut(id) {
            slot.stream = Some(stream);
            slot.phase = Phase::Connecting;
            slot.unwritten.extend_from_slice(&dial.request);
        }
        Ok(())
    }

    /// Queues a text frame; [`flush`](Self::flush) writes it.
    pub(super) fn send(&mut self, id: usize, text: &[u8]) {
        let Some(slot) = self.slots.get_mut(id) else {
            return;
        };
        if slot.unwritten.is_empty() {
            self.queued.push(id);
        }
        websocket::put_text(&mut slot.unwritten, text);
    }

    /// Writes what is queued, as far as the streams take it; the rest follows when they do.
    pub(super) fn flush(&mut self) {
        while let Some(id) = self.queued.pop() {
            if let Some(slot) = self.slots.get_mut(id) {
                // Reading tells why a stream is broken.
                drop(slot.write());
            }
        }
    }

    /// Bytes that a stream has not taken.
    pub(super) fn backlog(&self, id: usize) -> usize {
        self.slots.get(id).map_or(0, |slot| slot.unwritten.len())
    }

    /// Begins the close handshake.
    pub(super) fn close(&mut self, id: usize) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.phase = Phase::Closing;
            websocket::put_close(&mut slot.unwritten);
            drop(slot.write());
        }
    }

    /// Takes a socket out of its place; the handler hears no more of it.
    pub(super) fn take(&mut self, id: usize) -> Option<TcpStream> {
        self.slots.get_mut(id).and_then(Slot::vacate)
    }

    /// Stops reading a socket.
    pub(super) fn pause(&mut self, id: usize) {
        if let Some(stream) = self.slots.get_mut(id).and_then(|slot| slot.stream.as_mut()) {
            drop(self.registry.deregister(stream));
        }
    }

    /// Reads it again.
    pub(super) fn resume(&mut self, id: usize) {
        if let Some(stream) = self.slots.get_mut(id).and_then(|slot| slot.stream.as_mut()) {
            let interest = Interest::READABLE | Interest::WRITABLE;
            drop(self.registry.register(stream, Token(id), interest));
        }
    }

    fn ready(&mut self, event: &Event, scratch: &mut [u8], handler: &mut impl Handler) {
        let id = event.token().0;
        if let Err(why) = self.advance(id, event, scratch, handler) {
            if let Some(stream) = self.slots.get_mut(id).and_then(Slot::vacate) {
                drop(stream.shutdown(Shutdown::Both));
            }
            handler.ended(self, id, why, Instant::now());
        }
        handler.drained(self);
    }

    fn advance(
        &mut self,
        id: usize,
        event: &Event,
        scratch: &mut [u8],
        handler: &mut impl Handler,
    ) -> Result<(), OpenError> {
        let Some(slot) = self.slots.get_mut(id) else {
            return Ok(());
        };
        if slot.stream.is_some() && slot.phase == Phase::Connecting {
            if !slot.is_connected()? {
                return Ok(());
            }
            slot.phase = Phase::Upgrading;
            slot.write().map_err(Lost::Broken)?;
            handler.connected(self, id, Instant::now());
        } else if event.is_writable() && !slot.unwritten.is_empty() {
            slot.write().map_err(Lost::Broken)?;
        }
        if event.is_readable() {
            self.read(id, event.is_read_closed(), scratch, handler)?;
        }
        Ok(())
    }

    /// Reads all that has come. A read that does not fill the buffer has emptied the socket, unless
    /// its end is there too.
    fn read(
        &mut self,
        id: usize,
        to_the_end: bool,
        scratch: &mut [u8],
        handler: &mut impl Handler,
    ) -> Result<(), OpenError> {
        loop {
            let Some(slot) = self.slots.get_mut(id) else {
                return Ok(());
            };
            let Some(stream) = slot.stream.as_mut() else {
                return Ok(());
            };
            match stream.read(scratch) {
                Ok(0) => return Err(slot.end().into()),
                Ok(len) => {
                    self.receive(id, &scratch[..len], handler, Instant::now())?;
                    if len < scratch.len() && !to_the_end {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Lost::Broken(error).into()),
            }
        }
    }

    /// Hands over what newly read bytes hold, and keeps the rest.
    fn receive(
        &mut self,
        id: usize,
        bytes: &[u8],
        handler: &mut impl Handler,
        now: Instant,
    ) -> Result<(), OpenError> {
        let Some(slot) = self.slots.get_mut(id) else {
            return Ok(());
        };
        if slot.unread.is_empty() && slot.phase != Phase::Upgrading {
            let used = self.frames(id, bytes, handler, now)?;
            if used < bytes.len()
                && let Some(slot) = self.slots.get_mut(id).filter(|slot| slot.stream.is_some())
            {
                slot.unread.extend_from_slice(&bytes[used..]);
            }
            return Ok(());
        }
        let mut unread = std::mem::take(&mut slot.unread);
        unread.extend_from_slice(bytes);
        let mut used = 0;
        if slot.phase == Phase::Upgrading {
            match upgraded(&unread).map_err(OpenError::Upgrade)? {
                Some(end) => used = end,
                None => {
                    slot.unread = unread;
                    return Ok(());
                }
            }
            slot.phase = Phase::Open;
            handler.upgraded(self, id, now);
        }
        // Frames may have come with the answer to the upgrade.
        used += self.frames(id, &unread[used..], handler, now)?;
        unread.drain(..used);
        if let Some(slot) = self.slots.get_mut(id).filter(|slot| slot.stream.is_some())
            && (!unread.is_empty() || unread.capacity() <= KEPT)
        {
            slot.unread = unread;
        }
        Ok(())
    }

    /// Hands over the whole frames at the start of `bytes`, and gives how many bytes they took.
    fn frames(
        &mut self,
        id: usize,
        bytes: &[u8],
        handler: &mut impl Handler,
        now: Instant,
    ) -> Result<usize, Lost> {
        let mut used = 0;
        while let Some(frame) = websocket::decode(&bytes[used..])? {
            let payload = &bytes[used..][frame.payload.clone()];
            match frame.kind {
                Kind::Text => handler.frame(self, id, payload, now),
                Kind::Binary | Kind::Pong => {}
                Kind::Ping | Kind::Close => {
                    let Some(slot) = self.slots.get_mut(id) else {
                        return Ok(used);
                    };
                    match (frame.kind, slot.phase, closed(payload)) {
                        (Kind::Ping, ..) => websocket::put_pong(&mut slot.unwritten, payload),
                        (_, Phase::Closing, why) => slot.phase = Phase::Closed { code: code(&why) },
                        (.., why) => return Err(why),
                    }
                    slot.write()?;
                }
            }
            used += frame.payload.end;
        }
        Ok(used)
    }
}

/// Ends connections with a reset, as clients do that lose their power or their process.
pub(super) fn kill(streams: Vec<TcpStream>) {
    for stream in streams {
        // Without it the kernel would end the connection in good order.
        drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
    }
}

/// The code of a close frame; 1005, as the standard has it, if there is none.
fn code(why: &Lost) -> u16 {
    if let Lost::Closed { code, .. } = why { *code } else { 1005 }
}

fn connect(dial: &Dial) -> io::Result<TcpStream> {
    let stream = if dial.slow {
        let domain = Domain::for_address(dial.address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        // Before it connects: the window that is offered first depends on it.
        socket.set_recv_buffer_size(SLOW_RECEIVE_BUFFER)?;
        socket.connect(&dial.address.into())?;
        socket.set_nonblocking(true)?;
        TcpStream::from_std(socket.into())
    } else {
        TcpStream::connect(dial.address)?
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Slot {
    /// Takes the socket out.
    fn vacate(&mut self) -> Option<TcpStream> {
        let Self { stream, .. } = std::mem::take(self);
        stream
    }

    /// Whether the connection is there; an error if it has failed.
    fn is_connected(&self) -> Result<bool, OpenError> {
        let Some(stream) = &self.stream else {
            return Ok(false);
        };
        if let Some(error) = stream.take_error().map_err(OpenError::Connect)? {
            return Err(OpenError::Connect(error));
        }
        match stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(OpenError::Connect(error)),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(stream) = self.stream.as_mut() else {
            self.unwritten.clear();
            return Ok(());
        };
        if self.phase == Phase::Connecting {
            return Ok(());
        }
        let mut written = 0;
        let ended = loop {
            if written == self.unwritten.len() {
                break Ok(());
            }
            match stream.write(&self.unwritten[written..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.unwritten.drain(..written);
        if self.unwritten.is_empty() && self.unwritten.capacity() > KEPT {
            self.unwritten = Vec::new();
        }
        ended
    }

    /// Why a stream without more bytes has ended.
    fn end(&self) -> Lost {
        if let Phase::Closed { code } = self.phase {
            Lost::Closed { code, reason: String::new() }
        } else {
            Lost::Ended
        }
    }
}

//! The bare loop: one thread that reads pushes and writes frames, and does nothing else.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr},
};

use foldhash::fast::RandomState;
use mio::{Events, Interest, Poll, Token, event::Event, net::TcpListener, unix::SourceFd};
use slab::Slab;

use super::{
    Manners,
    peer::{Peer, Wrong, decode, put_frame, put_reply, upgrade},
};
use crate::cli::bench::message::Envelope;

const SCRATCH: usize = 64 * 1024;
const EVENTS: usize = 1_024;

const LISTENER: Token = Token(usize::MAX - 1);
const INPUT: Token = Token(usize::MAX - 2);

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The answer to whatever is no upgrade: it has no metrics.
const NOT_FOUND: &[u8] =
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The `join_ref` of all clients of the bench, as it stands in frames.
const JOIN_REF: &[u8] = b"\"1\"";

#[derive(Debug)]
pub(super) struct Server {
    poll: Poll,
    listener: TcpListener,
    core: Core,
}

/// All but what waits.
#[derive(Debug)]
struct Core {
    joined: bool,
    manners: Manners,
    peers: Slab<Peer>,
    topics: HashMap<Box<[u8]>, usize, RandomState>,
    members: Vec<Members>,
    /// A frame that is being encoded.
    out: Vec<u8>,
    /// Topics with frames that wait for the end of the wake-up, and peers with others.
    touched: Vec<usize>,
    answered: Vec<usize>,
}

#[derive(Debug, Default)]
struct Members {
    peers: Vec<usize>,
    /// Frames of this wake-up, where they are joined.
    frames: Vec<u8>,
    /// Who published them and gets none: a topic of the bench has one publisher.
    own: Vec<usize>,
}

impl Server {
    /// Listens on a free port of loopback.
    pub(super) fn bind(joined: bool, manners: Manners) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let core = Core {
            joined,
            manners,
            peers: Slab::new(),
            topics: HashMap::default(),
            members: Vec::new(),
            out: Vec::new(),
            touched: Vec::new(),
            answered: Vec::new(),
        };
        Ok(Self { poll, listener, core })
    }

    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Ends as soon as whoever started it has.
    pub(super) fn end_with_standard_input(&self) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&0), INPUT, Interest::READABLE)
    }

    /// Serves until standard input ends.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut scratch = vec![0; SCRATCH].into_boxed_slice();
        let mut text = Vec::new();
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    INPUT => return Ok(()),
                    LISTENER => self.accept(),
                    Token(id) => self.core.ready(id, event, &mut scratch, &mut text),
                }
            }
            self.core.write_joined();
        }
    }

    fn accept(&mut self) {
        // An error of one connection, or no more of them: the loop goes on either way.
        while let Ok((mut stream, _)) = self.listener.accept() {
            let entry = self.core.peers.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            let token = Token(entry.key());
            let registered = self.poll.registry().register(&mut stream, token, interest);
            if registered.and_then(|()| stream.set_nodelay(true)).is_ok() {
                entry.insert(Peer::new(stream));
            }
        }
    }
}

impl Core {
    fn ready(&mut self, id: usize, event: &Event, scratch: &mut [u8], text: &mut Vec<u8>) {
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        let mut ended = event.is_writable() && peer.flush().is_err();
        while !ended && event.is_readable() {
            let Some(peer) = self.peers.get_mut(id) else {
                return;
            };
            match peer.stream.read(scratch) {
                Ok(0) => ended = true,
                Ok(len) => {
                    ended = self.take(id, &scratch[..len], text).is_err();
                    if len < scratch.len() && !event.is_read_closed() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => ended = true,
            }
        }
        if ended {
            let topics = self.peers.try_remove(id).map(|peer| peer.topics);
            for topic in topics.into_iter().flatten() {
                self.members[topic].peers.retain(|peer| *peer != id);
            }
        }
    }

    /// Handles the whole frames of newly read bytes, and keeps the rest.
    fn take(&mut self, id: usize, bytes: &[u8], text: &mut Vec<u8>) -> Result<(), Wrong> {
        let peer = self.peers.get_mut(id).ok_or(Wrong)?;
        if peer.unread.is_empty() && peer.upgraded {
            let used = self.frames(id, bytes, text)?;
            if let Some(peer) = self.peers.get_mut(id) {
                peer.unread.extend_from_slice(&bytes[used..]);
            }
            return Ok(());
        }
        let mut unread = std::mem::take(&mut peer.unread);
        unread.extend_from_slice(bytes);
        let mut used = 0;
        if !peer.upgraded {
            match upgrade(&unread).inspect_err(|Wrong| drop(peer.write(NOT_FOUND)))? {
                Some((answer, len)) => {
                    peer.write(&answer).map_err(|_| Wrong)?;
                    peer.upgraded = true;
                    used = len;
                }
                None => {
                    peer.unread = unread;
                    return Ok(());
                }
            }
        }
        used += self.frames(id, &unread[used..], text)?;
        if used < unread.len()
            && let Some(peer) = self.peers.get_mut(id)
        {
            unread.drain(..used);
            peer.unread = unread;
        }
        Ok(())
    }

    fn frames(&mut self, id: usize, bytes: &[u8], text: &mut Vec<u8>) -> Result<usize, Wrong> {
        let mut used = 0;
        while let Some(frame) = decode(&bytes[used..], text)? {
            used += frame.len;
            match frame.opcode {
                TEXT => self.message(id, text)?,
                PING | CLOSE => {
                    self.out.clear();
                    let opcode = if frame.opcode == PING { PONG } else { CLOSE };
                    put_frame(&mut self.out, opcode, &[text]);
                    self.answer(id, frame.opcode == CLOSE)?;
                    // The close frame is out, so the connection may go.
                    if frame.opcode == CLOSE {
                        return Err(Wrong);
                    }
                }
                _ => {}
            }
        }
        Ok(used)
    }

    fn message(&mut self, id: usize, text: &[u8]) -> Result<(), Wrong> {
        let push = Envelope::scan(text).ok_or(Wrong)?;
        self.out.clear();
        match push.event {
            b"heartbeat" => put_reply(&mut self.out, b"null", &push),
            b"phx_join" => {
                self.join(id, push.topic);
                put_reply(&mut self.out, JOIN_REF, &push);
            }
            b"phx_leave" => {
                self.leave(id, push.topic);
                put_reply(&mut self.out, JOIN_REF, &push);
                let parts: &[&[u8]] = &[b"[\"1\",\"1\",\"", push.topic, b"\",\"phx_close\",{}]"];
                put_frame(&mut self.out, TEXT, parts);
            }
            _ => {
                self.broadcast(id, &push);
                if !self.manners.acks {
                    return Ok(());
                }
                self.out.clear();
                put_reply(&mut self.out, JOIN_REF, &push);
            }
        }
        self.answer(id, false)
    }

    /// Writes what is encoded to one peer; at the end of the wake-up where writes are joined.
    fn answer(&mut self, id: usize, at_once: bool) -> Result<(), Wrong> {
        let peer = self.peers.get_mut(id).ok_or(Wrong)?;
        if self.joined && !at_once {
            peer.unwritten.extend_from_slice(&self.out);
            self.answered.push(id);
            return Ok(());
        }
        peer.write(&self.out).map_err(|_| Wrong)
    }

    fn join(&mut self, id: usize, topic: &[u8]) {
        let topic = match self.topics.get(topic) {
            Some(topic) => *topic,
            None => {
                self.topics.insert(topic.into(), self.members.len());
                self.members.push(Members::default());
                self.members.len() - 1
            }
        };
        if let Some(peer) = self.peers.get_mut(id).filter(|peer| !peer.topics.contains(&topic)) {
            peer.topics.push(topic);
            self.members[topic].peers.push(id);
        }
    }

    fn leave(&mut self, id: usize, topic: &[u8]) {
        let Some(left) = self.topics.get(topic).copied() else {
            return;
        };
        self.members[left].peers.retain(|peer| *peer != id);
        if let Some(peer) = self.peers.get_mut(id) {
            peer.topics.retain(|topic| *topic != left);
        }
    }

    fn broadcast(&mut self, id: usize, push: &Envelope<'_>) {
        let Some(topic) = self.topics.get(push.topic).copied() else {
            return;
        };
        let parts: &[&[u8]] =
            &[b"[null,null,\"", push.topic, b"\",\"", push.event, b"\",", push.payload, b"]"];
        let members = &mut self.members[topic];
        if self.joined {
            if members.frames.is_empty() {
                self.touched.push(topic);
            }
            put_frame(&mut members.frames, TEXT, parts);
            if !self.manners.copies && members.own.last() != Some(&id) {
                members.own.push(id);
            }
            return;
        }
        put_frame(&mut self.out, TEXT, parts);
        for &member in &members.peers {
            if member == id && !self.manners.copies {
                continue;
            }
            if let Some(peer) = self.peers.get_mut(member) {
                // Reading tells that a connection is broken.
                drop(peer.write(&self.out));
            }
        }
    }

    /// Writes what the wake-up had, once to each who gets any of it.
    fn write_joined(&mut self) {
        for topic in self.touched.drain(..) {
            let members = &mut self.members[topic];
            for &member in &members.peers {
                let Some(peer) = self.peers.get_mut(member) else {
                    continue;
                };
                if !members.own.contains(&member) {
                    // What waits for it, or may come from its other topics, goes with this.
                    if peer.unwritten.is_empty() && peer.topics.len() == 1 {
                        drop(peer.write(&members.frames));
                    } else {
                        peer.unwritten.extend_from_slice(&members.frames);
                        self.answered.push(member);
                    }
                }
            }
            members.own.clear();
            members.frames.clear();
        }
        for id in self.answered.drain(..) {
            if let Some(peer) = self.peers.get_mut(id) {
                drop(peer.flush());
            }
        }
    }
}

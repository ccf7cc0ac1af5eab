//! One socket of the floor: a descriptor, and what it has not read or written.

use std::io::{self, Write as _};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use mio::net::TcpStream;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

use crate::cli::bench::message::Envelope;

/// Bytes of the longest head of an upgrade.
const HEAD_LEN_MAX: usize = 8 * 1024;

/// Bytes of the longest frame of a client, and of its header.
const FRAME_LEN_MAX: usize = 2 << 20;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    /// The start of a frame, or of the upgrade.
    pub(super) unread: Vec<u8>,
    /// What the kernel has not taken.
    pub(super) unwritten: Vec<u8>,
    pub(super) upgraded: bool,
    pub(super) topics: Vec<usize>,
}

impl Peer {
    pub(super) const fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            unread: Vec::new(),
            unwritten: Vec::new(),
            upgraded: false,
            topics: Vec::new(),
        }
    }

    /// Writes bytes at once, and keeps what the kernel does not take.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unwritten.is_empty() {
            self.unwritten.extend_from_slice(bytes);
            return Ok(());
        }
        let written = put(&mut self.stream, bytes)?;
        self.unwritten.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Writes what was kept.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.unwritten.is_empty() {
            let written = put(&mut self.stream, &self.unwritten)?;
            self.unwritten.drain(..written);
        }
        Ok(())
    }
}

fn put(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => written += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// Why a client is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong;

/// The answer to an upgrade, and how long the request was; `None` while it is not all there.
pub(super) fn upgrade(request: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Wrong> {
    let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if request.len() > HEAD_LEN_MAX { Err(Wrong) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&request[..end]).map_err(|_| Wrong)?;
    let key = head.lines().filter_map(|line| line.split_once(':'));
    let mut key = key.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let (_, key) = key.next().ok_or(Wrong)?;
    let accept = accept(key.trim());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accept}\r\n\r\n"
    );
    Ok(Some((answer.into_bytes(), end + 4)))
}

/// Proves that the key of an upgrade was understood (RFC 6455, section 4.2.2).
fn accept(key: &str) -> String {
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(hash.finish())
}

/// A client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) opcode: u8,
    /// Of the whole frame.
    pub(super) len: usize,
}

/// Takes the frame that `bytes` starts with, and puts its payload without the mask into `text`;
/// `None` while it is not all there. Only whole messages are understood.
pub(super) fn decode(bytes: &[u8], text: &mut Vec<u8>) -> Result<Option<Frame>, Wrong> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & 0xf0 != 0x80 || second & 0x80 == 0 {
        return Err(Wrong);
    }
    let (head, len) = match (second & 0x7f, rest) {
        (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            let len = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            (10, usize::try_from(len).map_err(|_| Wrong)?)
        }
        (126 | 127, _) => return Ok(None),
        (len, _) => (2, usize::from(len)),
    };
    if len > FRAME_LEN_MAX {
        return Err(Wrong);
    }
    let frame = bytes.get(head..head + 4 + len).and_then(<[u8]>::split_first_chunk::<4>);
    let Some((mask, payload)) = frame else {
        return Ok(None);
    };
    text.clear();
    text.extend_from_slice(payload);
    for chunk in text.chunks_mut(mask.len()) {
        chunk.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    Ok(Some(Frame { opcode: first & 0x0f, len: head + 4 + len }))
}

/// Appends a server's frame.
pub(super) fn put_frame(out: &mut Vec<u8>, opcode: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.push(0x80 | opcode);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ 0..126), _) => out.push(len),
        (_, Ok(len)) => {
            out.push(126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Appends the ok reply to a push, as a node writes it.
pub(super) fn put_reply(out: &mut Vec<u8>, join_ref: &[u8], push: &Envelope<'_>) {
    put_frame(
        out,
        1,
        &[
            b"[",
            join_ref,
            b",\"",
            push.reference,
            b"\",\"",
            push.topic,
            b"\",\"phx_reply\",{\"response\":{},\"status\":\"ok\"}]",
        ],
    );
}

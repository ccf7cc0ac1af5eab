//! Frames onto a socket, as far as it takes them.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
};

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::queue::Item;

/// Frames in one write.
pub(super) const WRITE_FRAMES: usize = 64;

/// What became of a write.
pub(super) enum Written {
    All,
    /// The socket takes no more for now.
    Part,
    Failed,
}

/// Writes one frame. Past the reactor, which has nothing to say as long as all is taken.
pub(super) fn write_one(stream: &TcpStream, frame: &Bytes) -> (usize, Written) {
    let sent = match SockRef::from(stream).send(frame) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.try_write(frame),
        sent => sent,
    };
    outcome(sent, frame.len())
}

/// Writes frames, in one call.
pub(super) fn write(stream: &TcpStream, items: &VecDeque<Item>) -> (usize, Written) {
    let mut slices = [IoSlice::new(&[]); WRITE_FRAMES];
    for (slice, item) in slices.iter_mut().zip(items) {
        *slice = IoSlice::new(&item.frame);
    }
    let slices = &slices[..items.len().min(WRITE_FRAMES)];
    let all = slices.iter().map(|slice| slice.len()).sum();
    outcome(stream.try_write_vectored(slices), all)
}

fn outcome(sent: io::Result<usize>, all: usize) -> (usize, Written) {
    match sent {
        Ok(bytes) if bytes == all => (bytes, Written::All),
        Ok(bytes) => (bytes, Written::Part),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, Written::Part),
        Err(_) => (0, Written::Failed),
    }
}

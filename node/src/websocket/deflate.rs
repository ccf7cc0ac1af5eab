//! Messages deflated and inflated, each by itself (RFC 7692, section 7.2).
//!
//! Neither end refers to an earlier message (see [`offer`](super::offer)), so what deflating and
//! inflating need belongs to the thread: 0.4 MiB for a thread that does both, none for a connection.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Violation, encode::FrameBuf};

/// Payloads of fewer bytes are sent as they are: what deflating saves is less than a packet's header.
const DEFLATE_MIN: usize = 64;

/// Ends each flush. It is not sent, as the receiver knows it.
const FLUSHED: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// What a message leaves out, then an empty last block: where one can begin, the message was whole.
const ENDING: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];

/// Bytes of output that a thread keeps room for between messages.
const SCRATCH_KEPT: usize = 64 * 1024;

/// Bytes that an inflated message is first given.
const INFLATED_MIN: usize = 256;

thread_local! {
    // On JSON the slower levels save 2 % more, and take up to four times as long.
    static DEFLATER: RefCell<Deflater> = RefCell::new(Deflater {
        compress: Compress::new(Compression::fast(), false),
        scratch: Vec::new(),
    });
    static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

struct Deflater {
    compress: Compress,
    scratch: Vec<u8>,
}

/// The frame of a text message, deflated; `None` if it is as short as it is. The payload must be UTF-8.
///
/// Only for connections on which [`accept_deflate`](super::accept_deflate) agreed to it; any number of
/// them may get the same frame.
pub(crate) fn deflate_text(payload: &[u8]) -> Option<Bytes> {
    if payload.len() < DEFLATE_MIN {
        return None;
    }
    DEFLATER.with_borrow_mut(|deflater| deflater.deflate(payload))
}

impl Deflater {
    fn deflate(&mut self, payload: &[u8]) -> Option<Bytes> {
        self.scratch.clear();
        // What does not fit is not worth sending.
        self.scratch.reserve(payload.len());
        let before = self.compress.total_in();
        // After a full flush nothing refers to what was before it. It ends in the same bytes as a sync
        // flush, and costs less than a reset, which clears 0.3 MiB.
        let full = FlushCompress::Full;
        let result = self.compress.compress_vec(payload, &mut self.scratch, full);
        let whole = result.is_ok()
            && self.compress.total_in() - before == payload.len() as u64
            && self.scratch.len() < self.scratch.capacity();
        if !whole {
            self.compress.reset();
        }
        let deflated = self.scratch.strip_suffix(&FLUSHED).filter(|_| whole);
        let frame = deflated.filter(|deflated| deflated.len() < payload.len()).map(|deflated| {
            let mut frame = FrameBuf::with_capacity(deflated.len());
            frame.extend_from_slice(deflated);
            frame.into_deflated_text()
        });
        self.scratch.shrink_to(SCRATCH_KEPT);
        frame
    }
}

/// A message inflated, of at most `max` bytes.
///
/// # Errors
/// [`Violation::TooLarge`] as soon as it is longer, [`Violation::Deflate`] if its payload is no whole
/// message.
pub(super) fn inflate(payload: &[u8], max: usize) -> Result<Vec<u8>, Violation> {
    INFLATER.with_borrow_mut(|inflater| {
        inflater.reset(false);
        let mut message = Vec::new();
        if let Some(rest) = inflate_part(inflater, payload, &mut message, max)? {
            // It ended with a last block, after which there may be an empty one (section 7.2.3.4).
            return if matches!(rest, [] | [0]) { Ok(message) } else { Err(Violation::Deflate) };
        }
        match inflate_part(inflater, &ENDING, &mut message, max)? {
            Some([]) => Ok(message),
            _ => Err(Violation::Deflate),
        }
    })
}

/// Inflates more of a message, and returns what follows its last block once that came.
fn inflate_part<'a>(
    inflater: &mut Decompress,
    mut part: &'a [u8],
    message: &mut Vec<u8>,
    max: usize,
) -> Result<Option<&'a [u8]>, Violation> {
    loop {
        if message.len() > max {
            return Err(Violation::TooLarge);
        }
        if message.len() == message.capacity() {
            // By doubling, to one byte over the limit.
            let room = message.len().max(part.len()).max(INFLATED_MIN);
            message.reserve_exact(room.min((max - message.len()).saturating_add(1)));
        }
        let (before_in, before_len) = (inflater.total_in(), message.len());
        let status = inflater.decompress_vec(part, message, FlushDecompress::None);
        let status = status.map_err(|_| Violation::Deflate)?;
        let taken = usize::try_from(inflater.total_in() - before_in).unwrap_or(usize::MAX);
        part = part.get(taken..).unwrap_or_default();
        if message.len() > max {
            return Err(Violation::TooLarge);
        }
        if status == Status::StreamEnd {
            return Ok(Some(part));
        }
        if message.len() < message.capacity() {
            if part.is_empty() {
                return Ok(None);
            }
            if taken == 0 && message.len() == before_len {
                return Err(Violation::Deflate);
            }
        }
    }
}

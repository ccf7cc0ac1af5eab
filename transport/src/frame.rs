//! Frames on a lane: a length (seven bits a byte, lowest first; the top bit says that more follow)
//! and as many bytes.
//!
//! The writer packs many frames into few buffers (one write and one segment per message would cost
//! ten times as much); the reader cuts frames out of packets as they come. A frame holds on to at
//! most one packet's memory beyond its own, whatever its user keeps it for.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The bytes before a frame, at most.
pub(crate) const HEADER_LEN: usize = 5;
/// A frame at least this long is written from where it lies instead of being copied.
const COPY_LEN_MAX: usize = 16 * 1024;
/// The first allocation for a frame that spans packets; it grows only as bytes arrive.
const FIRST_ALLOCATION: usize = 64 * 1024;

/// A frame to be written, in two pieces that need not lie together.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
}

impl Frame {
    /// The frame's length without its header.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// Packs frames into buffers for one write. `frames` are shorter than 4 GiB each.
pub(crate) fn pack(frames: impl IntoIterator<Item = Frame>) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut buffer = BytesMut::new();
    for frame in frames {
        put_len(&mut buffer, frame.len());
        for piece in [frame.head, frame.body] {
            if piece.len() < COPY_LEN_MAX {
                buffer.extend_from_slice(&piece);
            } else {
                chunks.push(buffer.split().freeze());
                chunks.push(piece);
            }
        }
    }
    if !buffer.is_empty() {
        chunks.push(buffer.freeze());
    }
    chunks
}

/// `send` refuses frames over `frame_len_max`, which is below 2 GiB: five bytes are enough.
fn put_len(buffer: &mut BytesMut, mut len: usize) {
    while let Some(more) = Some(len >> 7).filter(|more| *more > 0) {
        buffer.put_u8(0x80 | u8::try_from(len & 0x7f).unwrap_or(0));
        len = more;
    }
    buffer.put_u8(u8::try_from(len).unwrap_or(0));
}

/// The peer announced a frame longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Cuts frames out of a stream of bytes that comes in arbitrary pieces.
///
/// Push a piece, then take frames until there is none; only then push the next piece.
#[derive(Debug)]
pub(crate) struct Decoder {
    len_max: usize,
    /// What was pushed and not yet looked at.
    rest: Bytes,
    state: State,
}

#[derive(Debug)]
enum State {
    /// So many bytes of it have come, and say this.
    Header {
        have: usize,
        len: usize,
    },
    Body {
        buffer: BytesMut,
        len: usize,
    },
}

const START: State = State::Header { have: 0, len: 0 };

impl Decoder {
    pub(crate) fn new(len_max: usize) -> Self {
        Self { len_max, rest: Bytes::new(), state: START }
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn push(&mut self, piece: Bytes) {
        debug_assert!(self.rest.is_empty(), "frames were left untaken");
        let wanted = match &self.state {
            State::Header { .. } => 0,
            State::Body { buffer, len } => len - buffer.len(),
        };
        if piece.len() <= wanted {
            self.rest = piece;
            return;
        }
        // The piece is a slice of a receive buffer of up to 64 packets. What begins here may be
        // kept for long by whom it is for, so it moves out of there.
        let mut own = BytesMut::with_capacity(piece.len());
        own.extend_from_slice(&piece);
        self.rest = own.freeze();
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// The stream is beyond repair once a frame is too long: there is no use in going on.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        loop {
            match &mut self.state {
                State::Header { have, len } => {
                    let Some(&byte) = self.rest.first() else {
                        return Ok(None);
                    };
                    self.rest.advance(1);
                    *len |= usize::from(byte & 0x7f) << (7 * *have);
                    *have += 1;
                    let is_more = byte >= 0x80;
                    if *len > self.len_max || is_more && *have == HEADER_LEN {
                        return Err(TooLong);
                    }
                    if is_more {
                        continue;
                    }
                    let len = *len;
                    if len <= self.rest.len() {
                        self.state = START;
                        return Ok(Some(self.rest.split_to(len)));
                    }
                    let buffer = BytesMut::with_capacity(len.min(FIRST_ALLOCATION));
                    self.state = State::Body { buffer, len };
                }
                State::Body { buffer, len } => {
                    let piece = self.rest.split_to(self.rest.len().min(*len - buffer.len()));
                    grow(buffer, piece.len(), *len);
                    buffer.extend_from_slice(&piece);
                    if buffer.len() < *len {
                        return Ok(None);
                    }
                    let frame = std::mem::take(buffer).freeze();
                    self.state = START;
                    return Ok(Some(frame));
                }
            }
        }
    }
}

/// Makes room for `more` bytes: doubling, but never beyond the frame's whole length.
fn grow(buffer: &mut BytesMut, more: usize, len: usize) {
    if buffer.capacity() - buffer.len() < more {
        let target = (buffer.capacity() * 2).max(buffer.len() + more).min(len);
        buffer.reserve(target - buffer.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(chunks: &[Bytes]) -> Vec<u8> {
        chunks.iter().flat_map(|chunk| chunk.to_vec()).collect()
    }

    fn header(len: usize) -> Bytes {
        let mut header = BytesMut::new();
        put_len(&mut header, len);
        header.freeze()
    }

    #[test]
    fn lengths_take_as_few_bytes_as_they_need() {
        assert_eq!(header(0), &[0][..]);
        assert_eq!(header(127), &[127][..]);
        assert_eq!(header(128), &[0x80, 1][..]);
        assert_eq!(header(u32::MAX as usize / 2).len(), HEADER_LEN);
    }

    fn decode(bytes: &[u8], cuts: &[usize], len_max: usize) -> Result<Vec<Bytes>, TooLong> {
        let mut decoder = Decoder::new(len_max);
        let mut frames = Vec::new();
        let mut rest = Bytes::copy_from_slice(bytes);
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let cut = cuts.next().copied().unwrap_or(rest.len());
            decoder.push(rest.split_to(cut.clamp(1, rest.len())));
            while let Some(frame) = decoder.next()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_anything_is_allocated_for_it() {
        let mut decoder = Decoder::new(100);
        decoder.push(header(101));
        assert_eq!(decoder.next(), Err(TooLong));
        // Nor does a length end the stream that does not end itself.
        let mut decoder = Decoder::new(100);
        decoder.push(Bytes::from_static(&[0x80; 9]));
        assert_eq!(decoder.next(), Err(TooLong));
    }

    #[test]
    fn a_long_frame_is_not_allocated_before_its_bytes_arrive() {
        let mut decoder = Decoder::new(1 << 30);
        decoder.push(header(1 << 30));
        assert_eq!(decoder.next(), Ok(None));
        let State::Body { buffer, .. } = &decoder.state else { panic!("in the body") };
        assert!(buffer.capacity() <= FIRST_ALLOCATION);
    }

    #[test]
    fn long_frames_are_written_from_where_they_lie() {
        let body = Bytes::from(vec![1; COPY_LEN_MAX]);
        let chunks = pack([Frame { head: Bytes::from_static(b"h"), body: body.clone() }]);
        assert_eq!(chunks.len(), 2);
        assert_eq!(chunks[1].as_ptr(), body.as_ptr());
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out_whatever_the_cuts(
            frames in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), prop_oneof![
                4 => 0usize..300, 1 => 16_000usize..140_000
            ]), 0..20),
            cuts in prop::collection::vec(1usize..3000, 1..20),
        ) {
            let frames: Vec<(Bytes, Bytes)> = frames
                .into_iter()
                .map(|(head, len)| (Bytes::from(head), Bytes::from(vec![len.to_le_bytes()[0]; len])))
                .collect();
            let packed = pack(frames.iter().cloned().map(|(head, body)| Frame { head, body }));
            let wanted: Vec<Vec<u8>> = frames
                .iter()
                .map(|(head, body)| [head.as_ref(), body.as_ref()].concat())
                .collect();
            let got = decode(&stream(&packed), &cuts, 1 << 20).expect("no frame is too long");
            prop_assert_eq!(got, wanted);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_never_yield_more_than_they_hold(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            small in any::<bool>(),
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            // Half of the cases have lengths small enough to be frames.
            let bytes: Vec<u8> =
                if small { bytes.iter().map(|b| if *b < 200 { 0 } else { *b }).collect() } else { bytes };
            if let Ok(frames) = decode(&bytes, &cuts, 1000) {
                prop_assert!(frames.iter().map(|f| f.len() + 1).sum::<usize>() <= bytes.len());
                prop_assert!(frames.iter().all(|f| f.len() <= 1000));
            }
        }
    }
}

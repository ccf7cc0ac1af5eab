//! WebSocket frames (RFC 6455) as a client of a trusted server needs them: short and unfragmented.

use std::ops::Range;

/// Bytes of the longest frame that is read. A `presence_state` of 50,000 clients fits.
const PAYLOAD_LEN_MAX: u64 = 16 << 20;

/// Bytes of the longest payload of a control frame.
const CONTROL_LEN_MAX: usize = 125;

/// The mask of every frame. It guards against pages that make a browser write what a proxy takes
/// for HTTP; here nobody else chooses what is written. Not zero, so that the server's work is real.
const MASK: [u8; 4] = [0xa7, 0x3c, 0x59, 0xe1];

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Binary,
    /// The server closes.
    Close,
    /// Wants a pong.
    Ping,
    Pong,
}

/// A whole frame at the start of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// Where the payload is; the next frame starts at its end.
    pub(super) payload: Range<usize>,
}

/// Why bytes are no frame of a server that this client talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame with reserved bits: no extension was asked for")]
    Reserved,
    #[error("a masked frame: servers do not mask")]
    Masked,
    #[error("a fragmented message: this client reads whole ones")]
    Fragmented,
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("a frame of {0} bytes, limit {PAYLOAD_LEN_MAX}")]
    TooLong(u64),
}

/// Finds the frame that `bytes` starts with; `None` while it is not all there.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & RESERVED != 0 {
        return Err(FrameError::Reserved);
    }
    if second & MASKED != 0 {
        return Err(FrameError::Masked);
    }
    let kind = match first & 0x0f {
        _ if first & FIN == 0 => return Err(FrameError::Fragmented),
        TEXT => Kind::Text,
        BINARY => Kind::Binary,
        CLOSE => Kind::Close,
        PING => Kind::Ping,
        PONG => Kind::Pong,
        other => return Err(FrameError::Kind(other)),
    };
    let (head, len) = match (second, rest) {
        (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
        }
        (126 | 127, _) => return Ok(None),
        (len, _) => (2, u64::from(*len)),
    };
    let Some(len) = usize::try_from(len).ok().filter(|_| len <= PAYLOAD_LEN_MAX) else {
        return Err(FrameError::TooLong(len));
    };
    let payload = head..head + len;
    Ok((payload.end <= bytes.len()).then_some(Frame { kind, payload }))
}

/// Appends a text frame.
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put(out, TEXT, text);
}

/// Appends the answer to a ping.
pub(super) fn put_pong(out: &mut Vec<u8>, ping: &[u8]) {
    put(out, PONG, &ping[..ping.len().min(CONTROL_LEN_MAX)]);
}

/// Appends a close frame that says that nothing is wrong.
pub(super) fn put_close(out: &mut Vec<u8>) {
    put(out, CLOSE, &1000_u16.to_be_bytes());
}

fn put(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(FIN | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len @ 0..126), _) => out.push(MASKED | len),
        (_, Ok(len)) => {
            out.push(MASKED | 126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    let start = out.len();
    out.extend_from_slice(payload);
    for chunk in out[start..].chunks_mut(MASK.len()) {
        for (byte, mask) in chunk.iter_mut().zip(MASK) {
            *byte ^= mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server's frame.
    fn served(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..126 => frame.push(u8::try_from(len).unwrap()),
            len @ 126..65_536 => {
                frame.push(126);
                frame.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            }
            len => {
                frame.push(127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn a_frame_is_found_once_it_is_all_there() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload = vec![b'x'; len];
            let mut bytes = served(0x81, &payload);
            let end = bytes.len();
            for cut in [0, 1, end / 2, end - 1] {
                assert_eq!(decode(&bytes[..cut]), Ok(None), "{cut} of {end}");
            }
            bytes.extend_from_slice(b"\x8a\x00");
            let frame = decode(&bytes).unwrap().unwrap();
            assert_eq!((frame.kind, frame.payload), (Kind::Text, end - len..end));
        }
    }

    #[test]
    fn control_frames_are_told_apart() {
        for (first, kind) in [(0x88, Kind::Close), (0x89, Kind::Ping), (0x8a, Kind::Pong)] {
            assert_eq!(decode(&served(first, b"ab")).unwrap().unwrap().kind, kind);
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_an_error() {
        assert_eq!(decode(b"\xc1\x00"), Err(FrameError::Reserved));
        assert_eq!(decode(b"\x81\x80"), Err(FrameError::Masked));
        assert_eq!(decode(b"\x01\x00"), Err(FrameError::Fragmented));
        assert_eq!(decode(b"\x83\x00"), Err(FrameError::Kind(3)));
        let long = b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff";
        assert_eq!(decode(long), Err(FrameError::TooLong(u64::MAX)));
    }

    #[test]
    fn written_frames_are_masked_and_of_the_shortest_form() {
        for len in [0, 5, 125, 126, 65_535, 65_536] {
            let text = vec![b'a'; len];
            let mut out = Vec::new();
            put_text(&mut out, &text);
            let head = match len {
                0..126 => 2,
                126..65_536 => 4,
                _ => 10,
            };
            assert_eq!(out.len(), head + MASK.len() + len);
            assert_eq!((out[0], out[1] & MASKED), (0x81, MASKED));
            let (mask, body) = out[head..].split_at(MASK.len());
            let clear = body.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m);
            assert_eq!(clear.collect::<Vec<_>>(), text);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic_or_reach_past_them(bytes in any::<Vec<u8>>()) {
            if let Ok(Some(frame)) = decode(&bytes) {
                prop_assert!(bytes.get(frame.payload).is_some());
            }
        }
    }
}

//! Frames that a server sends: final, not masked, with as short a header as can be.

use std::io;

use bytes::{Buf as _, Bytes};

use super::frame::{CONTROL_MAX, Opcode, RSV1};

/// Bytes of the longest header of a server's frame.
const HEAD_MAX: usize = 10;

/// Set in a header's first byte: the frame is the last of its message.
const FIN: u8 = 0x80;

/// The header of a frame.
#[derive(Clone, Copy, Debug)]
struct Head {
    bytes: [u8; HEAD_MAX],
    len: u8,
}

impl AsRef<[u8]> for Head {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len.into()]
    }
}

/// The header of a frame that is a whole message. A control frame's payload has at most 125 bytes.
fn head(opcode: Opcode, payload_len: usize) -> Head {
    let mut bytes = [0; HEAD_MAX];
    bytes[0] = FIN | opcode as u8;
    let len = if let Ok(len @ ..=125) = u8::try_from(payload_len) {
        bytes[1] = len;
        2
    } else if let Ok(len) = u16::try_from(payload_len) {
        bytes[1] = 126;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        4
    } else {
        bytes[1] = 127;
        bytes[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
        10
    };
    Head { bytes, len }
}

/// A payload to be, with room for its header in front: once it is whole, the header is written there
/// and nothing is moved.
#[derive(Debug)]
pub(crate) struct FrameBuf(Vec<u8>);

impl FrameBuf {
    /// Room for a payload of that many bytes. It may become longer.
    pub(crate) fn with_capacity(payload_len: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_MAX + payload_len);
        bytes.resize(HEAD_MAX, 0);
        Self(bytes)
    }

    /// Appends to the payload.
    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Appends one byte to the payload.
    #[cfg(test)]
    pub(crate) fn push(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// The vector that ends with the payload, for encoders that append to one. What it begins with is
    /// the header's.
    pub(crate) fn payload_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// The payload so far.
    pub(crate) fn payload(&self) -> &[u8] {
        self.0.get(HEAD_MAX..).unwrap_or_default()
    }

    /// The frame of a text message. The payload must be UTF-8, or the client ends the connection.
    pub(crate) fn into_text(self) -> Bytes {
        self.into_frame(Opcode::Text, 0)
    }

    /// The frame of a text message that is deflated.
    pub(super) fn into_deflated_text(self) -> Bytes {
        self.into_frame(Opcode::Text, RSV1)
    }

    /// The beginning of a text message's frame: so many bytes follow it.
    pub(crate) fn into_text_begun(self, behind: usize) -> Bytes {
        let head = head(Opcode::Text, self.payload().len() + behind);
        self.behind(head.as_ref())
    }

    /// The frame of a binary message.
    pub(crate) fn into_binary(self) -> Bytes {
        self.into_frame(Opcode::Binary, 0)
    }

    /// The payload behind its length, for streams that are no WebSockets: four bytes, the highest
    /// first.
    pub(crate) fn into_prefixed(self) -> Bytes {
        self.into_prefixed_begun(0)
    }

    /// The same for the beginning of a payload: so many bytes follow it.
    pub(crate) fn into_prefixed_begun(self, behind: usize) -> Bytes {
        // Nothing that a node sends comes near 4 GiB.
        let len = u32::try_from(self.payload().len() + behind).unwrap_or(u32::MAX);
        self.behind(&len.to_be_bytes())
    }

    fn into_frame(self, opcode: Opcode, reserved: u8) -> Bytes {
        let mut head = head(opcode, self.payload().len());
        head.bytes[0] |= reserved;
        self.behind(head.as_ref())
    }

    /// The payload behind a header of at most [`HEAD_MAX`] bytes.
    fn behind(mut self, head: &[u8]) -> Bytes {
        let payload_len = self.payload().len();
        self.0.resize(HEAD_MAX + payload_len, 0);
        let start = HEAD_MAX - head.len();
        self.0[start..HEAD_MAX].copy_from_slice(head);
        let mut frame = Bytes::from(self.0);
        frame.advance(start);
        frame
    }
}

impl io::Write for FrameBuf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A close frame. Of the reason as many characters are sent as fit into 123 bytes.
pub(crate) fn close(code: u16, reason: &str) -> Bytes {
    let code = code.to_be_bytes();
    let reason = &reason[..reason.floor_char_boundary(CONTROL_MAX - code.len())];
    control(Opcode::Close, &[&code, reason.as_bytes()])
}

/// The answer to a ping with this payload, of which at most 125 bytes are sent.
pub(crate) fn pong(payload: &[u8]) -> Bytes {
    control(Opcode::Pong, &[&payload[..payload.len().min(CONTROL_MAX)]])
}

fn control(opcode: Opcode, parts: &[&[u8]]) -> Bytes {
    let payload = parts.concat();
    [head(opcode, payload.len()).as_ref(), &payload].concat().into()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_header_is_as_short_as_the_payload_allows() {
        let headers: [(usize, &[u8]); 7] = [
            (0, &[0x81, 0]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (127, &[0x81, 126, 0, 127]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (1 << 40, &[0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0]),
        ];
        for (len, header) in headers {
            assert_eq!(head(Opcode::Text, len).as_ref(), header, "{len}");
        }
        assert_eq!(head(Opcode::Binary, 1).as_ref(), [0x82, 1]);
    }

    #[test]
    fn a_frame_is_its_header_and_its_payload() {
        let mut frame = FrameBuf::with_capacity(3);
        frame.push(b'a');
        frame.extend_from_slice(b"bc");
        assert_eq!(frame.payload(), b"abc");
        assert_eq!(frame.into_text(), b"\x81\x03abc"[..]);
        let mut frame = FrameBuf::with_capacity(0);
        assert_eq!(frame.write(&[7; 300]).unwrap(), 300);
        frame.payload_mut().push(8);
        let frame = frame.into_binary();
        assert_eq!(frame[..5], [0x82, 126, 1, 45, 7]);
        assert_eq!(frame[frame.len() - 2..], [7, 8]);
        assert_eq!(frame.len(), 305);
        assert_eq!(FrameBuf::with_capacity(9).into_text(), b"\x81\x00"[..]);
    }

    #[test]
    fn a_length_of_four_bytes_is_an_alternative() {
        let mut frame = FrameBuf::with_capacity(3);
        frame.extend_from_slice(b"abc");
        assert_eq!(frame.into_prefixed(), b"\0\0\0\x03abc"[..]);
        let mut begun = FrameBuf::with_capacity(1);
        begun.extend_from_slice(b"a");
        assert_eq!(begun.into_prefixed_begun(0x0102_02ff), b"\x01\x02\x03\0a"[..]);
    }

    #[test]
    fn a_payload_is_not_copied_into_its_frame() {
        let mut frame = FrameBuf::with_capacity(100);
        frame.extend_from_slice(&[1; 100]);
        let at = frame.payload().as_ptr();
        assert_eq!(frame.into_text()[2..].as_ptr(), at);
    }

    #[test]
    fn a_cleared_frame_is_an_empty_one() {
        let mut frame = FrameBuf::with_capacity(4);
        frame.payload_mut().clear();
        assert_eq!(frame.into_text(), b"\x81\x00"[..]);
    }

    #[test]
    fn control_frames_fit_their_limit() {
        assert_eq!(close(1000, ""), [0x88, 2, 3, 0xe8][..]);
        assert_eq!(close(1002, "no"), [0x88, 4, 3, 0xea, b'n', b'o'][..]);
        let long = close(1008, &"é".repeat(100));
        assert_eq!(long.len(), 2 + 124, "the 62nd é would end at byte 124 of 123");
        assert_eq!(std::str::from_utf8(&long[4..]).unwrap(), "é".repeat(61));
        assert_eq!(pong(b"hi"), b"\x8a\x02hi"[..]);
        assert_eq!(pong(&[0; 200]).len(), 2 + 125);
    }
}

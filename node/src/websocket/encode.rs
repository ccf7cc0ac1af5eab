//! Frames that a server sends: final, not masked, with as short a header as can be.

use std::io;

use bytes::{Buf as _, Bytes};

use super::frame::{CONTROL_MAX, Opcode, RSV1};

/// Bytes of the longest header of a server's frame.
const HEAD_MAX: usize = 10;

/// Set in a header's first byte: the frame is the last of its message.
const FIN: u8 = 0x80;

/// The header of a frame, for those that are written in several pieces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    bytes: [u8; HEAD_MAX],
    len: u8,
}

impl AsRef<[u8]> for Head {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len.into()]
    }
}

/// The header of a frame that is a whole message. A control frame's payload has at most 125 bytes.
pub(crate) fn head(opcode: Opcode, payload_len: usize) -> Head {
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

    /// The frame of a binary message.
    #[cfg(test)]
    pub(crate) fn into_binary(self) -> Bytes {
        self.into_frame(Opcode::Binary, 0)
    }

    fn into_frame(mut self, opcode: Opcode, reserved: u8) -> Bytes {
        let payload_len = self.payload().len();
        self.0.resize(HEAD_MAX + payload_len, 0);
        let head = head(opcode, payload_len);
        let start = HEAD_MAX - head.as_ref().len();
        self.0[start..HEAD_MAX].copy_from_slice(head.as_ref());
        self.0[start] |= reserved;
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

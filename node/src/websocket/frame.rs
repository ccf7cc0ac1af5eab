//! One frame as a client sends it: its header, the rules for it, its mask (RFC 6455, section 5.2).

use super::{Rules, Violation};

/// Bytes of the longest header of a client's frame.
pub(super) const HEADER_MAX: usize = 14;

/// Bytes of the longest payload of a control frame.
pub(super) const CONTROL_MAX: usize = 125;

/// The reserved bit that says that a message is deflated, in a header's first byte.
pub(super) const RSV1: u8 = 0x40;

/// All three reserved bits.
const RESERVED: u8 = 0x70;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Opcode {
    /// The next part of the message that is open.
    Continuation = 0,
    /// A message of UTF-8, or its first part.
    Text = 1,
    /// A message of any bytes, or its first part.
    Binary = 2,
    /// The sender's last frame.
    Close = 8,
    /// Asks for a pong with the same payload.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

impl Opcode {
    /// The opcode in a header's first byte; `None` for those that are reserved.
    fn of(first: u8) -> Option<Self> {
        match first & 0x0f {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }

    /// Whether it is of the connection, and no part of a message.
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A frame's header as it came, not yet held against the rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    first: u8,
    len: u64,
    mask: Option<[u8; 4]>,
}

impl Header {
    /// Reads the header that `bytes` begins with, and says how long it is; `None` while it is cut.
    ///
    /// A length in more bytes than it needs is taken, as by most servers.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let ([first, second], rest) = bytes.split_first_chunk()?;
        let (len, rest) = match second & 0x7f {
            126 => {
                let (len, rest) = rest.split_first_chunk()?;
                (u16::from_be_bytes(*len).into(), rest)
            }
            127 => {
                let (len, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*len), rest)
            }
            len => (len.into(), rest),
        };
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            let (mask, rest) = rest.split_first_chunk()?;
            (Some(*mask), rest)
        };
        Some((Self { first: *first, len, mask }, bytes.len() - rest.len()))
    }

    /// Holds the header against the rules, before a byte of the payload is taken. `open` is how many
    /// bytes came of the message that the connection is in the middle of.
    pub(super) fn check(self, open: Option<usize>, rules: &Rules) -> Result<Frame, Violation> {
        let opcode = Opcode::of(self.first).ok_or(Violation::Opcode)?;
        // A limit below a control frame's own is no reason to refuse a ping.
        let max = rules.message_max.max(if opcode.is_control() { CONTROL_MAX } else { 0 });
        // A length whose top bit is set, which the RFC forbids, is over every limit too.
        let len = usize::try_from(self.len).ok().filter(|len| *len <= max);
        let len = len.ok_or(Violation::TooLarge)?;
        let mask = self.mask.ok_or(Violation::Unmasked)?;
        // RFC 7692, section 6: a message that is deflated says so in its first frame.
        let begins = matches!(opcode, Opcode::Text | Opcode::Binary);
        let known = if rules.inflate && begins { RSV1 } else { 0 };
        if self.first & RESERVED & !known != 0 {
            return Err(Violation::ReservedBits);
        }
        let deflated = self.first & RSV1 != 0;
        let fin = self.first & 0x80 != 0;
        match (opcode, open) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => {
                if !fin {
                    return Err(Violation::ControlFragmented);
                }
                if len > CONTROL_MAX {
                    return Err(Violation::ControlTooLong);
                }
            }
            (Opcode::Continuation, None) => return Err(Violation::UnexpectedContinuation),
            (Opcode::Continuation, Some(open)) if len > max.saturating_sub(open) => {
                return Err(Violation::TooLarge);
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Violation::UnfinishedMessage),
            (Opcode::Continuation, Some(_)) | (Opcode::Text | Opcode::Binary, None) => {}
        }
        Ok(Frame { kind: Kind { opcode, deflated }, fin, mask, len })
    }
}

/// How a payload is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) opcode: Opcode,
    pub(super) deflated: bool,
}

/// A frame that may come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// It is the last of its message.
    pub(super) fin: bool,
    /// What its next byte, and those after it, were masked with.
    pub(super) mask: [u8; 4],
    /// Bytes of its payload.
    pub(super) len: usize,
}

/// Takes the mask off, or puts it on. `bytes` begin where the mask begins.
pub(super) fn unmask(bytes: &mut [u8], [a, b, c, d]: [u8; 4]) {
    let mask = [a, b, c, d, a, b, c, d];
    let word_mask = u64::from_ne_bytes(mask);
    let (words, tail) = bytes.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ word_mask).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_unmasked_with_its_own_byte_of_the_mask() {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        for len in 0..100 {
            let plain: Vec<u8> = (0..len).collect();
            let mut masked: Vec<u8> =
                plain.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            unmask(&mut masked, mask);
            assert_eq!(masked, plain);
        }
    }
}

//! What a client can do wrong.

use std::fmt;

/// How a client broke the rules of the WebSocket protocol. Its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// An opcode that RFC 6455 reserves.
    Opcode,
    /// A reserved bit is set that no agreed extension gives a meaning.
    ReservedBits,
    /// A frame without a mask.
    Unmasked,
    /// A control frame that is not final.
    ControlFragmented,
    /// A control frame of more than 125 bytes.
    ControlTooLong,
    /// A continuation frame while no message is open.
    UnexpectedContinuation,
    /// A new message before the last frame of the one that is open.
    UnfinishedMessage,
    /// A close frame with half a code.
    CloseBody,
    /// A close code that must not be sent.
    CloseCode,
    /// A text message, or the reason of a close frame, that is not UTF-8.
    Utf8,
    /// A message that says that it is deflated, and is not.
    Deflate,
    /// A message over [`Rules::message_max`](super::Rules::message_max).
    TooLarge,
}

impl Violation {
    /// The close code that tells the client (RFC 6455, section 7.4.1), and words for its developer.
    pub(crate) fn close(self) -> (u16, &'static str) {
        match self {
            Self::Opcode => (1002, "unknown opcode"),
            Self::ReservedBits => (1002, "reserved bits set"),
            Self::Unmasked => (1002, "frame without a mask"),
            Self::ControlFragmented => (1002, "control frame in fragments"),
            Self::ControlTooLong => (1002, "control frame over 125 bytes"),
            Self::UnexpectedContinuation => (1002, "continuation of no message"),
            Self::UnfinishedMessage => (1002, "message within another message"),
            Self::CloseBody => (1002, "close frame with half a code"),
            Self::CloseCode => (1002, "invalid close code"),
            Self::Utf8 => (1007, "text frame is not UTF-8"),
            Self::Deflate => (1007, "message cannot be inflated"),
            Self::TooLarge => (1009, "frame is over the limit"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.close().1)
    }
}

impl std::error::Error for Violation {}

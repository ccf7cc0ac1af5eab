//! What a message carries.

use cluster::wire::PayloadKind;

/// The payload of one message, within the bytes that it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// JSON, encoded and well-formed.
    Json(&'a [u8]),
    /// Any bytes: for clients of V2 over a WebSocket or TCP. Other formats have no form for them.
    Binary(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// The payload that bytes of a kind are.
    pub const fn new(kind: PayloadKind, bytes: &'a [u8]) -> Self {
        match kind {
            PayloadKind::Json => Self::Json(bytes),
            PayloadKind::Binary => Self::Binary(bytes),
        }
    }

    /// What its bytes are.
    pub const fn kind(self) -> PayloadKind {
        match self {
            Self::Json(_) => PayloadKind::Json,
            Self::Binary(_) => PayloadKind::Binary,
        }
    }

    /// Its bytes, as they came.
    pub const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Json(bytes) | Self::Binary(bytes) => bytes,
        }
    }
}

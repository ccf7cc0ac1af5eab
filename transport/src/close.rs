//! The close codes of a connection, and what a close by the other side means.
//!
//! A code is for machines; the reason beside it carries the few numbers a code needs (as text, so
//! that a packet capture can be read) or a line for people. Both are limited when read.

use quinn::{ConnectionError, VarInt};

use crate::error::DownReason;

/// Closed on purpose; the reason says why.
pub(crate) const CLOSED: VarInt = VarInt::from_u32(0);
/// The other side broke the protocol.
pub(crate) const PROTOCOL: VarInt = VarInt::from_u32(1);
/// A lane that must not drop was full.
pub(crate) const OVERFLOW: VarInt = VarInt::from_u32(2);
/// A newer link took its place.
pub(crate) const REPLACED: VarInt = VarInt::from_u32(3);
/// A task died.
pub(crate) const INTERNAL: VarInt = VarInt::from_u32(4);
/// The cluster secrets differ.
pub(crate) const SECRET: VarInt = VarInt::from_u32(16);
/// The cluster names differ.
pub(crate) const CLUSTER: VarInt = VarInt::from_u32(17);
/// No common wire version; the reason is `min-max` of the side that refuses.
pub(crate) const WIRE: VarInt = VarInt::from_u32(18);
/// Something newer is known under this name; the reason is `incarnation name-of-who-says-so`.
pub(crate) const STALE: VarInt = VarInt::from_u32(19);
/// The pair has a link already; the reason is `incarnation name` of who says so.
pub(crate) const DUPLICATE: VarInt = VarInt::from_u32(20);
/// The dialler reached itself.
pub(crate) const OURSELVES: VarInt = VarInt::from_u32(21);
/// As many links as allowed.
pub(crate) const FULL: VarInt = VarInt::from_u32(22);
/// The first bytes were not those of a node.
pub(crate) const NOT_A_PEER: VarInt = VarInt::from_u32(23);
/// The dialler's name is ours, and its run is newer.
pub(crate) const OLDER: VarInt = VarInt::from_u32(24);

/// A reason that came over the network, cut and without control characters.
pub(crate) fn reason_text(reason: &[u8]) -> String {
    const CHARS_MAX: usize = 300;
    let text: String = String::from_utf8_lossy(reason)
        .chars()
        .take(CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.is_empty() { "no reason given".into() } else { text }
}

/// What the end of a connection means for its link.
pub(crate) fn down_reason(error: &ConnectionError) -> DownReason {
    match error {
        ConnectionError::ApplicationClosed(close) if close.error_code == REPLACED => {
            DownReason::Replaced
        }
        ConnectionError::ApplicationClosed(close) => {
            DownReason::ClosedByPeer(reason_text(&close.reason))
        }
        ConnectionError::ConnectionClosed(_) => {
            DownReason::ClosedByPeer("its QUIC stack gave up".into())
        }
        ConnectionError::Reset => DownReason::Reset,
        ConnectionError::TimedOut => DownReason::TimedOut,
        ConnectionError::LocallyClosed => DownReason::Closed("the transport is closed".into()),
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::CidsExhausted => DownReason::Connection(error.to_string()),
    }
}

/// The code and the reason that tell the peer why this side closes.
pub(crate) fn close_of(reason: &DownReason) -> (VarInt, String) {
    match reason {
        DownReason::Closed(text) => (CLOSED, text.clone()),
        DownReason::Replaced => (REPLACED, String::new()),
        DownReason::Renewed => (CLOSED, "the node took a new identity".into()),
        DownReason::Overflow { lane } => (OVERFLOW, format!("lane {lane} is full")),
        DownReason::Protocol(what) => (PROTOCOL, format!("protocol broken: {what}")),
        DownReason::Internal(_) => (INTERNAL, "internal failure".into()),
        DownReason::ClosedByPeer(_)
        | DownReason::TimedOut
        | DownReason::Reset
        | DownReason::Connection(_) => (CLOSED, String::new()),
    }
}

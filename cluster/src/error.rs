//! What can be wrong with a peer's bytes.

/// Why a frame of a peer was refused. The driver closes the link on any of these; no state changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame ends before its header does.
    #[error("frame of {len} bytes is cut short")]
    Short {
        /// Bytes of the frame.
        len: usize,
    },
    /// The header claims more than any header may hold.
    #[error("header of {len} bytes, limit {limit}")]
    TooLong {
        /// Bytes that the frame claims.
        len: usize,
        /// Most bytes of this kind of header.
        limit: usize,
    },
    /// The header does not decode.
    #[error("malformed {kind} header: {why}")]
    Malformed {
        /// Name of the frame's kind.
        kind: &'static str,
        /// What the decoder said.
        why: String,
    },
    /// A kind below 0x80 that this release does not know.
    #[error("unknown frame kind {kind:#04x}")]
    UnknownKind {
        /// The frame's first byte.
        kind: u8,
    },
    /// A feed range that no correct peer would send.
    #[error("bad range of shard {shard}: {why}")]
    BadRange {
        /// The shard it names.
        shard: u16,
        /// What is wrong with it.
        why: String,
    },
    /// The peer splits topics into another number of shards.
    #[error("peer has {theirs} shards, this node {ours}: set the same on all nodes")]
    Shards {
        /// The peer's number.
        theirs: usize,
        /// Our number.
        ours: u16,
    },
}

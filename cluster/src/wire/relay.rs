//! Feeds by way of a third node.

use bincode::{Decode, Encode};

use super::FeedRange;

/// A wish for the feeds of a node that the sender has no link to.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Pull {
    /// The sender's number for it: higher than that of any pull before.
    pub(crate) id: u64,
    /// The node's name.
    pub(crate) owner: String,
    /// The run of it that the sender knows.
    pub(crate) incarnation: u64,
    /// What the sender has of each of its feeds.
    pub(crate) positions: Vec<u64>,
}

/// Whether a pull is served.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct PullAnswer {
    /// The pull.
    pub(crate) id: u64,
    /// The highest position of each feed that the sender of this knows of; `None` when it does not
    /// serve the pull, or not any more.
    pub(crate) heads: Option<Vec<u64>>,
}

/// Operations of a feed that was pulled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Relayed {
    /// The pull.
    pub(crate) pull: u64,
    /// Its epoch is 0: the pull stands for it.
    pub(crate) feed: FeedRange,
}

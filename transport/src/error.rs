//! What can go wrong, one enum per operation. Each message is one line for an operator.

use std::{io, net::SocketAddr, ops::RangeInclusive};

use crate::config::IdentityError;

/// Why [`Transport::bind`](crate::Transport::bind) failed. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The UDP socket could not be had.
    #[error("cannot listen on {address}: {source}")]
    Socket {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The configuration contradicts itself.
    #[error("transport configuration: {0}")]
    Config(&'static str),
    /// The identity does not fit into a hello.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The process's certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(String),
}

/// Why [`Link::send`](crate::Link::send) did not queue a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The lane is full and its policy is to drop: this frame was dropped and counted.
    #[error("the lane is full: frame dropped")]
    Full,
    /// The lane is full and its policy is to cut: the link is being closed.
    #[error("the lane is full: the link is being closed")]
    Cut,
    /// The link is closed, or closing and takes no more.
    #[error("the link is closed")]
    Closed,
    /// The frame is longer than `frame_len_max`, or the answer longer than a request body may be.
    #[error("the frame is too long")]
    TooLong,
    /// There is no such lane in the configuration.
    #[error("no such lane")]
    NoLane,
}

/// Why [`Link::datagram`](crate::Link::datagram) sent nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// More than [`Link::datagram_max`](crate::Link::datagram_max) bytes.
    #[error("the datagram is too long for the path")]
    TooLong,
    /// The link is closed.
    #[error("the link is closed")]
    Closed,
}

/// Why [`Link::request`](crate::Link::request) has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The request's body is over [`REQUEST_LEN_MAX`](crate::REQUEST_LEN_MAX): nothing was sent.
    #[error("the request is too long")]
    TooLong,
    /// No answer in time. The peer may or may not have acted on the request.
    #[error("no answer in time")]
    TimedOut,
    /// The peer chose not to answer, or its answer broke the protocol.
    #[error("the peer did not answer")]
    Unanswered,
    /// The link went down first. The peer may or may not have acted on the request.
    #[error("the link is closed")]
    Closed,
}

/// Why a dial did not become a link, apart from refusals, which are [`Refusal`]s.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Nobody answered within `handshake_timeout`.
    #[error("no answer (is a node listening there, on UDP, and may packets pass?)")]
    TimedOut,
    /// The address cannot be dialled from this socket.
    #[error("cannot be dialled: {0}")]
    Address(String),
    /// What answers there speaks QUIC but is not one of us.
    #[error("TLS failed: {0} (is it a cluster listener?)")]
    Tls(String),
    /// The other side closed the connection during the hello.
    #[error("closed during the hello: {0}")]
    Closed(String),
    /// The other side broke the protocol of the hello.
    #[error("broke the hello: {0}")]
    Protocol(&'static str),
    /// A node of our own name but of an older run answered. It has been told.
    #[error("an older run of this node still answers there")]
    OlderSelf,
    /// A replica older than one that was already seen under its name answered. It has been told.
    #[error("an older run of node {0} answers there")]
    OlderPeer(String),
}

/// Why one side turned the other away at the hello.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalCause {
    /// The cluster secrets differ.
    Secret,
    /// The cluster names differ; `theirs` is known to the side that refused.
    Cluster {
        /// Our name.
        ours: String,
        /// The other's name.
        theirs: Option<String>,
    },
    /// There is no wire version that both speak.
    Wire {
        /// Our lowest and highest version.
        ours: (u16, u16),
        /// The other's, if it said so.
        theirs: Option<(u16, u16)>,
    },
    /// The node has as many links as it may have.
    Full,
    /// What knocked is not a node of ours: its first bytes make no sense.
    NotAPeer,
}

impl RefusalCause {
    pub(crate) fn wire(ours: &RangeInclusive<u16>, theirs: Option<(u16, u16)>) -> Self {
        Self::Wire { ours: (*ours.start(), *ours.end()), theirs }
    }

    fn what(&self) -> String {
        let versions = |v: &(u16, u16)| format!("{} to {}", v.0, v.1);
        match self {
            Self::Secret => "the cluster secret differs".into(),
            Self::Cluster { ours, theirs: Some(theirs) } => {
                format!("it is of cluster {theirs:?}, this node of {ours:?}")
            }
            Self::Cluster { ours, theirs: None } => {
                format!("it is of another cluster than {ours:?}")
            }
            Self::Wire { ours, theirs: Some(theirs) } => format!(
                "it speaks wire versions {}, this node {}",
                versions(theirs),
                versions(ours)
            ),
            Self::Wire { ours, theirs: None } => {
                format!("it speaks none of our wire versions {}", versions(ours))
            }
            Self::Full => "there are as many links as allowed".into(),
            Self::NotAPeer => "it does not speak our protocol".into(),
        }
    }

    fn cure(&self) -> &'static str {
        match self {
            Self::Secret => "set the same WINGBEAT_CLUSTER_SECRET on both",
            Self::Cluster { .. } => "set the same cluster.name on both",
            Self::Wire { .. } => "run neighbouring releases",
            Self::Full => "raise the limit of links",
            Self::NotAPeer => "check what connects there",
        }
    }
}

/// One refusal, as either side tells its operator: who, what and what to do, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The other side.
    pub address: SocketAddr,
    /// The other side dialled us.
    pub inbound: bool,
    /// It was this node that refused.
    pub by_us: bool,
    /// Why.
    pub cause: RefusalCause,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = if self.by_us { "was refused" } else { "refused us" };
        let (address, cause) = (self.address, &self.cause);
        write!(f, "{address} {verb}: {} ({})", cause.what(), cause.cure())
    }
}

impl std::error::Error for Refusal {}

/// Why a link went down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// This node closed it.
    #[error("closed by this node: {0}")]
    Closed(String),
    /// The peer closed it.
    #[error("closed by the peer: {0}")]
    ClosedByPeer(String),
    /// Nothing was heard for `idle_timeout`.
    #[error("the peer fell silent")]
    TimedOut,
    /// The peer no longer knows the connection.
    #[error("the peer no longer knows it (it restarted, or had given this node up)")]
    Reset,
    /// A newer link of the same peer took its place.
    #[error("replaced by a newer link")]
    Replaced,
    /// [`Transport::set_identity`](crate::Transport::set_identity) was called.
    #[error("this node took a new identity")]
    Renewed,
    /// A lane that must not drop was full.
    #[error("lane {lane} is full: the peer takes too little of it")]
    Overflow {
        /// The lane's name.
        lane: &'static str,
    },
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// QUIC failed.
    #[error("the connection failed: {0}")]
    Connection(String),
    /// A task of this node's link died: a bug, here or in a handler.
    #[error("internal failure: {0}")]
    Internal(String),
}

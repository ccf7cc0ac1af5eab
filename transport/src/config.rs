//! What a transport is told at birth. Every number has a default; the cluster name, a secret and the
//! lanes have none.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use bytes::Bytes;

use crate::{error::BindError, proof::Secret};

/// The most lanes a link may have.
pub const LANES_MAX: usize = 32;
/// The longest cluster or node name, in bytes.
pub const NAME_LEN_MAX: usize = 255;
/// The longest opaque payload of a hello, in bytes.
pub const HELLO_LEN_MAX: usize = 16 * 1024;
/// The longest body of a request or of its answer, in bytes: the longest frame of a client and some
/// more, as a JSON string, in which each byte may take two.
pub const REQUEST_LEN_MAX: usize = 2 * (16 * 1024 * 1024 + 64 * 1024);
/// How many requests a peer may have open on a link: many of them wait long for their answers.
pub const REQUESTS_MAX: u32 = 16_384;
/// How many of them a new link has room for. It grows with their number, as an idle one costs too.
pub(crate) const REQUESTS_FIRST: u32 = 64;

/// What a transport is told at birth.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen (UDP), and where dials come from. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address that other nodes reach this one by, if it is not the one its packets come from.
    /// A kept address counts as linked when a peer says it is its own.
    pub advertise: Option<SocketAddr>,
    /// The cluster's name, 1 to 255 bytes. Both sides must say the same.
    pub cluster: String,
    /// One or two cluster secrets: a dialler proves the first, an acceptor takes either (and
    /// answers with the one that was proved). To rotate: `[old, new]` on every node, then
    /// `[new, old]`, then `[new]`.
    pub secrets: Vec<Secret>,
    /// The wire versions this build speaks; a pair speaks the highest common one.
    pub wire: RangeInclusive<u16>,
    /// The lanes of every link, 1 to 32, the same on all nodes that share a wire version.
    pub lanes: Vec<LaneConfig>,
    /// Silence after which a link is down. At least twice `keep_alive`.
    pub idle_timeout: Duration,
    /// How often an idle link is probed.
    pub keep_alive: Duration,
    /// From the first packet to an agreed link. Also what a stranger may cost in time.
    pub handshake_timeout: Duration,
    /// The upper bound of the first pause between dials of one address; doubles with each failure.
    pub backoff_min: Duration,
    /// The upper bound of any such pause. The pause is drawn uniformly below the bound.
    pub backoff_max: Duration,
    /// The longest frame, in bytes. A peer that sends a longer one is cut off.
    pub frame_len_max: usize,
    /// The most links at a time. Addresses kept are limited to twice as many.
    pub links_max: usize,
    /// Inbound handshakes in progress at a time; one address may have a quarter of them.
    pub incoming_max: usize,
    /// How many events may wait in [`Events`](crate::Events) before links stop being read.
    pub events_max: usize,
    /// How many bytes of frames and requests may wait there; one larger than this passes alone.
    pub events_bytes_max: usize,
    /// How long the node's own side may take to answer a request of a peer.
    pub answer_timeout: Duration,
    /// The size asked for the UDP socket's buffers, in bytes. The system may grant less.
    pub socket_buffer: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertise: None,
            cluster: String::new(),
            secrets: Vec::new(),
            wire: 1..=1,
            lanes: Vec::new(),
            idle_timeout: Duration::from_secs(4),
            keep_alive: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(3),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            frame_len_max: 16 * 1024 * 1024 + 64 * 1024,
            links_max: 1024,
            incoming_max: 256,
            events_max: 1024,
            events_bytes_max: 32 * 1024 * 1024,
            answer_timeout: Duration::from_secs(30),
            socket_buffer: 4 * 1024 * 1024,
        }
    }
}

impl Config {
    /// Refuses what cannot work.
    pub(crate) fn validate(&self) -> Result<(), BindError> {
        let rules = [
            (self.cluster.is_empty(), "the cluster has no name"),
            (self.cluster.len() > NAME_LEN_MAX, "the cluster name is over 255 bytes"),
            (self.secrets.is_empty(), "there is no cluster secret"),
            (self.secrets.len() > 2, "there are more than two cluster secrets"),
            (self.wire.is_empty(), "the range of wire versions is empty"),
            (self.lanes.is_empty(), "there are no lanes"),
            (self.lanes.len() > LANES_MAX, "there are more than 32 lanes"),
            (self.lanes.iter().any(|lane| lane.bound == 0), "a lane's bound is 0"),
            (self.frame_len_max == 0, "frame_len_max is 0"),
            (self.frame_len_max > u32::MAX as usize / 2, "frame_len_max is over 2 GiB"),
            (self.links_max == 0, "links_max is 0"),
            (self.incoming_max == 0, "incoming_max is 0"),
            (self.events_max == 0, "events_max is 0"),
            (self.events_bytes_max == 0, "events_bytes_max is 0"),
            (self.events_bytes_max > u32::MAX as usize / 2, "events_bytes_max is over 2 GiB"),
            (self.keep_alive.is_zero(), "keep_alive is 0"),
            (
                self.idle_timeout < self.keep_alive.saturating_mul(2),
                "idle_timeout is under twice keep_alive",
            ),
            (self.handshake_timeout.is_zero(), "handshake_timeout is 0"),
            (self.backoff_min.is_zero(), "backoff_min is 0"),
            (self.backoff_max < self.backoff_min, "backoff_max is under backoff_min"),
        ];
        match rules.iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Err(BindError::Config(rule)),
            None => Ok(()),
        }
    }
}

/// One lane of every link: an ordered stream of frames with its own queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneConfig {
    /// For messages and metrics.
    pub name: &'static str,
    /// How many bytes may wait to be written. An empty queue takes one frame of any size.
    pub bound: usize,
    /// What happens to a frame that does not fit.
    pub when_full: WhenFull,
    /// How frames reach the user.
    pub delivery: Delivery,
    /// Lanes of a higher number are written first.
    pub priority: i32,
}

/// What happens to a frame that does not fit into its lane's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is dropped and counted.
    Drop,
    /// The link is closed: what this lane carries must not have holes.
    Cut,
}

/// How frames of a lane reach the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Through [`Events`](crate::Events), in order; a full queue stops the reading of the lane.
    Queue,
    /// By a call of [`Handlers::direct`](crate::Handlers::direct) in the lane's reader task.
    Direct,
}

/// A lane: its place in [`Config::lanes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane(pub u8);

/// Who this node says it is. One run of one node is a replica: name and incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The node's name, 1 to 255 bytes, unique in the cluster.
    pub name: String,
    /// Grows with each run of the node; of two of one name the higher one stays.
    pub incarnation: u64,
    /// Handed to each peer in its [`Peer`](crate::Peer); at most 16 KiB, opaque to the transport.
    pub hello: Bytes,
}

/// Why an [`Identity`] cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The name is empty or over 255 bytes.
    #[error("a node name has 1 to 255 bytes")]
    Name,
    /// The payload is over 16 KiB.
    #[error("the payload of a hello has at most 16 KiB")]
    Hello,
}

impl Identity {
    pub(crate) fn validate(&self) -> Result<(), IdentityError> {
        if self.name.is_empty() || self.name.len() > NAME_LEN_MAX {
            return Err(IdentityError::Name);
        }
        if self.hello.len() > HELLO_LEN_MAX {
            return Err(IdentityError::Hello);
        }
        Ok(())
    }
}

//! How a node behaves towards the others.

use std::time::Duration;

/// Pace of failure detection; each is a set of SWIM parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// One data centre, round trips under 100 ms: a crash is seen by all in about 3 s.
    #[default]
    Lan,
    /// One data centre whose nodes are never short of time: a crash is noticed within about 1.5 s, and so is
    /// a node that stands still for a second.
    Fast,
    /// Across regions, round trips up to half a second: a crash is seen by all in about 12 s.
    Wan,
}

/// Settings of [`Cluster`](crate::Cluster). All nodes of a cluster must agree on `shards`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Shards that presence and interest are split into, 16.
    pub shards: u16,
    /// Pace of failure detection.
    pub profile: Profile,
    /// Where this node's identity says it runs, free text; empty by default.
    pub region: String,
    /// Release of this node, shown to others.
    pub version: String,
    /// Silence between two live ranges of one feed to one peer, 2 ms. The first change after a
    /// silence leaves at once, those that follow share a range.
    pub coalesce: Duration,
    /// Bytes that one range of a feed aims at, 16 KiB.
    pub range_len: usize,
    /// Longest delay of an acknowledgement that nobody waits for, 20 ms: QUIC's own, which waits 25 ms,
    /// travels with it.
    pub ack_delay: Duration,
    /// How long the first join of a topic waits for peers, 200 ms.
    pub barrier_timeout: Duration,
    /// Gap between digests, each to one peer in turn, 5 s.
    pub digest_interval: Duration,
    /// Gap between announcements to a linked peer that is no member yet, 1 s.
    pub announce_interval: Duration,
    /// How long a member that is down is remembered with its presences, hidden, 10 min.
    pub forget_after: Duration,
    /// How long a linked node that never became a member survives its link, 3 s.
    pub unconfirmed_after: Duration,
    /// How long a link to a member may be missing before its feeds are pulled from another peer, 1 s.
    pub relay_after: Duration,
    /// Most members, 1,024. Further ones are ignored and counted.
    pub members_max: usize,
    /// Bytes queued for one peer's control lane, 4 MiB; over it the link is cut.
    pub control_queue_max: usize,
    /// SWIM packets queued for one peer, 64; the oldest is dropped.
    pub swim_queue_max: usize,
    /// Joins that wait for peers at one time, 100,000; further ones do not wait, and are counted.
    pub barriers_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shards: 16,
            profile: Profile::Lan,
            region: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            coalesce: Duration::from_millis(2),
            range_len: 16 * 1024,
            ack_delay: Duration::from_millis(20),
            barrier_timeout: Duration::from_millis(200),
            digest_interval: Duration::from_secs(5),
            announce_interval: Duration::from_secs(1),
            forget_after: Duration::from_secs(600),
            unconfirmed_after: Duration::from_secs(3),
            relay_after: Duration::from_secs(1),
            members_max: 1024,
            control_queue_max: 4 << 20,
            swim_queue_max: 64,
            barriers_max: 100_000,
        }
    }
}

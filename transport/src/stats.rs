//! What is counted. All counters only grow; sums include links that are gone.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A counter that many tasks add to.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What went over one lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// The lane's name.
    pub name: &'static str,
    /// Frames handed to QUIC.
    pub sent_frames: u64,
    /// Their bytes, without headers.
    pub sent_bytes: u64,
    /// Frames handed to the user.
    pub received_frames: u64,
    /// Their bytes, without headers.
    pub received_bytes: u64,
    /// Frames that did not fit, or were still queued when their link went down.
    pub dropped_frames: u64,
    /// Those of them that were still queued when their link went down.
    pub cleared_frames: u64,
    /// Bytes that wait to be written.
    pub queued_bytes: u64,
}

impl LaneStats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.sent_frames += other.sent_frames;
        self.sent_bytes += other.sent_bytes;
        self.received_frames += other.received_frames;
        self.received_bytes += other.received_bytes;
        self.dropped_frames += other.dropped_frames;
        self.cleared_frames += other.cleared_frames;
        self.queued_bytes += other.queued_bytes;
    }
}

/// What went over one link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Each lane, in the order of the configuration.
    pub lanes: Vec<LaneStats>,
    /// Datagrams handed to QUIC; it drops the oldest when its buffer is full.
    pub datagrams_sent: u64,
    /// Datagrams handed to the user.
    pub datagrams_received: u64,
    /// Requests made.
    pub requests_sent: u64,
    /// Requests of the peer handed to the user.
    pub requests_received: u64,
    /// The round trip as QUIC estimates it.
    pub rtt: Duration,
    /// Packets that QUIC declared lost on the way to the peer.
    pub packets_lost: u64,
    /// UDP datagrams sent to the peer, acknowledgements and all.
    pub udp_sent: u64,
    /// Their bytes, without the headers of UDP and IP.
    pub udp_sent_bytes: u64,
}

/// What one transport did since its birth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Links that are up now, or about to be.
    pub links: usize,
    /// Addresses that are kept.
    pub kept: usize,
    /// Inbound handshakes in progress.
    pub handshakes: usize,
    /// Links that came up.
    pub links_up: u64,
    /// Dials begun.
    pub dials: u64,
    /// Dials that failed for another reason than a refusal.
    pub dials_failed: u64,
    /// Refusals, by this node or of it.
    pub refusals: u64,
    /// Inbound connections turned away because too many handshakes were in progress.
    pub crowded_out: u64,
    /// Each lane, summed over all links.
    pub lanes: Vec<LaneStats>,
    /// Datagrams handed to QUIC.
    pub datagrams_sent: u64,
    /// Datagrams handed to the user.
    pub datagrams_received: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, link: &LinkStats) {
        for (sum, lane) in self.lanes.iter_mut().zip(&link.lanes) {
            sum.add(lane);
        }
        self.datagrams_sent += link.datagrams_sent;
        self.datagrams_received += link.datagrams_received;
    }
}

/// The counters that belong to no link.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) links_up: Counter,
    pub(crate) dials: Counter,
    pub(crate) dials_failed: Counter,
    pub(crate) refusals: Counter,
    pub(crate) crowded_out: Counter,
}

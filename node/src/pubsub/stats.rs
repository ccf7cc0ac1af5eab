//! What the registry counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters since the start; telemetry publishes them.
#[derive(Debug, Default)]
pub struct Stats {
    broadcasts: AtomicU64,
    deliveries: AtomicU64,
    overflows: AtomicU64,
    presence_skips: AtomicU64,
    dropped: AtomicU64,
    conflated: AtomicU64,
    formless: AtomicU64,
}

impl Stats {
    /// Messages handed to the registry, presence diffs among them, also those nobody here wanted.
    pub fn broadcasts(&self) -> u64 {
        self.broadcasts.load(Relaxed)
    }

    /// Frames put into mailboxes.
    pub fn deliveries(&self) -> u64 {
        self.deliveries.load(Relaxed)
    }

    /// Mailboxes closed because a broadcast did not fit: slow clients.
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    /// Presence diffs left out because they did not fit; a fresh state replaces them.
    pub fn presence_skips(&self) -> u64 {
        self.presence_skips.load(Relaxed)
    }

    /// Broadcasts dropped for newer ones of their channel: `overflow = "drop_oldest"`.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Broadcasts dropped for newer ones of their event: `overflow = "conflate"`.
    pub fn conflated(&self) -> u64 {
        self.conflated.load(Relaxed)
    }

    /// Frames that clients were not sent, as their format has no form for the payload: bytes to a client
    /// that reads text only, or a name too long for a binary frame.
    pub fn formless(&self) -> u64 {
        self.formless.load(Relaxed)
    }

    /// Counts frames of other messages than broadcasts that had no form.
    pub(crate) fn count_formless(&self, frames: u64) {
        self.formless.fetch_add(frames, Relaxed);
    }

    /// Counts broadcasts; a few additions for all of them, none per subscriber.
    pub(super) fn record(&self, delivered: super::Delivered, broadcasts: usize) {
        let add = |counter: &AtomicU64, n: usize| {
            if n > 0 {
                counter.fetch_add(n as u64, Relaxed);
            }
        };
        add(&self.broadcasts, broadcasts);
        add(&self.deliveries, delivered.subscribers);
        add(&self.overflows, delivered.overflowed);
        add(&self.presence_skips, delivered.skipped);
        add(&self.dropped, delivered.dropped);
        add(&self.conflated, delivered.conflated);
        add(&self.formless, delivered.formless);
    }
}

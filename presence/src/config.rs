//! What one shard may hold, and how long it waits.

use std::time::Duration;

/// Bytes of the longest presence key.
pub const KEY_LEN_MAX: usize = 256;

/// Bytes of the largest presence meta.
pub const META_LEN_MAX: usize = 16 * 1024;

/// The interest hash that stands for every topic. No topic has it, see [`crate::Topic::hash64`].
pub const INTEREST_ALL: u64 = 0;

/// Slots, of entries and interests together, that one owner can have in one shard.
///
/// It keeps a repair bitmap (one bit a slot), together with one entry of the largest size, under
/// the 64 KiB of one message, even where each word of it is encoded in nine bytes.
pub const SLOTS_MAX: u32 = 64 * 5120;

/// What a diff costs for each observer, from its mailbox to its socket and its reader.
const DIFF_COST: Duration = Duration::from_micros(10);

/// What each of its changes adds.
const CHANGE_COST: Duration = Duration::from_nanos(500);

/// The limits and times of one [`crate::Shard`].
///
/// All nodes of a cluster may run with different values: none of them crosses the wire.
#[derive(Clone, Debug)]
pub struct Config {
    /// Removals remembered per owner, at least. 0 is allowed: a peer that fell behind then needs
    /// the bitmap after every removal it missed. Default 1,024.
    pub tombstones_min: usize,
    /// Removals remembered per owner, at most; in between it is one eighth of the owner's live
    /// slots. 16 bytes each. Default 65,536.
    pub tombstones_max: usize,
    /// The shortest time between two diffs of one topic that has few observers; the first change
    /// after a pause is told at once. Default 5 ms.
    pub flush_interval: Duration,
    /// The same for one that has very many. In between, the time grows with what the former diff
    /// costs: 10 µs an observer, and half a microsecond more for each join and leave. Not below
    /// `flush_interval`. Default 100 ms.
    pub flush_interval_max: Duration,
    /// The shortest time between two [`crate::Event::Count`] of one topic; the first change after a
    /// pause is told at once. Default 1 s.
    pub count_interval: Duration,
    /// How long an owner that came up may stay hidden while it is being caught up with, from when it is
    /// known how far. Default 1 s.
    pub reveal_timeout: Duration,
    /// How long it may while nothing is heard of its log: what is here would show those who left
    /// meanwhile. Default 5 s.
    pub unheard_timeout: Duration,
    /// How long an owner that goes down and up again and again may be held hidden. Zero shows it as
    /// soon as it is caught up with. Default 5 s.
    pub hold_down_max: Duration,
    /// How long an own entry without a client stays once its client has been seen elsewhere: until all
    /// nodes have. Default 1 s.
    pub retire_after: Duration,
    /// Joins and leaves in one [`crate::Diff`], at most, but that those of one key that moves come
    /// together; more are told in several. At least 2 (an update is both). Default 1,000.
    pub diff_events_max: usize,
    /// How long an interest outlives its last holder. Default 10 s.
    pub interest_linger: Duration,
    /// Own interests; beyond it one interest in everything stands for all further ones. At most
    /// a quarter of [`SLOTS_MAX`]. Default 62,500.
    pub interests_max: usize,
    /// Own entries; beyond it [`crate::Shard::track`] refuses. With `interests_max` it stays
    /// under [`SLOTS_MAX`]. Default 262,144.
    pub entries_max: usize,
    /// Forgotten nodes whose last incarnation is remembered, so that a third node cannot bring
    /// it back. Default 4,096.
    pub graves_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tombstones_min: 1024,
            tombstones_max: 65_536,
            flush_interval: Duration::from_millis(5),
            flush_interval_max: Duration::from_millis(100),
            count_interval: Duration::from_secs(1),
            reveal_timeout: Duration::from_secs(1),
            unheard_timeout: Duration::from_secs(5),
            hold_down_max: Duration::from_secs(5),
            retire_after: Duration::from_secs(1),
            diff_events_max: 1000,
            interest_linger: Duration::from_secs(10),
            interests_max: 1_000_000 / 16,
            entries_max: 1 << 18,
            graves_max: 4096,
        }
    }
}

impl Config {
    /// The same, with every value inside its documented bounds.
    pub(crate) fn bounded(mut self) -> Self {
        let slots = SLOTS_MAX as usize;
        self.diff_events_max = self.diff_events_max.max(2);
        self.interests_max = self.interests_max.min(slots / 4);
        // One slot is kept for the interest in everything.
        self.entries_max = self.entries_max.min(slots - self.interests_max - 1);
        self
    }

    /// The time after a diff of so many changes until the next one of the topic.
    pub(crate) fn flush_pause(&self, observers: u32, changes: usize) -> Duration {
        let changes = u32::try_from(changes).unwrap_or(u32::MAX);
        let cost = DIFF_COST + CHANGE_COST.saturating_mul(changes);
        let longest = self.flush_interval_max.max(self.flush_interval);
        cost.saturating_mul(observers).clamp(self.flush_interval, longest)
    }

    /// Removals to remember of an owner with this many live slots.
    pub(crate) fn tombstones(&self, live: usize) -> usize {
        (live / 8).max(self.tombstones_min).min(self.tombstones_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_interests_always_fit_the_slots() {
        for (entries_max, interests_max) in [(usize::MAX, usize::MAX), (usize::MAX, 0), (0, 7)] {
            let config = Config { entries_max, interests_max, ..Config::default() }.bounded();
            assert!(config.entries_max + config.interests_max < SLOTS_MAX as usize);
        }
        let config = Config::default();
        assert_eq!(config.clone().bounded().entries_max, config.entries_max);
    }

    #[test]
    fn diffs_of_large_rooms_come_seldomer_within_bounds() {
        let config = Config::default();
        let micros = |observers, changes| config.flush_pause(observers, changes).as_micros();
        assert_eq!(micros(1, 1), 5000);
        assert_eq!(micros(400, 4), 5000, "small ones as often as ever");
        assert_eq!(micros(1000, 2), 11_000);
        assert_eq!(micros(1000, 100), 60_000, "what is larger costs more");
        assert_eq!(micros(10_000, 1), 100_000);
        assert_eq!(micros(u32::MAX, usize::MAX), 100_000);
        let fixed = Config { flush_interval: Duration::from_secs(1), ..config.clone() };
        assert_eq!(fixed.flush_pause(10_000, 1), Duration::from_secs(1));
    }

    #[test]
    fn the_ring_grows_with_the_owner_between_its_bounds() {
        let config = Config::default();
        assert_eq!(config.tombstones(0), 1024);
        assert_eq!(config.tombstones(80_000), 10_000);
        assert_eq!(config.tombstones(10_000_000), 65_536);
    }
}

//! How long own entries stay whose clients are gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::Time;

/// The own entries that are detached, by slot.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    by_slot: BTreeMap<u32, Lease>,
    /// When to look at them.
    queue: BTreeSet<(Time, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    until: Time,
    /// Its client has been seen elsewhere: it can go some time before the lease is over.
    retire_at: Option<Time>,
}

impl Lease {
    fn at(self) -> Time {
        self.retire_at.map_or(self.until, |at| at.min(self.until))
    }
}

impl Leases {
    /// An entry is detached.
    pub(crate) fn start(&mut self, slot: u32, lease: Duration, now: Time) {
        self.end(slot);
        self.set(slot, Lease { until: now + lease, retire_at: None });
    }

    /// An entry is gone, or has a client again.
    pub(crate) fn end(&mut self, slot: u32) {
        if let Some(lease) = self.by_slot.remove(&slot) {
            self.queue.remove(&(lease.at(), slot));
        }
    }

    /// The entry's client has been seen elsewhere: to be looked at again at `at`.
    pub(crate) fn retire(&mut self, slot: u32, at: Time) {
        if let Some(lease) = self.by_slot.get(&slot).copied().filter(|l| l.retire_at.is_none()) {
            self.end(slot);
            self.set(slot, Lease { retire_at: Some(at), ..lease });
        }
    }

    /// It was a false hope.
    pub(crate) fn keep(&mut self, slot: u32) {
        if let Some(lease) = self.by_slot.get(&slot).copied() {
            self.end(slot);
            self.set(slot, Lease { retire_at: None, ..lease });
        }
    }

    /// An entry to look at, and whether its lease is over.
    pub(crate) fn due(&self, now: Time) -> Option<(u32, bool)> {
        let (_, slot) = self.queue.first().filter(|(at, _)| *at <= now)?;
        Some((*slot, self.by_slot.get(slot).is_none_or(|lease| lease.until <= now)))
    }

    /// The entry that goes first.
    pub(crate) fn first(&self) -> Option<u32> {
        self.queue.first().map(|(_, slot)| *slot)
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// When the last one is over.
    pub(crate) fn last_until(&self) -> Option<Time> {
        self.by_slot.values().map(|lease| lease.until).max()
    }

    /// Entries that are detached.
    pub(crate) fn len(&self) -> usize {
        self.by_slot.len()
    }

    /// Whether an entry is among them.
    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.by_slot.contains_key(&slot)
    }

    fn set(&mut self, slot: u32, lease: Lease) {
        self.by_slot.insert(slot, lease);
        self.queue.insert((lease.at(), slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    #[test]
    fn a_lease_ends_by_time_or_earlier_once_the_client_is_elsewhere() {
        let mut leases = Leases::default();
        leases.start(1, Duration::from_millis(10), ms(0));
        leases.start(2, Duration::from_millis(20), ms(0));
        assert_eq!((leases.next_deadline(), leases.len()), (Some(ms(10)), 2));
        leases.retire(2, ms(5));
        assert_eq!((leases.due(ms(4)), leases.due(ms(5))), (None, Some((2, false))));
        leases.keep(2);
        assert_eq!(leases.due(ms(10)), Some((1, true)));
        leases.end(1);
        // A client that is seen elsewhere late does not prolong it.
        leases.retire(2, ms(90));
        assert_eq!(leases.due(ms(20)), Some((2, true)));
        leases.end(2);
        leases.retire(2, ms(1));
        assert_eq!((leases.next_deadline(), leases.len()), (None, 0));
    }
}

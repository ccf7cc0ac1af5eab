//! The subscribers of one topic.

use std::sync::Arc;

use slab::Slab;

use super::{Filter, Format, Mailbox, Overflow, SubscriberId};

/// No diff or count has a higher version.
pub(super) const NO_PRESENCE: u64 = u64::MAX;

/// From here on versions are those of counts, below those of diffs: a subscriber hears of one kind.
const COUNTS: u64 = 1 << 63;

/// The number that stands for the version of a count.
pub const fn count_version(version: u64) -> u64 {
    version | COUNTS
}

/// Whether a subscriber that knows the version `after` wants this one.
pub(super) const fn wants_presence(after: u64, version: u64) -> bool {
    after < version && (after >= COUNTS) == (version >= COUNTS)
}

/// One subscription, 40 bytes.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) channel: u64,
    pub(super) id: SubscriberId,
    /// [`NO_PRESENCE`] when none is wanted.
    pub(super) presence_after: u64,
    pub(super) format: Format,
    pub(super) overflow: Overflow,
    pub(super) filter: Filter,
}

/// All subscriptions of a topic by their slots. Most topics have one, which then lies in the
/// registry's own table and needs no memory beside it.
#[derive(Debug, Default)]
pub(super) enum Subscribers {
    #[default]
    None,
    /// In slot 0.
    One(Entry),
    Many(Box<Slab<Entry>>),
}

impl Subscribers {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(entries) => entries.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(entry) => (Some(entry), None),
            Self::Many(entries) => (None, Some(entries.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten().map(|(_, entry)| entry))
    }

    /// Returns the entry's slot.
    pub(super) fn insert(&mut self, entry: Entry) -> usize {
        match std::mem::take(self) {
            Self::None => {
                *self = Self::One(entry);
                0
            }
            Self::One(first) => {
                // An empty slab gives its first entry slot 0, which it had.
                let mut entries = Slab::new();
                entries.insert(first);
                let slot = entries.insert(entry);
                *self = Self::Many(Box::new(entries));
                slot
            }
            Self::Many(mut entries) => {
                let slot = entries.insert(entry);
                *self = Self::Many(entries);
                slot
            }
        }
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Entry> {
        match self {
            Self::One(entry) if slot == 0 => Some(entry),
            Self::Many(entries) => entries.get_mut(slot),
            Self::None | Self::One(_) => None,
        }
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<Entry> {
        match std::mem::take(self) {
            Self::One(entry) if slot == 0 => Some(entry),
            Self::Many(mut entries) => {
                let entry = entries.try_remove(slot);
                *self = Self::Many(entries);
                entry
            }
            other @ (Self::None | Self::One(_)) => {
                *self = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::pubsub::Outlet;

    fn entry(mailbox: &Arc<Mailbox>, channel: u64) -> Entry {
        Entry {
            mailbox: Arc::clone(mailbox),
            channel,
            id: SubscriberId(channel),
            presence_after: NO_PRESENCE,
            format: Format::V2,
            overflow: Overflow::Disconnect,
            filter: Filter::All,
        }
    }

    #[test]
    fn a_subscription_is_40_bytes_and_a_topic_of_one_needs_no_more() {
        assert_eq!(size_of::<Entry>(), 40);
        assert_eq!(size_of::<Subscribers>(), 40);
    }

    #[test]
    fn the_first_keeps_its_slot_when_others_come() {
        let mailbox = Mailbox::new(1, Outlet::Owner);
        let mut all = Subscribers::default();
        let slots = [7, 8, 9].map(|channel| all.insert(entry(&mailbox, channel)));
        assert_eq!(slots[0], 0);
        for (slot, channel) in slots.into_iter().zip(7..) {
            assert_eq!(all.get_mut(slot).map(|entry| entry.channel), Some(channel));
        }
    }

    proptest! {
        /// Subscribers come and go: each is found in its slot, and nowhere else, until it is removed.
        #[test]
        fn subscribers_are_a_table_by_slot(
            changes in prop::collection::vec(prop_oneof![
                3 => Just(None),
                2 => (0..6_usize).prop_map(Some),
            ], 0..60),
        ) {
            let mailbox = Mailbox::new(1, Outlet::Owner);
            let (mut all, mut model) = (Subscribers::default(), BTreeMap::new());
            for (channel, change) in (0..).zip(changes) {
                match change {
                    None => {
                        let slot = all.insert(entry(&mailbox, channel));
                        prop_assert_eq!(model.insert(slot, channel), None, "the slot was free");
                    }
                    Some(slot) => {
                        let removed = all.remove(slot).map(|entry| entry.channel);
                        prop_assert_eq!(removed, model.remove(&slot));
                    }
                }
                for slot in 0..8 {
                    let found = all.get_mut(slot).map(|entry| entry.channel);
                    prop_assert_eq!(found, model.get(&slot).copied());
                }
                prop_assert_eq!((all.len(), all.is_empty()), (model.len(), model.is_empty()));
                let listed: Vec<u64> = all.iter().map(|entry| entry.channel).collect();
                prop_assert_eq!(listed, model.values().copied().collect::<Vec<_>>());
            }
            drop(all);
            prop_assert_eq!(Arc::strong_count(&mailbox), 1);
        }
    }
}

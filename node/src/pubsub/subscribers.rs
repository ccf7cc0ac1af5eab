//! The subscribers of one topic.

use std::sync::Arc;

use slab::Slab;

use super::{Format, Mailbox, Overflow, SubscriberId};

/// No diff has a higher version.
pub(super) const NO_PRESENCE: u64 = u64::MAX;

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

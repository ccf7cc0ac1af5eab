//! One mailbox on one topic, for as long as the value lives.

use std::{fmt, sync::Arc};

use presence::Topic;

use super::{
    Filter, Format, Mailbox, Overflow, Registry,
    subscribers::{Entry, NO_PRESENCE},
};

/// Who wants a topic's messages, and how.
#[derive(Clone, Debug)]
pub struct Subscriber {
    /// Where frames go. One mailbox may subscribe to many topics, and twice to one.
    pub mailbox: Arc<Mailbox>,
    /// The mailbox's owner's own name for it: what gives way to what is decided within a channel.
    pub channel: u64,
    /// The frames it reads.
    pub format: Format,
    /// What happens when a broadcast does not fit into the mailbox.
    pub overflow: Overflow,
    /// Which broadcasts it wants.
    pub filter: Filter,
    /// Presence diffs newer than this version are wanted, or counts if it is a
    /// [`count_version`](super::count_version); `None`: no presence at all.
    pub presence_after: Option<u64>,
}

/// Names one subscription of one registry, and never another one after it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub(super) u64);

/// Keeps one mailbox on one topic. Dropping it unsubscribes, so a crashed channel leaves no trace.
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    pub(super) registry: Arc<Registry>,
    pub(super) topic: Topic,
    pub(super) slot: usize,
    pub(super) id: SubscriberId,
}

impl Subscriber {
    pub(super) fn entry(self, id: SubscriberId) -> Entry {
        let Self { mailbox, channel, format, overflow, filter, presence_after } = self;
        let presence_after = presence_after.unwrap_or(NO_PRESENCE);
        Entry { mailbox, channel, id, presence_after, format, overflow, filter }
    }
}

impl Subscription {
    /// The topic; its name is shared by all its subscribers, so keep this one rather than an own.
    pub const fn topic(&self) -> &Topic {
        &self.topic
    }

    /// For broadcasts that leave this subscriber out.
    pub const fn id(&self) -> SubscriberId {
        self.id
    }

    /// From now on presence diffs up to and including `version` are left out, later ones come.
    /// `first` is done before: no diff gets between what it pushes and those that come.
    pub fn set_presence_after(&self, version: u64, first: impl FnOnce()) {
        self.registry.set_presence_after(&self.topic, self.slot, version, first);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topic", &self.topic)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.registry.remove(&self.topic, self.slot);
    }
}

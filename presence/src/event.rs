//! What a shard tells its driver.

use crate::{Count, NodeIx, Ref, Topic};

/// An effect, in the order in which it has to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Another owner wants the broadcasts of a topic, or no longer does. It comes before the
    /// diffs of any entry that was learned with it.
    ///
    /// That it wants them may be said again when one run of it replaces another.
    Interest {
        /// The owner.
        owner: NodeIx,
        /// [`Topic::hash64`], or [`crate::INTEREST_ALL`].
        hash: u64,
        /// Whether it wants them.
        present: bool,
    },
    /// The observers of a topic are to be told.
    Diff(Diff),
    /// Those who follow how many are on a topic are to be told, see
    /// [`crate::Shard::observe_count`].
    Count {
        /// The topic.
        topic: Topic,
        /// Higher than that of the event before.
        version: u64,
        /// How many are there now.
        count: Count,
    },
    /// A topic without entries got one, perhaps of an owner that is not shown; see
    /// [`crate::Shard::observe_openings`].
    Opened {
        /// The topic.
        topic: Topic,
    },
}

/// From one version of an observed topic to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// The topic.
    pub topic: Topic,
    /// One more than that of the diff before.
    pub version: u64,
    /// Entries that are new, or have another meta.
    pub joins: Vec<Change>,
    /// Entries that are gone, or had another meta.
    pub leaves: Vec<Change>,
}

/// One version of an entry that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The entry's key.
    pub key: Box<str>,
    /// The entry's meta.
    pub meta: Box<[u8]>,
    /// The version's name.
    pub reference: Ref,
    /// In a join that is an update: the version that leaves with the same diff.
    pub previous: Option<Ref>,
}

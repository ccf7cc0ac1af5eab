//! Who is where: presence as a delta-state CRDT.
//!
//! A *topic* is a name that clients meet under. A client that is *tracked* in it is an *entry*: a
//! key, a meta, and the node that holds the client. Every node lists all entries of all nodes,
//! answers from its own memory, and tells those who *observe* a topic what changed.
//!
//! # One writer per entry
//! An entry is only ever written by the node that holds its client, so nothing has to be merged:
//! what has to be known of a node is how far one has read. Each node numbers its changes 1, 2, 3,
//! … in one *log* per shard, and a replica of that log at position `v` reflects all changes up to
//! `v` and has no holes. Merging two replicas of a log takes the further one; a cluster's state is
//! the product of all logs, and joins position by position like [`VClock`]. An operation is named
//! by its [`Dot`]: the writer's run, the shard and the number; clients see it as a [`Ref`].
//!
//! A log keeps the last change of each slot only, however often it changed, so a reader that
//! comes late or reads slowly costs the writer nothing: [`Shard::serve`] gives what follows a
//! position, [`Shard::apply`] takes it, and what is lost, doubled or late in between is noticed by
//! the position. Removals are remembered for a while; for those forgotten, one bit a slot says
//! who still lives. Replicas serve as writers do.
//!
//! # Members
//! Who belongs to the cluster is decided elsewhere. A node that is down is hidden at once and
//! kept; when it is up again, it is shown as soon as its log is read to the end; a forgotten one is
//! freed, and comes back only by itself. See [`Shard::member_up`].
//!
//! # Observers
//! An observer knows the state [`Shard::told`] at some version and gets a [`Diff`] for each next
//! version, without gaps. Changes between two diffs collapse: who came and went is not told, and
//! two updates are one. A diff of many changes comes in slices. Who only wants to know how many
//! there are is told that, seldom: see [`Shard::observe_count`].
//!
//! # Interest
//! That a node wants the broadcasts of a topic is a slot of its log too, put before its first
//! entry of the topic and removed some time after the last: who can see an entry knows where to
//! send. See [`Shard::acquire_interest`].
//!
//! # The shape of the code
//! The crate is pure: no input or output, no clock, no randomness, no hash order. The same calls
//! give the same results, so a simulator can run a whole cluster. [`Shard`] is the whole of it;
//! start there. It composes: `feed` (a log), `owner` (whose logs, and which are shown), `index`
//! (the entries by topic), `differ` (what observers were told), `counter` (what those were told who count), `interest` (the own interests), and
//! `store`, where one change meets all of them.

mod config;
mod counter;
mod deadlines;
mod differ;
mod event;
mod feed;
mod index;
mod interest;
mod leases;
mod listed;
mod owner;
mod range;
mod reference;
mod replica;
mod shard;
mod small_map;
mod store;
mod table;
mod time;
mod topic;

#[cfg(test)]
mod tests;

pub use crdts::{self, Dot, VClock};

pub use config::{Config, INTEREST_ALL, KEY_LEN_MAX, META_LEN_MAX, SLOTS_MAX};
pub use deadlines::Deadlines;
pub use event::{Change, Diff, Event};
pub use range::{Bitmap, InvalidRange, Op, Range, Value};
pub use reference::{Actor, Ref};
pub use replica::{InvalidNodeName, NODE_NAME_LEN_MAX, NodeIx, NodeName, Replica};
pub use shard::{
    Applied, Count, Entry, EntryId, Page, Position, Rejection, Shard, Total, Totals, TrackError, Up,
};
pub use time::Time;
pub use topic::{InvalidTopic, TOPIC_LEN_MAX, Topic, shard_of};

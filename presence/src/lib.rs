//! Who is where: presence as a delta-state CRDT.

mod config;
mod differ;
mod event;
mod feed;
mod index;
mod interest;
mod owner;
mod range;
mod reference;
mod replica;
mod shard;
mod store;
mod time;
mod topic;

#[cfg(test)]
mod tests;

pub use crdts::{self, Dot, VClock};

pub use config::{Config, INTEREST_ALL, KEY_LEN_MAX, META_LEN_MAX, SLOTS_MAX};
pub use event::{Change, Diff, Event};
pub use range::{Bitmap, InvalidRange, Op, Range, Value};
pub use reference::{Actor, Ref};
pub use replica::{InvalidNodeName, NODE_NAME_LEN_MAX, NodeIx, NodeName, Replica};
pub use shard::{Applied, Count, Entry, EntryId, Page, Position, Rejection, Shard, TrackError, Up};
pub use time::Time;
pub use topic::{InvalidTopic, TOPIC_LEN_MAX, Topic, shard_of};

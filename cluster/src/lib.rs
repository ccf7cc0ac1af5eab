//! All that one node knows of, and says to, the others: pure, without a clock or a socket.
//!
//! - [`Cluster`] composes the rest. Read its type documentation first: it says how to drive it.
//! - `membership`: who is alive, by SWIM (Das, Gupta, Motivala 2002) as the crate foca speaks it.
//! - `node`, `member`: the other nodes under small numbers; how they come, go and are forgotten.
//! - `departures`: goodbyes, and how those hear of them whom they did not reach.
//! - `link`: what went over the link to a peer and what came over it.
//! - `feeds`: our feeds of presence and interest to the peers, theirs to us, and the digests that
//!   check both. The replication itself is the crate [`presence`]; this one moves its ranges.
//! - `partition`: whether a part of the cluster seems to be cut off.
//! - `relay`: feeds of a node without a link to us, by way of a peer that has one.
//! - `barrier`: the first join of a topic waits until the peers know that it is wanted here.
//! - [`wire`]: the bytes. Broadcasts are encoded here too, but pass by the core: a driver keeps, from
//!   the events of this core and of the shards, which peers want what, and sends at once.
//!
//! The core holds no shard of presence; it is lent them, see [`Shards`].

mod agenda;
mod barrier;
mod cluster;
mod config;
mod departures;
mod error;
mod event;
mod feeds;
mod link;
mod member;
mod membership;
mod node;
mod partition;
mod relay;
mod view;
pub mod wire;

#[cfg(test)]
mod tests;

pub use cluster::{Cluster, LEASE_MAX, Shards};
pub use config::{Config, Profile};
pub use error::WireError;
pub use event::{Down, Event};
pub use link::Lane;
pub use partition::Partition;
pub use view::{Member, Stats};

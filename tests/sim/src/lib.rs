//! Whole clusters of real cores in one thread, in virtual time, from one seed.
//!
//! A [`World`] is a heap of `(time, sequence, what)`. Nodes are the very `presence::Shard`s and
//! `cluster::Cluster`s that the program runs; only sockets, clients and clocks are made up:
//!
//! - `network`: who reaches whom, how late; links as QUIC gives them: streams ordered and whole
//!   while the link lives, datagrams lossy, a dead link noticed after seconds.
//! - `links`: links as nodes see them: dialled, up, silent, gone.
//! - `node`: one process: the cores and its clients; `driver` drains the cores.
//! - `world`: the heap and the verbs of a test: join, leave, broadcast, partition, crash, restart.
//! - `check`: the invariants, a function each.
//! - `plan`: a seed draws what happens.
//!
//! A failure prints the line that replays it; the same seed gives the same trace.

#![expect(clippy::expect_used, reason = "what cannot be is a failed test")]

mod check;
mod driver;
mod links;
mod network;
mod node;
mod plan;
mod views;
mod world;

pub use check::{
    check_agreement, check_broadcasts, check_members, check_no_ghosts, check_observers, check_quiet,
};
pub use network::Weather;
pub use plan::{Outcome, run_plan, run_steady};
pub use world::World;

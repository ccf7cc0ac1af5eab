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
//! - `check`: the invariants, a function each; `watch`: those that are looked at all the time.
//! - `membership`: how soon which pace of failure detection finds what.
//! - `swarm`: a seed draws what happens; `steady`: nothing fails.
//!
//! A failure prints the line that replays it; the same seed gives the same trace.

#![expect(clippy::expect_used, reason = "what cannot be is a failed test")]

mod check;
mod driver;
mod links;
mod membership;
mod network;
mod node;
mod steady;
mod swarm;
mod views;
mod watch;
mod world;

pub use check::{
    check_broadcasts, check_i3_equal_positions_have_equal_contents, check_i4_agreement,
    check_i6_observers, check_i8_no_ghosts, check_i8_no_ghosts_on, check_i9_listed_everywhere,
    check_i11_a_slow_peer_costs_its_sender_nothing, check_i12_isolated_changes_are_small,
    check_i13_only_differences_cross, check_i14_idle_is_quiet, check_i17_flat, check_members,
    check_quiet,
};
pub use membership::{HEADING as MEMBERSHIP_HEADING, Row, measure as measure_membership};
pub use network::{Traffic, Weather};
pub use steady::run_steady;
pub use swarm::{Outcome, run_plan};
pub use world::World;

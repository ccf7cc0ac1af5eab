//! Stories of whole clusters in virtual time.

mod adversity;
mod costs;
mod flaps;
mod moves;
mod partitions;
mod plans;
mod promptness;
mod relays;
mod stories;

use std::time::Duration;

use sim::{Weather, World};

const ROOM: &str = "room:lobby";

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The cores as [`World::new`] sets them, but for the digests: they find what went wrong, so they would
/// hide it.
fn without_digests() -> cluster::Config {
    cluster::Config { shards: 4, digest_interval: seconds(1 << 20), ..cluster::Config::default() }
}

/// So many nodes that know each other, with a client in the room on each.
fn cluster_with_users(seed: u64, nodes: usize) -> World {
    with_users(World::new(seed, nodes, Weather::default()))
}

/// Lets the nodes find each other, and a client join the room on each.
fn with_users(mut world: World) -> World {
    world.run_for(seconds(2));
    let nodes: Vec<usize> = world.alive().collect();
    for node in nodes {
        world.join(node, ROOM, &format!("u{node}"));
    }
    world.run_for(seconds(1));
    world
}

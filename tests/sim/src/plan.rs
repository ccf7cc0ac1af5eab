//! A seed draws what happens: clients come, go, change and speak while nodes and links fail; then the
//! faults end and everything must come right.

use std::time::Duration;

use crate::{network::Weather, world::World};

/// How a plan went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Hash over all that happened.
    pub trace: u64,
    /// Broadcasts that clients heard.
    pub delivered: u64,
}

/// Longest time from the end of all faults to one roster: a false "down" is found out within a dial
/// (5 s), told (1 s), outlived, and two digests later all is equal.
const SETTLE: Duration = Duration::from_secs(30);

/// Runs the plan of a seed; panics with what is wrong, and how to run it again.
pub fn run_plan(seed: u64, nodes: usize, seconds: u64) -> Outcome {
    let weather = match seed % 4 {
        0 => Weather::default(),
        1 => Weather { lost: 20, ..Weather::default() },
        2 => Weather { delay: (1_000, 80_000), ..Weather::default() },
        _ => Weather { delay: (100, 20_000), lost: 50, doubled: 50 },
    };
    let (cluster, presence) = settings(seed / 4);
    let mut world = World::with_settings(seed, nodes, weather, cluster, presence);
    world.run_for(Duration::from_secs(2));
    let steps = seconds * 20;
    for _ in 0..steps {
        step(&mut world, nodes as u64);
        let pause = world.draw(100_000);
        world.run_for(Duration::from_micros(pause));
    }
    for node in 0..nodes {
        world.restart(node, 0);
    }
    world.settle_and_check(SETTLE);
    Outcome { trace: world.trace(), delivered: world.delivered() }
}

/// Runs a cluster in which no node and no link fails: clients come, go, change and speak, 20 times a
/// second. What a simulated second costs is measured on it.
pub fn run_steady(seed: u64, nodes: usize, span: Duration) -> Outcome {
    let mut world = World::new(seed, nodes, Weather::default());
    let until = world.elapsed() + span;
    world.run_for(Duration::from_secs(2));
    while world.elapsed() < until {
        client_step(&mut world, nodes as u64);
        let pause = world.draw(100_000);
        world.run_for(Duration::from_micros(pause));
    }
    world.settle_and_check(Duration::from_secs(1));
    Outcome { trace: world.trace(), delivered: world.delivered() }
}

fn client_step(world: &mut World, nodes: u64) {
    let node = usize::try_from(world.draw(nodes)).unwrap_or(0);
    let topic = format!("room:{}", world.draw(nodes));
    match world.draw(4) {
        0 => drop(world.join(node, &topic, "somebody")),
        1 => {
            if let Some(client) = some_client(world, node) {
                world.leave(node, client);
            }
        }
        2 => {
            if let Some(client) = some_client(world, node) {
                world.update(node, client, "{}");
            }
        }
        _ => world.broadcast(node, &topic),
    }
}

/// How the cores are set. Digests find what went wrong, so every other plan does without.
fn settings(seed: u64) -> (cluster::Config, presence::Config) {
    let mut cluster = cluster::Config { shards: 4, ..cluster::Config::default() };
    let mut presence = presence::Config::default();
    if seed.is_multiple_of(2) {
        cluster.digest_interval = Duration::from_secs(1 << 20);
    }
    if seed.is_multiple_of(3) {
        cluster.forget_after = Duration::from_secs(3);
    }
    if seed.is_multiple_of(5) {
        (presence.tombstones_min, presence.tombstones_max) = (0, 0);
    }
    if seed.is_multiple_of(7) {
        cluster.range_len = 1;
    }
    (cluster, presence)
}

fn step(world: &mut World, nodes: u64) {
    let node = usize::try_from(world.draw(nodes)).unwrap_or(0);
    let other = usize::try_from(world.draw(nodes)).unwrap_or(0);
    let topic = format!("room:{}", world.draw(6));
    match world.draw(1000) {
        0..350 => {
            let key = format!("u{}", world.draw(30));
            world.join(node, &topic, &key);
        }
        350..550 => {
            if let Some(client) = some_client(world, node) {
                world.leave(node, client);
            }
        }
        550..650 => {
            if let Some(client) = some_client(world, node) {
                let meta = format!("{{\"n\":{}}}", world.draw(1000));
                world.update(node, client, &meta);
            }
        }
        650..950 => world.broadcast(node, &topic),
        950..960 => world.crash(node),
        960..975 => {
            let off = i64::try_from(world.draw(40_000)).unwrap_or(0) - 30_000;
            world.restart(node, off);
        }
        975..980 if node != other => world.cut(node, other),
        980..984 if node != other => {
            let rest: Vec<usize> = world.alive().filter(|n| *n != node && *n != other).collect();
            world.partition(&[&[node, other], &rest]);
        }
        984..992 => world.heal(),
        992..996 => {
            let millis = world.draw(8_000);
            world.pause(node, Duration::from_millis(millis));
        }
        _ => {
            let span = world.draw(6_000_000);
            world.run_for(Duration::from_micros(span));
        }
    }
}

fn some_client(world: &mut World, node: usize) -> Option<u64> {
    let clients = world.clients(node);
    let at = usize::try_from(world.draw(clients.len() as u64)).unwrap_or(0);
    clients.get(at).copied()
}

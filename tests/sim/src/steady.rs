//! A cluster in which nothing fails: what a virtual second costs.

use std::time::Duration;

use crate::{network::Weather, swarm::Outcome, world::World};

/// Clients come, go, change and speak, 20 times a second in all; no node and no link fails.
pub fn run_steady(seed: u64, nodes: usize, span: Duration) -> Outcome {
    let mut world = World::new(seed, nodes, Weather::default());
    let until = world.elapsed() + span;
    world.run_for(Duration::from_secs(2));
    while world.elapsed() < until {
        step(&mut world, nodes as u64);
        let pause = world.draw(100_000);
        world.run_for(Duration::from_micros(pause));
    }
    world.settle_and_check(Duration::from_secs(1));
    Outcome { trace: world.trace(), delivered: world.delivered() }
}

fn step(world: &mut World, nodes: u64) {
    let node = usize::try_from(world.draw(nodes)).unwrap_or(0);
    let topic = format!("room:{}", world.draw(nodes));
    let client = world.some_client(node);
    match (world.draw(4), client) {
        (0, _) => drop(world.join(node, &topic, "somebody")),
        (1, Some(client)) => world.leave(node, client),
        (2, Some(client)) => world.update(node, client, "{}"),
        _ => world.broadcast(node, &topic),
    }
}

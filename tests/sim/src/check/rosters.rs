//! Who is listed, where.

use presence::{Ref, Topic};

use crate::world::World;

/// Every live node is a member for every other, and linked to it.
pub fn check_members(world: &World) {
    for node in world.alive() {
        let others = world.alive().filter(|other| *other != node);
        let mut want: Vec<_> = others.map(|other| world.nodes[other].me.clone()).collect();
        want.sort();
        let mut have: Vec<_> = world.nodes[node].cluster.up().cloned().collect();
        have.sort();
        world.ensure(have == want, "members", || format!("n{node} sees {have:?}, not {want:?}"));
        let linked = world.nodes[node].cluster.linked().count();
        world.ensure(linked == want.len(), "links", || format!("n{node} has {linked}"));
    }
}

/// I4: all nodes list the same, and just the clients that are there.
pub fn check_i4_agreement(world: &mut World) {
    for topic in super::topics(world) {
        let clients = world.alive().flat_map(|node| world.nodes[node].clients.values());
        let there = clients.filter(|client| client.topic == topic && client.entry.is_some());
        let mut want: Vec<String> = there.map(|client| client.key.clone()).collect();
        want.sort();
        let mut first: Option<Vec<(String, Ref)>> = None;
        let alive: Vec<usize> = world.alive().collect();
        for node in alive {
            let mut list = world.nodes[node].list(&topic);
            list.sort();
            let keys: Vec<String> = list.iter().map(|(key, _)| key.clone()).collect();
            world.ensure(keys == want, "I4", || {
                format!("{topic} as n{node} lists it: {keys:?}, not {want:?}")
            });
            let same = first.get_or_insert_with(|| list.clone());
            world.ensure(&list == same, "I4", || format!("references of {topic} on n{node}"));
        }
    }
}

/// I8: nobody lists a client of a node that is down.
pub fn check_i8_no_ghosts(world: &mut World, dead: usize) {
    let alive: Vec<usize> = world.alive().collect();
    for node in alive {
        check_i8_no_ghosts_on(world, node, dead);
    }
}

/// I8 of one node, that has noticed that the other is down.
pub fn check_i8_no_ghosts_on(world: &mut World, node: usize, dead: usize) {
    let clients = world.nodes[dead].clients.values();
    let mut of: Vec<(Topic, String)> =
        clients.map(|client| (client.topic.clone(), client.key.clone())).collect();
    of.sort();
    for topics in of.chunk_by(|a, b| a.0 == b.0) {
        let Some((topic, _)) = topics.first() else { continue };
        let listed = world.nodes[node].list(topic);
        let is_gone = |key: &String| topics.binary_search_by(|(_, k)| k.cmp(key)).is_ok();
        let ghost = listed.iter().find(|(key, _)| is_gone(key));
        world.ensure(ghost.is_none(), "I8", || {
            format!("n{node} lists {ghost:?}, whose node n{dead} is down")
        });
    }
}

/// I9: every live node lists the key by now.
pub fn check_i9_listed_everywhere(world: &mut World, topic: &str, key: &str) {
    let alive: Vec<usize> = world.alive().collect();
    for node in alive {
        let keys = world.keys(node, topic);
        let listed = keys.iter().any(|listed| listed == key);
        world.ensure(listed, "I9", || format!("n{node} does not list {key} yet"));
    }
}

/// No broadcast between linked nodes was lost. Doubled and reordered ones show in
/// [`check_quiet`](super::check_quiet).
pub fn check_broadcasts(world: &World) {
    let lost: Vec<_> = world.expected.keys().take(10).collect();
    let count = world.expected.len();
    world.ensure(lost.is_empty(), "broadcasts", || {
        format!("{count} lost, (client, broadcast): {lost:?}")
    });
}

//! What must hold, a function each. They end the test with what they saw, and the seed.

use std::{collections::BTreeMap, time::Duration};

use presence::{Ref, Topic};

use crate::world::World;

fn topics(world: &World) -> Vec<Topic> {
    let clients = world.alive().flat_map(|node| world.nodes[node].clients.values());
    let mut topics: Vec<Topic> = clients.map(|client| client.topic.clone()).collect();
    let watched = world.alive().flat_map(|node| world.nodes[node].observers.keys().cloned());
    topics.extend(watched);
    topics.sort();
    topics.dedup();
    topics
}

/// Nothing was seen that no correct cluster does.
pub fn check_quiet(world: &World) {
    let seed = world.seed();
    assert!(world.violations.is_empty(), "seed {seed}: {:#?}", world.violations);
}

/// Every live node is a member for every other, and linked to it.
pub fn check_members(world: &World) {
    let seed = world.seed();
    for node in world.alive() {
        let others = world.alive().filter(|other| *other != node);
        let mut want: Vec<_> = others.map(|other| world.nodes[other].me.clone()).collect();
        want.sort();
        let mut have: Vec<_> = world.nodes[node].cluster.up().cloned().collect();
        have.sort();
        assert_eq!(have, want, "seed {seed}: members as n{node} sees them");
        let linked = world.nodes[node].cluster.linked().count();
        assert_eq!(linked, want.len(), "seed {seed}: links of n{node}");
    }
}

/// All nodes list the same, and just the clients that are there.
pub fn check_agreement(world: &mut World) {
    let seed = world.seed();
    for topic in topics(world) {
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
            assert_eq!(keys, want, "seed {seed}: {topic} as n{node} lists it");
            let same = first.get_or_insert_with(|| list.clone());
            assert_eq!(&list, same, "seed {seed}: references of {topic} on n{node}");
        }
    }
}

/// Nobody lists a client of a node that is down.
pub fn check_no_ghosts(world: &mut World, dead: usize) {
    let seed = world.seed();
    let keys: Vec<(Topic, String)> = world.nodes[dead]
        .clients
        .values()
        .map(|client| (client.topic.clone(), client.key.clone()))
        .collect();
    let alive: Vec<usize> = world.alive().collect();
    for node in alive {
        for (topic, key) in &keys {
            let listed = world.nodes[node].list(topic);
            let ghost = listed.iter().any(|(listed, _)| listed == key);
            assert!(!ghost, "seed {seed}: n{node} lists {key}, whose node n{dead} is down");
        }
    }
}

/// State and diffs, replayed as a client does, end at what the node lists.
pub fn check_observers(world: &mut World) {
    let seed = world.seed();
    let alive: Vec<usize> = world.alive().collect();
    for node in alive {
        let watched: Vec<Topic> = world.nodes[node].observers.keys().cloned().collect();
        for topic in watched {
            let list = world.nodes[node].list(&topic);
            let want: BTreeMap<Ref, String> =
                list.into_iter().map(|(key, reference)| (reference, key)).collect();
            let shown = &world.nodes[node].observers[&topic].shown;
            assert_eq!(shown, &want, "seed {seed}: {topic} as clients of n{node} show it");
        }
    }
}

/// No broadcast between linked nodes was lost. Doubled and reordered ones show in [`check_quiet`].
pub fn check_broadcasts(world: &World) {
    let seed = world.seed();
    let lost: Vec<_> = world.expected.keys().take(10).collect();
    let count = world.expected.len();
    assert!(lost.is_empty(), "seed {seed}: {count} lost, (client, broadcast): {lost:?}");
}

impl World {
    /// Ends all faults, lets the cluster settle, then checks all that must hold of one that has.
    pub fn settle_and_check(&mut self, within: Duration) {
        self.heal();
        self.calm();
        self.run_for(within);
        check_quiet(self);
        check_members(self);
        check_agreement(self);
        check_observers(self);
        check_broadcasts(self);
    }
}

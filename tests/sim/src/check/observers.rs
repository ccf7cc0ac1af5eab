//! What clients are told.

use std::collections::BTreeMap;

use presence::{Ref, Topic};

use crate::world::World;

/// Nothing was seen on the way that no correct cluster does: I2, I5, I7, I10, diffs without gaps,
/// broadcasts once and in order.
pub fn check_quiet(world: &World) {
    world.ensure(world.violations.is_empty(), "seen on the way", || {
        format!("{:#?}", world.violations)
    });
}

/// I6: state and diffs, replayed as a client does, end at what the node lists.
pub fn check_i6_observers(world: &mut World) {
    let alive: Vec<usize> = world.alive().collect();
    for node in alive {
        let watched: Vec<Topic> = world.nodes[node].observers.keys().cloned().collect();
        for topic in watched {
            let list = world.nodes[node].list(&topic);
            let want: BTreeMap<Ref, String> =
                list.into_iter().map(|(key, reference)| (reference, key)).collect();
            let shown = &world.nodes[node].observers[&topic].shown;
            world.ensure(*shown == want, "I6", || {
                format!("{topic} as clients of n{node} show it: {shown:?}, not {want:?}")
            });
        }
    }
}

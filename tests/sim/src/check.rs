//! What must hold, a function each, under the numbers of docs/PRESENCE.md, section 9. They end the test
//! with what they saw, the seed, and the line that runs the same again.
//!
//! Some hold at every moment, and are watched while the world runs (`watch`, and
//! [`Observer::fold`](crate::node::Observer::fold)); what those see, [`check_quiet`] tells.

mod feeds;
mod observers;
mod rosters;

pub use feeds::{
    check_i3_equal_positions_have_equal_contents, check_i11_a_slow_peer_costs_its_sender_nothing,
    check_i12_isolated_changes_are_small, check_i13_only_differences_cross,
    check_i14_idle_is_quiet, check_i17_flat,
};
pub use observers::{check_i6_observers, check_quiet};
pub use rosters::{
    check_broadcasts, check_i4_agreement, check_i8_no_ghosts, check_i8_no_ghosts_on,
    check_i9_listed_everywhere, check_members,
};

use std::time::Duration;

use presence::Topic;

use crate::world::World;

/// Topics that somebody is in, or watches.
fn topics(world: &World) -> Vec<Topic> {
    let clients = world.alive().flat_map(|node| world.nodes[node].clients.values());
    let mut topics: Vec<Topic> = clients.map(|client| client.topic.clone()).collect();
    let watched = world.alive().flat_map(|node| world.nodes[node].observers.keys().cloned());
    topics.extend(watched);
    topics.sort();
    topics.dedup();
    topics
}

impl World {
    /// Ends the test where something does not hold.
    pub(crate) fn ensure(&self, holds: bool, claim: &str, what: impl FnOnce() -> String) {
        assert!(holds, "{claim}: {}\nseed {}\nreplay: {}", what(), self.seed(), self.replay());
    }

    /// Ends all faults, lets the cluster settle, then checks all that must hold of one that has.
    pub fn settle_and_check(&mut self, within: Duration) {
        self.heal();
        self.calm();
        self.run_for(within);
        check_quiet(self);
        check_members(self);
        check_i3_equal_positions_have_equal_contents(self);
        check_i4_agreement(self);
        check_i6_observers(self);
        check_broadcasts(self);
    }
}

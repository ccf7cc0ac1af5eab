//! What replicas hold, and what crosses the wire.

use std::time::Duration;

use presence::{NodeIx, Ref};

use crate::{network::Traffic, world::World};

/// Bytes of one isolated change beside topic, key and meta.
const CHANGE_BYTES: usize = 80;

/// I3: a replica at the owner's head has the owner's checksum, and lists the same entries under the same
/// references.
pub fn check_i3_equal_positions_have_equal_contents(world: &mut World) {
    let topics = super::topics(world);
    let alive: Vec<usize> = world.alive().collect();
    for &owner in &alive {
        for &node in alive.iter().filter(|node| **node != owner) {
            let me = world.nodes[owner].me.clone();
            let Some(ix) = world.nodes[node].number_of(&me.name) else { continue };
            for topic in &topics {
                let shard = world.nodes[owner].shard(topic);
                let (head, checksum) = (shard.head(), shard.checksum());
                let mut want: Vec<Ref> = of(shard, topic, NodeIx::SELF);
                let replica = world.nodes[node].shard(topic);
                let Some(at) = replica.position(ix) else { continue };
                if (at.incarnation, at.v) != (me.incarnation, head) {
                    continue;
                }
                let mut have = of(replica, topic, ix);
                want.sort();
                have.sort();
                let same = checksum == at.checksum && (!at.visible || have == want);
                world.ensure(same, "I3", || {
                    format!("n{node} has n{owner} at its head {head}, and other entries of {topic}")
                });
            }
        }
    }
}

fn of(shard: &presence::Shard, topic: &presence::Topic, owner: NodeIx) -> Vec<Ref> {
    let entries = shard.list(topic);
    entries.iter().filter(|entry| entry.owner == owner).map(|entry| entry.reference).collect()
}

/// I11: what a sender's core holds is no more than before its peer fell behind, but for some numbers.
pub fn check_i11_a_slow_peer_costs_its_sender_nothing(world: &World, node: usize, before: usize) {
    let now = world.core_footprint(node);
    let holds = now <= before + 2_048;
    world.ensure(holds, "I11", || format!("the core of n{node} grew from {before} to {now}"));
}

/// I12: so many changes, far apart, each with so many bytes of topic, key and meta, cost a peer no more
/// feed bytes than this.
pub fn check_i12_isolated_changes_are_small(
    world: &World,
    spent: Traffic,
    (changes, payload): (usize, usize),
) {
    let most = changes * (CHANGE_BYTES + payload);
    world.ensure(spent.bytes <= most, "I12", || {
        format!("{changes} changes took {} bytes, not {most}", spent.bytes)
    });
}

/// I13: a peer that was away while so many slots changed got no more than those, once each, and one bit
/// for each of all slots in each shard.
pub fn check_i13_only_differences_cross(
    world: &World,
    spent: Traffic,
    (changed, payload): (usize, usize),
    slots: usize,
) {
    let most = changed * (CHANGE_BYTES + payload) + slots / 8 + 4_096;
    world.ensure(spent.bytes <= most, "I13", || {
        format!("{changed} changes took {} bytes, not {most}", spent.bytes)
    });
}

/// I14: a cluster in which nothing happens sends no range, and a digest of at most 100 bytes a node each
/// 5 s.
pub fn check_i14_idle_is_quiet(world: &mut World, span: Duration) {
    let alive: Vec<usize> = world.alive().collect();
    let of = |world: &World, node: usize| {
        let feeds = world.sent(node, 2) + world.sent(node, 3);
        (feeds.frames, world.sent(node, 1).bytes)
    };
    let before: Vec<_> = alive.iter().map(|node| of(world, *node)).collect();
    world.run_for(span);
    let most = usize::try_from(span.as_secs().div_ceil(5)).unwrap_or(usize::MAX) * 100;
    for (node, (ranges, control)) in alive.into_iter().zip(before) {
        let (ranges_now, control_now) = of(world, node);
        world.ensure(ranges_now == ranges, "I14", || format!("n{node} sends ranges when idle"));
        let spent = control_now - control;
        world.ensure(spent <= most, "I14", || format!("n{node} spends {spent} bytes when idle"));
    }
}

/// I17: a measure that was `early` after some restarts is not much more after a thousand.
pub fn check_i17_flat(world: &World, early: usize, late: usize) {
    world.ensure(late < early + early / 4, "I17", || format!("{early} grew to {late}"));
}

//! What replicas hold, and what crosses the wire.

use std::{collections::BTreeMap, time::Duration};

use presence::{NodeIx, Ref, Replica, Shard, Topic};

use crate::{network::Traffic, world::World};

/// Bytes of one isolated change beside topic, key and meta.
const CHANGE_BYTES: usize = 80;

/// I3: a replica at the owner's head has the owner's checksum, and lists the same entries under the same
/// references.
pub fn check_i3_equal_positions_have_equal_contents(world: &mut World) {
    let topics = super::topics(world);
    let alive: Vec<usize> = world.alive().collect();
    let owners: Vec<(Replica, Vec<(u64, u64)>)> = alive
        .iter()
        .map(|node| {
            let node = &world.nodes[*node];
            let shards = node.shards.0.iter().map(|shard| (shard.head(), shard.checksum()));
            (node.me.clone(), shards.collect())
        })
        .collect();
    // By topic and place in `alive`: what each node has tracked itself.
    let tracked: Vec<Vec<Vec<Ref>>> = topics
        .iter()
        .map(|topic| {
            let own = |node: &usize| {
                let mut lists = by_owner(world.nodes[*node].shard(topic), topic);
                lists.remove(&NodeIx::SELF).unwrap_or_default()
            };
            alive.iter().map(own).collect()
        })
        .collect();
    for &node in &alive {
        let place = &world.nodes[node];
        let names: BTreeMap<_, _> =
            place.watch.names.iter().map(|(ix, name)| (name, *ix)).collect();
        let numbers: Vec<Option<NodeIx>> =
            owners.iter().map(|(me, _)| names.get(&me.name).copied()).collect();
        // By place in `owners` and shard: whether all of it must be here.
        let mut at_head = vec![vec![false; place.shards.0.len()]; owners.len()];
        for (ahead, (ix, (me, heads))) in at_head.iter_mut().zip(numbers.iter().zip(&owners)) {
            let shards = place.shards.0.iter().zip(heads);
            for (at_head, (shard, (head, checksum))) in ahead.iter_mut().zip(shards) {
                let at = ix.and_then(|ix| shard.position(ix));
                let Some(at) = at.filter(|at| at.incarnation == me.incarnation) else { continue };
                if at.v == *head {
                    let same = at.checksum == *checksum;
                    world.ensure(same, "I3", || format!("n{node} has another sum of {}", me.name));
                    *at_head = at.visible;
                }
            }
        }
        for (topic, tracked) in topics.iter().zip(&tracked) {
            let place = &mut world.nodes[node];
            let shard = usize::from(place.shard_of(topic));
            let lists = by_owner(place.shard(topic), topic);
            for (at, want) in tracked.iter().enumerate().filter(|(at, _)| at_head[*at][shard]) {
                let have = numbers[at].and_then(|ix| lists.get(&ix));
                let same = have.map_or(want.is_empty(), |have| have == want);
                world.ensure(same, "I3", || {
                    let owner = alive[at];
                    format!("n{node} has n{owner} at its head, and other entries of {topic}")
                });
            }
        }
    }
}

/// The references of a topic as the shard lists them, in order.
fn by_owner(shard: &Shard, topic: &Topic) -> BTreeMap<NodeIx, Vec<Ref>> {
    let mut lists: BTreeMap<NodeIx, Vec<Ref>> = BTreeMap::new();
    for entry in &*shard.list(topic) {
        lists.entry(entry.owner).or_default().push(entry.reference);
    }
    for list in lists.values_mut() {
        list.sort();
    }
    lists
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

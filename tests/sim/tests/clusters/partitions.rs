//! Both sides know that they may be apart; when they are together again, only what changed is told.

use sim::{Weather, World, check_i4_agreement};

use super::*;

/// Nodes, of which the first `side` are cut off from the others; each has so many users.
fn parted(seed: u64, nodes: usize, side: usize, users: usize) -> World {
    let presence = presence::Config::default();
    let world = World::with_settings(seed, nodes, Weather::default(), without_digests(), presence);
    let mut world = with_users(world);
    for user in 0..users {
        for node in 0..nodes {
            world.join(node, &format!("room:{}", user % 7), &format!("n{node}u{user}"));
        }
    }
    world.run_for(seconds(2));
    check_i4_agreement(&mut world);
    let (left, right): (Vec<usize>, Vec<usize>) = (0..nodes).partition(|node| *node < side);
    world.partition(&[&left, &right]);
    world.run_for(seconds(12));
    world
}

#[test]
fn both_sides_suspect_a_partition_however_they_are_divided() {
    for (seed, nodes, side) in [(1, 2, 1), (2, 3, 1), (3, 5, 1), (4, 6, 3), (5, 7, 5)] {
        let mut world = parted(seed, nodes, side, 1);
        for node in 0..nodes {
            let missing = if node < side { nodes - side } else { side };
            assert_eq!(world.suspects(node), Some((missing, nodes)), "n{node} of {nodes}");
        }
        world.heal();
        world.run_for(seconds(8));
        for node in 0..nodes {
            assert_eq!(world.suspects(node), None, "n{node} of {nodes}");
        }
        world.settle_and_check(seconds(15));
    }
}

#[test]
fn after_a_heal_only_differences_cross_the_wire() {
    let (nodes, users, left, joined) = (6, 300, 20, 10);
    let mut world = parted(7, nodes, 3, users);
    for node in 0..nodes {
        for client in world.clients(node).into_iter().take(left) {
            world.leave(node, client);
        }
        for user in 0..joined {
            world.join(node, &format!("room:{}", user % 7), &format!("n{node}new{user}"));
        }
    }
    world.run_for(seconds(1));
    let sent = |world: &World| -> (u64, u64) {
        let stats = (0..nodes).map(|node| world.stats(node));
        stats.fold((0, 0), |sum, stats| (sum.0 + stats.ops_sent, sum.1 + stats.feed_bytes_sent))
    };
    let before = sent(&world);
    world.heal();
    world.run_for(seconds(6));
    check_i4_agreement(&mut world);
    let after = sent(&world);
    // To each of the three peers on the other side: what changed, once, and nothing in full.
    let changes = 3 * nodes as u64 * (left + joined) as u64;
    let (ops, bytes) = (after.0 - before.0, after.1 - before.1);
    assert!(ops <= changes, "{ops} operations for {changes} changes");
    assert!(bytes <= changes * 60, "{bytes} bytes for {changes} changes");
    world.settle_and_check(seconds(15));
}

/// Those who were on the other side take all on this side for dead, and tell it.
#[test]
fn a_heal_hides_nobody_who_was_never_apart() {
    for (seed, nodes, side) in [(11, 4, 1), (12, 6, 3), (13, 12, 4), (14, 20, 10), (15, 5, 1)] {
        let mut world = parted(seed, nodes, side, 1);
        world.heal();
        for _ in 0..400 {
            world.run_for(millis(20));
            for node in 0..nodes {
                let listed = world.keys(node, ROOM);
                for other in (0..nodes).filter(|other| (*other < side) == (node < side)) {
                    let user = format!("u{other}");
                    assert!(listed.contains(&user), "seed {seed}: n{node} hides {user}");
                }
            }
        }
        world.settle_and_check(seconds(15));
    }
}

/// Only one node of the other side can reach the one that was alone; the others hear that it lives before
/// anything of its feeds can come. Nobody is shown who left meanwhile.
#[test]
fn who_left_in_a_partition_is_not_shown_by_those_that_have_no_link_yet() {
    for seed in 40..60 {
        let mut world = cluster_with_users(seed, 4);
        let gone = world.join(3, ROOM, "gone").expect("room");
        world.run_for(seconds(1));
        world.partition(&[&[0, 1, 2], &[3]]);
        world.run_for(seconds(8));
        world.leave(3, gone);
        let before: Vec<usize> = (0..3).map(|node| world.told_joins(node, ROOM).len()).collect();
        world.heal();
        for other in [1, 2] {
            world.cut(3, other);
            world.cut(other, 3);
        }
        for _ in 0..400 {
            world.run_for(millis(20));
            for node in 0..3 {
                let listed = world.keys(node, ROOM);
                assert!(!listed.contains(&"gone".to_owned()), "seed {seed}: n{node}");
            }
        }
        for (node, before) in before.into_iter().enumerate() {
            let told = &world.told_joins(node, ROOM)[before..];
            assert_eq!(told, ["u3"], "seed {seed}: n{node}");
        }
    }
}

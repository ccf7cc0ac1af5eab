//! What crosses the wire, and what a sender keeps, when peers are slow, away, replaced, or nothing
//! happens.

use sim::{
    Weather, World, check_i3_equal_positions_have_equal_contents, check_i4_agreement,
    check_i6_observers, check_i8_no_ghosts, check_i9_listed_everywhere,
    check_i11_a_slow_peer_costs_its_sender_nothing, check_i12_isolated_changes_are_small,
    check_i13_only_differences_cross, check_i14_idle_is_quiet, check_quiet,
};

use super::*;

/// Entries of a full room, and what of each crosses the wire beside numbers: topic, key and meta.
const FULL: usize = 2_000;
const PAYLOAD: usize = 24;

fn full_room(seed: u64, nodes: usize) -> World {
    let cluster = cluster::Config { shards: 1, ..without_digests() };
    let presence = presence::Config::default();
    let weather = Weather::default();
    let mut world = with_users(World::with_settings(seed, nodes, weather, cluster, presence));
    for user in 0..FULL {
        world.join(0, ROOM, &format!("many{user}"));
    }
    world.run_for(seconds(2));
    world
}

#[test]
fn isolated_changes_cost_little() {
    let mut world = cluster_with_users(1, 3);
    let before = world.fed(0, 1);
    for user in 0..100 {
        world.join(0, ROOM, &format!("single{user}"));
        world.run_for(millis(50));
    }
    check_i12_isolated_changes_are_small(&world, world.fed(0, 1) - before, (100, PAYLOAD));
}

#[test]
fn many_changes_of_one_entry_at_once_cross_the_wire_once() {
    let mut world = cluster_with_users(2, 3);
    let client = world.clients(0)[0];
    world.run_for(millis(10));
    world.update(0, client, "{\"n\":0}");
    let before = world.fed(0, 1);
    for n in 1..100 {
        world.update(0, client, &format!("{{\"n\":{n}}}"));
    }
    world.run_for(millis(50));
    check_i12_isolated_changes_are_small(&world, world.fed(0, 1) - before, (1, PAYLOAD));
}

#[test]
fn an_idle_cluster_only_says_that_all_is_equal() {
    let mut world = cluster_with_users(3, 5);
    world.run_for(seconds(15));
    check_i14_idle_is_quiet(&mut world, seconds(60));
}

#[test]
fn who_was_away_gets_only_what_changed() {
    let mut world = full_room(4, 3);
    world.partition(&[&[0, 1], &[2]]);
    world.run_for(seconds(12));
    for user in 0..30 {
        let gone = world.clients(0)[20 * user];
        world.leave(0, gone);
        world.join(0, ROOM, &format!("late{user}"));
    }
    let before = world.fed(0, 2);
    world.settle_and_check(seconds(15));
    check_i13_only_differences_cross(&world, world.fed(0, 2) - before, (60, PAYLOAD), FULL);
}

/// A node dies and another takes its place: that one is sent the room once, and nothing of it goes to
/// those who have it.
#[test]
fn node_replaced_no_transfer_loop() {
    let cluster = cluster::Config { shards: 1, ..without_digests() };
    let presence = presence::Config::default();
    let mut world = World::with_settings(5, 4, Weather::default(), cluster, presence);
    // It has not been started yet: nobody knows of it.
    world.crash(3);
    let mut world = with_users(world);
    for user in 0..FULL {
        world.join(0, ROOM, &format!("many{user}"));
    }
    world.run_for(seconds(2));
    world.crash(2);
    world.run_for(seconds(6));
    check_i8_no_ghosts(&mut world, 2);
    let before = world.fed(0, 1);
    world.restart(3, 0);
    world.run_for(seconds(1));
    check_i9_listed_everywhere(&mut world, ROOM, "many0");
    let full = world.fed(0, 3);
    world.run_for(seconds(60));
    assert_eq!(world.fed(0, 3), full, "the newcomer is sent more than once");
    check_i13_only_differences_cross(&world, world.fed(0, 1) - before, (0, 0), 0);
    world.settle_and_check(seconds(5));
}

/// The bug of Phoenix.Tracker by which an old full state brought an older value back, and then lost it:
/// here old values come by way of a slow third node, after the newest one has come straight.
#[test]
fn stale_relay_vs_new_delta() {
    let mut world = cluster_with_users(6, 3);
    let alice = world.join(0, ROOM, "alice").expect("the node is up");
    world.run_for(seconds(1));
    world.slow_down(0, 2, 40);
    world.slow_down(2, 1, 40);
    world.cut(0, 1);
    world.cut(1, 0);
    world.run_for(seconds(8));
    for n in 1..4 {
        world.update(0, alice, &format!("{{\"v\":{n}}}"));
        world.run_for(millis(1_500));
        check_i9_listed_everywhere(&mut world, ROOM, "alice");
    }
    assert!(world.stats(2).ranges_relayed > 0);
    world.heal();
    for _ in 0..100 {
        world.run_for(millis(100));
        check_i9_listed_everywhere(&mut world, ROOM, "alice");
    }
    check_i3_equal_positions_have_equal_contents(&mut world);
    world.speed_up(0, 2);
    world.speed_up(2, 1);
    world.settle_and_check(seconds(5));
    check_i9_listed_everywhere(&mut world, ROOM, "alice");
}

/// A peer that reads 1 KB a second, while 5,000 changes a second are made, and for eight hours of one
/// change a second more: it costs its sender nothing and the others nothing, and has all of it soon after
/// it reads again.
#[test]
fn slow_peer_8h() {
    let mut world = cluster_with_users(7, 3);
    world.run_for(seconds(2));
    let before = world.core_footprint(0);
    world.slow_down(0, 2, 1_000);
    for round in 0..12_500 {
        let user = world.join(0, ROOM, &format!("busy{round}")).expect("the node is up");
        world.update(0, user, "{\"n\":1}");
        world.run_for(Duration::from_micros(600));
        if round % 50 > 0 {
            world.leave(0, user);
        }
        if round % 500 == 0 {
            world.run_for(millis(10));
            check_i9_listed_everywhere_but(&mut world, 2, &format!("busy{round}"));
        }
    }
    check_i11_a_slow_peer_costs_its_sender_nothing(&world, 0, before);
    for round in 0..8 * 3_600 {
        let user = world.join(0, ROOM, &format!("later{round}")).expect("the node is up");
        world.run_for(millis(500));
        world.leave(0, user);
        world.run_for(millis(500));
    }
    check_i11_a_slow_peer_costs_its_sender_nothing(&world, 0, before);
    check_quiet(&world);
    world.speed_up(0, 2);
    world.run_for(seconds(1));
    check_i4_agreement(&mut world);
    world.settle_and_check(seconds(10));
}

fn check_i9_listed_everywhere_but(world: &mut World, slow: usize, key: &str) {
    for node in (0..3).filter(|node| *node != slow) {
        assert!(world.keys(node, ROOM).iter().any(|listed| listed == key), "n{node}: {key}");
    }
}

/// Entries of the largest and of the smallest size, each range cut anywhere; no frame is over 64 KiB.
#[test]
fn huge_and_tiny() {
    for range_len in [1, 16 << 10, 60 << 10] {
        let cluster = cluster::Config { range_len, shards: 1, ..without_digests() };
        let presence = presence::Config { tombstones_max: 4, ..presence::Config::default() };
        let weather = Weather { delay: (100, 9_000), ..Weather::default() };
        let mut world = with_users(World::with_settings(8, 3, weather, cluster, presence));
        let meta = format!("\"{}\"", "m".repeat(presence::META_LEN_MAX - 2));
        for user in 0..60 {
            let len = if user % 2 == 0 { 2 } else { presence::KEY_LEN_MAX };
            let key = format!("{user:0>len$}");
            let client = world.join(user % 3, ROOM, &key).expect("the node is up");
            world.run_for(millis(20));
            if user % 2 == 1 {
                world.update(user % 3, client, &meta);
            }
            if user % 20 == 7 {
                world.partition(&[&[0], &[1, 2]]);
            } else if user % 20 == 17 {
                world.heal();
            }
        }
        world.settle_and_check(seconds(15));
    }
}

/// As many entries of one node as a shard may have, and no tombstones: who was away is told by one bitmap
/// what is gone, in a frame as long as others.
#[test]
fn a_full_shard_is_caught_up_with_by_its_bitmap() {
    let cluster = cluster::Config { shards: 1, ..without_digests() };
    let presence =
        presence::Config { tombstones_min: 0, tombstones_max: 0, ..presence::Config::default() };
    let mut world = with_users(World::with_settings(10, 2, Weather::default(), cluster, presence));
    let (entries, gone) = (262_000, 500);
    for user in 0..entries {
        world.join(0, &format!("room:{}", user % 100), &format!("u{user}"));
    }
    world.run_for(seconds(3));
    check_i9_listed_everywhere(&mut world, "room:99", "u199");
    world.partition(&[&[0], &[1]]);
    world.run_for(seconds(8));
    for client in world.clients(0).into_iter().skip(1).step_by(entries / gone).take(gone) {
        world.leave(0, client);
    }
    let before = world.fed(0, 1);
    world.settle_and_check(seconds(15));
    check_i13_only_differences_cross(&world, world.fed(0, 1) - before, (0, 0), entries);
}

/// A bit flips in a replica. The next digest finds it, and observers are told the difference, once.
#[test]
fn csum_fault_injection() {
    let mut world = cluster_with_users(9, 3);
    for user in 0..20 {
        world.join(0, ROOM, &format!("flip{user}"));
    }
    world.run_for(seconds(6));
    world.corrupt(1, 0, ROOM);
    assert_eq!(world.keys(1, ROOM).len(), 22, "one is missing here");
    // The owner's next change brings both to one position.
    let client = world.clients(0)[5];
    world.update(0, client, "{\"n\":1}");
    world.run_for(seconds(16));
    assert_eq!(world.stats(1).refetches, 1);
    check_i4_agreement(&mut world);
    check_i6_observers(&mut world);
    world.settle_and_check(seconds(10));
}

//! What a cluster is for, and the faults it meets every day.

use sim::{Weather, World, check_i4_agreement, check_i8_no_ghosts, check_members, check_quiet};

use super::*;

#[test]
fn one_node_alone_serves_its_clients() {
    let mut world = cluster_with_users(1, 1);
    world.broadcast(0, ROOM);
    world.settle_and_check(seconds(1));
    assert_eq!(world.delivered(), 1);
}

#[test]
fn three_nodes_find_each_other_within_two_seconds() {
    let mut world = World::new(2, 3, Weather::default());
    world.run_for(seconds(2));
    check_members(&world);
    world.join(2, ROOM, "late");
    world.run_for(millis(50));
    check_i4_agreement(&mut world);
    check_quiet(&world);
}

#[test]
fn a_broadcast_reaches_every_node_once() {
    let mut world = cluster_with_users(3, 5);
    for node in 0..5 {
        world.broadcast(node, ROOM);
    }
    world.settle_and_check(seconds(1));
    assert_eq!(world.delivered(), 25);
}

#[test]
fn a_node_that_joins_later_lists_all_who_are_there() {
    let mut world = cluster_with_users(4, 4);
    world.crash(3);
    for user in 0..500 {
        world.join(0, ROOM, &format!("many{user}"));
    }
    world.run_for(seconds(6));
    world.restart(3, 0);
    world.run_for(seconds(3));
    check_i4_agreement(&mut world);
    world.settle_and_check(seconds(5));
}

#[test]
fn a_crashed_node_is_gone_everywhere_in_five_seconds() {
    for seed in 0..10 {
        let mut world = cluster_with_users(seed, 5);
        world.crash(3);
        world.run_for(seconds(5));
        check_i8_no_ghosts(&mut world, 3);
        world.settle_and_check(seconds(2));
    }
}

#[test]
fn a_node_that_says_goodbye_is_gone_at_once() {
    let mut world = cluster_with_users(5, 3);
    world.stop(1);
    world.run_for(millis(50));
    check_i8_no_ghosts(&mut world, 1);
    world.settle_and_check(seconds(10));
}

#[test]
fn rosters_agree_after_a_partition() {
    let mut world = cluster_with_users(6, 6);
    world.partition(&[&[0, 1, 2], &[3, 4, 5]]);
    world.run_for(seconds(20));
    for node in 0..6 {
        world.join(node, ROOM, &format!("during{node}"));
        let gone = world.clients(node)[0];
        world.leave(node, gone);
    }
    world.run_for(seconds(10));
    world.settle_and_check(seconds(20));
}

#[test]
fn a_one_way_cut_heals() {
    let mut world = cluster_with_users(7, 4);
    world.cut(0, 1);
    world.run_for(seconds(20));
    world.settle_and_check(seconds(20));
}

#[test]
fn a_restart_under_the_same_name_leaves_no_ghosts() {
    let mut world = cluster_with_users(8, 4);
    for round in 0..5 {
        world.crash(2);
        world.run_for(millis(700 * round));
        world.restart(2, 0);
        world.run_for(seconds(1));
        world.join(2, ROOM, &format!("again{round}"));
    }
    world.settle_and_check(seconds(10));
}

/// The clock of the machine jumped back: the node takes a higher incarnation than it had.
#[test]
fn restart_same_name_clock_backwards() {
    let mut world = cluster_with_users(9, 3);
    world.crash(1);
    world.run_for(seconds(1));
    world.restart(1, -3_600_000);
    world.join(1, ROOM, "from the past");
    world.run_for(seconds(5));
    world.settle_and_check(seconds(10));
}

#[test]
fn a_paused_node_comes_back_with_all_it_had() {
    let mut world = cluster_with_users(10, 4);
    world.pause(2, seconds(10));
    world.run_for(seconds(6));
    for user in 0..20 {
        world.join(0, ROOM, &format!("meanwhile{user}"));
    }
    world.run_for(seconds(5));
    world.settle_and_check(seconds(20));
}

#[test]
fn a_short_pause_hides_nobody() {
    let mut world = cluster_with_users(11, 4);
    world.pause(2, millis(1_500));
    for _ in 0..30 {
        world.run_for(millis(100));
        check_i4_agreement(&mut world);
    }
    world.settle_and_check(seconds(5));
}

/// Feed frames come twice and lanes overtake each other.
#[test]
fn doubled_and_reordered_ranges_change_nothing() {
    let weather = Weather { delay: (100, 30_000), lost: 100, doubled: 300 };
    let mut world = World::new(12, 4, weather);
    world.run_for(seconds(3));
    for user in 0..300 {
        let node = user % 4;
        world.join(node, ROOM, &format!("u{user}"));
        if user % 3 == 0 {
            let gone = world.clients(node)[0];
            world.leave(node, gone);
        }
        world.run_for(millis(5));
    }
    world.settle_and_check(seconds(10));
}

/// With no room for tombstones every catch-up is by bitmap.
#[test]
fn tombstone_ring_zero() {
    let presence =
        presence::Config { tombstones_min: 0, tombstones_max: 0, ..presence::Config::default() };
    let cluster = cluster::Config { shards: 2, ..without_digests() };
    let mut world = World::with_settings(13, 3, Weather::default(), cluster, presence);
    world.run_for(seconds(2));
    for user in 0..400 {
        world.join(user % 3, ROOM, &format!("u{user}"));
    }
    world.run_for(seconds(1));
    world.partition(&[&[0], &[1, 2]]);
    for _ in 0..100 {
        for node in 0..3 {
            let gone = world.clients(node)[0];
            world.leave(node, gone);
        }
    }
    world.run_for(seconds(8));
    world.settle_and_check(seconds(20));
}

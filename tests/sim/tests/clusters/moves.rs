//! Clients that move between nodes, and what the clients of other nodes see of it.

use sim::{check_i4_agreement, check_i6_observers, check_quiet};

use super::*;

const LEASE: Duration = seconds(15);

/// Users in all, spread over so many rooms.
const USERS: usize = 10_000;
const ROOMS: usize = 20;

fn room(user: usize) -> String {
    format!("room:{}", user % ROOMS)
}

/// How many users the observers of a room on a node show.
fn shown(world: &World, node: usize, room: usize) -> usize {
    world.told_keys(node, &format!("room:{room}")).len()
}

/// Scenario 21 of the design: a node with 10,000 clients drains, and they come back elsewhere.
#[test]
fn drain_and_reconnect_elsewhere() {
    let mut world = World::new(21, 4, Weather::default());
    world.run_for(seconds(2));
    // An observer of each room on each node that stays.
    for (node, room) in (1..4).flat_map(|node| (0..ROOMS).map(move |room| (node, room))) {
        world.join(node, &format!("room:{room}"), &format!("watcher-{node}-{room}"));
    }
    let clients: Vec<_> =
        (0..USERS).map(|user| world.join(0, &room(user), &format!("u{user}"))).collect();
    world.run_for(seconds(2));
    let everybody = USERS / ROOMS + 3;
    let expect_all = |world: &World| {
        for (node, room) in (1..4).flat_map(|node| (0..ROOMS).map(move |room| (node, room))) {
            assert_eq!(shown(world, node, room), everybody, "room {room} on n{node}");
        }
    };
    expect_all(&world);
    world.expect_keys_to_stay();
    // 100 sockets are closed each 20 ms; each client is back within 0.1 to 2 s, on any other node.
    let mut away: Vec<(usize, Duration)> = Vec::new();
    for (user, client) in clients.iter().enumerate() {
        world.lose(0, client.unwrap(), LEASE);
        let back = millis(100 + world.draw(1900));
        away.push((user, world.elapsed() + back));
        if user % 100 == 99 {
            world.run_for(millis(20));
        }
    }
    away.sort_by_key(|(_, at)| *at);
    for (user, at) in away {
        let now = world.elapsed();
        world.run_for(at.saturating_sub(now));
        let node = 1 + usize::try_from(world.draw(3)).unwrap();
        world.join(node, &room(user), &format!("u{user}")).unwrap();
    }
    expect_all(&world);
    // All are seen elsewhere: the node's own entries go, and it need not wait for their lease.
    world.run_for(millis(1500));
    assert_eq!(world.detached(0), 0);
    world.retire(0, LEASE);
    world.run_for(seconds(20));
    expect_all(&world);
    check_quiet(&world);
    check_i4_agreement(&mut world);
    check_i6_observers(&mut world);
    assert_eq!(world.detached(0), 0);
}

/// A node ends before all of its clients are back: the others wait for them.
#[test]
fn a_goodbye_leaves_a_lease_to_those_who_are_still_on_their_way() {
    let mut world = cluster_with_users(22, 3);
    let client = world.clients(0)[0];
    world.lose(0, client, LEASE);
    world.run_for(millis(100));
    world.expect_keys_to_stay();
    world.retire(0, seconds(10));
    world.run_for(seconds(5));
    assert_eq!(world.keys(1, ROOM), ["u0", "u1", "u2"]);
    // It runs again under its name, and its client comes back to it.
    world.restart(0, 0);
    world.run_for(seconds(1));
    assert_eq!(world.keys(1, ROOM), ["u0", "u1", "u2"]);
    assert_eq!(world.keys(0, ROOM), ["u1", "u2"]);
    world.join(0, ROOM, "u0").unwrap();
    world.settle_and_check(seconds(20));
    assert_eq!(world.keys(1, ROOM), ["u0", "u1", "u2"]);
}

/// A node ends before its client is back, with a lease: nobody takes the client off the list meanwhile, or
/// suspects a partition.
fn goes_while(mut world: World, away: impl FnOnce(&mut World)) {
    let seed = world.seed();
    away(&mut world);
    let client = world.clients(0)[0];
    world.lose(0, client, LEASE);
    world.run_for(millis(100));
    world.expect_keys_to_stay();
    world.retire(0, seconds(10));
    for _ in 0..98 {
        for node in 1..4 {
            let listed = world.keys(node, ROOM);
            assert_eq!(listed, ["u0", "u1", "u2", "u3"], "seed {seed}: n{node}");
            assert_eq!(world.suspects(node), None, "seed {seed}: n{node}");
        }
        world.run_for(millis(100));
    }
    check_quiet(&world);
    check_i6_observers(&mut world);
    // Each counts from when it heard of it.
    world.run_for(seconds(3));
    for node in 1..4 {
        assert_eq!(world.keys(node, ROOM), ["u1", "u2", "u3"], "seed {seed}: n{node}");
    }
}

/// One of the others has no link to the node that goes: it hears the goodbye from those who have one.
#[test]
fn a_goodbye_goes_round_a_missing_link() {
    for (seed, before) in (90..110).flat_map(|seed| [(seed, millis(500)), (seed, seconds(7))]) {
        // So that what others gossip may come before what they say.
        let weather = Weather { delay: (200, 15_000), ..Weather::default() };
        goes_while(with_users(World::new(seed, 4, weather)), |world| {
            world.cut(0, 2);
            world.cut(2, 0);
            world.run_for(before);
        });
    }
}

/// One of the others stands still while the node goes: it hears the goodbye when it goes on.
#[test]
fn a_goodbye_is_told_to_who_stood_still() {
    for seed in 110..120 {
        goes_while(cluster_with_users(seed, 4), |world| {
            world.run_for(millis(100 * (seed - 110)));
            world.pause(2, millis(1500));
        });
    }
}

/// Of a node that goes while another one is cut off, that one hears once it is back: it does not go on
/// waiting for it.
#[test]
fn a_goodbye_is_told_to_who_was_cut_off() {
    let mut world = cluster_with_users(120, 4);
    world.partition(&[&[0, 1, 3], &[2]]);
    world.run_for(seconds(10));
    world.retire(0, seconds(1));
    world.run_for(seconds(10));
    world.heal();
    world.run_for(seconds(10));
    for node in 1..4 {
        assert_eq!(world.suspects(node), None, "n{node}");
        assert_eq!(world.keys(node, ROOM), ["u1", "u2", "u3"], "n{node}");
    }
}

/// Who does not come back leaves when the lease is over, and nobody before.
#[test]
fn the_lease_of_who_does_not_come_back_ends() {
    let mut world = cluster_with_users(23, 3);
    let client = world.clients(0)[0];
    world.lose(0, client, LEASE);
    world.run_for(millis(100));
    world.retire(0, seconds(10));
    world.run_for(millis(9900));
    assert_eq!(world.keys(1, ROOM).len(), 3);
    world.run_for(millis(200));
    assert_eq!((world.keys(1, ROOM).len(), world.keys(2, ROOM).len()), (2, 2));
    check_quiet(&world);
    check_i6_observers(&mut world);
}

/// A crash is no goodbye, lease or not.
#[test]
fn a_crash_hides_who_was_on_their_way() {
    let mut world = cluster_with_users(24, 3);
    let client = world.clients(0)[0];
    world.lose(0, client, seconds(60));
    world.run_for(millis(100));
    world.crash(0);
    world.run_for(seconds(6));
    assert_eq!((world.keys(1, ROOM).len(), world.keys(2, ROOM).len()), (2, 2));
}

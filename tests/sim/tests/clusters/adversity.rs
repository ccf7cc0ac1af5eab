//! Scripts against the weak places of other presence systems, and of this one, by the names that
//! docs/PRESENCE.md, section 9 lists them under.

use sim::{
    Weather, World, check_i4_agreement, check_i6_observers, check_i8_no_ghosts,
    check_i8_no_ghosts_on, check_i17_flat, check_quiet,
};

use super::*;

/// Nodes that forget who is down after so long.
fn forgetful(seed: u64, nodes: usize, after: Duration) -> World {
    let cluster = cluster::Config { forget_after: after, ..without_digests() };
    let presence = presence::Config::default();
    with_users(World::with_settings(seed, nodes, Weather::default(), cluster, presence))
}

/// Both sides have many entries before they meet.
#[test]
fn two_nodes_prefilled_connect() {
    for entries in [51, 101, 10_001] {
        let cluster = without_digests();
        let presence = presence::Config::default();
        let mut world = World::with_settings(1, 2, Weather::default(), cluster, presence);
        world.partition(&[&[0], &[1]]);
        world.run_for(seconds(10));
        for user in 0..entries {
            for node in 0..2 {
                let topic = format!("room:{}", user % (entries / 50));
                world.join(node, &topic, &format!("n{node}u{user}"));
            }
        }
        world.settle_and_check(seconds(10));
        assert_eq!(world.keys(0, "room:0").len(), world.keys(1, "room:0").len());
    }
}

/// Down for shorter and longer than it is remembered, again and again.
#[test]
fn zombie_after_restart_many_nodes() {
    let mut world = forgetful(2, 4, seconds(1));
    for round in 0..12_u64 {
        world.crash(3);
        world.run_for(millis(700 * round));
        world.restart(3, 0);
        world.run_for(millis(150 * (round % 4)));
        world.join(3, ROOM, &format!("round{round}"));
        world.run_for(millis(400));
    }
    world.settle_and_check(seconds(10));
    assert_eq!(world.keys(0, ROOM), ["round11", "u0", "u1", "u2"]);
}

/// One side forgets the dead node while the other has not yet heard of its death.
#[test]
fn permdown_race_with_transfer() {
    for seed in 0..6 {
        let mut world = forgetful(seed, 4, seconds(2));
        world.partition(&[&[0, 1], &[2]]);
        world.crash(3);
        world.run_for(millis(4_500 + 300 * seed));
        world.heal();
        for _ in 0..80 {
            world.run_for(millis(100));
            for node in [0, 1] {
                assert!(!world.keys(node, ROOM).contains(&"u3".to_owned()), "seed {seed}");
            }
        }
        check_i8_no_ghosts(&mut world, 3);
        world.settle_and_check(seconds(10));
    }
}

/// One node starts a thousand times: at once after its crash, after the others have seen that it is down,
/// after they have forgotten it. What they hold, and what a list takes, stays as it was.
#[test]
fn weekly_restart_leak() {
    let mut world = forgetful(3, 3, seconds(30));
    let mut early = [0; 2];
    let mut early_list = Duration::ZERO;
    for round in 1..=1_000 {
        world.crash(2);
        match round {
            _ if round % 125 == 0 => world.run_for(seconds(40)),
            _ if round % 20 == 0 => world.run_for(seconds(5)),
            _ => {}
        }
        world.restart(2, 0);
        world.join(2, ROOM, "restless");
        world.run_for(millis(400));
        if round == 130 {
            early = [0, 1].map(|node| world.footprint(node));
            early_list = list_takes(&mut world);
        }
    }
    let late_list = list_takes(&mut world);
    for (node, early) in early.into_iter().enumerate() {
        let late = world.footprint(node);
        check_i17_flat(&world, early, late);
    }
    assert!(late_list < early_list * 2, "a list took {early_list:?}, and takes {late_list:?}");
    world.settle_and_check(seconds(5));
    assert_eq!(world.keys(0, ROOM), ["restless", "u0", "u1"]);
}

/// What two hundred lists of the room take on a node, at best.
fn list_takes(world: &mut World) -> Duration {
    let mut once = || {
        let started = std::time::Instant::now();
        for _ in 0..200 {
            std::hint::black_box(world.keys(0, ROOM));
        }
        started.elapsed()
    };
    (0..50).map(|_| once()).min().unwrap_or_default()
}

#[test]
fn update_storm_reader_never_misses() {
    let mut world = cluster_with_users(4, 3);
    let client = world.clients(0)[0];
    for n in 0..2_000 {
        world.update(0, client, &format!("{{\"n\":{n}}}"));
        let pause = world.draw(2_000);
        world.run_for(Duration::from_micros(pause));
        for node in 0..3 {
            let listed = world.keys(node, ROOM).iter().filter(|key| *key == "u0").count();
            assert_eq!(listed, 1, "n{node}, update {n}");
        }
    }
    world.settle_and_check(seconds(1));
}

#[test]
fn update_then_exit_leaves_nothing() {
    let mut world = cluster_with_users(5, 2);
    for round in 0..600 {
        let node = round % 2;
        let client = world.join(node, ROOM, &format!("brief{round}")).expect("the node is up");
        world.run_for(millis(3));
        world.update(node, client, "{\"n\":1}");
        world.leave(node, client);
        world.run_for(millis(997));
    }
    world.settle_and_check(seconds(1));
    assert_eq!(world.keys(0, ROOM), ["u0", "u1"]);
}

#[test]
fn crash_mass_leave_50k() {
    let mut world = cluster_with_users(6, 3);
    for user in 0..50_000 {
        world.join(1, &format!("room:{}", user % 40), &format!("many{user}"));
    }
    for topic in 0..40 {
        world.join(0, &format!("room:{topic}"), "watcher");
    }
    world.run_for(seconds(2));
    assert_eq!(world.keys(2, "room:0").len(), 1_251);
    world.crash(1);
    while world.is_up(0, 1) {
        world.run_for(millis(1));
    }
    // They are hidden at once, and others are told of as soon as ever while so many leave.
    check_i8_no_ghosts_on(&mut world, 0, 1);
    world.join(2, ROOM, "meanwhile");
    world.run_for(millis(20));
    assert!(world.told_joins(0, ROOM).contains(&"meanwhile".to_owned()));
    world.run_for(seconds(3));
    check_i8_no_ghosts(&mut world, 1);
    check_i4_agreement(&mut world);
    world.settle_and_check(seconds(1));
}

/// Twenty thousand join one topic within a second, on three nodes; each is told who is there. Whoever
/// came before is told of them in few diffs, and all show the same a moment later.
#[test]
fn thundering_herd_list() {
    let mut world = cluster_with_users(16, 3);
    let herd = 20_000;
    for user in 0..herd {
        world.join(user % 3, ROOM, &format!("herd{user}"));
        world.run_for(Duration::from_micros(50));
    }
    // The longest pause between two diffs of a topic, and one way.
    world.run_for(millis(120));
    check_i4_agreement(&mut world);
    check_i6_observers(&mut world);
    for node in 0..3 {
        assert_eq!(world.keys(node, ROOM).len(), herd + 3);
        let diffs = world.told_version(node, ROOM);
        assert!(diffs < 100, "n{node} told {diffs} diffs");
    }
    world.settle_and_check(seconds(1));
}

/// Phoenix shows who left during the split as joining when it heals.
#[test]
fn netsplit_symmetric_churn() {
    for seed in 0..4 {
        let mut world = cluster_with_users(seed, 6);
        for node in 0..6 {
            for user in 0..20 {
                world.join(node, ROOM, &format!("n{node}u{user}"));
            }
        }
        world.run_for(seconds(1));
        world.partition(&[&[0, 1, 2], &[3, 4, 5]]);
        world.run_for(seconds(12));
        let mut gone = Vec::new();
        for node in 0..6 {
            for (user, client) in (0..).zip(world.clients(node).into_iter().skip(1)).step_by(2) {
                world.leave(node, client);
                gone.push(format!("n{node}u{user}"));
            }
            world.join(node, ROOM, &format!("during{node}"));
        }
        world.run_for(seconds(3));
        let told: Vec<usize> = (0..6).map(|node| world.told_joins(node, ROOM).len()).collect();
        world.settle_and_check(seconds(15));
        for (node, before) in told.into_iter().enumerate() {
            let after = &world.told_joins(node, ROOM)[before..];
            let ghost = after.iter().find(|key| gone.contains(key));
            assert_eq!(ghost, None, "seed {seed}: n{node} is told of it");
            assert!(after.len() <= 3 * 12, "seed {seed}: n{node} is told {}", after.len());
        }
    }
}

/// Frames of the run before are still on their way when the next one says hello.
#[test]
fn late_message_of_old_incarnation() {
    let weather = Weather { delay: (20_000, 400_000), ..Weather::default() };
    let presence = presence::Config::default();
    let mut world = with_users(World::with_settings(9, 3, weather, without_digests(), presence));
    for round in 0..10 {
        for user in 0..5 {
            world.join(2, ROOM, &format!("r{round}u{user}"));
        }
        let pause = world.draw(300);
        world.run_for(millis(pause));
        world.crash(2);
        world.restart(2, 0);
        world.run_for(millis(200));
    }
    world.join(2, ROOM, "last");
    world.settle_and_check(seconds(15));
    assert_eq!(world.keys(0, ROOM), ["last", "u0", "u1"]);
}

#[test]
fn forgotten_owner_returns_alive() {
    let mut world = forgetful(10, 4, seconds(5));
    world.partition(&[&[0, 1, 2], &[3]]);
    world.run_for(seconds(30));
    assert_eq!(world.keys(0, ROOM), ["u0", "u1", "u2"]);
    world.join(3, ROOM, "meanwhile");
    world.settle_and_check(seconds(15));
    assert_eq!(world.keys(0, ROOM), ["meanwhile", "u0", "u1", "u2", "u3"]);
}

/// Ranges of one operation, so that a slot changes hands between any two of them.
#[test]
fn slot_reuse_aba() {
    for (seed, tombstones) in [(11, 1024), (12, 0)] {
        let cluster = cluster::Config { range_len: 1, shards: 1, ..without_digests() };
        let presence = presence::Config {
            tombstones_min: 0,
            tombstones_max: tombstones,
            ..presence::Config::default()
        };
        let weather = Weather { delay: (100, 9_000), ..Weather::default() };
        let mut world = with_users(World::with_settings(seed, 3, weather, cluster, presence));
        for round in 0..400 {
            let gone = *world.clients(0).last().expect("somebody is there");
            world.leave(0, gone);
            world.join(0, ROOM, &format!("tenant{round}"));
            let pause = world.draw(4_000);
            world.run_for(Duration::from_micros(pause));
            if round % 100 == 50 {
                world.partition(&[&[0], &[1, 2]]);
            } else if round % 100 == 80 {
                world.heal();
            }
        }
        // An update joins what it replaces under the same key: the observers check that.
        world.settle_and_check(seconds(15));
    }
}

#[test]
fn reorder_dup_loss_30pct() {
    let weather = Weather { delay: (100, 60_000), lost: 300, doubled: 300 };
    let presence = presence::Config::default();
    let mut world = World::with_settings(13, 4, weather, without_digests(), presence);
    world.run_for(seconds(5));
    for user in 0..300 {
        let node = user % 4;
        world.join(node, ROOM, &format!("u{user}"));
        if user % 2 == 0 {
            let gone = world.clients(node)[0];
            world.leave(node, gone);
        }
        world.run_for(millis(10));
    }
    world.settle_and_check(seconds(20));
}

/// State and diffs from any moment on lead to the list.
#[test]
fn subscribe_during_flood() {
    let mut world = cluster_with_users(14, 3);
    for round in 0..600 {
        world.join(0, "room:flood", &format!("f{round}"));
        if round % 3 == 0 {
            let gone = world.clients(0)[1];
            world.leave(0, gone);
        }
        if round % 40 == 7 {
            // The first watcher there, and the next one.
            for key in ["a", "b"] {
                world.join(1, "room:flood", &format!("watch-{key}{round}"));
            }
        }
        if round % 40 == 27 {
            for client in world.clients(1).into_iter().skip(1) {
                world.leave(1, client);
            }
        }
        let pause = world.draw(1_500);
        world.run_for(Duration::from_micros(pause));
    }
    world.join(2, "room:flood", "late");
    world.settle_and_check(seconds(1));
}

/// A node that stops leaves no ghosts, also with those it had no link to: who heard its goodbye says so to
/// them, and membership to those that are further away.
#[test]
fn a_goodbye_reaches_those_without_a_link() {
    for (without, cuts) in [
        (millis(500), [(1, 3), (1, 3), (1, 3)]),
        (seconds(8), [(1, 3), (1, 3), (1, 3)]),
        (seconds(8), [(1, 3), (1, 0), (2, 3)]),
    ] {
        let mut world = cluster_with_users(15, 4);
        for (a, b) in cuts {
            world.cut(a, b);
            world.cut(b, a);
        }
        world.run_for(without);
        check_i4_agreement(&mut world);
        world.stop(1);
        world.run_for(seconds(1));
        check_i8_no_ghosts(&mut world, 1);
        check_quiet(&world);
        world.settle_and_check(seconds(10));
    }
}

//! Without faults: how late, to the microsecond. No digest helps here.

use sim::{Weather, World, check_broadcasts, check_i4_agreement, check_i6_observers, check_quiet};

use super::*;

/// Each frame is a millisecond under way.
const ONE_WAY: Duration = Duration::from_millis(1);
/// Least time between two live ranges of a feed to a peer.
const COALESCE: Duration = Duration::from_millis(2);
const TICK: Duration = Duration::from_micros(1);

fn steady(seed: u64, nodes: usize) -> World {
    let weather = Weather { delay: (1_000, 1_000), ..Weather::default() };
    let presence = presence::Config::default();
    with_users(World::with_settings(seed, nodes, weather, without_digests(), presence))
}

fn lists(world: &mut World, node: usize, key: &str) -> bool {
    world.keys(node, ROOM).iter().any(|listed| listed == key)
}

#[test]
fn a_single_join_is_listed_everywhere_after_one_way() {
    let mut world = steady(1, 5);
    // The room is known to be wanted here: the join waits for nobody.
    world.join(2, ROOM, "new");
    world.run_for(ONE_WAY - TICK);
    for node in 0..5 {
        assert_eq!(lists(&mut world, node, "new"), node == 2, "n{node}");
    }
    world.run_for(TICK);
    for node in 0..5 {
        assert!(lists(&mut world, node, "new"), "n{node}");
    }
    check_quiet(&world);
}

#[test]
fn each_join_of_a_burst_is_listed_everywhere_after_one_way_and_a_flush() {
    let mut world = steady(2, 4);
    let pace = Duration::from_micros(137);
    let mut joins = Vec::new();
    for user in 0..200 {
        let node = user % 4;
        let key = format!("burst{user}");
        world.join(node, ROOM, &key);
        joins.push((world.elapsed(), key));
        world.run_for(pace);
        let due = world.elapsed() - (ONE_WAY + COALESCE + TICK).min(world.elapsed());
        for (_, key) in joins.iter().filter(|(at, _)| *at <= due) {
            assert!((0..4).all(|node| lists(&mut world, node, key)), "{key}");
        }
    }
    check_quiet(&world);
}

/// The interest goes out, its acknowledgement comes back, the presence goes out.
#[test]
fn the_first_join_of_a_topic_is_listed_everywhere_after_three_ways() {
    let mut world = steady(3, 3);
    world.join(0, "room:new", "first");
    world.run_for(ONE_WAY * 3 + TICK);
    for node in 0..3 {
        assert_eq!(world.keys(node, "room:new"), ["first"], "n{node}");
    }
}

#[test]
fn a_leave_and_an_update_are_as_quick_as_a_join() {
    let mut world = steady(4, 3);
    let client = world.clients(1)[0];
    world.update(1, client, "{\"n\":1}");
    world.run_for(ONE_WAY + COALESCE + TICK);
    check_i4_agreement(&mut world);
    world.leave(1, client);
    world.run_for(ONE_WAY + COALESCE + TICK);
    check_i4_agreement(&mut world);
    assert_eq!(world.keys(0, ROOM), ["u0", "u2"]);
}

#[test]
fn clients_are_told_within_another_flush() {
    let mut world = steady(5, 3);
    for user in 0..30 {
        world.join(user % 3, ROOM, &format!("told{user}"));
        world.run_for(Duration::from_micros(700));
    }
    world.run_for(ONE_WAY + COALESCE + millis(5) + TICK);
    check_i6_observers(&mut world);
    check_quiet(&world);
}

/// Any lost range shows here, as no digest follows.
#[test]
fn churn_without_faults_needs_no_digest() {
    for seed in 0..8 {
        let weather = Weather { delay: (100, 40_000), ..Weather::default() };
        let settings = (without_digests(), presence::Config::default());
        let mut world = with_users(World::with_settings(seed, 4, weather, settings.0, settings.1));
        for round in 0..400 {
            let node = usize::try_from(world.draw(4)).expect("a small number");
            let topic = format!("room:{}", world.draw(5));
            match world.draw(3) {
                0 => drop(world.join(node, &topic, &format!("c{round}"))),
                1 => world.broadcast(node, &topic),
                _ => {
                    let gone = world.clients(node)[0];
                    world.leave(node, gone);
                    world.join(node, ROOM, &format!("c{round}"));
                }
            }
            let pause = world.draw(9_000);
            world.run_for(Duration::from_micros(pause));
        }
        world.run_for(millis(300));
        check_i4_agreement(&mut world);
        check_i6_observers(&mut world);
        check_broadcasts(&world);
        check_quiet(&world);
    }
}

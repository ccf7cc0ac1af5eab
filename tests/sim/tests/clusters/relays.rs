//! Links that are missing while membership says that both ends are alive.

use sim::{Weather, World, check_i4_agreement, check_i6_observers, check_quiet};

use super::*;

/// Long enough for a cut link to be noticed as silent, and gone round.
const GONE_ROUND: Duration = Duration::from_secs(7);

fn cut_both(world: &mut World, a: usize, b: usize) {
    world.cut(a, b);
    world.cut(b, a);
}

fn relayed(world: &World) -> u64 {
    (0..3).map(|node| world.stats(node).ranges_relayed).sum()
}

/// n0 and n2 lose each other, n1 sees both.
#[test]
fn netsplit_asymmetric_one_link() {
    for seed in 0..10 {
        let mut world = cluster_with_users(seed, 3);
        cut_both(&mut world, 0, 2);
        for round in 0..70 {
            world.join(round % 3, ROOM, &format!("silent{round}"));
            world.run_for(millis(100));
            for node in 0..3 {
                let listed = world.keys(node, ROOM);
                for user in ["u0", "u1", "u2"] {
                    assert!(listed.contains(&user.to_owned()), "seed {seed}: n{node} hides {user}");
                }
            }
        }
        check_i4_agreement(&mut world);
        // Current from here on, as fast as two ways are.
        for round in 0..50 {
            world.join(round % 3, ROOM, &format!("round{round}"));
            if round % 2 == 0 {
                let gone = world.clients(round % 3)[1];
                world.leave(round % 3, gone);
            }
            world.run_for(millis(20));
            check_i4_agreement(&mut world);
        }
        world.run_for(millis(20));
        check_i6_observers(&mut world);
        let before = relayed(&world);
        assert!(before > 0, "seed {seed}");
        world.heal();
        world.run_for(seconds(6));
        let after = relayed(&world);
        for round in 0..20 {
            world.join(round % 3, ROOM, &format!("direct{round}"));
            world.broadcast(round % 3, ROOM);
            world.run_for(millis(20));
        }
        assert_eq!(relayed(&world), after, "seed {seed}: it is linked again");
        let gaps: u64 = (0..3).map(|node| world.stats(node).nacks_sent).sum();
        assert_eq!(gaps, 0, "seed {seed}");
        world.settle_and_check(seconds(5));
    }
}

/// The relay crashes: another one takes over, and nothing is missed.
#[test]
fn a_relay_that_crashes_is_replaced() {
    for seed in 20..26 {
        let mut world = cluster_with_users(seed, 5);
        cut_both(&mut world, 0, 4);
        world.run_for(GONE_ROUND);
        let relay = (1..4).max_by_key(|node| {
            world.join(0, ROOM, &format!("probe{node}"));
            world.run_for(millis(50));
            world.stats(*node).ranges_relayed
        });
        world.crash(relay.expect("there are some"));
        for round in 0..80 {
            world.join(if round % 2 == 0 { 0 } else { 4 }, ROOM, &format!("meanwhile{round}"));
            world.run_for(millis(100));
        }
        check_i4_agreement(&mut world);
        check_quiet(&world);
        world.settle_and_check(seconds(15));
    }
}

/// Cuts that come and go, so that feeds change between relays and their owners all the time.
#[test]
fn feeds_that_change_their_way_again_and_again_lose_nothing() {
    for seed in 30..36 {
        let weather = Weather { delay: (100, 20_000), lost: 20, doubled: 50 };
        let presence = presence::Config {
            tombstones_min: 0,
            tombstones_max: usize::from(seed % 2 == 0) * 3,
            ..presence::Config::default()
        };
        let mut world =
            with_users(World::with_settings(seed, 5, weather, without_digests(), presence));
        for round in 0..40 {
            let (a, b) = (world.draw(5), world.draw(5));
            let (a, b) = (usize::try_from(a).unwrap_or(0), usize::try_from(b).unwrap_or(0));
            if a != b {
                cut_both(&mut world, a, b);
            }
            for step in 0..10 {
                world.join((a + step) % 5, ROOM, &format!("r{round}s{step}"));
                if step % 2 == 0 {
                    let gone = world.clients((a + step) % 5)[0];
                    world.leave((a + step) % 5, gone);
                }
                world.broadcast(b, ROOM);
                let pause = world.draw(200);
                world.run_for(millis(pause));
            }
            if round % 3 == 2 {
                world.heal();
                world.run_for(millis(800));
            }
        }
        world.settle_and_check(seconds(20));
    }
}

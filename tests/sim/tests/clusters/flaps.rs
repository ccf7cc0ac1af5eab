//! Links and nodes that come and go for minutes.

use sim::{World, check_i4_agreement, check_quiet};

use super::*;

fn joins_of(world: &World, node: usize, key: &str) -> usize {
    world.told_joins(node, ROOM).iter().filter(|told| *told == key).count()
}

/// The link is gone and back every half second: membership never takes notice, and nobody is hidden.
#[test]
fn flap_storm_of_a_link() {
    for seed in 0..3 {
        let mut world = cluster_with_users(seed, 4);
        let before = joins_of(&world, 1, "u0");
        for round in 0..120 {
            world.partition(&[&[0], &[1, 2, 3]]);
            world.run_for(millis(500));
            world.heal();
            world.join(round % 4, ROOM, &format!("flap{round}"));
            world.run_for(millis(500));
            for node in 0..4 {
                let listed = world.keys(node, ROOM);
                for user in ["u0", "u1", "u2", "u3"] {
                    assert!(listed.contains(&user.to_owned()), "seed {seed}: n{node} hides {user}");
                }
            }
        }
        assert_eq!(joins_of(&world, 1, "u0"), before, "seed {seed}");
        world.settle_and_check(seconds(10));
    }
}

/// Down and up for membership too. From the third return in a minute on, each is shown later: those that
/// do not last that long are not shown.
#[test]
fn flap_storm_of_a_node() {
    for seed in 0..3 {
        let mut world = cluster_with_users(seed, 4);
        let before = joins_of(&world, 1, "u0");
        for _ in 0..18 {
            world.partition(&[&[0], &[1, 2, 3]]);
            world.run_for(millis(5_500));
            assert!(!world.keys(1, ROOM).contains(&"u0".to_owned()), "seed {seed}: hidden at once");
            world.heal();
            world.run_for(millis(1_500));
        }
        let told = joins_of(&world, 1, "u0") - before;
        assert!((2..=7).contains(&told), "seed {seed}: told to have come {told} times");
        check_quiet(&world);
        // It stays: then it is shown, 5 s later at most.
        world.run_for(seconds(6));
        check_i4_agreement(&mut world);
        world.settle_and_check(seconds(10));
    }
}

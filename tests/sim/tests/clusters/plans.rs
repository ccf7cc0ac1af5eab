//! Plans that a seed draws: days of faults in a minute.

use sim::run_plan;

#[test]
fn the_same_seed_gives_the_same_trace() {
    let once = run_plan(3, 4, 8);
    assert_eq!(once, run_plan(3, 4, 8));
    assert_ne!(once.trace, run_plan(7, 4, 8).trace);
}

#[test]
fn fixed_seeds_end_in_one_roster() {
    for seed in 0..84 {
        run_plan(seed, 4, 10);
    }
}

/// Other seeds each time: a failure names its seed, and `cargo run -p sim -- --seed N` replays it.
#[test]
fn fresh_seeds_end_in_one_roster() {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let base = clock.map_or(0, |since| u64::from(since.subsec_nanos()) << 8);
    let seeds = std::env::var("SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    for seed in base..base + seeds {
        println!("replay: cargo run --release -p sim -- --seed {seed} --nodes 4 --seconds 10");
        run_plan(seed, 4, 10);
    }
}

//! Replays a seed, or tries fresh ones: `cargo run --release -p sim -- --seed 7`.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;

/// Runs whole clusters in virtual time and checks what must hold.
#[derive(Debug, Parser)]
struct Args {
    /// First seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, one after another.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 4)]
    nodes: usize,
    /// Virtual seconds of faults, at least.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// No faults, only clients that come and go: what a virtual second costs.
    #[arg(long)]
    steady: bool,
}

#[expect(clippy::print_stdout, reason = "a command line tool")]
fn main() -> ExitCode {
    let args = Args::parse();
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        println!(
            "replay: cargo run --release -p sim -- --seed {seed} --nodes {} --seconds {}",
            args.nodes, args.seconds
        );
        let started = Instant::now();
        let outcome = if args.steady {
            sim::run_steady(seed, args.nodes, Duration::from_secs(args.seconds))
        } else {
            sim::run_plan(seed, args.nodes, args.seconds)
        };
        println!(
            "  right: {} broadcasts heard, trace {:016x}, {:.2} s",
            outcome.delivered,
            outcome.trace,
            started.elapsed().as_secs_f64()
        );
    }
    ExitCode::SUCCESS
}

//! Replays a seed, tries fresh ones, or measures membership: `cargo run --release -p sim -- --seed 7`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::{
    panic::catch_unwind,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use cluster::Profile;

/// Runs whole clusters in virtual time and checks what must hold. A seed that is wrong is told with what
/// did not hold, and the line that replays it; the exit code is 1 then.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// First seed; it draws the faults, how often they come, and how the nodes are set.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, one after another.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Instead of a number of seeds: as many as fit into so many seconds by the clock.
    #[arg(long = "for", value_name = "SECONDS", conflicts_with = "seeds")]
    for_seconds: Option<u64>,
    /// Nodes of the cluster; 300 take a second for each virtual one, 50 take a fiftieth.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1024))]
    nodes: u16,
    /// Virtual seconds of faults, at least.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The same in minutes.
    #[arg(long, conflicts_with = "seconds")]
    minutes: Option<u64>,
    /// No faults, only clients that come and go: what a virtual second costs.
    #[arg(long)]
    steady: bool,
    /// Prints the table of docs/OPERATING.md, section 8, up to --nodes; with 300 it takes
    /// some 20 minutes
    #[arg(long)]
    membership: bool,
    /// Of that table only one profile.
    #[arg(long, value_parser = ["lan", "fast", "wan"], requires = "membership")]
    profile: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.membership {
        print_membership(usize::from(args.nodes), args.profile.as_deref());
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let mut right = 0;
    for seed in args.seed.. {
        let over = match args.for_seconds {
            Some(seconds) => started.elapsed() >= Duration::from_secs(seconds),
            None => right == args.seeds,
        };
        if over {
            break;
        }
        if !run(seed, &args) {
            eprintln!("seed {seed} is wrong, after {right} that were right");
            return ExitCode::FAILURE;
        }
        right += 1;
    }
    println!(
        "{right} seeds from {}: all right, {:.1} s",
        args.seed,
        started.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}

/// Runs one seed and prints its line.
fn run(seed: u64, args: &Args) -> bool {
    let seconds = args.minutes.map_or(args.seconds, |minutes| 60 * minutes);
    let started = Instant::now();
    let (nodes, steady) = (usize::from(args.nodes), args.steady);
    let outcome = catch_unwind(move || {
        if steady {
            sim::run_steady(seed, nodes, Duration::from_secs(seconds))
        } else {
            sim::run_plan(seed, nodes, seconds)
        }
    });
    let took = started.elapsed().as_secs_f64();
    match outcome {
        Ok(done) => {
            let (heard, trace) = (done.delivered, done.trace);
            println!(
                "seed {seed}: right, {heard} broadcasts heard, trace {trace:016x}, {took:.2} s"
            );
            true
        }
        Err(_) => false,
    }
}

fn print_membership(nodes_max: usize, only: Option<&str>) {
    println!("{}", sim::MEMBERSHIP_HEADING);
    let profiles = [("lan", Profile::Lan), ("fast", Profile::Fast), ("wan", Profile::Wan)];
    for (_, profile) in profiles.into_iter().filter(|(name, _)| only.is_none_or(|o| o == *name)) {
        for (nodes, tries) in [(3, 100), (10, 100), (50, 60), (100, 40), (300, 10)] {
            if nodes <= nodes_max {
                println!("{}", sim::measure_membership(profile, nodes, tries));
            }
        }
    }
}

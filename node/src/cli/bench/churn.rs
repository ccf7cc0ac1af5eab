//! Sockets that come and go.

mod cycles;
mod report;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::{
    super::Failure,
    NodeArgs, block_on,
    client::Endpoint,
    compare::{self, CompareArgs, Compared},
    engine::Engine,
    floor::Manners,
    load::seconds,
    process,
    progress::Progress,
    report::Meter,
    swarm::run_name,
    target::Target,
};
use cycles::Cycles;
pub(super) use report::ChurnReport;

const EXAMPLES: &str = "\
Examples:
  wingbeat bench churn                             50 sockets at a time
  wingbeat bench churn --floor --runs 5            … and what a bare loop makes of it
  wingbeat bench churn --sockets 1 --seconds 30";

const DETAILS: &str = "\
Each socket connects, upgrades, joins a topic of its own, leaves it, does the close handshake and
waits for the node to end the connection; then its place is taken by the next. Sockets go to all
--url in turns.";

const FIELDS: &str = "\
JSON fields:
  scenario, urls, sockets
  seconds                       from the first cycle to the last
  cycles, cycles_per_second
  connect_us, upgrade_us, join_us, leave_us, close_us
                                each phase: count, mean, p50, p90, p99, p99_9, max; null never
  cycle_us                      all of them, likewise
  failed                        cycles that broke off, in all runs
  server                        processes, cpu_seconds, cpu_cores, resident_bytes,
                                cpu_seconds_per_million (cycles); or null
  bench                         cpu_seconds, cpu_cores of this process; or null";

/// Sockets that connect, join, leave and close: cycles a second, latency of each phase
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = help())]
pub(super) struct ChurnArgs {
    /// How many at a time
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    sockets: u64,
    /// How many seconds to measure
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// How long to come and go before that
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// When nothing has moved for so long, what is open has failed
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    patience: Duration,
    #[command(flatten)]
    compare: CompareArgs,
    #[command(flatten)]
    pub(super) nodes: NodeArgs,
}

fn help() -> String {
    let floor = compare::DETAILS;
    format!(
        "{EXAMPLES}\n\n{DETAILS}\n\n{floor}\n\n{FIELDS}\n{}\n\nExit code 1 if a cycle failed.",
        compare::FIELDS
    )
}

impl ChurnArgs {
    pub(super) fn run(&self, progress: Progress) -> Result<Compared<ChurnReport>, Failure> {
        let urls = self.nodes.all(&[]);
        let target = Target::nodes(&self.nodes, &[], &urls)?;
        // Nobody pushes.
        let manners = Manners { acks: true, copies: true };
        self.compare.run(&self.nodes, &target, manners, |target| self.measure(target, progress))
    }

    fn measure(&self, target: &Target, progress: Progress) -> Result<ChurnReport, Failure> {
        process::require_sockets(self.sockets)?;
        block_on(target.servers.usage())?;
        let sockets = usize::try_from(self.sockets).unwrap_or(usize::MAX);
        let run = run_name();
        let topic = |place| format!("bench:churn:{run}:{place}");
        let topics: Vec<String> = (0..sockets).map(topic).collect();
        let nodes = target.nodes.iter().take(target.subscribers);
        let mut cycles = Cycles::new(&topics, nodes.map(Endpoint::dial).collect());
        let mut engine = Engine::new(sockets)?;
        let bar = |what: &str, time: Duration| {
            progress.bar(format!("{}{what}", target.label), time.as_secs().max(1))
        };
        let shown = &mut bar("warming up", self.warmup);
        cycles.turn_for(self.warmup, self.patience, &mut engine, shown)?;
        cycles.intact(target)?;
        cycles.measure();
        let meter = block_on(Meter::start(&target.servers))?;
        let started = Instant::now();
        let shown = &mut bar("churning", self.seconds);
        cycles.turn_for(self.seconds, self.patience, &mut engine, shown)?;
        let elapsed = started.elapsed();
        let usage = block_on(meter.stop(&target.servers, cycles.done()))?;
        Ok(ChurnReport::new(self, target, elapsed, &cycles, usage))
    }
}

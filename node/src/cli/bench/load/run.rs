//! From the first socket to the report.

use std::time::{Duration, Instant};

use super::{
    super::{
        super::Failure,
        block_on,
        engine::Engine,
        opening::{Cast, Client},
        process,
        progress::Progress,
        report::Meter,
        swarm::run_name,
        target::Target,
    },
    Crowd, LoadArgs, LoadReport, Pace, Shape,
    report::Slow,
    search::search,
};

/// After the joins, presence is quiet for so long before anything is measured…
const QUIET: Duration = Duration::from_millis(500);
/// …or it is measured nevertheless.
const QUIET_LIMIT: Duration = Duration::from_secs(20);

/// How long slow subscribers, which read again at the end, have to hear that they were cut off.
const SLOW_LIMIT: Duration = Duration::from_secs(5);
/// Or until nothing has come for so long.
const SLOW_QUIET: Duration = Duration::from_secs(1);

/// One scenario, as it is to be run.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Plan<'a> {
    pub(in super::super) scenario: &'static str,
    pub(in super::super) shape: Shape,
    /// The window if nothing is said of it.
    pub(in super::super) window: u32,
    /// Whether that is each topic's.
    pub(in super::super) window_each: bool,
    pub(in super::super) args: &'a LoadArgs,
    /// Subscribers that stop reading.
    pub(in super::super) slow: usize,
}

impl Plan<'_> {
    pub(super) fn pace(&self) -> Pace {
        self.args.pace(self.window, self.window_each)
    }

    fn first_slow(&self) -> usize {
        self.shape.subscribers().saturating_sub(self.slow)
    }

    fn clients(&self, target: &Target) -> Vec<Client> {
        let subscribers = self.shape.subscribers();
        let nodes = target.subscribers;
        let client = |id: usize| Client {
            node: if id < subscribers {
                id % nodes
            } else {
                nodes + (id - subscribers) % target.publishers()
            },
            topics: self.shape.topics_of(id).collect(),
            slow: (self.first_slow()..subscribers).contains(&id),
        };
        (0..self.shape.sockets()).map(client).collect()
    }
}

/// Opens the sockets of a plan, publishes, and reports what came of it.
pub(super) fn run(
    plan: &Plan<'_>,
    target: &Target,
    progress: Progress,
) -> Result<LoadReport, Failure> {
    let sockets = plan.shape.sockets();
    process::require_sockets(sockets as u64)?;
    block_on(target.servers.usage())?;
    let run = run_name();
    let prefix = format!("bench:{}:{run}:", plan.scenario);
    let topics: Vec<_> = (0..plan.shape.topics).map(|topic| format!("{prefix}{topic}")).collect();
    let cast = Cast { nodes: &target.nodes, topics: &topics, clients: plan.clients(target) };
    let mut engine = Engine::new(sockets)?;
    let mut bar = progress.bar(format!("{}subscribing", target.label), sockets as u64);
    cast.open(&mut engine, target.concurrency, &mut bar)?;
    drop(bar);
    let mut crowd = Crowd::new(plan.shape, &prefix, target.publisher_url());
    crowd.settle(&mut engine, QUIET, QUIET_LIMIT)?;
    measure(plan, target, progress, &mut engine, &mut crowd)
}

fn measure(
    plan: &Plan<'_>,
    target: &Target,
    progress: Progress,
    engine: &mut Engine,
    crowd: &mut Crowd,
) -> Result<LoadReport, Failure> {
    let args = plan.args;
    let bar = |what: &str, time: Duration| {
        progress.bar(format!("{}{what}", target.label), time.as_secs().max(1))
    };
    // A search warms up with the window, and takes its first rate from that.
    let warm = plan.pace();
    let shown = &mut bar("warming up", args.warmup);
    crowd.publish(engine, warm, args.warmup, args.patience, shown)?;
    let (pace, found) = match args.search {
        None => (warm, None),
        Some(bound) => {
            let found = search(crowd, engine, bound, args, &mut bar("searching", args.step))?;
            (Pace::Rate(found.rate_per_second), Some(found))
        }
    };
    if plan.slow > 0 {
        (plan.first_slow()..plan.shape.subscribers()).for_each(|id| engine.sockets.pause(id));
        crowd.excuse(plan.first_slow());
    }
    crowd.books.measure();
    let meter = block_on(Meter::start(&target.servers))?;
    let started = Instant::now();
    let shown = &mut bar("publishing", args.seconds);
    crowd.publish(engine, pace, args.seconds, args.patience, shown)?;
    let delivered = crowd.books.delivered();
    let usage = block_on(meter.stop(&target.servers, delivered))?;
    let slow = (plan.slow > 0).then(|| resume(plan, engine, crowd)).transpose()?;
    Ok(LoadReport::new(plan, pace, target, started, crowd, usage).with(slow, found))
}

/// Reads for the slow subscribers again, and counts how they were cut off.
fn resume(plan: &Plan<'_>, engine: &mut Engine, crowd: &mut Crowd) -> Result<Slow, Failure> {
    for id in plan.first_slow()..plan.shape.subscribers() {
        engine.sockets.resume(id);
    }
    crowd.settle_excused(engine, SLOW_QUIET, SLOW_LIMIT)?;
    Ok(Slow::new(plan.slow as u64, crowd.excused_ends().clone()))
}

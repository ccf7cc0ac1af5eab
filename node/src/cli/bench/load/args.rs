//! The flags of all scenarios that publish.

use std::time::Duration;

use super::{
    super::{
        super::Failure,
        NodeArgs,
        compare::{CompareArgs, Compared},
        floor::Manners,
        message::PAYLOAD_LEN_MIN,
        progress::Progress,
        target::Target,
    },
    LoadReport, Pace, Plan,
    run::run,
};

/// The longest payload: with its envelope it must fit into a node's default `http.max_frame_size`.
const PAYLOAD_LEN_MAX: usize = 1_000_000;

/// What all of them have.
#[derive(Clone, Debug, clap::Args)]
pub(in super::super) struct PublishArgs {
    #[command(flatten)]
    pub(in super::super) load: LoadArgs,
    #[command(flatten)]
    pub(in super::super) compare: CompareArgs,
    #[command(flatten)]
    pub(in super::super) nodes: NodeArgs,
}

impl PublishArgs {
    /// Bytes of each message's payload.
    pub(in super::super) const fn payload(&self) -> usize {
        self.load.payload
    }

    /// All nodes that were named, for publishers and subscribers.
    pub(in super::super) fn everywhere(&self) -> Result<Target, Failure> {
        let urls = self.nodes.all(&[]);
        Target::nodes(&self.nodes, &urls, &urls)
    }

    /// Runs a plan so often, and against what, as they say.
    pub(in super::super) fn run(
        &self,
        plan: &Plan<'_>,
        target: &Target,
        manners: Manners,
        progress: Progress,
    ) -> Result<Compared<LoadReport>, Failure> {
        self.compare.run(&self.nodes, target, manners, |target| run(plan, target, progress))
    }
}

/// What is published, how fast and for how long.
#[derive(Clone, Debug, clap::Args)]
pub(in super::super) struct LoadArgs {
    /// Bytes of each message's payload
    #[arg(long, default_value_t = 100, value_parser = payload_len)]
    payload: usize,
    /// How many seconds to measure
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub(super) seconds: Duration,
    /// How long to publish before that
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub(super) warmup: Duration,
    /// Messages on the way: the next is sent when one has reached all [default: 1, rooms 32; echo:
    /// of each socket]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight: Option<u32>,
    /// Messages a second, whatever has arrived
    #[arg(long, conflicts_with = "in_flight", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// Find the highest rate whose p99 stays within this, such as 20ms, and measure that
    #[arg(long, value_name = "LATENCY", conflicts_with_all = ["in_flight", "rate"], value_parser = bound)]
    pub(super) search: Option<Duration>,
    /// How long each rate of a search is tried
    #[arg(long, default_value = "2s", requires = "search", value_parser = humantime::parse_duration)]
    pub(super) step: Duration,
    /// When nothing has been delivered for so long, what is in flight is not waited for
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(super) patience: Duration,
}

impl LoadArgs {
    /// How messages are paced, where a window has this size if nothing is said.
    pub(super) fn pace(&self, window: u32, each: bool) -> Pace {
        let window = self.in_flight.unwrap_or(window);
        match (self.rate, each) {
            (Some(rate), _) => Pace::Rate(rate),
            (None, false) => Pace::InFlight(window),
            (None, true) => Pace::InFlightEach(window),
        }
    }
}

fn bound(text: &str) -> Result<Duration, String> {
    let bound = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_micros(10)..=Duration::from_secs(60)).contains(&bound) {
        Ok(bound)
    } else {
        Err("want 10us to 60s".to_owned())
    }
}

/// Reads a number of seconds.
pub(in super::super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "want 0.01 to 86400".to_owned())
}

fn payload_len(text: &str) -> Result<usize, String> {
    let len: usize = text.parse().map_err(|_| "want a number of bytes".to_owned())?;
    if (PAYLOAD_LEN_MIN..=PAYLOAD_LEN_MAX).contains(&len) {
        Ok(len)
    } else {
        Err(format!("want {PAYLOAD_LEN_MIN} to {PAYLOAD_LEN_MAX} bytes"))
    }
}

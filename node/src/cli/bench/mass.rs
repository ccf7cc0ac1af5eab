//! Many sockets do one thing at once, and what that does to another topic.

mod event;
mod report;
mod stop;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use super::{
    super::Failure,
    NodeArgs, block_on,
    engine::Engine,
    load::{Counts, Crowd, Shape},
    message::PAYLOAD_LEN_MIN,
    opening::{Cast, Client},
    process,
    progress::Progress,
    report::Meter,
    server::Servers,
    swarm::run_name,
    target::Target,
};
use event::Stage;
pub(super) use report::MassReport;
use stop::Doomed;

/// After the joins, presence is quiet for so long before the event…
const QUIET: Duration = Duration::from_secs(1);
/// …or it happens nevertheless.
const QUIET_LIMIT: Duration = Duration::from_secs(30);

/// Bytes of the background's messages.
const PAYLOAD: usize = 100;
const _: () = assert!(PAYLOAD >= PAYLOAD_LEN_MIN);

const EXAMPLES: &str = "\
Examples:
  wingbeat bench mass --event kill                 10,000 sockets are reset at once
  wingbeat bench mass --event join --within 2s     10,000 sockets join one topic within 2 s
  wingbeat bench mass --event kill --url http://a:4000 --url http://b:4000
  wingbeat bench mass --event stop --url http://127.0.0.1:4000 --url http://127.0.0.1:4001
                                                   the second is stopped (SIGINT)";

const DETAILS: &str = "\
A small topic of its own goes on meanwhile, and its latency is told before, during and after the
event. \"During\" ends when the last socket is gone or joined, 2 s after the event began at the
earliest. For kill and stop, each of the sockets has joined a topic of its own. Sockets and the
background's subscribers go to all --url in turns, its publisher to the first. For stop, all of the
sockets go to the last --url, whose process is stopped and must run on this machine, and the
background to the others; only those are measured. Clients and nodes share a machine more often than
not: server_... is what the nodes themselves measured, from a publisher's frame read
to the last of its writes, wingbeat_fanout_seconds in /metrics, with all topics of those nodes.
With presence on, a join of n sockets to one topic is n rosters of up to n.

JSON fields:
  scenario, event, urls, sockets
  background_subscribers, background_per_second
  stopped_url                   or null
  event_seconds                 until the last was killed or closed, or had the reply to its join
  before_us, during_us, after_us
                                background, publish to deliver: count, mean, p50, p90, p99, p99_9,
                                max
  join_us                       join to reply, likewise; all zeros but for join
  server_before_us, server_during_us, server_after_us
                                count, p50, p99, to the width of the histogram's buckets; null
                                where /metrics does not have it
  refused                       joins
  lost, doubled, reordered      deliveries of the background
  close_codes                   how many the stopped node closed with which code, or none
  disconnected                  sockets that ended and were not to
  server                        processes, cpu_seconds, cpu_cores, resident_bytes,
                                cpu_seconds_per_million (sockets); or null
  bench                         cpu_seconds, cpu_cores of this process; or null

Exit code 1 if a delivery was lost, doubled or out of order, a join refused or a socket ended.";

/// Many sockets are killed, join or lose their node at once: what another topic notices of it
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{DETAILS}"))]
pub(super) struct MassArgs {
    /// What happens
    #[arg(long, value_enum)]
    event: Event,
    /// To how many
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    sockets: u64,
    /// In how long they join
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    within: Duration,
    /// Subscribers of the topic that goes on
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    background_subscribers: u64,
    /// Its messages a second
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    background_rate: u32,
    /// How long it goes on before the event, and after
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    around: Duration,
    /// When nothing has been delivered for so long, what is in flight is not waited for
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    patience: Duration,
    #[command(flatten)]
    pub(super) nodes: NodeArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Event {
    /// Their connections are reset
    Kill,
    /// They join one topic
    Join,
    /// Their node, the last --url, is stopped
    Stop,
}

impl MassArgs {
    pub(super) fn run(&self, progress: Progress) -> Result<MassReport, Failure> {
        let urls = self.nodes.all(&[]);
        let doomed = self.doomed(&urls)?;
        let measured = &urls[..urls.len() - usize::from(doomed.is_some())];
        let servers = || Servers::new(measured, self.nodes.token());
        let publisher = self.nodes.first().to_owned();
        let target =
            Target { servers: servers()?, ..Target::nodes(&self.nodes, &[publisher], &urls)? };
        let shape = self.background();
        let sockets = usize::try_from(self.sockets).unwrap_or(usize::MAX);
        let all = shape.sockets() + sockets;
        process::require_sockets(all as u64)?;
        block_on(target.servers.usage())?;
        let prefix = format!("bench:mass:{}:", run_name());
        let topics: Vec<_> = (0..self.topics()).map(|topic| format!("{prefix}{topic}")).collect();
        let clients = (0..all).map(|id| self.client(id, &shape, &target)).collect();
        let cast = Cast { nodes: &target.nodes, topics: &topics, clients };
        let mut engine = Engine::new(all)?;
        cast.open(&mut engine, self.nodes.concurrency, &mut progress.bar("opening", all as u64))?;
        let mut crowd = Crowd::new(shape, &prefix, target.publisher_url());
        crowd.settle(&mut engine, QUIET, QUIET_LIMIT)?;

        // The nodes are asked from other threads, so that nothing waits for them.
        let mut stage = Stage::new(self, crowd, topics.get(1), doomed, Arc::new(servers()?));
        let meter = block_on(Meter::start(&target.servers))?;
        let total = self.around * 2 + Duration::from_secs(2);
        let bar = &mut progress.bar(format!("{:?}", self.event).to_lowercase(), total.as_secs());
        let outcome = stage.play(&mut engine, bar)?;
        let usage = block_on(meter.stop(&target.servers, self.sockets))?;
        Ok(MassReport::new(self, &target, &stage, outcome, usage))
    }

    /// The node that is to be stopped, if one is.
    fn doomed(&self, urls: &[String]) -> Result<Option<Doomed>, Failure> {
        let stops = self.event == Event::Stop;
        stops.then(|| Doomed::find(urls, self.nodes.token())).transpose()
    }

    fn background(&self) -> Shape {
        Shape {
            topics: 1,
            each: usize::try_from(self.background_subscribers).unwrap_or(usize::MAX),
            topics_each_socket: 1,
            member_publishes: false,
            counts: Counts::Broadcasts,
            payload: PAYLOAD,
        }
    }

    /// The background's topic, and then one for all or one for each.
    fn topics(&self) -> u64 {
        match self.event {
            Event::Kill | Event::Stop => 1 + self.sockets,
            Event::Join => 2,
        }
    }

    fn client(&self, id: usize, shape: &Shape, target: &Target) -> Client {
        let background = shape.sockets();
        let topics = match self.event {
            _ if id < background => vec![0],
            Event::Kill | Event::Stop => vec![1 + id - background],
            Event::Join => Vec::new(),
        };
        let nodes = target.subscribers;
        let node = match self.event {
            // The publisher's is behind those of all others.
            _ if id == shape.subscribers() => nodes,
            Event::Kill | Event::Join => id % nodes,
            Event::Stop if id < background => id % (nodes - 1).max(1),
            Event::Stop => nodes - 1,
        };
        Client { node, topics, slow: false }
    }
}

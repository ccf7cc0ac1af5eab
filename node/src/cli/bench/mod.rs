//! `wingbeat bench`: a load generator and a measure for a running node or cluster.
//!
//! A scenario opens sockets of real Phoenix clients, does its work, and reports what came of it. It
//! shares the machine with what it measures more often than not, so it is cheap: one thread, one
//! read a wake-up, no JSON values. Those that publish, or open and close all the time, run on an
//! [`engine`] without tasks, and may be compared with a [`floor`]; `presence` and `idle` have a
//! small task a socket.

mod books;
mod churn;
mod client;
mod closes;
mod compare;
mod cross;
mod echo;
mod engine;
mod fanout;
mod floor;
mod idle;
mod load;
mod mass;
mod measure;
mod message;
mod opening;
mod presence;
mod process;
mod progress;
mod report;
mod rooms;
mod server;
mod swarm;
mod target;
mod websocket;

#[cfg(test)]
mod fake_node;
#[cfg(test)]
mod tests;

use tokio::runtime::{Builder, LocalOptions};

use super::{Failure, Terminal};
use progress::Progress;
use report::Report;

/// Measure a running node or cluster: fan-out, rooms, replies, presence, idle and dying sockets
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wingbeat bench fanout                         1,000 subscribers of one topic on one node
  wingbeat bench fanout --url http://127.0.0.1:4000 --url http://127.0.0.1:4001
  wingbeat bench rooms --floor --runs 5         1,000 topics of 5, against a bare loop of send(2)
  wingbeat bench cross --url http://127.0.0.1:4000 --url http://127.0.0.1:4001
  wingbeat bench presence --url http://127.0.0.1:4000 --url http://127.0.0.1:4001
  wingbeat bench idle --sockets 10000 --json

Exit code 1 if something was lost, doubled or out of order, or a socket ended that should not.
Run it from a release build, as the node: a debug build measures itself.")]
pub struct BenchArgs {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Scenario {
    Fanout(fanout::FanoutArgs),
    Rooms(rooms::RoomsArgs),
    Cross(cross::CrossArgs),
    Echo(echo::EchoArgs),
    Churn(churn::ChurnArgs),
    Mass(mass::MassArgs),
    Presence(presence::PresenceArgs),
    Idle(idle::IdleArgs),
    #[command(hide = true)]
    FloorServer(floor::FloorServerArgs),
}

/// The nodes under test, and what all scenarios have in common.
#[derive(Clone, clap::Args)]
struct NodeArgs {
    /// A node's HTTP address; repeat it for a cluster. The first takes the publisher (fanout, cross)
    /// or the clients (presence), the others take the subscribers or observers; sockets of all other
    /// scenarios go to all
    #[arg(
        long,
        env = "WINGBEAT_URL",
        default_value = "http://127.0.0.1:4000",
        value_delimiter = ','
    )]
    url: Vec<String>,
    /// The nodes' API token; others of this machine see flags, so prefer the variable
    #[arg(long, env = "WINGBEAT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Sockets that are opened at a time
    #[arg(long, default_value_t = 64, value_parser = concurrency)]
    concurrency: usize,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

fn concurrency(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=10_000) => Ok(number),
        _ => Err("want 1 to 10000".to_owned()),
    }
}

impl std::fmt::Debug for NodeArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeArgs")
            .field("url", &self.url)
            .field("concurrency", &self.concurrency)
            .field("json", &self.json)
            .finish_non_exhaustive()
    }
}

impl NodeArgs {
    fn first(&self) -> &str {
        self.url.first().map_or("", String::as_str)
    }

    /// The nodes of a scenario's second role: those that a flag names, else all but the first, else
    /// that.
    fn others(&self, named: &[String]) -> Vec<String> {
        match (named, self.url.as_slice()) {
            ([_, ..], _) => named.to_vec(),
            ([], [_, others @ ..]) if !others.is_empty() => others.to_vec(),
            ([], urls) => urls.to_vec(),
        }
    }

    /// Every node that was named, once.
    fn all(&self, named: &[String]) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for url in self.url.iter().chain(named) {
            if !all.contains(url) {
                all.push(url.clone());
            }
        }
        all
    }

    fn token(&self) -> Option<&str> {
        self.token.as_deref().filter(|token| !token.is_empty())
    }
}

impl BenchArgs {
    pub(super) fn run(&self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        // Never drawn where standard error is no terminal; never in tests, whose own may be one.
        let progress = Progress::new(!cfg!(test));
        match &self.scenario {
            Scenario::Fanout(args) => args.run(progress)?.tell(args.common.nodes.json, terminal),
            Scenario::Rooms(args) => args.run(progress)?.tell(args.common.nodes.json, terminal),
            Scenario::Cross(args) => args.run(progress)?.tell(args.common.nodes.json, terminal),
            Scenario::Echo(args) => args.run(progress)?.tell(args.common.nodes.json, terminal),
            Scenario::FloorServer(args) => args.run(terminal),
            Scenario::Churn(args) => args.run(progress)?.tell(args.nodes.json, terminal),
            Scenario::Mass(args) => args.run(progress)?.tell(args.nodes.json, terminal),
            Scenario::Presence(args) => {
                block_on(args.run(progress))?.tell(args.nodes.json, terminal)
            }
            Scenario::Idle(args) => block_on(args.run(progress))?.tell(args.nodes.json, terminal),
        }
    }
}

/// Runs a scenario and all its sockets on this thread.
fn block_on<T>(scenario: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let runtime = runtime.map_err(|error| Failure::failed(format_args!("no runtime: {error}")))?;
    runtime.block_on(scenario)
}

//! One topic, many subscribers.

#[cfg(test)]
mod tests;

use super::{
    super::Failure,
    compare::Compared,
    floor::Manners,
    load::{self, Counts, LoadReport, Plan, PublishArgs, Shape},
    progress::Progress,
    target::Target,
};

const EXAMPLES: &str = "\
Examples:
  wingbeat bench fanout                                  1,000 subscribers on one node
  wingbeat bench fanout --in-flight 4 --floor --runs 5   … and what a bare loop makes of it
  wingbeat bench fanout --search 20ms                    the highest rate with p99 within 20 ms
  wingbeat bench fanout --slow 100 --rate 100            100 of them stop reading
  wingbeat bench fanout --rate 10 --url http://a:4000 --url http://b:4000 --url http://c:4000
                                                         publish on a, deliver on b and c";

const DETAILS: &str = "\
The publisher pushes through its own WebSocket. With --slow, so many subscribers stop reading once
the measuring begins; their receive buffers are small. They are neither waited for nor counted. In
the end they read again, and the report says how many had been cut off and with which close code,
and how many are still connected.
A node's kernel takes some MiB for each before the node itself notices (net.ipv4.tcp_wmem), so
publish more than that: --slow 100 --payload 10000 --rate 60 --seconds 20.";

/// One topic, many subscribers: deliveries a second, latency, CPU per delivery
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = EXAMPLES,
    after_long_help = load::help(EXAMPLES, DETAILS),
)]
pub(super) struct FanoutArgs {
    /// How many subscribe
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    subscribers: u64,
    /// How many of those stop reading
    #[arg(long, default_value_t = 0, value_name = "N", conflicts_with_all = ["floor", "floor_joined"])]
    slow: u64,
    /// Where subscribers connect to, in turns [default: each --url but the first, or the only one]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    subscribers_url: Vec<String>,
    #[command(flatten)]
    pub(super) common: PublishArgs,
}

impl FanoutArgs {
    pub(super) fn run(&self, progress: Progress) -> Result<Compared<LoadReport>, Failure> {
        let subscribers = self.common.nodes.others(&self.subscribers_url);
        one_topic("fanout", self.subscribers, self.slow, &subscribers, &self.common, progress)
    }
}

/// Publishes on the first node and delivers on others.
pub(super) fn one_topic(
    scenario: &'static str,
    subscribers: u64,
    slow: u64,
    subscriber_urls: &[String],
    common: &PublishArgs,
    progress: Progress,
) -> Result<Compared<LoadReport>, Failure> {
    if slow >= subscribers {
        return Err(Failure::usage("--slow: want fewer than --subscribers"));
    }
    let nodes = &common.nodes;
    let target = Target::nodes(nodes, &[nodes.first().to_owned()], subscriber_urls)?;
    let manners = Manners::if_needed(&common.compare, &target, scenario)?;
    let plan = Plan {
        scenario,
        shape: Shape {
            topics: 1,
            each: usize::try_from(subscribers).unwrap_or(usize::MAX),
            topics_each_socket: 1,
            member_publishes: false,
            counts: Counts::Broadcasts,
            payload: common.payload(),
        },
        window: 1,
        window_each: false,
        args: &common.load,
        slow: usize::try_from(slow).unwrap_or(0),
    };
    common.run(&plan, &target, manners, progress)
}

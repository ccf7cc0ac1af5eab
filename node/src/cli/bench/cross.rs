//! One topic whose subscribers are on other nodes than its publisher.

#[cfg(test)]
mod tests;

use super::{
    super::Failure,
    compare::Compared,
    fanout::one_topic,
    load::{self, LoadReport, PublishArgs},
    progress::Progress,
};

const EXAMPLES: &str = "\
Examples:
  wingbeat bench cross --url http://a:4000 --url http://b:4000 --url http://c:4000
                                                   publish on a, deliver on b and c
  wingbeat bench cross --in-flight 4 --floor --runs 5 --url http://a:4000 --url http://b:4000
  wingbeat bench cross --rate 10 --url http://a:4000 --url http://b:4000";

const DETAILS: &str = "\
The publisher is on the first node, the subscribers on all others in turns; CPU time and memory are
those of all. The floor is one process, with publisher and subscribers on it.";

/// Publisher and subscribers on different nodes: as fanout, with the CPU of all nodes
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = load::help(EXAMPLES, DETAILS))]
pub(super) struct CrossArgs {
    /// How many subscribe
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    subscribers: u64,
    #[command(flatten)]
    pub(super) common: PublishArgs,
}

impl CrossArgs {
    pub(super) fn run(&self, progress: Progress) -> Result<Compared<LoadReport>, Failure> {
        let [_, others @ ..] = &*self.common.nodes.all(&[]) else {
            return Err(too_few());
        };
        if others.is_empty() {
            return Err(too_few());
        }
        one_topic("cross", self.subscribers, 0, others, &self.common, progress)
    }
}

fn too_few() -> Failure {
    Failure::usage(
        "cross publishes on one node and delivers on others: name two or more, \
         --url http://127.0.0.1:4000 --url http://127.0.0.1:4001",
    )
}

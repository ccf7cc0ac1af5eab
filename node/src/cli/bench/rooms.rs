//! Many topics with a few subscribers each.

#[cfg(test)]
mod tests;

use super::{
    super::Failure,
    compare::Compared,
    floor::Manners,
    load::{self, Counts, LoadReport, Plan, PublishArgs, Shape},
    progress::Progress,
};

const EXAMPLES: &str = "\
Examples:
  wingbeat bench rooms                             1,000 topics of 5, 32 messages in flight
  wingbeat bench rooms --floor --runs 5            … and what a bare loop makes of it
  wingbeat bench rooms --topics 10000 --members 2 --rate 5000
  wingbeat bench rooms --topics 100000 --topics-each-socket 100
                                                   100,000 topics of 5 over 5,000 sockets
  wingbeat bench rooms --search 5ms                the highest rate with p99 within 5 ms";

const DETAILS: &str = "\
Topics take turns. A topic's publisher is its first member, which costs no further socket: its own
copy counts as a delivery. Where a rule has deliver = \"others\" there is no such copy, and it only
publishes. Members go to all --url in turns. --in-flight counts messages over all topics. With
--topics-each-socket N, N topics have the same sockets, which saves file descriptors; topics that
take turns with each other do not.";

/// Many topics with a few subscribers each: deliveries a second, latency, CPU per delivery
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = load::help(EXAMPLES, DETAILS))]
pub(super) struct RoomsArgs {
    /// How many topics
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    topics: u64,
    /// How many join each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    members: u64,
    /// How many of the topics each socket joins; a node allows limits.channels_per_socket, 100
    #[arg(long, default_value_t = 1, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=10_000))]
    topics_each_socket: u16,
    #[command(flatten)]
    pub(super) common: PublishArgs,
}

impl RoomsArgs {
    pub(super) fn run(&self, progress: Progress) -> Result<Compared<LoadReport>, Failure> {
        let target = self.common.everywhere()?;
        let manners = Manners::ask(&target, "rooms")?;
        let members = usize::try_from(self.members).unwrap_or(usize::MAX);
        let plan = Plan {
            scenario: "rooms",
            shape: Shape {
                topics: usize::try_from(self.topics).unwrap_or(usize::MAX),
                each: if manners.copies { members } else { members - 1 },
                topics_each_socket: usize::from(self.topics_each_socket),
                member_publishes: manners.copies,
                counts: Counts::Broadcasts,
                payload: self.common.payload(),
            },
            window: 32,
            window_each: false,
            args: &self.common.load,
            slow: 0,
        };
        self.common.run(&plan, &target, manners, progress)
    }
}

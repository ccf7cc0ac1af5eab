//! Sockets that push and wait for the reply.

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
  wingbeat bench echo                              100 sockets, one push of each on the way
  wingbeat bench echo --floor --runs 5             … and what a bare loop makes of it
  wingbeat bench echo --rate 1000                  1,000 pushes a second over all sockets";

const DETAILS: &str = "\
Each socket joins a topic of its own, pushes, and pushes again when the reply has come; the
operation is done with the reply, which a relay sends where its rule has ack = true, the default.
With the default rule it sends the broadcast to the one that pushed, too. For a pure echo:

  [[channel]]
  topic = \"bench:*\"
  deliver = \"others\"
  presence = \"off\"

Deliveries are replies here, and \"publish to deliver\" is push to reply. Sockets go to all --url in
turns.";

/// Sockets that push and wait for the reply: pushes a second, latency, CPU per push
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = load::help(EXAMPLES, DETAILS))]
pub(super) struct EchoArgs {
    /// How many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    sockets: u64,
    #[command(flatten)]
    pub(super) common: PublishArgs,
}

impl EchoArgs {
    pub(super) fn run(&self, progress: Progress) -> Result<Compared<LoadReport>, Failure> {
        let target = self.common.everywhere()?;
        let manners = Manners::ask(&target, "echo")?;
        if !manners.acks {
            return Err(Failure::failed(
                "the node answers no pushes: echo wants a rule with ack = true for \"bench:*\"",
            ));
        }
        let plan = Plan {
            scenario: "echo",
            shape: Shape {
                topics: usize::try_from(self.sockets).unwrap_or(usize::MAX),
                each: 1,
                topics_each_socket: 1,
                member_publishes: true,
                counts: Counts::Replies,
                payload: self.common.payload(),
            },
            window: 1,
            window_each: true,
            args: &self.common.load,
            slow: 0,
        };
        self.common.run(&plan, &target, manners, progress)
    }
}

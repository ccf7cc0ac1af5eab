//! `wingbeat topics`.

use serde::Deserialize;

use super::{
    ApiArgs, Failure, Terminal,
    client::Client,
    table::{Column, Table},
    text::printable,
    url::percent,
};

/// List topics, with their subscribers, presences (by key) and entries (one key may have several)
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wingbeat topics
  wingbeat topics room: --limit 20
  wingbeat topics --scope node          those of one node alone
  wingbeat topics --json | jq '.topics[].topic'")]
pub struct TopicsArgs {
    /// What the topics start with
    #[arg(default_value = "")]
    prefix: String,
    /// At most so many topics
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Whose subscribers are counted
    #[arg(long, value_enum, default_value_t = Scope::Cluster)]
    scope: Scope,
    /// Print the node's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

/// Whose subscribers are counted.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Scope {
    /// All nodes'
    Cluster,
    /// The asked node's
    Node,
}

#[derive(Deserialize)]
struct Answer {
    topics: Vec<Counts>,
    /// Nodes that did not answer in time, and are not counted.
    #[serde(default)]
    missing: Vec<String>,
}

#[derive(Deserialize)]
struct Counts {
    topic: String,
    subscribers: u64,
    presences: u64,
    #[serde(default)]
    entries: u64,
}

impl TopicsArgs {
    pub(super) async fn run(
        &self,
        client: &Client,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        let scope = match self.scope {
            Scope::Cluster => "cluster",
            Scope::Node => "node",
        };
        let (prefix, limit) = (percent(&self.prefix), self.limit);
        let path = format!("/api/topics?prefix={prefix}&limit={limit}&scope={scope}");
        let answer = client.get(&path).await?;
        let Answer { topics, missing } = client.decode(&answer)?;
        if self.json {
            terminal.out.write_all(&answer)?;
            writeln!(terminal.out)?;
            return Ok(());
        }
        let mut table = Table::new([
            Column::Left("TOPIC"),
            Column::Right("SUBSCRIBERS"),
            Column::Right("PRESENCES"),
            Column::Right("ENTRIES"),
        ]);
        for Counts { topic, subscribers, presences, entries } in topics {
            let counts = [subscribers, presences, entries].map(|count| count.to_string());
            let [subscribers, presences, entries] = counts;
            table.row([topic, subscribers, presences, entries]);
        }
        table.write(terminal.out)?;
        if !missing.is_empty() {
            let missing = missing.join(", ");
            writeln!(terminal.err, "not counted, no answer: {}", printable(&missing))?;
        }
        Ok(())
    }
}

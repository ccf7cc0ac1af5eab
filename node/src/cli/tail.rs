//! `wingbeat tail`.

use std::borrow::Cow;

use presence::Topic;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    ApiArgs, Failure, Terminal,
    client::Client,
    sse::Event,
    text::{one_line, printable},
    url::percent,
};

/// Follow topics: a line for each message, from now on
///
/// Joins nothing and is listed nowhere.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wingbeat tail room:lobby
  wingbeat tail room:lobby room:2 --json | jq -r .payload.text

Exit codes: 3 when the node goes away")]
pub struct TailArgs {
    /// The topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<Topic>,
    /// Print each message as a line of JSON: topic, event, payload
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

/// The data of an event `broadcast`.
#[derive(Deserialize)]
struct Broadcast<'a> {
    topic: Cow<'a, str>,
    event: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl TailArgs {
    pub(super) async fn run(
        &self,
        client: &Client,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        let topics = self.topics.iter().map(|topic| format!("topic={}", percent(topic.as_str())));
        let query = topics.collect::<Vec<_>>().join("&");
        let mut stream = client.subscribe(&format!("/api/subscribe?{query}")).await?;
        loop {
            let mut next = Some(stream.next().await?);
            while let Some(event) = next {
                self.write(client, &event, terminal)?;
                next = stream.buffered();
            }
            terminal.out.flush()?;
        }
    }

    fn write(
        &self,
        client: &Client,
        event: &Event,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        if event.name != "broadcast" {
            return Ok(());
        }
        if self.json {
            writeln!(terminal.out, "{}", one_line(&event.data))?;
            return Ok(());
        }
        let Broadcast { topic, event, payload } = client.decode(event.data.as_bytes())?;
        let payload = one_line(payload.get());
        let (topic, event) = (printable(&topic), printable(&event));
        writeln!(terminal.out, "{topic} {event} {}", printable(&payload))?;
        Ok(())
    }
}

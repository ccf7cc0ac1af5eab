//! `wingbeat broadcast`.

use std::io::{self, Read};

use presence::Topic;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{ApiArgs, Failure, Terminal, client::Client};

/// The longest payload that is read from standard input.
const PAYLOAD_LEN_MAX: u64 = 16 << 20;

/// Publish an event on a topic, to all who have joined it on any node
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wingbeat broadcast room:lobby hello
  wingbeat broadcast room:lobby message '{\"text\":\"hi\"}'
  jq -c . news.json | wingbeat broadcast news published -")]
pub struct BroadcastArgs {
    /// The topic
    topic: Topic,
    /// The event
    event: String,
    /// The payload, any JSON; - reads it from standard input
    #[arg(default_value = "{}", allow_hyphen_values = true)]
    payload: String,
    /// Print the node's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

#[derive(Serialize)]
struct Body<'a> {
    topic: &'a str,
    event: &'a str,
    /// Sent byte for byte.
    payload: &'a RawValue,
}

#[derive(Deserialize)]
struct Answer {
    accepted: u64,
}

impl BroadcastArgs {
    pub(super) async fn run(
        &self,
        client: &Client,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        let text = if self.payload == "-" { read(io::stdin())? } else { self.payload.clone() };
        let payload: &RawValue = serde_json::from_str(&text).map_err(|error| {
            Failure::usage(format_args!(
                "the payload is no JSON ({error}): \
                 quote it for the shell, as in '{{\"text\":\"hi\"}}'"
            ))
        })?;
        let body = Body { topic: self.topic.as_str(), event: &self.event, payload };
        let body = serde_json::to_vec(&body).map_err(Failure::failed)?;
        let answer = client.post("/api/broadcast", body).await?;
        let Answer { accepted } = client.decode(&answer)?;
        if self.json {
            terminal.out.write_all(&answer)?;
            writeln!(terminal.out)?;
        } else {
            writeln!(terminal.out, "accepted {accepted}")?;
        }
        Ok(())
    }
}

fn read(source: impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    let read = source.take(PAYLOAD_LEN_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::failed(format_args!("cannot read the payload: {error}")))?;
    if text.len() as u64 > PAYLOAD_LEN_MAX {
        return Err(Failure::failed("the payload is over 16 MiB"));
    }
    Ok(text)
}

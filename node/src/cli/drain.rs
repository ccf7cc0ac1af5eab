//! `wingbeat drain`.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{ApiArgs, Failure, Terminal, client::Client, text::printable};

/// How often the node is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// How long the node may be out of reach, unless it has ended, until nobody waits for it any more.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Take a node out of its cluster: its clients move to the others, then it ends
///
/// The node is not ready from now on, sends its clients away a few at a time, and keeps them listed until
/// they are back on other nodes, or their lease is over. Then its process ends with code 0.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wingbeat drain --url http://10.0.0.1:4000 --wait
  wingbeat drain --json

Exit codes:
  0  the node drains; with --wait, it has ended
  1  the node refused
  2  the command line is wrong
  3  the node cannot be reached; with --wait, or not for 30 s any more")]
pub struct DrainArgs {
    /// Wait until the node has ended, and say how far it is
    #[arg(long)]
    wait: bool,
    /// Print the node's answers, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

/// How far a node is.
#[derive(Deserialize)]
struct Answer {
    name: String,
    draining: bool,
    stage: String,
    sockets: u64,
    detached: u64,
}

impl DrainArgs {
    pub(super) async fn run(
        &self,
        client: &Client,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        let mut bytes = client.post("/api/drain", Vec::new()).await?;
        let mut said = String::new();
        loop {
            let answer: Answer = client.decode(&bytes)?;
            // It was asked to: this is another run, which whoever supervises it has started at once.
            if !answer.draining {
                break;
            }
            let line = if self.json {
                String::from_utf8_lossy(&bytes).into_owned()
            } else {
                describe(&answer)
            };
            if line != said {
                writeln!(terminal.out, "{line}")?;
                terminal.out.flush()?;
                said = line;
            }
            if !self.wait {
                return Ok(());
            }
            sleep(ASK_EVERY).await;
            match ask(client).await? {
                Some(answer) => bytes = answer,
                None => break,
            }
        }
        if !self.json {
            writeln!(terminal.out, "the node has ended")?;
        }
        Ok(())
    }
}

/// How far the node is; `None` once it has ended. A network that fails is no end of the node.
async fn ask(client: &Client) -> Result<Option<Bytes>, Failure> {
    let give_up = Instant::now() + SILENCE_MAX;
    loop {
        match client.get("/api/drain").await {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(Failure::Unreachable(_)) if client.has_ended().await => return Ok(None),
            Err(Failure::Unreachable(why)) if Instant::now() >= give_up => {
                let why = format!("whether the node has ended is not known: {why}");
                return Err(Failure::Unreachable(why));
            }
            Err(Failure::Unreachable(_)) => sleep(ASK_EVERY).await,
            Err(failure) => return Err(failure),
        }
    }
}

fn describe(answer: &Answer) -> String {
    let Answer { name, stage, sockets, detached, .. } = answer;
    let (name, stage) = (printable(name), printable(stage));
    format!("{name} is {stage}: {sockets} sockets open, {detached} clients not back elsewhere")
}

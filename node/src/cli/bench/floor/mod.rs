//! The floor: what the machine can do with the same frames, sockets and clients.

mod peer;
mod server;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::time::timeout_at;

use super::{
    super::{Failure, Terminal},
    block_on,
    client::Endpoint,
    compare::CompareArgs,
    message::{FIRST_NUMBER, NumberScanner, Numbered, PAYLOAD_LEN_MIN, ok_reply_number, refusal},
    swarm::{not_opened, run_name},
    target::Target,
};
use server::Server;

/// The event of the push that a node's manners are learnt from.
const EVENT: &str = "bench";
/// How long it may take to answer that.
const PROBE: Duration = Duration::from_millis(300);

/// What a relay does with a push besides the broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::Args)]
pub(super) struct Manners {
    /// It answers it
    #[arg(long)]
    pub(super) acks: bool,
    /// The one that pushed gets the broadcast too
    #[arg(long)]
    pub(super) copies: bool,
}

/// Serve as the floor until standard input ends
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct FloorServerArgs {
    /// Join what one wake-up has for one subscriber into one write
    #[arg(long)]
    joined: bool,
    #[command(flatten)]
    manners: Manners,
}

impl FloorServerArgs {
    pub(super) fn run(self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let mut server = Server::bind(self.joined, self.manners).map_err(no_floor)?;
        server.end_with_standard_input().map_err(no_floor)?;
        writeln!(terminal.out, "{}", server.port().map_err(no_floor)?)?;
        terminal.out.flush()?;
        server.serve().map_err(no_floor)
    }
}

fn no_floor(error: impl fmt::Display) -> Failure {
    Failure::failed(format_args!("the floor does not run: {error}"))
}

/// A floor that runs; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Floor {
    child: Child,
    /// It ends when this does, even if this process is killed.
    input: Option<ChildStdin>,
    url: String,
}

impl Floor {
    /// Starts a floor as a process of its own.
    pub(super) fn start(joined: bool, manners: Manners) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(no_floor)?;
        let mut command = Command::new(program);
        command.args(["bench", "floor-server"]);
        let flags = [(joined, "--joined"), (manners.acks, "--acks"), (manners.copies, "--copies")];
        command.args(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag));
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(no_floor)?;
        let input = child.stdin.take();
        let output = child.stdout.take();
        let mut floor = Self { child, input, url: String::new() };
        let mut port = String::new();
        if let Some(output) = output {
            BufReader::new(output).read_line(&mut port).map_err(no_floor)?;
        }
        let port: u16 = port.trim().parse().map_err(|_| {
            Failure::failed(format_args!("the floor does not run: it says {port:?}"))
        })?;
        floor.url = format!("http://127.0.0.1:{port}");
        Ok(floor)
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        drop(self.input.take());
        // Its loop sees the end of its input at once; should it hang, it is not waited for.
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if started.elapsed() > Duration::from_secs(5) {
                drop(self.child.kill());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Manners {
    /// Those of the first publisher's node if they matter: the floor has the same.
    pub(super) fn if_needed(
        compare: &CompareArgs,
        target: &Target,
        scenario: &str,
    ) -> Result<Self, Failure> {
        match compare.floor() {
            Some(_) => Self::ask(target, scenario),
            None => Ok(Self { acks: true, copies: true }),
        }
    }

    /// Those of the first publisher's node.
    pub(super) fn ask(target: &Target, scenario: &str) -> Result<Self, Failure> {
        let node = target.nodes.get(target.subscribers).or(target.nodes.first());
        let node = node.ok_or_else(|| Failure::usage("--url: name a node"))?;
        block_on(Self::of(node, scenario))
    }

    /// Asks a node with a push to a topic of its own.
    async fn of(node: &Endpoint, scenario: &str) -> Result<Self, Failure> {
        let topic = format!("bench:{scenario}:{}:probe", run_name());
        let failed = |error| not_opened(node, &error);
        let mut connection = node.open(None).await.map_err(failed)?;
        connection.join(&topic, |_, _| ()).await.map_err(failed)?;
        let mut push = Vec::new();
        Numbered::new(&topic, EVENT, PAYLOAD_LEN_MIN).write(FIRST_NUMBER, &mut push);
        connection.send(&push);
        let scanner = NumberScanner::new(&topic, EVENT);
        let mut manners = Self { acks: false, copies: false };
        let mut refused = None;
        let end = tokio::time::Instant::now() + PROBE;
        while !(manners.acks && manners.copies) {
            let read = connection.exchange(|frame, _| {
                manners.copies |= scanner.number(frame).is_some();
                manners.acks |= ok_reply_number(frame) == Some(FIRST_NUMBER);
                refused = refused.take().or_else(|| refusal(frame));
            });
            match timeout_at(end, read).await {
                Ok(read) => read.map_err(|lost| failed(lost.into()))?,
                Err(_late) => break,
            }
            if let Some(reason) = refused {
                return Err(Failure::failed(format_args!("{node} refused a message: {reason}")));
            }
        }
        Ok(manners)
    }
}

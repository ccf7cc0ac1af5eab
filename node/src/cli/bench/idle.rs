//! Sockets that are open, and do next to nothing.

mod report;

#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, sleep_until};

use super::{
    super::Failure,
    NodeArgs,
    client::{Connection, Endpoint, reply_to},
    measure::Histogram,
    message::heartbeat,
    process,
    progress::Progress,
    report::Meter,
    server::{Servers, Usage},
    swarm::{Swarm, not_opened, run_name},
};
pub(super) use report::IdleReport;

/// The sockets have settled when nothing but heartbeats came for so long…
const QUIET: Duration = Duration::from_secs(1);
/// …or after this.
const QUIET_LIMIT: Duration = Duration::from_secs(30);

/// The `ref` of heartbeats.
const BEAT: &str = "h";

const EXAMPLES: &str = "\
Examples:
  wingbeat bench idle                            10,000 sockets, each joined to a topic
  wingbeat bench idle --no-join --sockets 15000
  wingbeat bench idle --hold 5m --heartbeat 10s";

const DETAILS: &str = "\
Sockets go to all --url in turns. Memory is what the processes of those nodes have resident: the
kernel's for a socket, some KiB, is not in it. Start the nodes anew for a figure that earlier runs
did not touch. Where clients are listed as present, a joined socket's memory holds its presence too:
measure with presence = \"off\" and then without in the nodes' rule for \"bench:*\".

JSON fields:
  scenario, urls, sockets, joined
  seconds                   from the first connection to the last reply
  connects_per_second
  open_us                   connect, upgrade and join: count, mean, p50, p90, p99, p99_9, max
  heartbeat_us              heartbeat sent to its reply, likewise
  resident_bytes_before     of all processes, before the first socket
  resident_bytes_settled    with all sockets, when nothing came for 1 s
  resident_bytes_held       after --hold
  bytes_per_socket_settled, bytes_per_socket_held
  disconnected              sockets that ended
  server                    while holding: processes, cpu_seconds, cpu_cores, resident_bytes,
                            cpu_seconds_per_million (heartbeats); or null
  bench                     while holding: cpu_seconds, cpu_cores of this process; or null
resident_bytes_... and bytes_per_socket_... are null where /metrics does not tell.

Exit code 1 if a socket ended.";

/// Open sockets that do nothing: memory of each, connects a second
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{DETAILS}"))]
pub(super) struct IdleArgs {
    /// How many
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    sockets: u64,
    /// Join no topic; else each joins one of its own
    #[arg(long)]
    no_join: bool,
    /// How long to hold them open
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    hold: Duration,
    /// Each socket sends a heartbeat so often; phoenix.js does every 30 s
    #[arg(long, default_value = "30s", value_parser = heartbeat_interval)]
    heartbeat: Duration,
    #[command(flatten)]
    pub(super) nodes: NodeArgs,
}

fn heartbeat_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_millis(10)..=Duration::from_secs(86_400)).contains(&interval) {
        Ok(interval)
    } else {
        Err("want 10ms to 1day".to_owned())
    }
}

/// What all sockets share.
#[derive(Debug, Default)]
struct Hall {
    swarm: Swarm,
    opens: RefCell<Histogram>,
    heartbeats: RefCell<Histogram>,
}

/// What the servers had resident, as far as they tell.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    before: Option<Usage>,
    settled: Option<Usage>,
    held: Option<Usage>,
}

impl IdleArgs {
    pub(super) async fn run(&self, progress: Progress) -> Result<IdleReport, Failure> {
        let servers = Servers::new(&self.nodes.all(&[]), self.nodes.token())?;
        process::require_sockets(self.sockets)?;
        let nodes = Endpoint::resolve_all(&self.nodes.url).await?;
        let hall = Rc::new(Hall::default());
        let mut memory = Memory { before: servers.usage().await?, ..Memory::default() };
        let started = Instant::now();
        let opening = self.open(&nodes, &hall);
        progress.during("opening", self.sockets, || hall.swarm.opened(), opening).await?;
        let opened = started.elapsed();
        hall.swarm.settle(QUIET, QUIET_LIMIT).await?;
        memory.settled = servers.usage().await?;

        let beats_before = hall.heartbeats.borrow().count();
        let meter = Meter::start(&servers).await?;
        let started = Instant::now();
        let passed = || started.elapsed().as_secs();
        progress.during("holding", self.hold.as_secs(), passed, sleep(self.hold)).await;
        let beats = hall.heartbeats.borrow().count() - beats_before;
        let usage = meter.stop(&servers, beats).await?;
        memory.held = servers.usage().await?;
        Ok(IdleReport::new(self, opened, &hall, memory, usage))
    }

    async fn open(&self, nodes: &[Endpoint], hall: &Rc<Hall>) -> Result<(), Failure> {
        let run = &run_name();
        let opening = hall.swarm.open(self.sockets, self.nodes.concurrency, |number| {
            let hall = Rc::clone(hall);
            async move {
                let turn = number % (nodes.len() as u64);
                let node = &nodes[usize::try_from(turn).unwrap_or(0)];
                let failed = |error| not_opened(node, &error);
                let started = Instant::now();
                let mut connection = node.open(None).await.map_err(failed)?;
                if !self.no_join {
                    let topic = format!("bench:idle:{run}:{number}");
                    let joined = connection.join(&topic, |_, _| hall.swarm.note_frame()).await;
                    joined.map_err(failed)?;
                }
                hall.opens.borrow_mut().record(started.elapsed());
                let first = self.first_heartbeat(number);
                // Ends with the runtime.
                drop(tokio::task::spawn_local(hold(connection, first, self.heartbeat, hall)));
                Ok(())
            }
        });
        opening.await
    }

    /// How long after its opening a socket sends its first heartbeat: they are spread evenly over
    /// the interval.
    fn first_heartbeat(&self, number: u64) -> Duration {
        const PARTS: u32 = 1_009;
        let part = u32::try_from(number % u64::from(PARTS)).unwrap_or(0);
        self.heartbeat * part / PARTS
    }
}

/// Sends heartbeats and reads, until the socket ends.
async fn hold(mut connection: Connection, first: Duration, interval: Duration, hall: Rc<Hall>) {
    let beat = heartbeat(BEAT);
    let mut next = Instant::now() + first;
    // When the heartbeat was sent that has no reply.
    let mut sent = None;
    let why = loop {
        let read = connection.exchange(|frame, now| match reply_to(BEAT, frame) {
            Some(_) => {
                let took = sent.take().map(|sent| now.saturating_duration_since(sent));
                took.into_iter().for_each(|took| hall.heartbeats.borrow_mut().record(took));
            }
            None => hall.swarm.note_frame(),
        });
        tokio::select! {
            read = read => if let Err(why) = read {
                break why;
            },
            () = sleep_until(next.into()) => {
                next += interval;
                sent = Some(Instant::now());
                connection.send(beat.as_bytes());
            }
        }
    };
    hall.swarm.note_loss(&why);
}

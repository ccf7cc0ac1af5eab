//! One topic, many subscribers.

mod deliveries;
mod publisher;
mod report;

#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    super::Failure,
    NodeArgs,
    client::{Connection, Endpoint},
    message::{NumberScanner, Numbered, PAYLOAD_LEN_MIN},
    process,
    progress::Progress,
    report::Meter,
    server::Servers,
    swarm::{Swarm, not_opened, run_name},
};
use deliveries::Deliveries;
use publisher::{Pace, Publisher};
pub(super) use report::FanoutReport;

/// The event of all messages.
const EVENT: &str = "bench";

/// The longest payload: with its envelope it must fit into a node's default `http.max_frame_size`.
const PAYLOAD_LEN_MAX: usize = 1_000_000;

/// After the joins, presence is quiet for so long before anything is measured…
const QUIET: Duration = Duration::from_millis(500);
/// …or it is measured nevertheless.
const QUIET_LIMIT: Duration = Duration::from_secs(20);

const EXAMPLES: &str = "\
Examples:
  wingbeat bench fanout                                  1,000 subscribers on one node
  wingbeat bench fanout --in-flight 64 --payload 16
  wingbeat bench fanout --rate 10 --url http://a:4000 --url http://b:4000 --url http://c:4000
                                                         publish on a, deliver on b and c";

const DETAILS: &str = "\
The publisher pushes through its own WebSocket. Latency runs from just before a push is written
(with --rate, from when it was due if that is over 2 ms ago) until a subscriber has read it. The
server's CPU time is that of the nodes named by --url and --subscribers-url: name all of a cluster.
Where clients are listed as present, their joins and leaves are work too: a rule with
presence = \"off\" for \"bench:*\" leaves that out.

JSON fields:
  scenario, publisher_url, subscriber_urls, subscribers, payload_bytes
  in_flight, rate_per_second    how it published; one of them is null
  seconds                       from the first push to the last delivery
  messages, deliveries, messages_per_second, deliveries_per_second
  latency_us                    publish to deliver: count, mean, p50, p90, p99, p99_9, max
  lost, doubled, reordered      deliveries; also those of the warm-up
  disconnected                  subscribers that ended
  stalls                        times that nothing was delivered for --patience
  server                        processes, cpu_seconds, cpu_cores, resident_bytes,
                                cpu_seconds_per_million (deliveries); or null
  bench                         cpu_seconds, cpu_cores of this process; or null

Exit code 1 if a delivery was lost, doubled or out of order, or a subscriber ended.";

/// One topic, many subscribers: deliveries a second, latency, CPU per delivery
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{DETAILS}"))]
pub(super) struct FanoutArgs {
    /// How many subscribe
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    subscribers: u64,
    /// Bytes of each message's payload
    #[arg(long, default_value_t = 100, value_parser = payload_len)]
    payload: usize,
    /// How many seconds to measure
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// How long to publish before that
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// Messages on the way: the next is sent when one has reached all subscribers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight: u32,
    /// Messages a second, whatever has arrived
    #[arg(long, conflicts_with = "in_flight", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Where subscribers connect to, in turns [default: each --url but the first, or the only one]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    subscribers_url: Vec<String>,
    /// When nothing has been delivered for so long, what is in flight is not waited for
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    patience: Duration,
    #[command(flatten)]
    pub(super) nodes: NodeArgs,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "want 0.01 to 86400".to_owned())
}

fn payload_len(text: &str) -> Result<usize, String> {
    let len: usize = text.parse().map_err(|_| "want a number of bytes".to_owned())?;
    if (PAYLOAD_LEN_MIN..=PAYLOAD_LEN_MAX).contains(&len) {
        Ok(len)
    } else {
        Err(format!("want {PAYLOAD_LEN_MIN} to {PAYLOAD_LEN_MAX} bytes"))
    }
}

/// What the publisher and all subscribers share.
#[derive(Debug)]
struct Hub {
    books: RefCell<Deliveries>,
    /// Fewer messages are in flight.
    freed: Notify,
    swarm: Swarm,
}

impl FanoutArgs {
    pub(super) async fn run(&self, progress: Progress) -> Result<FanoutReport, Failure> {
        let subscriber_urls = self.nodes.others(&self.subscribers_url);
        let all = self.nodes.all(&self.subscribers_url);
        let servers = Servers::new(&all, self.nodes.token())?;
        process::require_sockets(self.subscribers + 1)?;
        let publisher_node = Endpoint::resolve(self.nodes.first()).await?;
        let nodes = Endpoint::resolve_all(&subscriber_urls).await?;
        servers.usage().await?;

        let topic = format!("bench:fanout:{}", run_name());
        let hub = Rc::new(Hub {
            books: RefCell::new(Deliveries::new(usize::try_from(self.subscribers).unwrap_or(0))),
            freed: Notify::new(),
            swarm: Swarm::default(),
        });
        self.subscribe(&topic, &nodes, &hub, progress).await?;
        let messages = Numbered::new(&topic, EVENT, self.payload);
        let mut publisher = Publisher::open(&publisher_node, &topic, messages, &hub).await?;
        publisher.during(hub.swarm.settle(QUIET, QUIET_LIMIT)).await?;

        let (pace, seconds) = (self.pace(), self.seconds);
        let warmup = publisher.publish(pace, self.warmup, self.patience);
        shown(progress, "warming up", self.warmup, warmup).await?;
        hub.books.borrow_mut().measure();
        let meter = publisher.during(Meter::start(&servers)).await?;
        let started = Instant::now();
        let publishing = publisher.publish(pace, seconds, self.patience);
        shown(progress, "publishing", seconds, publishing).await?;
        let delivered = hub.books.borrow().delivered();
        let usage = publisher.during(meter.stop(&servers, delivered)).await?;
        let stalls = publisher.stalls();
        Ok(FanoutReport::new(self, started, &hub, usage, stalls))
    }

    async fn subscribe(
        &self,
        topic: &str,
        nodes: &[Endpoint],
        hub: &Rc<Hub>,
        progress: Progress,
    ) -> Result<(), Failure> {
        let scanner = Rc::new(NumberScanner::new(topic, EVENT));
        let opening = hub.swarm.open(self.subscribers, self.nodes.concurrency, |number| {
            let (hub, scanner) = (Rc::clone(hub), Rc::clone(&scanner));
            async move {
                let number = usize::try_from(number).unwrap_or(usize::MAX);
                let node = &nodes[number % nodes.len()];
                let failed = |error| not_opened(node, &error);
                let mut connection = node.open(None).await.map_err(failed)?;
                let joined = connection.join(topic, |_, _| hub.swarm.note_frame()).await;
                joined.map_err(failed)?;
                // Ends with the runtime.
                drop(tokio::task::spawn_local(receive(number, connection, hub, scanner)));
                Ok(())
            }
        });
        let opened = || hub.swarm.opened();
        progress.during("subscribing", self.subscribers, opened, opening).await
    }

    fn pace(&self) -> Pace {
        self.rate.map_or(Pace::InFlight(self.in_flight), Pace::Rate)
    }
}

/// Reads for one subscriber.
async fn receive(
    number: usize,
    mut connection: Connection,
    hub: Rc<Hub>,
    scanner: Rc<NumberScanner>,
) {
    let why = loop {
        let mut freed = false;
        let received = connection.exchange(|frame, now| match scanner.number(frame) {
            Some(message) => freed |= hub.books.borrow_mut().receive(number, message, now),
            None => hub.swarm.note_frame(),
        });
        let received = received.await;
        if freed {
            hub.freed.notify_one();
        }
        if let Err(why) = received {
            break why;
        }
    };
    hub.swarm.note_loss(&why);
    if hub.books.borrow_mut().lose(number) {
        hub.freed.notify_one();
    }
}

/// Shows the time that has passed.
async fn shown<T>(
    progress: Progress,
    label: &'static str,
    duration: Duration,
    work: impl Future<Output = T>,
) -> T {
    let started = Instant::now();
    let total = duration.as_secs().max(1);
    progress.during(label, total, || started.elapsed().as_secs(), work).await
}

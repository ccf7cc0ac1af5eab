//! What a run found.

use std::{
    io::{self, Write},
    time::Instant,
};

use serde::Serialize;

use super::{
    super::{
        super::{
            Failure,
            table::{Column, Table},
        },
        closes::Closes,
        compare::{self, Measured},
        measure::{Summary, as_f64},
        report::{Report, Use, amount, bytes, grouped, judge, rate, time, write_latencies},
        target::Target,
    },
    Counts, Crowd, Pace, Plan,
    search::Found,
};

/// What decides on the exit code.
const EXIT: &str =
    "Exit code 1 if a delivery was lost, doubled or out of order, or a socket ended.";

/// The long help of a scenario that publishes.
pub(in super::super) fn help(examples: &str, details: &str) -> String {
    let [floor, floor_fields] = [compare::DETAILS, compare::FIELDS];
    format!("{examples}\n\n{details}\n\n{DETAILS}\n\n{floor}\n\n{FIELDS}\n{floor_fields}\n\n{EXIT}")
}

/// How all of them measure.
const DETAILS: &str = "\
Latency runs from just before a push is written (with --rate, from when it was due if that is over
2 ms ago) until it has arrived. --search doubles the rate until p99 exceeds the bound, then halves
the distance down to 5 %, and measures the highest rate that held; the warm-up decides where it
starts. The server's CPU time is that of all nodes that are named: name all of a cluster. Where
clients are listed as present, their joins and leaves are work too: a rule with presence = \"off\"
for \"bench:*\" leaves that out.";

const FIELDS: &str = "\
JSON fields:
  scenario, publisher_url, subscriber_urls
  topics, subscribers           subscribers of each topic
  sockets, topics_each_socket   sockets of all, publishers too
  payload_bytes
  in_flight, in_flight_each, rate_per_second
                                how it published, over all topics or in each; the others are null
  seconds                       from the first push to the last delivery
  messages, deliveries, messages_per_second, deliveries_per_second
  latency_us                    publish to deliver: count, mean, p50, p90, p99, p99_9, max
  lost, doubled, reordered      deliveries; also those of the warm-up, of all runs
  disconnected                  sockets that ended, in all runs
  stalls                        times that nothing was delivered for --patience
  search                        bound_us, rate_per_second, steps: rate_per_second,
                                deliveries_per_second, p99_us, held; or null
  slow                          subscribers, connected, disconnected, close_codes (how many ended
                                with which code, or none); or null
  server                        processes, cpu_seconds, cpu_cores, resident_bytes,
                                cpu_seconds_per_million (deliveries); or null
  bench                         cpu_seconds, cpu_cores of this process; or null";

/// The result; the help of each scenario says what each field is.
#[derive(Clone, Debug, Serialize)]
pub(in super::super) struct LoadReport {
    scenario: &'static str,
    publisher_url: String,
    subscriber_urls: Vec<String>,
    topics: usize,
    subscribers: usize,
    sockets: usize,
    topics_each_socket: usize,
    payload_bytes: usize,
    in_flight: Option<u32>,
    in_flight_each: Option<u32>,
    rate_per_second: Option<u32>,
    seconds: f64,
    messages: u64,
    deliveries: u64,
    messages_per_second: f64,
    deliveries_per_second: f64,
    latency_us: Summary,
    lost: u64,
    doubled: u64,
    reordered: u64,
    disconnected: u64,
    stalls: u64,
    search: Option<Found>,
    slow: Option<Slow>,
    #[serde(flatten)]
    usage: Use,
    #[serde(skip)]
    counts: Counts,
    /// Why the first socket ended, for people.
    #[serde(skip)]
    first_loss: Option<String>,
}

/// What became of the subscribers that stopped reading.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Slow {
    subscribers: u64,
    /// Still, after they have read again.
    connected: u64,
    disconnected: u64,
    close_codes: Closes,
}

impl Slow {
    pub(super) fn new(subscribers: u64, close_codes: Closes) -> Self {
        let disconnected = close_codes.count();
        let connected = subscribers.saturating_sub(disconnected);
        Self { subscribers, connected, disconnected, close_codes }
    }
}

impl LoadReport {
    pub(super) fn new(
        plan: &Plan<'_>,
        pace: Pace,
        target: &Target,
        started: Instant,
        crowd: &Crowd,
        usage: Use,
    ) -> Self {
        let books = &crowd.books;
        let span = books.last().map(|last| last.saturating_duration_since(started));
        let seconds = span.unwrap_or_default().as_secs_f64();
        let a_second = |count| if seconds > 0.0 { as_f64(count) / seconds } else { 0.0 };
        let (in_flight, in_flight_each, rate_per_second) = match pace {
            Pace::InFlight(window) => (Some(window), None, None),
            Pace::InFlightEach(window) => (None, Some(window), None),
            Pace::Rate(rate) => (None, None, Some(rate)),
        };
        Self {
            scenario: plan.scenario,
            publisher_url: target.publisher_url(),
            subscriber_urls: target.subscriber_urls(),
            topics: plan.shape.topics,
            subscribers: plan.shape.each,
            sockets: plan.shape.sockets(),
            topics_each_socket: plan.shape.topics_each_socket,
            payload_bytes: plan.shape.payload,
            in_flight,
            in_flight_each,
            rate_per_second,
            seconds,
            messages: books.messages(),
            deliveries: books.delivered(),
            messages_per_second: a_second(books.messages()),
            deliveries_per_second: a_second(books.delivered()),
            latency_us: books.latency().summary(),
            lost: books.lost(),
            doubled: books.doubled(),
            reordered: books.reordered(),
            disconnected: crowd.disconnected(),
            stalls: crowd.stalls(),
            search: None,
            slow: None,
            usage,
            counts: plan.shape.counts,
            first_loss: crowd.first_loss().map(str::to_owned),
        }
    }

    pub(super) fn with(self, slow: Option<Slow>, search: Option<Found>) -> Self {
        Self { slow, search, ..self }
    }

    const fn operations(&self) -> &'static str {
        match self.counts {
            Counts::Broadcasts => "deliveries",
            Counts::Replies => "replies",
        }
    }

    fn write_head(&self, out: &mut dyn Write) -> io::Result<()> {
        let how = match (self.in_flight, self.in_flight_each, self.rate_per_second) {
            (.., Some(per_second)) => format!("{} messages/s", grouped(per_second.into())),
            (_, Some(window), None) => format!("{} in flight each", grouped(window.into())),
            (window, None, None) => {
                format!("{} in flight", grouped(window.unwrap_or(1).into()))
            }
        };
        let subscribers = amount(self.subscribers as u64, "subscriber", "subscribers");
        let size = match (self.counts, self.topics) {
            (Counts::Replies, topics) => amount(topics as u64, "socket", "sockets"),
            (Counts::Broadcasts, 1) => subscribers,
            (Counts::Broadcasts, topics) => {
                let topics = amount(topics as u64, "topic", "topics");
                let sockets = amount(self.sockets as u64, "socket", "sockets");
                match self.topics_each_socket {
                    0 | 1 => format!("{topics} of {subscribers}"),
                    _ => format!("{topics} of {subscribers} on {sockets}"),
                }
            }
        };
        writeln!(
            out,
            "{}: {size}, {} payload, {how}, {:.1} s",
            self.scenario,
            bytes(as_f64(self.payload_bytes as u64)),
            self.seconds,
        )?;
        writeln!(out, "from {} to {}\n", self.publisher_url, self.subscriber_urls.join(", "))
    }

    fn write_search(found: &Found, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new([
            Column::Right("RATE"),
            Column::Right("DELIVERIES"),
            Column::Right("P99"),
            Column::Left("HELD"),
        ]);
        for step in &found.steps {
            table.row([
                rate(step.rate_per_second.into()),
                rate(step.deliveries_per_second),
                time(step.p99_us),
                if step.held { "yes" } else { "no" }.to_owned(),
            ]);
        }
        table.write(out)?;
        let (highest, bound) = (rate(found.rate_per_second.into()), time(found.bound_us));
        writeln!(out, "highest rate with p99 within {bound}: {highest}\n")
    }
}

impl Report for LoadReport {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write_head(out)?;
        if let Some(found) = &self.search {
            Self::write_search(found, out)?;
        }
        let way = match self.counts {
            Counts::Broadcasts => "publish → deliver",
            Counts::Replies => "push → reply",
        };
        write_latencies(&[(way, self.latency_us)], out)?;
        let line = |count, a_second| format!("{}, {}", grouped(count), rate(a_second));
        writeln!(out, "\nmessages     {}", line(self.messages, self.messages_per_second))?;
        let (operations, deliveries) = (self.operations(), self.deliveries);
        writeln!(out, "{operations:<12} {}", line(deliveries, self.deliveries_per_second))?;
        writeln!(
            out,
            "faults       {} lost, {} doubled, {} reordered; {} disconnected, {}",
            grouped(self.lost),
            grouped(self.doubled),
            grouped(self.reordered),
            grouped(self.disconnected),
            amount(self.stalls, "stall", "stalls"),
        )?;
        if let Some(slow) = &self.slow {
            writeln!(
                out,
                "slow         {} stopped reading, {} were cut off{}{}; {} are connected",
                grouped(slow.subscribers),
                grouped(slow.disconnected),
                if slow.disconnected == 0 { "" } else { ": " },
                slow.close_codes,
                grouped(slow.connected),
            )?;
        }
        self.usage.write(operations, out)
    }

    fn verdict(&self) -> Result<(), Failure> {
        let faults = match self.counts {
            Counts::Broadcasts => ["deliveries lost", "deliveries doubled", "deliveries reordered"],
            Counts::Replies => ["replies lost", "replies doubled", "replies reordered"],
        };
        let counts = [self.lost, self.doubled, self.reordered];
        let mut faults: Vec<_> = counts.into_iter().zip(faults).collect();
        faults.push((self.disconnected, "subscribers disconnected"));
        judge(&faults, self.first_loss.as_deref())
    }
}

impl Measured for LoadReport {
    fn rate(&self) -> f64 {
        self.deliveries_per_second
    }

    fn usage(&self) -> Use {
        self.usage
    }

    fn operations(&self) -> &'static str {
        self.operations()
    }

    fn p99_us(&self) -> f64 {
        self.latency_us.p99
    }

    fn add_faults(&mut self, other: &Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.disconnected += other.disconnected;
        self.stalls += other.stalls;
        if self.first_loss.is_none() {
            self.first_loss.clone_from(&other.first_loss);
        }
    }
}

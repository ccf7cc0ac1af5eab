//! What a fan-out found.

use std::{
    io::{self, Write},
    time::Instant,
};

use serde::Serialize;

use super::{
    super::{
        super::Failure,
        measure::{Summary, as_f64},
        report::{Report, Use, amount, bytes, grouped, judge, rate, write_latencies},
    },
    FanoutArgs, Hub,
};

/// The result; `wingbeat bench fanout --help` says what each field is.
#[derive(Clone, Debug, Serialize)]
pub(in super::super) struct FanoutReport {
    pub(super) scenario: &'static str,
    pub(super) publisher_url: String,
    pub(super) subscriber_urls: Vec<String>,
    pub(super) subscribers: u64,
    pub(super) payload_bytes: usize,
    pub(super) in_flight: Option<u32>,
    pub(super) rate_per_second: Option<u32>,
    pub(super) seconds: f64,
    pub(super) messages: u64,
    pub(super) deliveries: u64,
    pub(super) messages_per_second: f64,
    pub(super) deliveries_per_second: f64,
    pub(super) latency_us: Summary,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
    pub(super) disconnected: u64,
    pub(super) stalls: u64,
    #[serde(flatten)]
    pub(super) usage: Use,
    /// Why the first subscriber ended, for people.
    #[serde(skip)]
    first_loss: Option<String>,
}

impl FanoutReport {
    pub(super) fn new(
        args: &FanoutArgs,
        started: Instant,
        hub: &Hub,
        usage: Use,
        stalls: u64,
    ) -> Self {
        let books = hub.books.borrow();
        let span = books.last().map(|last| last.saturating_duration_since(started));
        let seconds = span.unwrap_or_default().as_secs_f64();
        let a_second = |count| if seconds > 0.0 { as_f64(count) / seconds } else { 0.0 };
        Self {
            scenario: "fanout",
            publisher_url: args.nodes.first().to_owned(),
            subscriber_urls: args.nodes.others(&args.subscribers_url),
            subscribers: args.subscribers,
            payload_bytes: args.payload,
            in_flight: args.rate.is_none().then_some(args.in_flight),
            rate_per_second: args.rate,
            seconds,
            messages: books.messages(),
            deliveries: books.delivered(),
            messages_per_second: a_second(books.messages()),
            deliveries_per_second: a_second(books.delivered()),
            latency_us: books.latency().summary(),
            lost: books.lost(),
            doubled: books.doubled(),
            reordered: books.reordered(),
            disconnected: hub.swarm.lost(),
            stalls,
            usage,
            first_loss: hub.swarm.first_loss(),
        }
    }
}

impl Report for FanoutReport {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let how = match (self.in_flight, self.rate_per_second) {
            (_, Some(per_second)) => format!("{} messages/s", grouped(per_second.into())),
            (window, None) => format!("{} in flight", grouped(window.unwrap_or(1).into())),
        };
        writeln!(
            out,
            "fanout: {}, {} payload, {how}, {:.1} s",
            amount(self.subscribers, "subscriber", "subscribers"),
            bytes(as_f64(self.payload_bytes as u64)),
            self.seconds,
        )?;
        writeln!(out, "from {} to {}\n", self.publisher_url, self.subscriber_urls.join(", "))?;
        write_latencies(&[("publish → deliver", self.latency_us)], out)?;
        let line = |count, a_second| format!("{}, {}", grouped(count), rate(a_second));
        writeln!(out, "\nmessages     {}", line(self.messages, self.messages_per_second))?;
        writeln!(out, "deliveries   {}", line(self.deliveries, self.deliveries_per_second))?;
        writeln!(
            out,
            "faults       {} lost, {} doubled, {} reordered; {} disconnected, {}",
            grouped(self.lost),
            grouped(self.doubled),
            grouped(self.reordered),
            grouped(self.disconnected),
            amount(self.stalls, "stall", "stalls"),
        )?;
        self.usage.write("deliveries", out)
    }

    fn verdict(&self) -> Result<(), Failure> {
        let faults = [
            (self.lost, "deliveries lost"),
            (self.doubled, "deliveries doubled"),
            (self.reordered, "deliveries reordered"),
            (self.disconnected, "subscribers disconnected"),
        ];
        judge(&faults, self.first_loss.as_deref())
    }
}

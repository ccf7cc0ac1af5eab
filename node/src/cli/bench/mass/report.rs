//! What a mass event did.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    super::{
        super::Failure,
        closes::Closes,
        measure::Summary,
        report::{Report, Use, amount, grouped, judge, time, write_latencies},
        server::Buckets,
        target::Target,
    },
    Event, MassArgs,
    event::{Outcome, Stage},
};

/// The result; `wingbeat bench mass --help` says what each field is.
#[derive(Clone, Debug, Serialize)]
pub(in super::super) struct MassReport {
    scenario: &'static str,
    event: Event,
    urls: Vec<String>,
    sockets: u64,
    stopped_url: Option<String>,
    background_subscribers: u64,
    background_per_second: u32,
    event_seconds: f64,
    before_us: Summary,
    during_us: Summary,
    after_us: Summary,
    join_us: Summary,
    server_before_us: Option<ServerTimes>,
    server_during_us: Option<ServerTimes>,
    server_after_us: Option<ServerTimes>,
    close_codes: Closes,
    refused: u64,
    lost: u64,
    doubled: u64,
    reordered: u64,
    disconnected: u64,
    #[serde(flatten)]
    usage: Use,
    /// What went wrong first, for people.
    #[serde(skip)]
    first_fault: Option<String>,
}

/// What the nodes measured themselves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct ServerTimes {
    count: u64,
    p50: f64,
    p99: f64,
}

impl ServerTimes {
    fn of(buckets: &Buckets) -> Self {
        let us = |share| buckets.percentile(share) * 1e6;
        Self { count: buckets.count(), p50: us(0.5), p99: us(0.99) }
    }
}

impl MassReport {
    pub(super) fn new(
        args: &MassArgs,
        target: &Target,
        stage: &Stage<'_>,
        outcome: Outcome,
        usage: Use,
    ) -> Self {
        let [before_us, during_us, after_us] = outcome.latency.map(|latency| latency.summary());
        let [server_before_us, server_during_us, server_after_us] =
            outcome.server.map(|buckets| buckets.as_ref().map(ServerTimes::of));
        let crowd = &stage.crowd;
        let first_fault = stage.first_fault.clone();
        let urls = target.subscriber_urls();
        let stopped_url = urls.last().filter(|_| args.event == Event::Stop).cloned();
        Self {
            scenario: "mass",
            event: args.event,
            urls,
            sockets: args.sockets,
            stopped_url,
            background_subscribers: args.background_subscribers,
            background_per_second: args.background_rate,
            event_seconds: outcome.event.as_secs_f64(),
            before_us,
            during_us,
            after_us,
            join_us: stage.joins.summary(),
            server_before_us,
            server_during_us,
            server_after_us,
            close_codes: stage.closes.clone(),
            refused: stage.refused,
            lost: crowd.books.lost(),
            doubled: crowd.books.doubled(),
            reordered: crowd.books.reordered(),
            disconnected: crowd.disconnected() + stage.disconnected,
            usage,
            first_fault: first_fault.or_else(|| crowd.first_loss().map(str::to_owned)),
        }
    }
}

impl Report for MassReport {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let what = match self.event {
            Event::Kill => "killed at once",
            Event::Join => "join one topic",
            Event::Stop => "lose their node",
        };
        let sockets = amount(self.sockets, "socket", "sockets");
        writeln!(out, "mass: {sockets} {what}, {:.2} s", self.event_seconds)?;
        writeln!(
            out,
            "background of {}, {} messages/s, on {}\n",
            amount(self.background_subscribers, "subscriber", "subscribers"),
            self.background_per_second,
            self.urls[..self.urls.len() - usize::from(self.stopped_url.is_some())].join(", ")
        )?;
        let mut rows =
            vec![("before", self.before_us), ("during", self.during_us), ("after", self.after_us)];
        if self.event == Event::Join {
            rows.push(("join → reply", self.join_us));
        }
        write_latencies(&rows, out)?;
        let server = |times: Option<ServerTimes>| {
            times.map_or_else(|| "unknown".to_owned(), |times| time(times.p99))
        };
        writeln!(
            out,
            "\nserver p99   {} before, {} during, {} after",
            server(self.server_before_us),
            server(self.server_during_us),
            server(self.server_after_us),
        )?;
        if let Some(url) = &self.stopped_url {
            writeln!(out, "closed       {} by {url}", self.close_codes)?;
        }
        writeln!(
            out,
            "faults       {} lost, {} doubled, {} reordered; {} refused, {} disconnected",
            grouped(self.lost),
            grouped(self.doubled),
            grouped(self.reordered),
            grouped(self.refused),
            grouped(self.disconnected),
        )?;
        self.usage.write("sockets", out)
    }

    fn verdict(&self) -> Result<(), Failure> {
        let faults = [
            (self.lost, "deliveries lost"),
            (self.doubled, "deliveries doubled"),
            (self.reordered, "deliveries reordered"),
            (self.refused, "joins refused"),
            (self.disconnected, "sockets disconnected"),
        ];
        judge(&faults, self.first_fault.as_deref())
    }
}

//! What came of the joins.

use std::{
    io::{self, Write},
    time::Instant,
};

use serde::Serialize;

use super::{
    super::{
        super::Failure,
        measure::{Histogram, Summary, as_f64},
        report::{Report, Use, amount, grouped, judge, rate, time, write_latencies},
    },
    Board, Client, PresenceArgs,
};

/// The result; `wingbeat bench presence --help` says what each field is.
#[derive(Clone, Debug, Serialize)]
pub(in super::super) struct PresenceReport {
    scenario: &'static str,
    client_urls: Vec<String>,
    observer_urls: Vec<String>,
    pub(super) clients: u64,
    topics: u64,
    seconds: f64,
    joins_per_second: f64,
    join_reply_us: Summary,
    pub(super) join_to_visible_us: Summary,
    pub(super) reply_to_visible_us: Summary,
    converged_seconds: Option<f64>,
    pub(super) missing: u64,
    incomplete_lists: u64,
    disconnected: u64,
    #[serde(flatten)]
    usage: Use,
    /// Why the first socket ended, for people.
    #[serde(skip)]
    first_loss: Option<String>,
}

impl PresenceReport {
    pub(super) fn new(args: &PresenceArgs, started: Instant, board: &Board, usage: Use) -> Self {
        let (client_urls, observer_urls) = args.urls();
        let clients = board.clients.borrow();
        let [mut reply, mut visible, mut lag] = [(); 3].map(|()| Histogram::default());
        let mut last = started;
        for client in &*clients {
            let Client { joined: Some(joined), visible: seen } = *client else {
                continue;
            };
            last = last.max(joined.answered);
            reply.record(joined.answered.saturating_duration_since(joined.asked));
            if let Some(seen) = seen {
                visible.record(seen.saturating_duration_since(joined.asked));
                lag.record(seen.saturating_duration_since(joined.answered));
            }
        }
        let seconds = last.saturating_duration_since(started).as_secs_f64();
        Self {
            scenario: "presence",
            client_urls,
            observer_urls,
            clients: args.clients,
            topics: args.topics,
            seconds,
            joins_per_second: as_f64(args.clients) / seconds.max(f64::EPSILON),
            join_reply_us: reply.summary(),
            join_to_visible_us: visible.summary(),
            reply_to_visible_us: lag.summary(),
            converged_seconds: board
                .converged
                .get()
                .map(|whole| whole.saturating_duration_since(last).as_secs_f64()),
            missing: args.clients - board.visible.get(),
            incomplete_lists: board.incomplete.get(),
            disconnected: board.swarm.lost(),
            usage,
            first_loss: board.swarm.first_loss(),
        }
    }
}

impl Report for PresenceReport {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "presence: {} in {}, {:.1} s",
            amount(self.clients, "client", "clients"),
            amount(self.topics, "topic", "topics"),
            self.seconds,
        )?;
        let same = if self.client_urls == self.observer_urls && self.client_urls.len() == 1 {
            " (the same node)"
        } else {
            ""
        };
        let [clients, observers] = [&self.client_urls, &self.observer_urls].map(|u| u.join(", "));
        writeln!(out, "clients on {clients}, observers on {observers}{same}\n")?;
        let rows = [
            ("join → reply", self.join_reply_us),
            ("join → visible", self.join_to_visible_us),
            ("reply → visible", self.reply_to_visible_us),
        ];
        write_latencies(&rows, out)?;
        let joins = rate(self.joins_per_second);
        writeln!(out, "\njoins        {}, {joins}", grouped(self.clients))?;
        let converged = self.converged_seconds.map(|seconds| time(seconds * 1e6));
        match converged {
            Some(after) => writeln!(out, "lists        all whole {after} after the last reply")?,
            None => writeln!(out, "lists        {} not whole", grouped(self.incomplete_lists))?,
        }
        writeln!(
            out,
            "faults       {} missing; {} disconnected",
            grouped(self.missing),
            grouped(self.disconnected)
        )?;
        self.usage.write("joins", out)
    }

    fn verdict(&self) -> Result<(), Failure> {
        let faults = [
            (self.missing, "clients never shown"),
            (self.incomplete_lists, "lists incomplete"),
            (self.disconnected, "sockets disconnected"),
        ];
        judge(&faults, self.first_loss.as_deref())
    }
}

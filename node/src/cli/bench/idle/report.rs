//! What the open sockets cost.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;

use super::{
    super::{
        super::Failure,
        measure::{Summary, as_f64},
        report::{Report, Use, amount, bytes, grouped, judge, rate, write_latencies},
        server::Usage,
    },
    Hall, IdleArgs, Memory,
};

/// The result; `wingbeat bench idle --help` says what each field is.
#[derive(Clone, Debug, Serialize)]
pub(in super::super) struct IdleReport {
    scenario: &'static str,
    urls: Vec<String>,
    pub(super) sockets: u64,
    joined: bool,
    seconds: f64,
    connects_per_second: f64,
    open_us: Summary,
    pub(super) heartbeat_us: Summary,
    resident_bytes_before: Option<f64>,
    resident_bytes_settled: Option<f64>,
    resident_bytes_held: Option<f64>,
    pub(super) bytes_per_socket_settled: Option<f64>,
    bytes_per_socket_held: Option<f64>,
    disconnected: u64,
    #[serde(flatten)]
    usage: Use,
    /// Why the first socket ended, for people.
    #[serde(skip)]
    first_loss: Option<String>,
}

impl IdleReport {
    pub(super) fn new(
        args: &IdleArgs,
        opened: Duration,
        hall: &Hall,
        memory: Memory,
        usage: Use,
    ) -> Self {
        let [before, settled, held] = [memory.before, memory.settled, memory.held]
            .map(|usage: Option<Usage>| usage.map(|usage| usage.resident_bytes));
        let of_each = |after: Option<f64>| {
            let (before, after) = before.zip(after)?;
            Some((after - before) / as_f64(args.sockets))
        };
        let seconds = opened.as_secs_f64();
        Self {
            scenario: "idle",
            urls: args.nodes.url.clone(),
            sockets: args.sockets,
            joined: !args.no_join,
            seconds,
            connects_per_second: as_f64(args.sockets) / seconds.max(f64::EPSILON),
            open_us: hall.opens.borrow().summary(),
            heartbeat_us: hall.heartbeats.borrow().summary(),
            resident_bytes_before: before,
            resident_bytes_settled: settled,
            resident_bytes_held: held,
            bytes_per_socket_settled: of_each(settled),
            bytes_per_socket_held: of_each(held),
            disconnected: hall.swarm.lost(),
            usage,
            first_loss: hall.swarm.first_loss(),
        }
    }
}

impl Report for IdleReport {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let joined = if self.joined { "each joined to its own topic" } else { "none joined" };
        let sockets = amount(self.sockets, "socket", "sockets");
        writeln!(out, "idle: {sockets}, {joined}, opened in {:.1} s", self.seconds)?;
        writeln!(out, "on {}\n", self.urls.join(", "))?;
        write_latencies(&[("open", self.open_us), ("heartbeat", self.heartbeat_us)], out)?;
        writeln!(out, "\nconnects     {}", rate(self.connects_per_second))?;
        let known = |count: Option<f64>| count.map_or_else(|| "unknown".to_owned(), bytes);
        writeln!(
            out,
            "a socket     {} when settled, {} at the end",
            known(self.bytes_per_socket_settled),
            known(self.bytes_per_socket_held)
        )?;
        writeln!(
            out,
            "resident     {} before, {} when settled, {} at the end",
            known(self.resident_bytes_before),
            known(self.resident_bytes_settled),
            known(self.resident_bytes_held)
        )?;
        writeln!(out, "faults       {} disconnected", grouped(self.disconnected))?;
        self.usage.write("heartbeats", out)
    }

    fn verdict(&self) -> Result<(), Failure> {
        judge(&[(self.disconnected, "sockets disconnected")], self.first_loss.as_deref())
    }
}

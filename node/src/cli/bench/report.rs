//! What a run found: tables for people, one JSON object for scripts.

use std::{
    io::{self, Write},
    time::Instant,
};

use serde::Serialize;

use crate::telemetry::process::usage;

use super::{
    super::{
        Failure, Terminal,
        table::{Column, Table},
    },
    measure::{Summary, as_f64},
    server::{Servers, Usage},
};

/// The result of a scenario. Its JSON fields are part of the command line's contract.
pub(super) trait Report: Serialize {
    /// Writes it for people.
    fn write(&self, out: &mut dyn Write) -> io::Result<()>;

    /// What went wrong, if anything did.
    fn verdict(&self) -> Result<(), Failure>;

    /// Prints it and judges.
    fn tell(&self, json: bool, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        if json {
            let text = serde_json::to_string(self).map_err(Failure::failed)?;
            writeln!(terminal.out, "{text}")?;
        } else {
            self.write(terminal.out)?;
        }
        self.verdict()
    }
}

/// What the nodes used while something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct ServerUse {
    /// Distinct processes of the nodes that were named.
    pub(super) processes: usize,
    pub(super) cpu_seconds: f64,
    /// CPU seconds a second: 1 is one busy core.
    pub(super) cpu_cores: f64,
    /// CPU seconds for a million deliveries, joins or heartbeats.
    pub(super) cpu_seconds_per_million: f64,
    /// At the end, of all processes.
    pub(super) resident_bytes: f64,
}

/// What this process used meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct OwnUse {
    pub(super) cpu_seconds: f64,
    /// CPU seconds a second: near 1, this process is what limits the rate.
    pub(super) cpu_cores: f64,
}

/// Both, over one span of time. `null` where a system or a server does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Use {
    pub(super) server: Option<ServerUse>,
    pub(super) bench: OwnUse,
}

/// Measures a [`Use`].
#[derive(Debug)]
pub(super) struct Meter {
    server: Option<Usage>,
    own: f64,
    started: Instant,
}

impl Meter {
    pub(super) async fn start(servers: &Servers) -> Result<Self, Failure> {
        Ok(Self {
            server: servers.usage().await?,
            own: usage().cpu_seconds,
            started: Instant::now(),
        })
    }

    /// The use since the start, in which `operations` were done.
    pub(super) async fn stop(&self, servers: &Servers, operations: u64) -> Result<Use, Failure> {
        let seconds = self.started.elapsed().as_secs_f64().max(f64::EPSILON);
        let own_seconds = usage().cpu_seconds - self.own;
        let server = servers.usage().await?;
        let bench = OwnUse { cpu_seconds: own_seconds, cpu_cores: own_seconds / seconds };
        let server = self.server.zip(server).map(|(before, after)| {
            let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
            ServerUse {
                processes: after.processes,
                cpu_seconds,
                cpu_cores: cpu_seconds / seconds,
                cpu_seconds_per_million: cpu_seconds * 1e6 / as_f64(operations.max(1)),
                resident_bytes: after.resident_bytes,
            }
        });
        Ok(Use { server, bench })
    }
}

impl Use {
    /// Writes two lines; `operations` says what the million are.
    pub(super) fn write(&self, operations: &str, out: &mut dyn Write) -> io::Result<()> {
        match &self.server {
            Some(server) => writeln!(
                out,
                "server CPU   {:.2} s, {:.2} s per million {operations}, {:.2} cores; {} resident in {}",
                server.cpu_seconds,
                server.cpu_seconds_per_million,
                server.cpu_cores,
                bytes(server.resident_bytes),
                amount(server.processes as u64, "process", "processes"),
            )?,
            None => writeln!(out, "server CPU   unknown: /metrics does not tell")?,
        }
        let OwnUse { cpu_seconds, cpu_cores } = &self.bench;
        writeln!(out, "bench CPU    {cpu_seconds:.2} s, {cpu_cores:.2} cores")
    }
}

/// Writes percentiles, a row each.
pub(super) fn write_latencies(rows: &[(&str, Summary)], out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new([
        Column::Left("LATENCY"),
        Column::Right("COUNT"),
        Column::Right("MEAN"),
        Column::Right("P50"),
        Column::Right("P90"),
        Column::Right("P99"),
        Column::Right("P99.9"),
        Column::Right("MAX"),
    ]);
    for (name, summary) in rows {
        let Summary { count, mean, p50, p90, p99, p99_9, max } = *summary;
        let times = [mean, p50, p90, p99, p99_9, max].map(time);
        table.row([(*name).to_owned(), grouped(count)].into_iter().chain(times));
    }
    table.write(out)
}

/// Microseconds with three digits that count.
pub(super) fn time(us: f64) -> String {
    let (value, unit) = match us {
        ..1e3 => (us, "us"),
        1e3..1e6 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    let decimals = match value {
        ..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// Bytes in the largest unit that leaves a whole part.
pub(super) fn bytes(count: f64) -> String {
    match count.abs() {
        ..1024.0 => format!("{count:.0} B"),
        1024.0..1_048_576.0 => format!("{:.1} KiB", count / 1024.0),
        _ => format!("{:.1} MiB", count / 1_048_576.0),
    }
}

/// A count with commas between groups of three digits.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count of something a second, rounded.
pub(super) fn rate(per_second: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is not negative, and what does not fit saturates"
    )]
    let whole = per_second.round() as u64;
    format!("{}/s", grouped(whole))
}

/// `1 process`, `2 processes`
pub(super) fn amount(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// `Ok` if nothing is wrong, else what is: `deliveries lost: 3, doubled: 1`.
pub(super) fn judge(faults: &[(u64, &str)], why: Option<&str>) -> Result<(), Failure> {
    let faults: Vec<_> = faults
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, fault)| format!("{fault}: {}", grouped(*count)))
        .collect();
    match (faults.is_empty(), why) {
        (true, _) => Ok(()),
        (false, Some(why)) => Err(Failure::failed(format_args!("{} ({why})", faults.join(", ")))),
        (false, None) => Err(Failure::failed(faults.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(time(0.0), "0.00 us");
        assert_eq!(time(999.4), "999 us");
        assert_eq!(time(12_340.0), "12.3 ms");
        assert_eq!(time(5_012_000.0), "5.01 s");
        assert_eq!(bytes(952.0), "952 B");
        assert_eq!(bytes(2_048.0), "2.0 KiB");
        assert_eq!(bytes(3_145_728.0), "3.0 MiB");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(123), "123");
        assert_eq!(rate(1_234.5), "1,235/s");
        assert_eq!(amount(1, "process", "processes"), "1 process");
    }

    #[test]
    fn a_run_without_faults_has_no_failure_and_others_name_each() {
        assert_eq!(judge(&[(0, "lost")], Some("unused")), Ok(()));
        let failure = judge(&[(1_200, "lost"), (0, "doubled"), (1, "cut")], Some("slow"));
        assert_eq!(failure, Err(Failure::failed("lost: 1,200, cut: 1 (slow)")));
    }

    #[test]
    fn latencies_stand_in_a_table() {
        let summary = Summary { count: 1_000, mean: 1_500.0, p50: 900.0, ..Summary::default() };
        let mut out = Vec::new();
        write_latencies(&[("publish → deliver", summary)], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("LATENCY            COUNT     MEAN     P50"), "{text}");
        assert!(text.contains("publish → deliver  1,000  1.50 ms  900 us"), "{text}");
    }
}

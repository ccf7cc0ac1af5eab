//! What the coming and going found.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;

use super::{
    super::{
        super::Failure,
        compare::Measured,
        measure::{Summary, as_f64},
        report::{Report, Use, amount, grouped, judge, rate, write_latencies},
        target::Target,
    },
    ChurnArgs,
    cycles::{Cycles, Phase},
};

/// The result; `wingbeat bench churn --help` says what each field is.
#[derive(Clone, Debug, Serialize)]
pub(in super::super) struct ChurnReport {
    scenario: &'static str,
    urls: Vec<String>,
    sockets: u64,
    seconds: f64,
    cycles: u64,
    cycles_per_second: f64,
    connect_us: Summary,
    upgrade_us: Summary,
    join_us: Summary,
    leave_us: Summary,
    close_us: Summary,
    cycle_us: Summary,
    failed: u64,
    #[serde(flatten)]
    usage: Use,
    /// Why the first failed, for people.
    #[serde(skip)]
    first_failure: Option<String>,
}

impl ChurnReport {
    pub(super) fn new(
        args: &ChurnArgs,
        target: &Target,
        elapsed: Duration,
        cycles: &Cycles,
        usage: Use,
    ) -> Self {
        let seconds = elapsed.as_secs_f64();
        let phase = |phase| cycles.phase(phase).summary();
        Self {
            scenario: "churn",
            urls: target.subscriber_urls(),
            sockets: args.sockets,
            seconds,
            cycles: cycles.done(),
            cycles_per_second: as_f64(cycles.done()) / seconds.max(f64::EPSILON),
            connect_us: phase(Phase::Connect),
            upgrade_us: phase(Phase::Upgrade),
            join_us: phase(Phase::Join),
            leave_us: phase(Phase::Leave),
            close_us: phase(Phase::Close),
            cycle_us: cycles.whole().summary(),
            failed: cycles.failed(),
            usage,
            first_failure: cycles.first_failure(),
        }
    }
}

impl Report for ChurnReport {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let sockets = amount(self.sockets, "socket", "sockets");
        writeln!(out, "churn: {sockets} at a time, {:.1} s", self.seconds)?;
        writeln!(out, "on {}\n", self.urls.join(", "))?;
        let rows = [
            ("connect", self.connect_us),
            ("upgrade", self.upgrade_us),
            ("join", self.join_us),
            ("leave", self.leave_us),
            ("close", self.close_us),
            ("cycle", self.cycle_us),
        ];
        write_latencies(&rows, out)?;
        let cycles = grouped(self.cycles);
        writeln!(out, "\ncycles       {cycles}, {}", rate(self.cycles_per_second))?;
        writeln!(out, "faults       {} failed", grouped(self.failed))?;
        self.usage.write("cycles", out)
    }

    fn verdict(&self) -> Result<(), Failure> {
        judge(&[(self.failed, "cycles failed")], self.first_failure.as_deref())
    }
}

impl Measured for ChurnReport {
    fn rate(&self) -> f64 {
        self.cycles_per_second
    }

    fn usage(&self) -> Use {
        self.usage
    }

    fn operations(&self) -> &'static str {
        "cycles"
    }

    fn p99_us(&self) -> f64 {
        self.cycle_us.p99
    }

    fn add_faults(&mut self, other: &Self) {
        self.failed += other.failed;
        if self.first_failure.is_none() {
            self.first_failure.clone_from(&other.first_failure);
        }
    }
}

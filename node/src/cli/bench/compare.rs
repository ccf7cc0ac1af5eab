//! Several runs, of the nodes and of the floor in turns: medians, and what the nodes cost more.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    super::{
        Failure,
        table::{Column, Table},
    },
    NodeArgs,
    floor::{Floor, Manners},
    report::{Report, Use, rate, time},
    target::Target,
};

/// What the help of a scenario says of the floor.
pub(super) const DETAILS: &str = "\
The floor is what the machine can do: a bare loop on one thread, in a process of its own, that
answers joins and then writes the same frames as a node to the same sockets, one send(2) for each
delivery; --floor-joined writes all frames of one wake-up for one subscriber at once. Whether a node
answers pushes and sends publishers their own copies is asked of the first node before, so that the
floor does likewise. Nodes and floor take turns, --runs times each; the report is that of the run
with the median rate, and ratios are medians of those of each turn.";

/// What the help of a scenario says of the comparison's JSON.
pub(super) const FIELDS: &str = "\
  runs
  spread                        over all runs: rate, cpu_seconds_per_million, p99_us, each with
                                median, min, max
  floor                         joined, acks, copies, spread, report (of the median run, all the
                                fields above); or null
  ratio                         nodes to floor: rate, cpu_seconds_per_million, p99_us, each with
                                median, min, max; or null";

/// How often, and against what.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct CompareArgs {
    /// Compare with a bare loop of send(2) that runs first, with the same clients
    #[arg(long)]
    floor: bool,
    /// The same with a floor that joins what one subscriber gets at once into one write
    #[arg(long, conflicts_with = "floor")]
    floor_joined: bool,
    /// Run so often, and report medians
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
}

/// What a run says of itself.
pub(super) trait Measured: Report + Clone {
    /// Operations a second.
    fn rate(&self) -> f64;
    fn usage(&self) -> Use;
    /// What operations are.
    fn operations(&self) -> &'static str;
    fn p99_us(&self) -> f64;
    /// Adds what went wrong in another run.
    fn add_faults(&mut self, other: &Self);
}

/// A median, and what it is the median of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

/// What several runs found, or how two of their kind compare.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    rate: Option<Spread>,
    cpu_seconds_per_million: Option<Spread>,
    p99_us: Option<Spread>,
}

/// All runs. Faults are those of all, too.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Compared<R> {
    #[serde(flatten)]
    report: R,
    runs: usize,
    spread: Figures,
    floor: Option<FloorReport<R>>,
    ratio: Option<Figures>,
}

#[derive(Clone, Debug, Serialize)]
struct FloorReport<R> {
    joined: bool,
    #[serde(flatten)]
    manners: Manners,
    spread: Figures,
    report: R,
}

impl CompareArgs {
    /// Whether there is a floor, and whether it joins writes.
    pub(super) const fn floor(&self) -> Option<bool> {
        match (self.floor, self.floor_joined) {
            (false, false) => None,
            (_, joined) => Some(joined),
        }
    }

    /// Runs all.
    pub(super) fn run<R: Measured>(
        &self,
        args: &NodeArgs,
        nodes: &Target,
        manners: Manners,
        one: impl Fn(&Target) -> Result<R, Failure>,
    ) -> Result<Compared<R>, Failure> {
        let (mut floors, mut reports) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            if let Some(joined) = self.floor() {
                let floor = Floor::start(joined, manners)?;
                floors.push(one(&Target::floor(args, &floor)?)?);
            }
            reports.push(one(nodes)?);
        }
        let ratio = (!floors.is_empty()).then(|| Figures::ratio(&reports, &floors));
        let floor = match (self.floor(), middle(&floors)) {
            (Some(joined), Some(report)) => {
                Some(FloorReport { joined, manners, spread: Figures::of(&floors), report })
            }
            _ => None,
        };
        let report = middle(&reports).ok_or_else(|| Failure::failed("nothing was run"))?;
        let spread = Figures::of(&reports);
        Ok(Compared { report, runs: reports.len(), spread, floor, ratio })
    }
}

/// The run with the median rate, with the faults of all.
fn middle<R: Measured>(runs: &[R]) -> Option<R> {
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by(|a, b| runs[*a].rate().total_cmp(&runs[*b].rate()));
    let middle = *order.get(runs.len().saturating_sub(1) / 2)?;
    let mut report = runs[middle].clone();
    for (_, other) in runs.iter().enumerate().filter(|(index, _)| *index != middle) {
        report.add_faults(other);
    }
    Some(report)
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[half]
        } else {
            f64::midpoint(values[half - 1], values[half])
        };
        Some(Self { median, min, max })
    }

    fn shown(spread: Option<Self>, show: impl Fn(f64) -> String) -> String {
        match spread {
            None => "unknown".to_owned(),
            Some(Self { median, min, max }) if min.total_cmp(&max).is_eq() => show(median),
            Some(Self { median, min, max }) => {
                format!("{} ({} to {})", show(median), show(min), show(max))
            }
        }
    }
}

fn cpu<R: Measured>(run: &R) -> Option<f64> {
    run.usage().server.map(|server| server.cpu_seconds_per_million)
}

impl Figures {
    fn of<R: Measured>(runs: &[R]) -> Self {
        let cpu: Option<Vec<f64>> = runs.iter().map(cpu).collect();
        Self {
            rate: Spread::of(runs.iter().map(R::rate).collect()),
            cpu_seconds_per_million: cpu.and_then(Spread::of),
            p99_us: Spread::of(runs.iter().map(R::p99_us).collect()),
        }
    }

    /// What the nodes' runs are to the floor's; a floor of nothing is no measure.
    fn ratio<R: Measured>(nodes: &[R], floors: &[R]) -> Self {
        let ratio = |value: &dyn Fn(&R) -> Option<f64>| {
            let turns = nodes.iter().zip(floors).map(|(node, floor)| {
                let floor = value(floor).filter(|floor| *floor > 0.0)?;
                Some(value(node)? / floor)
            });
            turns.collect::<Option<Vec<f64>>>().and_then(Spread::of)
        };
        Self {
            rate: ratio(&|run| Some(run.rate())),
            cpu_seconds_per_million: ratio(&cpu),
            p99_us: ratio(&|run| Some(run.p99_us())),
        }
    }

    fn row(&self, name: &str) -> [String; 4] {
        [
            name.to_owned(),
            Spread::shown(self.rate, rate),
            Spread::shown(self.cpu_seconds_per_million, |seconds| format!("{seconds:.2} s")),
            Spread::shown(self.p99_us, time),
        ]
    }

    fn ratio_row(&self) -> [String; 4] {
        let show = |spread| Spread::shown(spread, |ratio| format!("{ratio:.2}"));
        let [rate, cpu, p99] = [self.rate, self.cpu_seconds_per_million, self.p99_us].map(show);
        ["ratio".to_owned(), rate, cpu, p99]
    }
}

impl<R: Measured> Report for Compared<R> {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.report.write(out)?;
        if self.runs == 1 && self.floor.is_none() {
            return Ok(());
        }
        let title = if self.runs == 1 { "1 RUN" } else { "MEDIAN OF RUNS" };
        let cpu = match self.report.operations() {
            "replies" => "CPU PER MILLION REPLIES",
            "cycles" => "CPU PER MILLION CYCLES",
            _ => "CPU PER MILLION DELIVERIES",
        };
        writeln!(out)?;
        let mut table = Table::new([
            Column::Left(title),
            Column::Right("RATE"),
            Column::Right(cpu),
            Column::Right("P99"),
        ]);
        table.row(self.spread.row("nodes"));
        if let Some(floor) = &self.floor {
            table.row(floor.spread.row(if floor.joined { "floor, joined" } else { "floor" }));
        }
        if let Some(ratio) = &self.ratio {
            table.row(ratio.ratio_row());
        }
        table.write(out)
    }

    fn verdict(&self) -> Result<(), Failure> {
        self.report.verdict()?;
        let floor = self.floor.as_ref().map_or(Ok(()), |floor| floor.report.verdict());
        floor.map_err(|failure| Failure::failed(format_args!("the floor: {failure}")))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::report::{OwnUse, ServerUse},
        *,
    };

    #[derive(Clone, Debug, Serialize)]
    struct Run {
        rate: f64,
        cpu: f64,
        faults: u64,
    }

    impl Report for Run {
        fn write(&self, out: &mut dyn Write) -> io::Result<()> {
            writeln!(out, "a run")
        }

        fn verdict(&self) -> Result<(), Failure> {
            super::super::report::judge(&[(self.faults, "lost")], None)
        }
    }

    impl Measured for Run {
        fn rate(&self) -> f64 {
            self.rate
        }

        fn usage(&self) -> Use {
            let server = (self.cpu > 0.0).then_some(ServerUse {
                processes: 1,
                cpu_seconds: 0.0,
                cpu_cores: 0.0,
                cpu_seconds_per_million: self.cpu,
                resident_bytes: 0.0,
            });
            Use { server, bench: OwnUse { cpu_seconds: 0.0, cpu_cores: 0.0 } }
        }

        fn operations(&self) -> &'static str {
            "deliveries"
        }

        fn p99_us(&self) -> f64 {
            0.0
        }

        fn add_faults(&mut self, other: &Self) {
            self.faults += other.faults;
        }
    }

    fn runs(figures: &[(f64, f64)]) -> Vec<Run> {
        figures.iter().map(|&(rate, cpu)| Run { rate, cpu, faults: 1 }).collect()
    }

    fn figures(spread: Option<Spread>) -> [f64; 3] {
        let Spread { median, min, max } = spread.unwrap();
        [median, min, max]
    }

    #[test]
    fn ratios_are_those_of_each_turn() {
        let nodes = runs(&[(10.0, 2.0), (30.0, 4.0), (20.0, 3.0)]);
        let floors = runs(&[(10.0, 1.0), (10.0, 1.0), (40.0, 1.0)]);
        let ratio = Figures::ratio(&nodes, &floors);
        assert_eq!(figures(ratio.rate).map(f64::to_bits), [1.0, 0.5, 3.0].map(f64::to_bits));
        let cpu = figures(ratio.cpu_seconds_per_million);
        assert_eq!(cpu.map(f64::to_bits), [3.0, 2.0, 4.0].map(f64::to_bits));
        // A floor in no time, and nodes that do not tell.
        assert_eq!(ratio.p99_us, None);
        let ratio = Figures::ratio(&runs(&[(1.0, 0.0)]), &runs(&[(1.0, 1.0)]));
        assert_eq!(ratio.cpu_seconds_per_million, None);
    }

    #[test]
    fn the_median_run_stands_for_all_and_has_the_faults_of_all() {
        let report = middle(&runs(&[(3.0, 1.0), (1.0, 1.0), (2.0, 1.0)])).unwrap();
        assert_eq!((report.rate.to_bits(), report.faults), (2.0_f64.to_bits(), 3));
        assert!(middle::<Run>(&[]).is_none());
    }

    #[test]
    fn a_fault_of_the_floor_is_told_as_its_own() {
        let sound = Run { faults: 0, ..runs(&[(9.0, 1.0)]).remove(0) };
        let floors = runs(&[(6.0, 0.5)]);
        let compared = Compared {
            spread: Figures::of(std::slice::from_ref(&sound)),
            ratio: Some(Figures::ratio(std::slice::from_ref(&sound), &floors)),
            report: sound,
            runs: 1,
            floor: Some(FloorReport {
                joined: false,
                manners: Manners { acks: true, copies: true },
                spread: Figures::of(&floors),
                report: floors[0].clone(),
            }),
        };
        assert_eq!(compared.verdict(), Err(Failure::failed("the floor: lost: 1")));
        let mut text = Vec::new();
        compared.write(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for row in ["nodes   9/s", "floor   6/s", "ratio  1.50"] {
            assert!(text.contains(row), "{text}");
        }
    }
}

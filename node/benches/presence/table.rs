//! A line for each figure.

use std::fmt;

/// One figure and what it should be.
pub(crate) struct Row {
    what: String,
    unit: &'static str,
    /// At most this; `None` where the figure only explains another.
    target: Option<f64>,
    /// What each run measured, in order.
    runs: Vec<f64>,
}

impl Row {
    pub(crate) fn new(
        what: impl Into<String>,
        unit: &'static str,
        target: impl Into<Option<f64>>,
        mut runs: Vec<f64>,
    ) -> Self {
        runs.sort_by(f64::total_cmp);
        Self { what: what.into(), unit, target: target.into(), runs }
    }

    fn median(&self) -> f64 {
        self.runs.get(self.runs.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Row {
    /// The columns are those of presence/benches/figures.rs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, unit, target, runs } = self;
        let median = self.median();
        let (lowest, highest) = (runs.first().unwrap_or(&median), runs.last().unwrap_or(&median));
        let measured = format!("{median:.1} ({lowest:.1} to {highest:.1}) {unit}");
        let (target, verdict) = match target {
            Some(target) if median <= *target => (format!("{target} {unit}"), "met"),
            Some(target) => (format!("{target} {unit}"), "MISSED"),
            None => (String::new(), ""),
        };
        write!(f, "{what:<72} {target:>10}  {measured:<32} {verdict}")
    }
}

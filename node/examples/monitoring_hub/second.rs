//! The second that runs: what an application has pushed since the last one.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::{
    history::Point,
    samples::{Invalid, Samples},
};

/// Components of one application. A page joins them all, and a socket joins 100 topics.
const COMPONENTS_MAX: usize = 64;

/// The longest latency that is told from longer ones: a minute.
const LONGEST_US: u64 = 60_000_000;

/// Two digits: exact to 1 %, in 10 KiB.
const DIGITS: u8 = 2;

/// Latencies by component. One that was there once stays, with nothing in it.
#[derive(Default)]
pub(crate) struct Second(BTreeMap<String, Histogram<u32>>);

impl Second {
    pub(crate) fn take(&mut self, samples: &Samples) -> Result<(), Invalid> {
        if !self.0.contains_key(&samples.component) {
            if self.0.len() == COMPONENTS_MAX {
                return Err(Invalid::TooMany { limit: COMPONENTS_MAX });
            }
            let empty = Histogram::new_with_max(LONGEST_US, DIGITS)?;
            self.0.insert(samples.component.clone(), empty);
        }
        if let Some(latencies) = self.0.get_mut(&samples.component) {
            samples.microseconds().for_each(|us| latencies.saturating_record(us.into()));
        }
        Ok(())
    }

    /// Never fewer than before.
    pub(crate) fn components(&self) -> Vec<&String> {
        self.0.keys().collect()
    }

    /// Ends it at `t`, and begins the next: a point for each component.
    pub(crate) fn close(&mut self, t: u64, instance: &str) -> Vec<(String, Point)> {
        let close = |(component, latencies): (&String, &mut Histogram<u32>)| {
            let at = |quantile| latencies.value_at_quantile(quantile);
            let point = Point {
                t,
                instance: instance.to_owned(),
                count: latencies.len(),
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                max: latencies.max(),
            };
            latencies.reset();
            (component.clone(), point)
        };
        self.0.iter_mut().map(close).collect()
    }
}

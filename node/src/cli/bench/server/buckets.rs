//! A histogram as `/metrics` has it.

use std::collections::BTreeMap;

use super::{super::measure::as_f64, sample};

/// How many values were at most so large, in buckets of the server's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Buckets {
    /// By the bits of the upper bound, a positive float: those sort as their values do.
    at_most: BTreeMap<u64, u64>,
}

impl Buckets {
    /// Adds up all series of that name; `None` if there is none.
    pub(super) fn read(page: &str, name: &str) -> Option<Self> {
        let mut buckets = Self::default();
        for (series, labels, value) in page.lines().filter_map(sample) {
            if series.strip_suffix("_bucket") != Some(name) {
                continue;
            }
            let bound = labels.split("le=\"").nth(1)?.split('"').next()?;
            let bound: f64 = bound.parse().ok().filter(|bound| *bound >= 0.0)?;
            let count: u64 = value.parse().ok()?;
            *buckets.at_most.entry(bound.to_bits()).or_default() += count;
        }
        (!buckets.at_most.is_empty()).then_some(buckets)
    }

    /// Adds what another node has counted, in buckets of the same bounds.
    pub(super) fn add(&mut self, other: &Self) {
        for (bound, count) in &other.at_most {
            *self.at_most.entry(*bound).or_default() += count;
        }
    }

    /// What was counted since.
    pub(in super::super) fn since(&self, earlier: &Self) -> Self {
        let since = |(bound, count): (&u64, &u64)| {
            (*bound, count.saturating_sub(earlier.at_most.get(bound).copied().unwrap_or(0)))
        };
        Self { at_most: self.at_most.iter().map(since).collect() }
    }

    pub(in super::super) fn count(&self) -> u64 {
        self.at_most.values().next_back().copied().unwrap_or(0)
    }

    /// The value that `share` of all (0 to 1) do not exceed, as if those of a bucket were spread
    /// evenly; those beyond the last bound, which some servers write as the largest
    /// number, count as that. Zero if there are none.
    pub(in super::super) fn percentile(&self, share: f64) -> f64 {
        let rank = share * as_f64(self.count());
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, at_most) in &self.at_most {
            let (upper, at_most) = (f64::from_bits(*bound), as_f64(*at_most));
            if at_most >= rank && at_most > below {
                let within = ((rank - below) / (at_most - below)).clamp(0.0, 1.0);
                return if upper < f64::MAX { lower + (upper - lower) * within } else { lower };
            }
            (lower, below) = (upper, at_most);
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# TYPE f_seconds histogram
f_seconds_sum{lane=\"a\"} 9.5
f_seconds_count{lane=\"a\"} 10
f_seconds_bucket{le=\"0.001\",lane=\"a\"} 4
f_seconds_bucket{le=\"0.01\",lane=\"a\"} 9
f_seconds_bucket{le=\"+Inf\",lane=\"a\"} 10
f_seconds_bucket{le=\"0.001\",lane=\"b\"} 0
f_seconds_bucket{le=\"0.01\",lane=\"b\"} 10
f_seconds_bucket{le=\"+Inf\",lane=\"b\"} 10
other_bucket{le=\"+Inf\"} 7
";

    #[test]
    fn all_series_of_a_name_are_one_histogram() {
        let buckets = Buckets::read(PAGE, "f_seconds").unwrap();
        assert_eq!(buckets.count(), 20);
        assert!((buckets.percentile(0.2) - 0.001).abs() < 1e-12);
        // 15 of 20 are in the second bucket, and 6 of those are half of all.
        assert!((buckets.percentile(0.5) - (0.001 + 0.009 * 6.0 / 15.0)).abs() < 1e-12);
        assert!((buckets.percentile(1.0) - 0.01).abs() < 1e-12, "the last finite bound");
        assert_eq!(Buckets::read(PAGE, "g_seconds"), None);
        assert_eq!(Buckets::read("f_bucket{le=\"x\"} 1\n", "f"), None);
    }

    #[test]
    fn what_came_between_two_looks_is_a_histogram_too() {
        let earlier = Buckets::read(PAGE, "f_seconds").unwrap();
        let mut later = earlier.clone();
        later.add(
            &Buckets::read(
                "f_seconds_bucket{le=\"0.01\"} 5\nf_seconds_bucket{le=\"+Inf\"} 5\n",
                "f_seconds",
            )
            .unwrap(),
        );
        let between = later.since(&earlier);
        assert_eq!(between.count(), 5);
        assert!((0.001..=0.01).contains(&between.percentile(0.99)));
        assert_eq!(earlier.since(&earlier).percentile(0.99).to_bits(), 0);
    }
}

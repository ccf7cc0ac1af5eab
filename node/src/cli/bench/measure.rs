//! How long things took: a histogram of fixed size, exact to 1 %.

use std::time::Duration;

use serde::Serialize;

/// Bits of a value that its bucket keeps: 1 part in 128.
const PRECISION_BITS: u32 = 7;

const BUCKETS_A_DOUBLING: usize = 1 << PRECISION_BITS;

/// One row of exact values, and one for each doubling above.
const ROWS: usize = (u64::BITS - PRECISION_BITS) as usize + 1;

/// Counts of durations in buckets whose width grows with them; 58 KiB whatever it holds.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    sum_ns: u128,
    max_ns: u64,
}

/// What people ask of a [`Histogram`]; all in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Summary {
    /// How many were measured; without any, all else is 0.
    pub(super) count: u64,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p99_9: f64,
    pub(super) max: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; ROWS * BUCKETS_A_DOUBLING].into(), count: 0, sum_ns: 0, max_ns: 0 }
    }
}

impl Histogram {
    /// Counts a duration; those over 584 years count as that.
    pub(super) fn record(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
        self.sum_ns += u128::from(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many were counted.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The duration that `share` of all (0 to 1) do not exceed; zero if there are none.
    pub(super) fn percentile(&self, share: f64) -> Duration {
        let rank = (share * as_f64(self.count)).ceil().max(1.0);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if as_f64(seen) >= rank {
                return Duration::from_nanos(highest(index).min(self.max_ns));
            }
        }
        Duration::from_nanos(self.max_ns)
    }

    pub(super) fn summary(&self) -> Summary {
        let us = |share| self.percentile(share).as_secs_f64() * 1e6;
        #[expect(clippy::cast_precision_loss, reason = "a mean is no exact number")]
        let sum_us = self.sum_ns as f64 / 1e3;
        Summary {
            count: self.count,
            mean: sum_us / as_f64(self.count.max(1)),
            p50: us(0.5),
            p90: us(0.9),
            p99: us(0.99),
            p99_9: us(0.999),
            max: us(1.0),
        }
    }
}

/// The bucket of a value: its doubling, and its leading bits within that.
fn bucket(ns: u64) -> usize {
    let shift = (u64::BITS - PRECISION_BITS).saturating_sub(ns.leading_zeros() + 1);
    let row = shift as usize;
    // At most 2^(PRECISION_BITS + 1) - 1; below that a value is its own bucket.
    let leading = usize::try_from(ns >> shift).unwrap_or(usize::MAX);
    row * BUCKETS_A_DOUBLING + leading
}

/// The highest value of a bucket.
fn highest(index: usize) -> u64 {
    let row = (index / BUCKETS_A_DOUBLING).saturating_sub(1);
    let leading = (index - row * BUCKETS_A_DOUBLING) as u128;
    u64::try_from(((leading + 1) << row) - 1).unwrap_or(u64::MAX)
}

/// A count as a factor of a rate or a share; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are below 2^53")]
pub(super) const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        for us in 1..=1_000 {
            histogram.record(Duration::from_micros(us));
        }
        let summary = histogram.summary();
        let expected = [500.0, 900.0, 990.0, 999.0];
        let measured = [summary.p50, summary.p90, summary.p99, summary.p99_9];
        for (measured, expected) in measured.into_iter().zip(expected) {
            let error = (measured - expected) / expected;
            assert!((0.0..0.01).contains(&error), "{measured} for {expected}");
        }
        assert_eq!((summary.count, summary.max), (1_000, 1_000.0));
        assert!((summary.mean - 500.5).abs() < 1e-6);
    }

    #[test]
    fn nothing_measured_is_all_zeros() {
        assert_eq!(Histogram::default().summary(), Summary::default());
    }

    #[test]
    fn a_percentile_never_exceeds_the_longest() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_nanos(1_000_001));
        assert_eq!(histogram.percentile(0.5), Duration::from_nanos(1_000_001));
        histogram.record(Duration::MAX);
        assert_eq!(histogram.percentile(1.0), Duration::from_nanos(u64::MAX));
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_values_to_1_percent(shift in 0_u32..64, bits in any::<u64>()) {
            let value = bits >> shift;
            let highest = highest(bucket(value));
            prop_assert!(highest >= value);
            prop_assert!(highest - value <= value / 100);
            prop_assert_eq!(bucket(highest), bucket(value));
        }

        #[test]
        fn longer_durations_are_never_in_lower_buckets(a in any::<u64>(), b in any::<u64>()) {
            prop_assert!(bucket(a.min(b)) <= bucket(a.max(b)));
        }
    }
}

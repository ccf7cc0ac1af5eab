//! A bound on how often something may happen.

use presence::Time;

/// One token, in the bucket's own unit: a rate of one a second brings one of these a microsecond.
const TOKEN: u64 = 1_000_000;

/// A token bucket that starts full and holds one second's worth.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: u32,
    level: u64,
    refilled_at: Time,
}

impl Bucket {
    /// A full bucket; a rate of 0 allows nothing.
    pub(super) fn new(per_second: u32, now: Time) -> Self {
        Self { per_second, level: u64::from(per_second) * TOKEN, refilled_at: now }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, now: Time) -> bool {
        let rate = u64::from(self.per_second);
        let elapsed = now.as_micros().saturating_sub(self.refilled_at.as_micros());
        self.level = self.level.saturating_add(elapsed.saturating_mul(rate)).min(rate * TOKEN);
        self.refilled_at = self.refilled_at.max(now);
        match self.level.checked_sub(TOKEN) {
            Some(rest) => {
                self.level = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    #[test]
    fn a_burst_of_one_second_passes_and_then_the_rate_holds() {
        let mut bucket = Bucket::new(2, at(0));
        assert_eq!([(); 3].map(|()| bucket.take(at(0))), [true, true, false]);
        assert!(!bucket.take(at(499)));
        assert!(bucket.take(at(500)));
        assert!(!bucket.take(at(501)));
    }

    #[test]
    fn an_idle_bucket_holds_no_more_than_one_second() {
        let mut bucket = Bucket::new(1, at(0));
        assert_eq!([(); 2].map(|()| bucket.take(at(1_000_000))), [true, false]);
        assert!(!Bucket::new(0, at(0)).take(Time::from_micros(u64::MAX)));
    }
}

//! Owners that go down and come up again and again.

use std::{collections::VecDeque, time::Duration};

use crate::Time;

/// How long a return counts.
const WINDOW: Duration = Duration::from_secs(60);

/// Returns in that time that are shown without delay.
const FREE: usize = 2;

/// The first delay; each further one is twice the one before, up to a bound.
const FIRST: Duration = Duration::from_secs(1);

/// Returns that are remembered: with so many, the delay is a minute and more.
const RETURNS_MAX: usize = 10;

/// The returns of one run of one node.
#[derive(Debug, Default)]
pub(super) struct Flaps {
    returns: VecDeque<Time>,
}

impl Flaps {
    /// The owner has come up again; says how long it stays hidden for that, at most `max`.
    pub(super) fn note(&mut self, now: Time, max: Duration) -> Duration {
        while self.returns.front().is_some_and(|at| *at + WINDOW <= now) {
            self.returns.pop_front();
        }
        if self.returns.len() >= RETURNS_MAX {
            self.returns.pop_front();
        }
        self.returns.push_back(now);
        let doublings = (0..).zip(self.returns.iter().skip(FREE)).last();
        doublings.map_or(Duration::ZERO, |(n, _)| (FIRST * (1 << n)).min(max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_the_third_return_in_a_minute_on_the_delay_doubles() {
        let mut flaps = Flaps::default();
        let mut note = |second: u64| {
            flaps.note(Time::from_micros(second * 1_000_000), Duration::from_secs(5)).as_secs()
        };
        assert_eq!([0, 4, 8, 12, 16, 20].map(&mut note), [0, 0, 1, 2, 4, 5]);
        for second in 21..40 {
            assert_eq!(note(second), 5);
        }
        // Those that are a minute old do not count.
        assert_eq!(note(90), 5);
        assert_eq!([150, 160, 209, 211].map(&mut note), [0, 0, 1, 1]);
    }
}

//! The highest rate under a bound of latency.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{
    super::{super::Failure, engine::Engine, measure::as_f64, progress::Bar},
    Crowd, LoadArgs, Pace,
};

/// The rates that held and that did not are this close at the end: 5 %.
const CLOSE: f64 = 1.05;

/// A search ends after so many steps, however far it is.
const STEPS_MAX: usize = 40;

/// The share of what the warm-up delivered that is tried first.
const FIRST_SHARE: f64 = 0.125;

/// Messages in flight that are no sign of a queue that grows.
const IN_FLIGHT_MIN: f64 = 64.0;

/// What a search found.
#[derive(Clone, Debug, Serialize)]
pub(in super::super) struct Found {
    /// What p99 had to stay within.
    pub(super) bound_us: f64,
    /// The highest rate that held; 1 if none did.
    pub(super) rate_per_second: u32,
    pub(super) steps: Vec<Step>,
}

/// One rate that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Step {
    pub(super) rate_per_second: u32,
    pub(super) deliveries_per_second: f64,
    pub(super) p99_us: f64,
    pub(super) held: bool,
}

/// Doubles the rate until it does not hold, and then halves the distance.
pub(super) fn search(
    crowd: &mut Crowd,
    engine: &mut Engine,
    bound: Duration,
    args: &LoadArgs,
    bar: &mut Bar,
) -> Result<Found, Failure> {
    let warmed = as_f64(crowd.books.messages()) / args.warmup.as_secs_f64().max(0.001);
    let mut range = Range::from(warmed * FIRST_SHARE);
    let mut steps = Vec::new();
    while let Some(rate) = range.next().filter(|_| steps.len() < STEPS_MAX) {
        let step = attempt(crowd, engine, rate, bound, args)?;
        range.note(rate, step.held);
        steps.push(step);
        bar.show(steps.len() as u64, Instant::now());
    }
    let bound_us = bound.as_secs_f64() * 1e6;
    Ok(Found { bound_us, rate_per_second: range.held.unwrap_or(1), steps })
}

fn attempt(
    crowd: &mut Crowd,
    engine: &mut Engine,
    rate: u32,
    bound: Duration,
    args: &LoadArgs,
) -> Result<Step, Failure> {
    crowd.books.measure();
    let stalls = crowd.stalls();
    let started = Instant::now();
    // Were all as late as the bound allows, so many would be on the way; four times that is a queue.
    let queue = 4.0 * f64::from(rate) * bound.as_secs_f64();
    let in_flight_max = whole(queue.max(IN_FLIGHT_MIN)) as usize;
    let pace = Pace::Rate(rate);
    let overloaded = crowd.overloads(engine, pace, args.step, args.patience, in_flight_max)?;
    let p99 = crowd.books.latency().percentile(0.99);
    let seconds = started.elapsed().as_secs_f64().max(f64::EPSILON);
    Ok(Step {
        rate_per_second: rate,
        deliveries_per_second: as_f64(crowd.books.delivered()) / seconds,
        p99_us: p99.as_secs_f64() * 1e6,
        held: !overloaded && p99 <= bound && crowd.stalls() == stalls,
    })
}

/// What is known of the rate.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: u32,
    held: Option<u32>,
    failed: Option<u32>,
}

impl Range {
    fn from(rate: f64) -> Self {
        Self { first: whole(rate).max(1), held: None, failed: None }
    }

    /// The rate to try; `None` when it is known well enough.
    fn next(&self) -> Option<u32> {
        match (self.held, self.failed) {
            (None, None) => Some(self.first),
            (Some(held), None) => held.checked_mul(2),
            (None, Some(failed)) => Some(failed / 2).filter(|rate| *rate > 0),
            (Some(held), Some(failed)) => {
                let middle = held + (failed - held) / 2;
                let close = f64::from(failed) <= f64::from(held) * CLOSE || middle == held;
                (!close).then_some(middle)
            }
        }
    }

    fn note(&mut self, rate: u32, held: bool) {
        if held {
            self.held = Some(rate);
        } else {
            self.failed = Some(rate);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are not negative, and what does not fit saturates"
)]
fn whole(rate: f64) -> u32 {
    rate as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(capacity: u32, first: f64) -> (u32, usize) {
        let mut range = Range::from(first);
        let mut steps = 0;
        while let Some(rate) = range.next() {
            range.note(rate, rate <= capacity);
            steps += 1;
        }
        (range.held.unwrap_or(0), steps)
    }

    #[test]
    fn the_highest_rate_is_found_to_5_percent_from_above_and_below() {
        for capacity in [1, 2, 7, 100, 12_345, 1_000_000] {
            for first in [0.0, 1.0, 90.0, 1e6, 3e6] {
                let (rate, steps) = found(capacity, first);
                assert!(rate <= capacity && f64::from(rate) * CLOSE >= f64::from(capacity) - 1.0);
                assert!(steps < STEPS_MAX, "{steps} steps to {capacity}");
            }
        }
        assert_eq!(found(0, 100.0).0, 0, "nothing holds");
    }
}

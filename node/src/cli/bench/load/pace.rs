//! When messages are sent.

use std::time::{Duration, Instant};

/// At a fixed rate, the most messages in flight: beyond that the publisher waits, and its messages'
/// latency counts from when they were due.
const RATE_IN_FLIGHT: usize = 65_536;

/// How late the system's timers are; that is not the server's doing.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// When the next message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Pace {
    /// As long as fewer are in flight over all topics.
    InFlight(u32),
    /// As long as fewer are in flight in its topic.
    InFlightEach(u32),
    /// So many a second over all topics.
    Rate(u32),
}

impl Pace {
    /// When the message behind `sent` others is due; `None` as soon as there is room.
    pub(super) fn due(self, started: Instant, sent: u64) -> Option<Instant> {
        match self {
            Self::InFlight(_) | Self::InFlightEach(_) => None,
            Self::Rate(rate) => {
                let nanos = u128::from(sent) * 1_000_000_000 / u128::from(rate);
                let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
                Some(started + Duration::from_nanos(nanos))
            }
        }
    }

    /// Whether another message may be sent while so many are in flight, in all and in its topic.
    pub(super) fn room(self, in_flight: usize, of_topic: usize) -> bool {
        match self {
            Self::InFlight(window) => in_flight < window as usize,
            Self::InFlightEach(window) => of_topic < window as usize,
            Self::Rate(_) => in_flight < RATE_IN_FLIGHT,
        }
    }
}

/// What a message's latency counts from: when it is sent, or was due if that is too long ago.
pub(super) fn counted_from(due: Option<Instant>, now: Instant) -> Instant {
    due.filter(|due| now.saturating_duration_since(*due) > TIMER_SLACK).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_without_drift() {
        let start = Instant::now();
        let pace = Pace::Rate(3);
        assert_eq!(pace.due(start, 0), Some(start));
        assert_eq!(pace.due(start, 3_000_000), Some(start + Duration::from_secs(1_000_000)));
        assert!(pace.room(RATE_IN_FLIGHT - 1, 9) && !pace.room(RATE_IN_FLIGHT, 0));
    }

    #[test]
    fn a_window_has_room_for_so_many() {
        let pace = Pace::InFlight(2);
        assert_eq!(pace.due(Instant::now(), 7), None);
        assert!(pace.room(1, 1) && !pace.room(2, 0));
        assert!(Pace::InFlightEach(1).room(100, 0) && !Pace::InFlightEach(1).room(100, 1));
    }

    #[test]
    fn a_timer_that_is_a_little_late_is_not_the_servers_fault() {
        let now = Instant::now() + Duration::from_secs(1);
        let due = |ms| Some(now - Duration::from_millis(ms));
        assert_eq!(counted_from(due(1), now), now);
        assert_eq!(counted_from(due(3), now), now - Duration::from_millis(3));
        assert_eq!(counted_from(None, now), now);
    }
}

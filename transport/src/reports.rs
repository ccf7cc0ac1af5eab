//! Which refusals the user hears of: each address and cause once a minute, and not too many in all,
//! so that nobody can flood a log from outside.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::error::{Refusal, RefusalCause};

/// How long the same refusal is not told again.
const QUIET: Duration = Duration::from_secs(60);
/// How many different refusals are told in that time.
const TOLD_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<BTreeMap<(SocketAddr, bool, RefusalCause), Instant>>);

impl Reports {
    /// Whether to tell of this refusal.
    pub(crate) fn tells(&self, refusal: &Refusal, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (refusal.address, refusal.inbound, refusal.cause.clone());
        if told.get(&key).is_some_and(|at| now.duration_since(*at) < QUIET) {
            return false;
        }
        if told.len() >= TOLD_MAX {
            told.retain(|_, at| now.duration_since(*at) < QUIET);
        }
        let tells = told.len() < TOLD_MAX;
        if tells {
            told.insert(key, now);
        }
        tells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(port: u16, cause: RefusalCause) -> Refusal {
        Refusal { address: ([10, 0, 0, 1], port).into(), inbound: true, by_us: true, cause }
    }

    #[test]
    fn the_same_refusal_is_told_once_a_minute() {
        let (reports, now) = (Reports::default(), Instant::now());
        assert!(reports.tells(&refusal(1, RefusalCause::Secret), now));
        assert!(!reports.tells(&refusal(1, RefusalCause::Secret), now + QUIET / 2));
        assert!(reports.tells(&refusal(1, RefusalCause::Full), now));
        assert!(reports.tells(&refusal(2, RefusalCause::Secret), now));
        assert!(reports.tells(&refusal(1, RefusalCause::Secret), now + QUIET));
    }

    #[test]
    fn a_stranger_with_many_ports_cannot_make_more_than_so_many_reports() {
        let (reports, now) = (Reports::default(), Instant::now());
        let told =
            (1..=2000).filter(|port| reports.tells(&refusal(*port, RefusalCause::NotAPeer), now));
        assert_eq!(told.count(), TOLD_MAX);
        assert!(reports.tells(&refusal(3000, RefusalCause::NotAPeer), now + QUIET));
    }
}

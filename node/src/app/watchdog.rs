//! Names callbacks that take too long, while they run: from a thread of its own, as a callback that holds
//! one of the runtime's may keep all timers there from being looked at.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use tracing::warn;

use super::seat::Seat;

/// The shortest and the longest time between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Bytes of an event's name that is kept when the callback has returned.
const NAME_KEPT: usize = 256;

/// The channels of a node whose callbacks are watched.
#[derive(Debug)]
pub(crate) struct Watchdog {
    limit: Duration,
    seats: Mutex<Vec<Weak<Seat>>>,
}

/// The callback of one channel that runs now, if one does.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<Callback>);

#[derive(Debug, Default)]
struct Callback {
    event: String,
    /// `None` while none runs, or when it has been named.
    since: Option<Instant>,
}

impl Watchdog {
    pub(super) fn new(limit: Duration) -> Arc<Self> {
        Arc::new(Self { limit, seats: Mutex::default() })
    }

    /// Watches a channel until it is gone.
    pub(super) fn add(&self, seat: &Arc<Seat>) {
        self.lock().push(Arc::downgrade(seat));
    }

    /// Begins to look, for as long as there is a node.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        let pause = (self.limit / 2).clamp(PAUSE_MIN, PAUSE_MAX);
        let watchdog = Arc::downgrade(self);
        let look = move || {
            while let Some(watchdog) = watchdog.upgrade() {
                watchdog.look();
                drop(watchdog);
                thread::sleep(pause);
            }
        };
        thread::Builder::new().name("slow-handlers".to_owned()).spawn(look).map(drop)
    }

    fn look(&self) {
        self.lock().retain(|seat| {
            let seat = seat.upgrade();
            if let Some(seat) = &seat
                && let Some((event, time)) = seat.running.overdue(self.limit)
            {
                name(seat, &event, time);
            }
            seat.is_some()
        });
    }

    /// Nothing panics while this is locked, so a poisoned lock guards nothing broken.
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Seat>>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    pub(super) fn begin(&self, event: &str) {
        let mut callback = self.lock();
        callback.event.push_str(event);
        callback.since = Some(Instant::now());
    }

    /// The callback has returned. It is named now if nobody has had the time to look.
    pub(super) fn end(&self, seat: &Seat) {
        let limit = seat.node.watchdog().map_or(Duration::MAX, |watchdog| watchdog.limit);
        let overdue = self.overdue(limit);
        let mut callback = self.lock();
        callback.since = None;
        callback.event.clear();
        callback.event.shrink_to(NAME_KEPT);
        drop(callback);
        if let Some((event, time)) = overdue {
            name(seat, &event, time);
        }
    }

    /// A callback that runs longer than it should and was not named before.
    fn overdue(&self, limit: Duration) -> Option<(String, Duration)> {
        let mut callback = self.lock();
        let time = callback.since?.elapsed();
        if time < limit {
            return None;
        }
        callback.since = None;
        Some((callback.event.clone(), time))
    }

    /// Nothing panics while this is locked, so a poisoned lock guards nothing broken.
    fn lock(&self) -> MutexGuard<'_, Callback> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(seat: &Seat, event: &str, time: Duration) {
    let (shared, topic) = (seat.node.shared(), seat.topic());
    let (channel, socket) = (seat.name, seat.socket_id.as_deref());
    warn!(node = %shared.name, %topic, event, channel, socket, "slow handler: {time:?} and more");
    shared.stats.slow_handlers.add(channel);
}

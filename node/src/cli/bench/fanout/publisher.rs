//! The one that publishes.

use std::{
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::time::sleep_until;

use super::{
    super::{
        super::Failure,
        client::{Connection, Endpoint},
        message::{Envelope, Numbered},
        swarm::not_opened,
    },
    Hub,
};

/// At a fixed rate, the most messages in flight: beyond that the publisher waits, and its messages'
/// latency counts from when they were due.
const RATE_IN_FLIGHT: usize = 65_536;

/// Bytes handed to the socket and not written, beyond which the publisher waits.
const BACKLOG_MAX: usize = 256 * 1024;

/// How late the system's timers are; that is not the server's doing.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// When the next message is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// As long as fewer are in flight.
    InFlight(u32),
    /// So many a second.
    Rate(u32),
}

impl Pace {
    /// When the message behind `sent` others is due; `None` as soon as there is room.
    fn due(self, started: Instant, sent: u64) -> Option<Instant> {
        match self {
            Self::InFlight(_) => None,
            Self::Rate(rate) => {
                let nanos = u128::from(sent) * 1_000_000_000 / u128::from(rate);
                let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
                Some(started + Duration::from_nanos(nanos))
            }
        }
    }

    fn room(self, in_flight: usize) -> bool {
        match self {
            Self::InFlight(window) => in_flight < window as usize,
            Self::Rate(_) => in_flight < RATE_IN_FLIGHT,
        }
    }
}

/// Publishes through its own WebSocket.
#[derive(Debug)]
pub(super) struct Publisher {
    connection: Connection,
    messages: Numbered,
    frame: Vec<u8>,
    hub: Rc<Hub>,
    stalls: u64,
    url: String,
}

impl Publisher {
    pub(super) async fn open(
        node: &Endpoint,
        topic: &str,
        messages: Numbered,
        hub: &Rc<Hub>,
    ) -> Result<Self, Failure> {
        let failed = |error| not_opened(node, &error);
        let mut connection = node.open(None).await.map_err(failed)?;
        connection.join(topic, |_, _| ()).await.map_err(failed)?;
        Ok(Self {
            connection,
            messages,
            frame: Vec::new(),
            hub: Rc::clone(hub),
            stalls: 0,
            url: node.to_string(),
        })
    }

    /// Times that its patience ended.
    pub(super) fn stalls(&self) -> u64 {
        self.stalls
    }

    /// Does other work, and reads meanwhile: a client that does not is cut off.
    pub(super) async fn during<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                read = self.read() => read?,
            }
        }
    }

    /// Publishes for `duration`, then waits until all have all. When nothing has moved for
    /// `patience`, what is in flight is not waited for; if it does not come at all, it is lost.
    pub(super) async fn publish(
        &mut self,
        pace: Pace,
        duration: Duration,
        patience: Duration,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let end = started + duration;
        let (mut moved, mut sent) = (started, 0);
        loop {
            let now = Instant::now();
            if self.in_flight() == 0 {
                moved = now;
                if now >= end {
                    return Ok(());
                }
            } else if now >= moved + patience {
                self.stalls += 1;
                self.hub.books.borrow_mut().give_up();
                continue;
            }
            let mut wake = moved + patience;
            if now < end {
                let due = self.send_due(pace, started, now, &mut sent);
                wake = wake.min(due.map_or(end, |due| due.min(end)));
            }
            let hub = Rc::clone(&self.hub);
            tokio::select! {
                read = self.read() => read?,
                () = hub.freed.notified() => moved = Instant::now(),
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    /// Sends what is due and gives when more will be; `None` when that depends on what arrives.
    fn send_due(
        &mut self,
        pace: Pace,
        started: Instant,
        now: Instant,
        sent: &mut u64,
    ) -> Option<Instant> {
        while pace.room(self.in_flight()) && self.connection.backlog() < BACKLOG_MAX {
            let due = pace.due(started, *sent);
            if due.is_some_and(|due| due > now) {
                return due;
            }
            let late = due.filter(|due| now.duration_since(*due) > TIMER_SLACK);
            let number = self.hub.books.borrow_mut().send(late.unwrap_or(now));
            self.messages.write(number, &mut self.frame);
            self.connection.send(&self.frame);
            *sent += 1;
        }
        None
    }

    /// Writes what is queued, and reads replies; a refusal ends the run.
    async fn read(&mut self) -> Result<(), Failure> {
        let mut refused = None;
        let read = self.connection.exchange(|frame, _| {
            // Its own broadcasts come back too, and are not replies.
            let reply = if frame.starts_with(b"[null,") {
                None
            } else {
                Envelope::scan(frame).and_then(|envelope| envelope.reply())
            };
            if let Some(Err(reason)) = reply {
                refused.get_or_insert(reason);
            }
        });
        let read = read.await;
        let url = &self.url;
        if let Some(reason) = refused {
            return Err(Failure::failed(format_args!("{url} refused a message: {reason}")));
        }
        if let Err(lost) = read {
            return Err(Failure::failed(format_args!("{url} cut the publisher off: {lost}")));
        }
        if self.hub.books.borrow().live() == 0 {
            let why = self.hub.swarm.first_loss().unwrap_or_default();
            return Err(Failure::failed(format_args!("no subscriber is left: {why}")));
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.hub.books.borrow().in_flight()
    }
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
        assert!(pace.room(RATE_IN_FLIGHT - 1) && !pace.room(RATE_IN_FLIGHT));
    }

    #[test]
    fn a_window_has_room_for_so_many() {
        let pace = Pace::InFlight(2);
        assert_eq!(pace.due(Instant::now(), 7), None);
        assert!(pace.room(1) && !pace.room(2));
    }
}

//! Keeping an address: dialling it until there is a link, and again when that is gone.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::ConnectError;
use rand::RngExt;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    error::{DialError, Refusal},
    events::{Event, EventSender, Unheard},
    handshake::{Failure, Replica},
    link::Peer,
    node::Inner,
    registry::Ourselves,
    tls,
};

/// How often an unchanged failure is told.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// The keeper of one address.
struct Keeper {
    inner: Arc<Inner>,
    events: EventSender,
    address: SocketAddr,
    /// Who answered there last.
    last: Option<Replica>,
    /// Dials that failed in a row.
    failures: u32,
    /// What was last told of them, and when.
    told: Option<(DialError, Instant)>,
    renewals: watch::Receiver<u64>,
}

/// Dials an address now and again; returns when it is this node's own, or nobody listens.
pub(crate) async fn keep(inner: Arc<Inner>, events: EventSender, address: SocketAddr) {
    let renewals = inner.registry.renewals();
    let mut keeper =
        Keeper { inner, events, address, last: None, failures: 0, told: None, renewals };
    while keeper.turn().await.is_ok_and(|goes_on| goes_on) {}
}

impl Keeper {
    /// Waits for the end of a link, or dials once and pauses. False when there is no more to do.
    async fn turn(&mut self) -> Result<bool, Unheard> {
        if let Some(mut link) = self.inner.registry.covering(self.address, self.last.as_ref()) {
            let since = Instant::now();
            // Nothing is ever sent: this returns when the link is gone.
            let _ = link.changed().await;
            if since.elapsed() >= self.inner.config.backoff_max {
                self.failures = 0;
            }
            // A link that never lasts is dialled ever more seldom.
            self.back_off().await;
            return Ok(true);
        }
        self.inner.registry.counters.dials.add(1);
        let ourselves = self.inner.registry.ourselves();
        let dial = self.dial(&ourselves);
        let outcome = match timeout(self.inner.config.handshake_timeout, dial).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Failed(DialError::TimedOut)),
        };
        match outcome {
            Ok(with) | Err(Failure::Duplicate { with }) => {
                (self.last, self.told) = (Some(with), None);
                // Without a link: it is gone again, or its confirmation is still on the way.
                if self.inner.registry.covering(self.address, self.last.as_ref()).is_none() {
                    self.back_off().await;
                }
            }
            Err(Failure::Ourselves) => {
                self.inner.forget(self.address);
                self.events.send(Event::DialedSelf { address: self.address }).await?;
                return Ok(false);
            }
            Err(Failure::Renewed) => {
                self.failures = 0;
                self.pause(self.next_try()).await;
            }
            Err(Failure::Refused { cause, by_us }) => {
                let reason = Refusal { address: self.address, inbound: false, by_us, cause };
                self.inner.report_refusal(&self.events, reason).await?;
                self.back_off().await;
            }
            Err(Failure::Stale { seen, by }) => {
                self.inner.report_stale(&self.events, &ourselves, seen, by).await?;
                self.back_off().await;
            }
            Err(Failure::Failed(error)) => self.failed(error).await?,
        }
        Ok(true)
    }

    /// One dial, from the first packet to the agreed link. Says who answered.
    async fn dial(&self, ourselves: &Ourselves) -> Result<Replica, Failure> {
        let connecting = self
            .inner
            .endpoint
            .connect_with(self.inner.client.clone(), self.address, tls::SERVER_NAME)
            .map_err(|error| match error {
                ConnectError::EndpointStopping => Failure::Renewed,
                ConnectError::CidsExhausted
                | ConnectError::InvalidServerName(_)
                | ConnectError::InvalidRemoteAddress(_)
                | ConnectError::NoDefaultClientConfig
                | ConnectError::UnsupportedVersion => {
                    Failure::Failed(DialError::Address(error.to_string()))
                }
            })?;
        let handshaker = &self.inner.handshaker;
        let connection = connecting.await.map_err(|error| handshaker.lost(&error))?;
        let session = handshaker.dial(&connection, ourselves, self.address).await?;
        let Peer { name, incarnation, .. } = session.link().peer();
        let with = Replica { name: name.clone(), incarnation: *incarnation };
        self.inner.start(session).await;
        Ok(with)
    }

    async fn failed(&mut self, error: DialError) -> Result<(), Unheard> {
        self.inner.registry.counters.dials_failed.add(1);
        self.failures = self.failures.saturating_add(1);
        let next_try = self.next_try();
        let now = Instant::now();
        let old_news = self
            .told
            .as_ref()
            .is_some_and(|(told, at)| *told == error && now.duration_since(*at) < REPORT_INTERVAL);
        if !old_news {
            self.told = Some((error.clone(), now));
            let (address, attempt) = (self.address, self.failures);
            self.events.send(Event::DialFailed { address, error, attempt, next_try }).await?;
        }
        self.pause(next_try).await;
        Ok(())
    }

    async fn back_off(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.pause(self.next_try()).await;
    }

    /// Exponential backoff with full jitter: uniform below a bound that doubles with each failure.
    fn next_try(&self) -> Duration {
        let config = &self.inner.config;
        rand::rng().random_range(
            Duration::ZERO..=bound(self.failures, config.backoff_min, config.backoff_max),
        )
    }

    /// Sleeps, unless this node takes a new identity: then everything may be different.
    async fn pause(&mut self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // The sender lives as long as the registry, which this task holds.
            _ = self.renewals.changed() => self.failures = 0,
        }
    }
}

fn bound(failures: u32, min: Duration, max: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    min.saturating_mul(1 << doublings).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_of_the_pause_doubles_up_to_its_maximum() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let bounds = [0, 1, 2, 3, 6, 7, u32::MAX].map(|n| bound(n, min, max).as_millis());
        assert_eq!(bounds, [100, 100, 200, 400, 3200, 5000, 5000]);
    }
}

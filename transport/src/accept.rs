//! The door: inbound connections, few at a time, each for a limited time.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quinn::{Connection, Incoming};
use tokio::time::timeout;
use tracing::debug;

use crate::{
    error::{DialError, Refusal},
    events::{EventSender, Unheard},
    handshake::{Failure, canonical},
    node::Inner,
    registry::Ourselves,
};

/// Counts the handshakes in progress, in all and by address.
#[derive(Debug)]
pub(crate) struct Door {
    inside_max: usize,
    per_address_max: usize,
    inside: Mutex<BTreeMap<IpAddr, usize>>,
}

/// What to do with who knocks.
enum Knock {
    Enter(Ticket),
    /// First prove that you get what is sent to your address.
    Prove,
    /// Too many.
    Leave,
}

/// A place inside, given back when dropped.
struct Ticket {
    door: Arc<Door>,
    address: IpAddr,
}

impl Door {
    pub(crate) fn new(inside_max: usize) -> Self {
        let per_address_max = (inside_max / 4).max(1);
        Self { inside_max, per_address_max, inside: Mutex::default() }
    }

    pub(crate) fn inside(&self) -> usize {
        self.lock().values().sum()
    }

    fn knock(self: &Arc<Self>, address: IpAddr, validated: bool) -> Knock {
        let mut inside = self.lock();
        let all: usize = inside.values().sum();
        let theirs = inside.get(&address).copied().unwrap_or(0);
        // Places are few: half are for those only whose address is not forged.
        if !validated && all >= self.inside_max / 2 {
            return Knock::Prove;
        }
        if all >= self.inside_max || theirs >= self.per_address_max {
            return Knock::Leave;
        }
        *inside.entry(address).or_default() += 1;
        Knock::Enter(Ticket { door: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inside = self.door.lock();
        match inside.get_mut(&self.address) {
            Some(n) if *n > 1 => *n -= 1,
            Some(_) | None => drop(inside.remove(&self.address)),
        }
    }
}

/// Takes an inbound connection or turns it away at once; the rest is the returned future's.
pub(crate) fn receive(
    inner: Arc<Inner>,
    events: EventSender,
    incoming: Incoming,
) -> Option<impl Future<Output = ()> + Send> {
    let address = canonical(incoming.remote_address()).ip();
    match inner.door.knock(address, incoming.remote_address_validated()) {
        Knock::Enter(ticket) => Some(async move {
            // Unheard only when nobody wants links any more.
            let _ = admit(&inner, &events, incoming, ticket).await;
        }),
        Knock::Prove => {
            // Fails only for a validated address, which is not asked again.
            let _ = incoming.retry();
            None
        }
        Knock::Leave => {
            inner.registry.counters.crowded_out.add(1);
            incoming.refuse();
            None
        }
    }
}

async fn admit(
    inner: &Inner,
    events: &EventSender,
    incoming: Incoming,
    ticket: Ticket,
) -> Result<(), Unheard> {
    let address = canonical(incoming.remote_address());
    let ourselves = inner.registry.ourselves();
    let handshake = async {
        let lost = |error| inner.handshaker.lost(&error);
        let connection: Connection = incoming.accept().map_err(lost)?.await.map_err(lost)?;
        inner.handshaker.accept(&connection, &ourselves).await
    };
    let outcome = match timeout(inner.config.handshake_timeout, handshake).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Failed(DialError::TimedOut)),
    };
    drop(ticket);
    match outcome {
        Ok(session) => inner.start(session).await,
        Err(failure) => turned_away(inner, events, &ourselves, address, failure).await?,
    }
    Ok(())
}

async fn turned_away(
    inner: &Inner,
    events: &EventSender,
    ourselves: &Ourselves,
    address: std::net::SocketAddr,
    failure: Failure,
) -> Result<(), Unheard> {
    match failure {
        Failure::Refused { cause, by_us } => {
            let reason = Refusal { address, inbound: true, by_us, cause };
            inner.report_refusal(events, reason).await
        }
        Failure::Stale { seen, by } => inner.report_stale(events, ourselves, seen, by).await,
        // The dialler will hear of it, or is a stranger who may not fill the log.
        Failure::Failed(error) => {
            debug!(%address, %error, "inbound handshake failed");
            Ok(())
        }
        Failure::Duplicate { .. } | Failure::Ourselves | Failure::Renewed => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn enter(door: &Arc<Door>, address: IpAddr, validated: bool) -> Option<Ticket> {
        match door.knock(address, validated) {
            Knock::Enter(ticket) => Some(ticket),
            Knock::Prove | Knock::Leave => None,
        }
    }

    #[test]
    fn one_address_gets_a_quarter_of_the_places_and_a_place_comes_back() {
        let door = Arc::new(Door::new(8));
        let tickets = [enter(&door, STRANGER, true), enter(&door, STRANGER, true)];
        assert!(tickets.iter().all(Option::is_some));
        assert!(enter(&door, STRANGER, true).is_none());
        assert!(enter(&door, IpAddr::from([10, 0, 0, 1]), true).is_some());
        drop(tickets);
        assert!(enter(&door, STRANGER, true).is_some());
        assert_eq!(door.inside(), 0);
    }

    #[test]
    fn when_half_the_places_are_taken_an_address_must_be_proved() {
        let door = Arc::new(Door::new(8));
        let tickets: Vec<Ticket> =
            (0..4).filter_map(|n| enter(&door, IpAddr::from([10, 0, 0, n]), false)).collect();
        assert_eq!(tickets.len(), 4);
        assert!(matches!(door.knock(STRANGER, false), Knock::Prove));
        assert!(enter(&door, STRANGER, true).is_some());
    }
}

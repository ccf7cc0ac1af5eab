//! What the transport tells its user: one bounded queue, and a set of lanes that have room again.
//!
//! The queue is bounded in events and in bytes; who cannot put an event there waits, and a reader
//! that waits stops reading its stream, so that the pressure reaches the peer. "Room again" is a
//! set instead of an event in the queue: a writer must never wait for a reader.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    config::Lane,
    error::{DialError, DownReason, Refusal},
    link::Link,
    request::Responder,
};

/// Something the user of the transport should know.
#[derive(Debug)]
pub enum Event {
    /// Both sides agreed on this link. Comes before anything else of it, and after the `Down` of any
    /// earlier link of the same peer.
    Up(Link),
    /// The link is no more. The last event of it, but for a `Room` that crosses it.
    Down {
        /// Which one.
        link: Link,
        /// Why.
        reason: DownReason,
    },
    /// A frame of a lane with [`Delivery::Queue`](crate::Delivery::Queue).
    Frame {
        /// Whose.
        link: Link,
        /// On which lane.
        lane: Lane,
        /// Its bytes. Copy what is to be kept for long: a small frame may hold a packet's memory.
        frame: Bytes,
    },
    /// A datagram.
    Datagram {
        /// Whose.
        link: Link,
        /// Its bytes.
        data: Bytes,
    },
    /// The peer asks something.
    Request {
        /// Who asks.
        link: Link,
        /// What.
        body: Bytes,
        /// Where the answer goes; dropping it tells the peer that there is none.
        reply: Responder,
    },
    /// A lane that was more than half full is not any more.
    Room {
        /// Whose.
        link: Link,
        /// Which lane.
        lane: Lane,
    },
    /// A dial of a kept address failed. Told at the first failure in a row, when the error
    /// changes, and otherwise every 30 s.
    DialFailed {
        /// What was dialled.
        address: SocketAddr,
        /// Why it failed.
        error: DialError,
        /// How many dials failed in a row.
        attempt: u32,
        /// The pause before the next dial.
        next_try: Duration,
    },
    /// A kept address is this node's own. It is kept no longer.
    DialedSelf {
        /// The address.
        address: SocketAddr,
    },
    /// A peer knows a newer run of this node's name: this identity will get no links there.
    /// Told once per identity and value.
    Stale {
        /// The incarnation that the peer has seen.
        seen: u64,
        /// The peer's name.
        by: String,
        /// No link was ever up under this identity: most likely a clock jumped back, else another
        /// node of this name runs.
        fresh: bool,
    },
    /// This node refused a connection, or was refused. Told once a minute per address and cause.
    Refused {
        /// The other side.
        address: SocketAddr,
        /// The whole story.
        reason: Refusal,
        /// The other side dialled us.
        inbound: bool,
    },
}

/// The receiving end of what a transport tells.
pub struct Events {
    queue: mpsc::Receiver<Queued>,
    rooms: Arc<Rooms>,
}

impl Events {
    /// The next event; `None` when the transport is closed and all has been told. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((link, lane)) = self.rooms.take() {
                return Some(Event::Room { link, lane });
            }
            tokio::select! {
                queued = self.queue.recv() => return queued.map(|queued| queued.event),
                () = self.rooms.added.notified() => {}
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

struct Queued {
    event: Event,
    /// Returned when the event is taken.
    _bytes: Option<OwnedSemaphorePermit>,
}

/// The sending end. The queue ends when all of these are gone.
#[derive(Clone)]
pub(crate) struct EventSender {
    queue: mpsc::Sender<Queued>,
    bytes: Arc<Semaphore>,
    bytes_max: usize,
}

/// Nobody listens any more.
#[derive(Debug)]
pub(crate) struct Unheard;

impl EventSender {
    /// Queues an event that weighs nothing, when there is a place for it.
    pub(crate) async fn send(&self, event: Event) -> Result<(), Unheard> {
        self.queue.send(Queued { event, _bytes: None }).await.map_err(|_| Unheard)
    }

    /// Queues an event that carries `len` bytes, when there is a place for it.
    pub(crate) async fn send_bytes(&self, event: Event, len: usize) -> Result<(), Unheard> {
        // Both fit into 31 bits: the configuration is checked.
        let permits = u32::try_from(len.min(self.bytes_max)).unwrap_or(u32::MAX);
        let bytes = self.bytes.clone().acquire_many_owned(permits).await.map_err(|_| Unheard)?;
        self.queue.send(Queued { event, _bytes: Some(bytes) }).await.map_err(|_| Unheard)
    }
}

pub(crate) fn channel(
    events_max: usize,
    bytes_max: usize,
    rooms: Arc<Rooms>,
) -> (EventSender, Events) {
    let (sender, receiver) = mpsc::channel(events_max);
    let bytes = Arc::new(Semaphore::new(bytes_max));
    (EventSender { queue: sender, bytes, bytes_max }, Events { queue: receiver, rooms })
}

/// The lanes that have room again, each at most once.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    lanes: Mutex<BTreeMap<(u64, Lane), Link>>,
    added: Notify,
}

impl Rooms {
    pub(crate) fn add(&self, link: &Link, lane: Lane) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.insert((link.id(), lane), link.clone());
        drop(lanes);
        self.added.notify_one();
    }

    fn take(&self) -> Option<(Link, Lane)> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(((_, lane), link)) = lanes.pop_first() {
            if !link.is_closed() {
                return Some((link, lane));
            }
        }
        None
    }
}

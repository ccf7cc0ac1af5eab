//! A link: one agreed QUIC connection to one replica.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use quinn::{Connection, SendDatagramError};

use crate::{
    close,
    config::{Lane, LaneConfig, REQUEST_LEN_MAX, WhenFull},
    error::{DatagramError, DownReason, RequestError, SendError},
    events::Rooms,
    frame::Frame,
    goodbye::Lanes,
    lane::{Queue, Unqueued},
    request::{self, Answer},
    stats::{Counter, LinkStats},
};

/// The replica at the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its run.
    pub incarnation: u64,
    /// The wire version that both speak.
    pub wire: u16,
    /// The opaque payload of its hello, at most 16 KiB.
    pub hello: Bytes,
    /// Where its packets come from.
    pub address: SocketAddr,
    /// Where it says that it is to be dialled.
    pub advertise: Option<SocketAddr>,
}

/// A link to a peer. Cheap to clone; a clone does not keep the link up.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    id: u64,
    peer: Peer,
    dialed: Option<SocketAddr>,
    connection: Connection,
    queues: Vec<Queue>,
    /// The lanes that have, or had, a reader.
    claimed: Mutex<Lanes>,
    frame_len_max: usize,
    rooms: Arc<Rooms>,
    /// Set once; the link is closed from then on.
    down: OnceLock<DownReason>,
    /// Set when the link takes no more and closes once all is read: why.
    draining: OnceLock<String>,
    counters: LinkCounters,
}

#[derive(Debug, Default)]
pub(crate) struct LinkCounters {
    pub(crate) datagrams_sent: Counter,
    pub(crate) datagrams_received: Counter,
    pub(crate) requests_sent: Counter,
    pub(crate) requests_received: Counter,
}

/// What a new link is made of.
pub(crate) struct LinkParts<'a> {
    pub(crate) id: u64,
    pub(crate) peer: Peer,
    pub(crate) dialed: Option<SocketAddr>,
    pub(crate) connection: Connection,
    pub(crate) lanes: &'a [LaneConfig],
    pub(crate) frame_len_max: usize,
    pub(crate) rooms: Arc<Rooms>,
}

impl Link {
    pub(crate) fn new(parts: LinkParts<'_>) -> Self {
        Self(Arc::new(Shared {
            id: parts.id,
            peer: parts.peer,
            dialed: parts.dialed,
            connection: parts.connection,
            queues: parts.lanes.iter().copied().map(Queue::new).collect(),
            claimed: Mutex::default(),
            frame_len_max: parts.frame_len_max,
            rooms: parts.rooms,
            down: OnceLock::new(),
            draining: OnceLock::new(),
            counters: LinkCounters::default(),
        }))
    }

    /// The link's epoch: unique in this process, and higher than that of every earlier link.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// The address that this side dialled; `None` if the peer dialled.
    pub fn dialed(&self) -> Option<SocketAddr> {
        self.0.dialed
    }

    /// Queues a frame on a lane. Never waits.
    ///
    /// # Errors
    /// See [`SendError`]; the frame is gone in each case.
    pub fn send(&self, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        self.send_parts(lane, Bytes::new(), frame)
    }

    /// Queues a frame that lies in two pieces, without copying them together first.
    ///
    /// # Errors
    /// See [`SendError`]; the frame is gone in each case.
    pub fn send_parts(&self, lane: Lane, head: Bytes, body: Bytes) -> Result<(), SendError> {
        let queue = self.queue(lane).ok_or(SendError::NoLane)?;
        let frame = Frame { head, body };
        if frame.len() > self.0.frame_len_max {
            return Err(SendError::TooLong);
        }
        if self.is_closed() {
            return Err(SendError::Closed);
        }
        match queue.push(frame) {
            Ok(()) => Ok(()),
            Err(Unqueued::Ended) => Err(SendError::Closed),
            Err(Unqueued::Full) => match queue.config().when_full {
                WhenFull::Drop => Err(SendError::Full),
                WhenFull::Cut => {
                    self.end(DownReason::Overflow { lane: queue.config().name });
                    Err(SendError::Cut)
                }
            },
        }
    }

    /// How many bytes of frames still fit on a lane (each frame costs 4 more); 0 if it is closed.
    pub fn room(&self, lane: Lane) -> usize {
        if self.is_closed() {
            return 0;
        }
        self.queue(lane).map_or(0, Queue::room)
    }

    /// How many bytes wait on all lanes.
    pub fn queued(&self) -> usize {
        self.0.queues.iter().map(Queue::queued).sum()
    }

    /// Sends a datagram: at most once, in no order, dropped when the path is busy. Never waits.
    ///
    /// # Errors
    /// When it is longer than [`datagram_max`](Self::datagram_max) or the link is closed.
    pub fn datagram(&self, data: Bytes) -> Result<(), DatagramError> {
        self.0.connection.send_datagram(data).map_err(|error| match error {
            SendDatagramError::TooLarge
            | SendDatagramError::UnsupportedByPeer
            | SendDatagramError::Disabled => DatagramError::TooLong,
            SendDatagramError::ConnectionLost(_) => DatagramError::Closed,
        })?;
        self.0.counters.datagrams_sent.add(1);
        Ok(())
    }

    /// The longest datagram that the path carries now, in bytes; it may change.
    pub fn datagram_max(&self) -> usize {
        self.0.connection.max_datagram_size().unwrap_or(0)
    }

    /// Asks the peer something and waits for its answer, for at most `timeout`.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and [`RequestError::TimedOut`].
    pub async fn request(&self, body: Bytes, timeout: Duration) -> Result<Bytes, RequestError> {
        match tokio::time::timeout(timeout, self.ask(body)).await {
            Ok(answer) => answer.map(Answer::take),
            Err(_) => Err(RequestError::TimedOut),
        }
    }

    /// Asks the peer something and waits for its answer, as long as the peer takes. The peer
    /// learns when this is dropped, and whether the answer was [taken](Answer::take). A body and an
    /// answer have at most [`REQUEST_LEN_MAX`] bytes; [`REQUESTS_MAX`](crate::REQUESTS_MAX) requests
    /// may be open at a time, further ones wait.
    ///
    /// # Errors
    /// See [`RequestError`]. Without an answer the peer may or may not have acted.
    pub async fn ask(&self, body: Bytes) -> Result<Answer, RequestError> {
        if body.len() > REQUEST_LEN_MAX {
            return Err(RequestError::TooLong);
        }
        self.0.counters.requests_sent.add(1);
        request::ask(self.connection(), body).await
    }

    /// Closes the link now; what is queued is dropped. The peer is told the reason.
    pub fn close(&self, reason: &str) {
        self.end(DownReason::Closed(reason.to_owned()));
    }

    /// The round trip as QUIC estimates it.
    pub fn rtt(&self) -> Duration {
        self.0.connection.rtt()
    }

    /// The link takes no more frames. Its `Down` may still be on its way.
    pub fn is_closed(&self) -> bool {
        self.0.down.get().is_some()
    }

    /// What went over the link.
    pub fn stats(&self) -> LinkStats {
        let (counters, connection) = (&self.0.counters, self.0.connection.stats());
        LinkStats {
            lanes: self.0.queues.iter().map(Queue::stats).collect(),
            datagrams_sent: counters.datagrams_sent.get(),
            datagrams_received: counters.datagrams_received.get(),
            requests_sent: counters.requests_sent.get(),
            requests_received: counters.requests_received.get(),
            rtt: connection.path.rtt,
            packets_lost: connection.path.lost_packets,
            udp_sent: connection.udp_tx.datagrams,
            udp_sent_bytes: connection.udp_tx.bytes,
        }
    }

    /// Closes the link for a reason; the first reason stays.
    pub(crate) fn end(&self, reason: DownReason) {
        let reason = match (reason, self.draining()) {
            // After our goodbye it is the peer that closes, but it was our wish.
            (DownReason::ClosedByPeer(_), Some(wish)) => DownReason::Closed(wish.to_owned()),
            (reason, _) => reason,
        };
        let (code, text) = close::close_of(&reason);
        if self.0.down.set(reason).is_ok() {
            self.0.connection.close(code, text.as_bytes());
        }
    }

    /// Takes no more frames; the peer closes the link when it has read those that are queued.
    pub(crate) fn drain(&self, reason: &str) {
        self.0.draining.get_or_init(|| reason.to_owned());
        self.0.queues.iter().for_each(Queue::end);
    }

    /// Why the link is drained, if it is.
    pub(crate) fn draining(&self) -> Option<&str> {
        self.0.draining.get().map(String::as_str)
    }

    /// Why the link is closed, once it is.
    pub(crate) fn down(&self) -> Option<&DownReason> {
        self.0.down.get()
    }

    /// Drops what is queued.
    pub(crate) fn clear(&self) {
        self.0.queues.iter().for_each(Queue::clear);
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.0.connection
    }

    pub(crate) fn queue(&self, lane: Lane) -> Option<&Queue> {
        self.0.queues.get(usize::from(lane.0))
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = Lane> + use<> {
        // The configuration was checked to have at most `LANES_MAX`.
        (0..u8::try_from(self.0.queues.len()).unwrap_or(u8::MAX)).map(Lane)
    }

    /// Notes that a lane has a reader; false if it had one before.
    pub(crate) fn claim(&self, lane: Lane) -> bool {
        self.0.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(lane)
    }

    pub(crate) fn counters(&self) -> &LinkCounters {
        &self.0.counters
    }

    pub(crate) fn tell_room(&self, lane: Lane) {
        self.0.rooms.add(self, lane);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { id, peer, dialed, down, .. } = &*self.0;
        f.debug_struct("Link")
            .field("id", id)
            .field("peer", &format_args!("{}/{}", peer.name, peer.incarnation))
            .field("address", &peer.address)
            .field("dialed", dialed)
            .field("down", &down.get())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Link {
    /// The same link: ids are unique in a process, two transports apart.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Link {}

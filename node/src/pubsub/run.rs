//! Broadcasts of one input that follow each other on one topic: they reach each socket as one.

use std::{cell::OnceCell, sync::Arc};

use bytes::{Bytes, BytesMut};
use presence::Topic;

use super::{Broadcast, Encode, Flush, Format, Registry, SubscriberId};

/// Bytes of a run that is long enough: it must not fill the mailboxes of those who read in time.
const RUN_BYTES: usize = 32 * 1024;

/// Consecutive broadcasts to one topic, not yet handed to its subscribers.
#[derive(Debug)]
pub(super) struct Run {
    registry: Arc<Registry>,
    topic: Topic,
    except: Option<SubscriberId>,
    encode: Encode,
    /// Events and payloads, one behind the other.
    bytes: Vec<u8>,
    /// Bytes of each event and its payload.
    messages: Vec<(usize, usize)>,
}

/// Several broadcasts to one topic, encoded together: one frame behind the other.
pub(super) struct Joined<'a> {
    broadcasts: Vec<Broadcast<'a>>,
    frames: [OnceCell<Bytes>; Format::COUNT],
}

impl Run {
    pub(super) fn new(
        registry: &Arc<Registry>,
        broadcast: &Broadcast<'_>,
        except: Option<SubscriberId>,
    ) -> Self {
        Self {
            registry: Arc::clone(registry),
            topic: broadcast.topic().clone(),
            except,
            encode: broadcast.encode(),
            bytes: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// Whether a broadcast can follow in this run.
    pub(super) fn takes(&self, broadcast: &Broadcast<'_>, except: Option<SubscriberId>) -> bool {
        self.except == except && self.bytes.len() < RUN_BYTES && self.topic == *broadcast.topic()
    }

    pub(super) fn push(&mut self, broadcast: &Broadcast<'_>) {
        let (event, payload) = (broadcast.event().as_bytes(), broadcast.payload());
        self.bytes.reserve(event.len() + payload.len());
        self.bytes.extend_from_slice(event);
        self.bytes.extend_from_slice(payload);
        self.messages.push((event.len(), payload.len()));
    }

    /// Hands it to the subscribers.
    pub(super) fn deliver(self, flush: &mut Flush) {
        if let [(event, _)] = *self.messages {
            let (event, payload) = self.bytes.split_at(event);
            let event = std::str::from_utf8(event).unwrap_or_default();
            let only = Broadcast::new(&self.topic, event, payload, self.encode);
            self.registry.broadcast(&only, self.except, flush);
            return;
        }
        let mut rest = self.bytes.as_slice();
        let mut take = |len| rest.split_off(..len).unwrap_or_default();
        let broadcasts = self.messages.iter().map(|(event, payload)| {
            // It was one when it was pushed.
            let event = std::str::from_utf8(take(*event)).unwrap_or_default();
            Broadcast::new(&self.topic, event, take(*payload), self.encode)
        });
        let joined = Joined {
            broadcasts: broadcasts.collect(),
            frames: [const { OnceCell::new() }; Format::COUNT],
        };
        self.registry.broadcast_joined(&joined, self.except, flush);
    }
}

impl<'a> Joined<'a> {
    /// The broadcasts, one by one.
    pub(super) fn broadcasts(&self) -> &[Broadcast<'a>] {
        &self.broadcasts
    }

    /// All frames in `format`: joined by the first call, the same bytes from then on.
    pub(super) fn frames(&self, format: Format) -> &Bytes {
        self.frames[format.index()].get_or_init(|| {
            let frames = || self.broadcasts.iter().map(|broadcast| broadcast.frame(format));
            let mut joined = BytesMut::with_capacity(frames().map(Bytes::len).sum());
            frames().for_each(|frame| joined.extend_from_slice(frame));
            joined.freeze()
        })
    }
}

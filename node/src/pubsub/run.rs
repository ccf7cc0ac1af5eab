//! Broadcasts of one input that follow each other on one topic: they reach each socket as one.

use std::sync::Arc;

use cluster::wire::PayloadKind;
use presence::Topic;

use super::{Broadcast, Encode, Flush, Payload, Registry, SubscriberId, broadcast::Joined};

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
    messages: Vec<Message>,
}

/// What a run keeps of one broadcast besides its bytes.
#[derive(Clone, Copy, Debug)]
struct Message {
    event_len: usize,
    payload_len: usize,
    kind: PayloadKind,
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
        let (kind, payload_len) = (payload.kind(), payload.len());
        self.bytes.reserve(event.len() + payload_len);
        self.bytes.extend_from_slice(event);
        payload.append_to(&mut self.bytes);
        self.messages.push(Message { event_len: event.len(), payload_len, kind });
    }

    /// Hands it to the subscribers.
    pub(super) fn deliver(self, flush: &mut Flush) {
        let mut rest = self.bytes.as_slice();
        let mut take = |len| rest.split_off(..len).unwrap_or_default();
        let mut broadcasts = self.messages.iter().filter_map(|message| {
            // It was one when it was pushed.
            let event = std::str::from_utf8(take(message.event_len)).unwrap_or_default();
            let payload = Payload::new(message.kind, take(message.payload_len))?;
            Some(Broadcast::new(&self.topic, event, payload, self.encode))
        });
        if self.messages.len() > 1 {
            let joined = Joined::new(broadcasts.collect());
            self.registry.broadcast_joined(&joined, self.except, flush);
        } else if let Some(only) = broadcasts.next() {
            self.registry.broadcast(&only, self.except, flush);
        }
    }
}

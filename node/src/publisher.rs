//! A broadcast's way out of this node: to its own subscribers, and once to each peer that has some.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use cluster::wire;
use presence::{NodeIx, Topic, shard_of};
use transport::{Link, SendError};

use crate::{
    peers::lanes,
    pubsub::{Broadcast, Flush, Payload, Registry, Routes, SubscriberId, Writing},
    wire_format::encode,
};

/// The links to the peers, by their number.
#[derive(Debug, Default)]
pub(crate) struct Links {
    by_peer: RwLock<Vec<Option<Link>>>,
    /// Broadcasts that waited in a lane when its link went down.
    lost: AtomicU64,
}

impl Links {
    pub(crate) fn set(&self, peer: NodeIx, link: Option<Link>) {
        let mut links = self.by_peer.write().unwrap_or_else(PoisonError::into_inner);
        if links.len() <= peer.index() {
            links.resize(peer.index() + 1, None);
        }
        links[peer.index()] = link;
    }

    pub(crate) fn get(&self, peer: NodeIx) -> Option<Link> {
        let links = self.by_peer.read().unwrap_or_else(PoisonError::into_inner);
        links.get(peer.index()).cloned().flatten()
    }

    /// Counts what a link that went down has lost.
    pub(crate) fn note_ended(&self, link: &Link) {
        let lanes = link.stats().lanes;
        let waited = lanes.iter().skip(usize::from(lanes::DATA)).map(|lane| lane.cleared_frames);
        self.lost.fetch_add(waited.sum(), Ordering::Relaxed);
    }

    /// Broadcasts lost with links that went down.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The link to the peer of that name.
    pub(crate) fn named(&self, name: &str) -> Option<Link> {
        let links = self.by_peer.read().unwrap_or_else(PoisonError::into_inner);
        links.iter().flatten().find(|link| link.peer().name == name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(NodeIx, Link)> {
        let links = self.by_peer.read().unwrap_or_else(PoisonError::into_inner);
        let linked = (0..).zip(links.iter());
        linked.filter_map(|(ix, link)| Some((NodeIx(ix), link.clone()?))).collect()
    }
}

/// Publishes broadcasts. Any thread may; nothing waits.
#[derive(Debug)]
pub(crate) struct Publisher {
    registry: Arc<Registry>,
    routes: Arc<Routes>,
    links: Arc<Links>,
    /// Broadcasts per feed shard.
    sequences: Box<[AtomicU64]>,
    stats: Stats,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Broadcasts handed to a peer's lane.
    pub(crate) forwarded: AtomicU64,
    /// Broadcasts that found the lane full.
    pub(crate) lane_full: AtomicU64,
    /// Broadcasts for peers that want them and whose link is down.
    pub(crate) unlinked: AtomicU64,
    /// Broadcasts that came from peers.
    pub(crate) received: AtomicU64,
    /// Of those, how many found no subscriber: flooded, or sent as the last one left.
    pub(crate) received_unwanted: AtomicU64,
    /// Of those, how many could not be read.
    pub(crate) received_invalid: AtomicU64,
}

impl Publisher {
    pub(crate) fn new(
        registry: Arc<Registry>,
        routes: Arc<Routes>,
        links: Arc<Links>,
        shards: u16,
    ) -> Self {
        let sequences = (0..shards.max(1)).map(|_| AtomicU64::new(0)).collect();
        Self { registry, routes, links, sequences, stats: Stats::default() }
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Hands a message to all subscribers of the topic but `except`, here and on the peers. When it
    /// returns, the message lies in the peers' lanes, and once the flush is written in the local
    /// mailboxes.
    pub(crate) fn publish(
        &self,
        topic: &Topic,
        event: &str,
        payload: Payload<'_>,
        except: Option<SubscriberId>,
        flush: &mut Flush,
    ) {
        self.registry.publish(&Broadcast::new(topic, event, payload, encode), except, flush);
        if self.routes.any_known() {
            self.forward(topic, event, payload);
        }
    }

    fn forward(&self, topic: &Topic, event: &str, payload: Payload<'_>) {
        let hash = topic.hash64();
        let shard = shard_of(hash, u16::try_from(self.sequences.len()).unwrap_or(u16::MAX));
        let mut parts = None;
        let unlinked = self.routes.peers(hash, shard, |peer| {
            let Some(link) = self.links.get(peer) else {
                return;
            };
            let (head, bytes) = parts.get_or_insert_with(|| {
                let sequence = &self.sequences[usize::from(shard)];
                let head = wire::encode_broadcast(&wire::Broadcast {
                    topic: topic.as_str(),
                    event,
                    kind: payload.kind(),
                    sequence: sequence.fetch_add(1, Ordering::Relaxed) + 1,
                });
                (head, payload.to_bytes())
            });
            let sent = link.send_parts(lanes::data(shard), head.clone(), bytes.clone());
            let counter = match sent {
                Ok(()) => &self.stats.forwarded,
                Err(SendError::Closed) => &self.links.lost,
                Err(_) => &self.stats.lane_full,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        });
        if unlinked > 0 {
            self.stats.unlinked.fetch_add(unlinked.into(), Ordering::Relaxed);
        }
    }

    /// Hands a peer's broadcasts to this node's subscribers. The peer's next are to wait until these
    /// are written.
    pub(crate) fn receive(&self, link: &Link, frames: &[Bytes]) -> Writing {
        let mut flush = Flush::of_input(self.registry.latency());
        self.stats.received.fetch_add(frames.len() as u64, Ordering::Relaxed);
        for frame in frames {
            if let Err(why) = self.receive_one(frame, &mut flush) {
                self.stats.received_invalid.fetch_add(1, Ordering::Relaxed);
                link.close(&why);
                break;
            }
        }
        flush.write()
    }

    fn receive_one(&self, frame: &Bytes, flush: &mut Flush) -> Result<(), String> {
        let Some((header, payload)) =
            wire::decode_broadcast(frame).map_err(|error| error.to_string())?
        else {
            return Ok(());
        };
        let topic: Topic =
            header.topic.parse().map_err(|error: presence::InvalidTopic| error.to_string())?;
        if self.registry.subscribers(&topic) > 0 {
            let payload =
                Payload::new(header.kind, &payload).ok_or("a payload that is not of its kind")?;
            let broadcast = Broadcast::new(&topic, header.event, payload, encode);
            self.registry.publish(&broadcast, None, flush);
        } else {
            self.stats.received_unwanted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

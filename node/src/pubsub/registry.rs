//! Which mailboxes want a topic: 256 shards of topic → subscribers.

use std::{
    collections::{BTreeMap, HashMap, hash_map},
    hash::BuildHasher as _,
    sync::{
        Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use presence::Topic;

use super::{
    Broadcast, Filter, Flush, Intercepts, Latency, Offer, Overflow, Pushed, Stats, Subscriber,
    SubscriberId, Subscription,
    broadcast::Joined,
    subscribers::{Entry, Subscribers, wants_presence},
};

/// Enough that two cores seldom meet in one; an empty shard costs 80 bytes.
const SHARDS: usize = 256;

/// A shard's map keeps room for this many topics whatever happens.
const TOPICS_KEPT: usize = 64;

/// The subscribers of all topics on this node.
#[derive(Debug)]
pub struct Registry {
    /// Seeded at random: clients choose topic names, and must not choose their shard.
    hasher: RandomState,
    shards: Box<[RwLock<Shard>]>,
    next_id: AtomicU64,
    stats: Stats,
    latency: Arc<Latency>,
    intercepts: OnceLock<Intercepts>,
}

/// What became of a broadcast among this node's subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Mailboxes that took it.
    pub subscribers: usize,
    /// Mailboxes that it overflowed: closed now, each as a slow client.
    pub overflowed: usize,
    /// Mailboxes without room for this presence diff; they get a fresh state instead.
    pub skipped: usize,
    /// Broadcasts dropped as a mailbox was full, this one or older ones, for [`Overflow::DropOldest`].
    pub dropped: usize,
    /// The same for [`Overflow::Conflate`].
    pub conflated: usize,
    /// Frames that mailboxes were not sent, as their format has no form for the payload.
    pub formless: usize,
}

/// How much a registry holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Topics with a subscriber.
    pub topics: usize,
    /// Subscriptions over all topics.
    pub subscriptions: usize,
}

#[derive(Debug, Default)]
struct Shard {
    /// No topic is here without a subscriber.
    topics: HashMap<Topic, Subscribers, RandomState>,
    subscriptions: usize,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            next_id: AtomicU64::new(1),
            stats: Stats::default(),
            latency: Arc::default(),
            intercepts: OnceLock::new(),
        })
    }

    /// Says what the sets of events are that filters name. Only the first call counts.
    pub fn set_intercepts(&self, intercepts: Intercepts) {
        self.intercepts.get_or_init(|| intercepts);
    }

    /// Adds a subscriber. A broadcast that begins after this returned reaches it.
    pub fn subscribe(self: &Arc<Self>, topic: &Topic, subscriber: Subscriber) -> Subscription {
        self.subscribe_after(topic, subscriber, || ())
    }

    /// Adds a subscriber once `first` is done: no broadcast gets between what `first` pushes and the
    /// subscription. It runs under the topic's lock.
    pub fn subscribe_after(
        self: &Arc<Self>,
        topic: &Topic,
        subscriber: Subscriber,
        first: impl FnOnce(),
    ) -> Subscription {
        let id = SubscriberId(self.next_id.fetch_add(1, Relaxed));
        let entry = subscriber.entry(id);
        let mut shard = self.write(topic);
        first();
        let (topic, slot) = shard.insert(topic, entry);
        drop(shard);
        Subscription { registry: Arc::clone(self), topic, slot, id }
    }

    /// Adds a second subscriber of a subscription's topic that is left out wherever the first one is.
    pub fn subscribe_beside(
        self: &Arc<Self>,
        first: &Subscription,
        subscriber: Subscriber,
    ) -> Subscription {
        let entry = subscriber.entry(first.id());
        let (topic, slot) = self.write(first.topic()).insert(first.topic(), entry);
        Subscription { registry: Arc::clone(self), topic, slot, id: first.id() }
    }

    /// Hands a message to every subscriber of its topic but `except`.
    pub fn broadcast(
        &self,
        broadcast: &Broadcast<'_>,
        except: Option<SubscriberId>,
        flush: &mut Flush,
    ) -> Delivered {
        let event = self.hash_event(broadcast.event());
        let wants =
            |entry: &Entry| except != Some(entry.id) && self.wants(entry, broadcast.event());
        self.deliver(broadcast, flush, wants, |entry, frame, flush| {
            let offer = Offer { channel: entry.channel, event, overflow: entry.overflow };
            entry.mailbox.push(offer, frame, flush)
        })
    }

    /// Takes a message for every subscriber of its topic but `except`. It reaches them with those of
    /// the same input that follow on its topic, at the latest when the flush is written.
    pub fn publish(
        self: &Arc<Self>,
        broadcast: &Broadcast<'_>,
        except: Option<SubscriberId>,
        flush: &mut Flush,
    ) {
        flush.broadcast(self, broadcast, except);
    }

    /// Hands several messages to every subscriber of their topic but `except`: as one where there is
    /// room for all, else one by one.
    pub(super) fn broadcast_joined(
        &self,
        joined: &Joined<'_>,
        except: Option<SubscriberId>,
        flush: &mut Flush,
    ) {
        let Some(first) = joined.broadcasts().first() else {
            return;
        };
        let all = joined.broadcasts().len();
        let mut delivered = Delivered::default();
        if let Some(subscribers) = self.read(first.topic()).topics.get(first.topic()) {
            flush.reserve(subscribers.len());
            for entry in subscribers.iter().filter(|entry| except != Some(entry.id)) {
                let (frames, count) = joined.frames(entry.format);
                delivered.formless += all - count;
                if *count == 0 {
                    continue;
                }
                if entry.filter == Filter::All
                    && entry.mailbox.push_joined(entry.channel, frames, *count, flush)
                {
                    delivered.subscribers += count;
                    continue;
                }
                for broadcast in joined.broadcasts() {
                    let frame = broadcast.frame(entry.format);
                    let Some(frame) = frame.filter(|_| self.wants(entry, broadcast.event())) else {
                        continue;
                    };
                    let event = self.hash_event(broadcast.event());
                    let offer = Offer { channel: entry.channel, event, overflow: entry.overflow };
                    let pushed = entry.mailbox.push(offer, frame.clone(), flush);
                    delivered.count(pushed, entry.overflow);
                }
            }
        }
        self.stats.record(delivered, all);
    }

    /// Hands presence diff number `version` of its topic to those subscribers that want presence
    /// and have not seen that version yet, in the state they began with. Likewise a count, under its
    /// [`count_version`](super::count_version).
    pub fn presence(&self, diff: &Broadcast<'_>, version: u64, flush: &mut Flush) -> Delivered {
        let wants = |entry: &Entry| wants_presence(entry.presence_after, version);
        self.deliver(diff, flush, wants, |entry, frame, flush| {
            entry.mailbox.push_presence(entry.channel, frame, flush)
        })
    }

    /// How many subscribers a topic has on this node.
    pub fn subscribers(&self, topic: &Topic) -> usize {
        self.read(topic).topics.get(topic).map_or(0, Subscribers::len)
    }

    /// Topics that start with `prefix`, with their subscribers: the first `limit` by name.
    ///
    /// Looks at every topic, one shard's lock at a time: for operators, not for messages.
    pub fn topics(&self, prefix: &str, limit: usize) -> Vec<(Topic, usize)> {
        let mut first = BTreeMap::new();
        for shard in &self.shards {
            let shard = read(shard);
            let matching =
                shard.topics.iter().filter(|(topic, _)| topic.as_str().starts_with(prefix));
            matching.for_each(|(topic, subscribers)| {
                first.insert(topic.clone(), subscribers.len());
                if first.len() > limit {
                    first.pop_last();
                }
            });
        }
        first.into_iter().collect()
    }

    /// How many topics and subscriptions there are.
    pub fn size(&self) -> Size {
        self.shards.iter().fold(Size::default(), |sum, shard| {
            let shard = read(shard);
            Size {
                topics: sum.topics + shard.topics.len(),
                subscriptions: sum.subscriptions + shard.subscriptions,
            }
        })
    }

    /// The counters.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// From the read of a client's or peer's frames to the last write of what they caused.
    pub const fn latency(&self) -> &Arc<Latency> {
        &self.latency
    }

    pub(super) fn set_presence_after(
        &self,
        topic: &Topic,
        slot: usize,
        version: u64,
        first: impl FnOnce(),
    ) {
        let mut shard = self.write(topic);
        first();
        if let Some(entry) = shard.topics.get_mut(topic).and_then(|topic| topic.get_mut(slot)) {
            entry.presence_after = version;
        }
    }

    pub(super) fn remove(&self, topic: &Topic, slot: usize) {
        // The entry may hold the last handle of its mailbox: it is freed after the lock.
        let _entry = self.write(topic).remove(topic, slot);
    }

    /// Offers the message to each subscriber that wants it. The read lock is held meanwhile: others may
    /// broadcast in this shard, and a join of one of its topics waits. Nothing is written here.
    fn deliver(
        &self,
        broadcast: &Broadcast<'_>,
        flush: &mut Flush,
        wants: impl Fn(&Entry) -> bool,
        offer: impl Fn(&Entry, Bytes, &mut Flush) -> Pushed,
    ) -> Delivered {
        let mut delivered = Delivered::default();
        if let Some(subscribers) = self.read(broadcast.topic()).topics.get(broadcast.topic()) {
            flush.reserve(subscribers.len());
            for entry in subscribers.iter().filter(|entry| wants(entry)) {
                match broadcast.frame(entry.format) {
                    Some(frame) => {
                        delivered.count(offer(entry, frame.clone(), flush), entry.overflow);
                    }
                    None => delivered.formless += 1,
                }
            }
        }
        self.stats.record(delivered, 1);
        delivered
    }

    fn wants(&self, entry: &Entry, event: &str) -> bool {
        match entry.filter {
            Filter::All => true,
            filter @ (Filter::Except(_) | Filter::Only(_)) => {
                filter.wants(event, self.intercepts.get())
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "half a hash is a hash")]
    fn hash_event(&self, event: &str) -> u32 {
        self.hasher.hash_one(event) as u32
    }

    fn shard(&self, topic: &Topic) -> &RwLock<Shard> {
        let index = self.hasher.hash_one(topic) % SHARDS as u64;
        // The remainder is below 256, so it is the same as a usize.
        &self.shards[usize::try_from(index).unwrap_or(0)]
    }

    fn read(&self, topic: &Topic) -> RwLockReadGuard<'_, Shard> {
        read(self.shard(topic))
    }

    fn write(&self, topic: &Topic) -> RwLockWriteGuard<'_, Shard> {
        self.shard(topic).write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A panic while a shard was locked (in a waker or an encoder) leaves its map whole: go on with it.
fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

impl Delivered {
    fn count(&mut self, pushed: Pushed, overflow: Overflow) {
        let dropped = match overflow {
            Overflow::Conflate => &mut self.conflated,
            Overflow::DropOldest | Overflow::Disconnect => &mut self.dropped,
        };
        match pushed {
            Pushed::Queued => self.subscribers += 1,
            Pushed::Displaced(older) => {
                self.subscribers += 1;
                *dropped += older;
            }
            Pushed::Dropped(frames) => *dropped += frames,
            Pushed::Overflow => self.overflowed += 1,
            Pushed::Skipped => self.skipped += 1,
            Pushed::Closed => {}
        }
    }
}

impl Shard {
    /// Returns the topic's shared name and the entry's slot.
    fn insert(&mut self, topic: &Topic, entry: Entry) -> (Topic, usize) {
        self.subscriptions += 1;
        match self.topics.entry(topic.clone()) {
            hash_map::Entry::Occupied(mut known) => {
                let slot = known.get_mut().insert(entry);
                (known.key().clone(), slot)
            }
            hash_map::Entry::Vacant(new) => {
                let slot = new.insert(Subscribers::default()).insert(entry);
                (topic.clone(), slot)
            }
        }
    }

    fn remove(&mut self, topic: &Topic, slot: usize) -> Option<Entry> {
        let subscribers = self.topics.get_mut(topic)?;
        let entry = subscribers.remove(slot)?;
        self.subscriptions -= 1;
        if subscribers.is_empty() {
            self.topics.remove(topic);
            self.shrink();
        }
        Some(entry)
    }

    /// Gives memory back after a crowd has left. Halving at an eighth costs each removal a
    /// constant on average.
    fn shrink(&mut self) {
        let room = self.topics.capacity();
        if room > TOPICS_KEPT && self.topics.len() < room / 8 {
            self.topics.shrink_to((room / 2).max(TOPICS_KEPT));
        }
    }
}

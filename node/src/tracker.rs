//! Presence on this node: the shards behind their locks, and the driver that tells what changed.
//!
//! Sockets call straight into a shard; no task stands between. One task, [`Tracker::run`], waits for
//! the shards' deadlines and publishes their diffs to the registry.

mod counts;
#[cfg(test)]
mod herd;
mod openings;
mod render;
mod state;
mod totals;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use presence::{
    Count, Diff, EntryId, Event, INTEREST_ALL, Replica, Shard, Time, Topic, TrackError, shard_of,
};
use tokio::sync::Notify;

use crate::{
    pubsub::{Broadcast, Flush, Payload, Registry, Routes, count_version},
    wire_format::encode,
};

pub(crate) use openings::{Openings, TOPICS_MAX};
pub(crate) use render::push_json_string;
use render::{Copied, Meta, render_diff, render_metas, render_state};
use state::Rendered;
pub(crate) use state::State;
pub use totals::PresenceTotals;

/// The node's monotonic clock, as the cores count it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Time {
        Time::ZERO + self.0.elapsed()
    }

    pub(crate) fn instant(self, at: Time) -> Instant {
        self.0 + at.since(Time::ZERO)
    }
}

/// All shards of presence of one node.
#[derive(Debug)]
pub(crate) struct Tracker {
    clock: Clock,
    shards: Box<[Mutex<Seat>]>,
    grown: Box<[AtomicBool]>,
    /// The earliest deadline of any shard that the driver knows of, in microseconds.
    deadline: AtomicU64,
    /// Diffs of some shard have been taken, and are not all in the mailboxes yet.
    publishing: AtomicBool,
    /// How long clients stay listed whose sockets end, at least.
    lease_micros: AtomicU64,
    registry: Arc<Registry>,
    routes: Arc<Routes>,
    followers: openings::Followers,
    /// A deadline came nearer.
    pub(crate) wake: Notify,
    /// An own feed has grown: the peers are to be told.
    pub(crate) changed: Notify,
}

/// One shard and what is kept for it.
#[derive(Debug)]
struct Seat {
    shard: Shard,
    /// Rendered states by topic, each of one version: a thousand joiners cost one rendering.
    states: HashMap<Topic, Rendered, RandomState>,
    diffs: VecDeque<Diff>,
    counts: VecDeque<(Topic, u64, Count)>,
}

/// Rendered states kept per shard; beyond it they are rendered anew.
const STATES_MAX: usize = 4096;

/// Times that what decides about a meta is asked, while others change it meanwhile; then it stays theirs.
const DECISIONS_MAX: usize = 16;

/// Entries of the smallest state that is kept: smaller ones are rendered faster than found.
const STATE_KEPT_MIN: usize = 16;

/// When telling what changed took at least so long, nothing is told for as long again: a crowd that
/// comes or goes makes fewer and longer diffs, and leaves half of the time to others.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Keeps a topic wanted on this node. Dropping it lets the interest go.
#[derive(Debug)]
pub(crate) struct Interest {
    tracker: Arc<Tracker>,
    hash: u64,
    /// Its place in the shard's feed: (shard, sequence number).
    pub(crate) mark: (u16, u64),
}

/// Keeps a client listed on a topic. Dropping it takes the client off: at once if it is to
/// [`leave`](Self::leave), else, since its socket is gone, after the lease that it has.
#[derive(Debug)]
pub(crate) struct Tracked {
    tracker: Arc<Tracker>,
    topic: Topic,
    entry: EntryId,
    /// `None` when it is to leave at once.
    linger: Option<Duration>,
}

/// Keeps diffs or counts of a topic coming. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Observation {
    tracker: Arc<Tracker>,
    topic: Topic,
    hears: Hears,
}

/// What one who watches a topic is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hears {
    /// Who is there, then who comes and goes.
    Changes,
    /// How many are there.
    Count,
}

/// One page of a topic's list, rendered.
#[derive(Debug)]
pub(crate) struct Listing {
    /// How many there are in all.
    pub(crate) count: Count,
    /// `{key: {"metas": […]}}`.
    pub(crate) presences: Bytes,
    /// The last key of the page, if there are more.
    pub(crate) next: Option<String>,
}

impl Tracker {
    pub(crate) fn new(
        config: &presence::Config,
        shards: u16,
        me: &Replica,
        clock: Clock,
        registry: Arc<Registry>,
        routes: Arc<Routes>,
    ) -> Arc<Self> {
        let seat = |number| {
            Mutex::new(Seat {
                shard: Shard::new(config.clone(), number, me.clone()),
                states: HashMap::default(),
                diffs: VecDeque::new(),
                counts: VecDeque::new(),
            })
        };
        Arc::new(Self {
            clock,
            shards: (0..shards).map(seat).collect(),
            grown: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            deadline: AtomicU64::new(u64::MAX),
            publishing: AtomicBool::new(false),
            lease_micros: AtomicU64::new(0),
            registry,
            routes,
            followers: openings::Followers::default(),
            wake: Notify::new(),
            changed: Notify::new(),
        })
    }

    pub(crate) fn shards(&self) -> u16 {
        u16::try_from(self.shards.len()).unwrap_or(u16::MAX)
    }

    pub(crate) fn shard_of(&self, topic: &Topic) -> u16 {
        shard_of(topic.hash64(), self.shards())
    }

    /// Works on one shard under its lock. Interest of peers is routed before the lock is given
    /// back, so nobody sees a presence of a node that broadcasts would not reach.
    pub(crate) fn with<R>(&self, shard: u16, work: impl FnOnce(&mut Shard) -> R) -> R {
        self.seat(shard, |seat| work(&mut seat.shard))
    }

    fn seat<R>(&self, shard: u16, work: impl FnOnce(&mut Seat) -> R) -> R {
        let index = usize::from(shard);
        let mut seat = self.shards[index].lock().unwrap_or_else(PoisonError::into_inner);
        let before = seat.shard.head();
        let result = work(&mut seat);
        while let Some(event) = seat.shard.poll_event() {
            match event {
                Event::Interest { hash: INTEREST_ALL, .. } => {}
                Event::Interest { owner, hash, present } => {
                    self.routes.interest(hash, owner, present);
                }
                Event::Diff(diff) => {
                    seat.states.remove(&diff.topic);
                    seat.diffs.push_back(diff);
                }
                Event::Count { topic, version, count } => {
                    seat.counts.push_back((topic, version, count));
                }
                Event::Opened { topic } => self.opened(&topic),
            }
        }
        let deadline = seat.shard.poll_timeout();
        let grown = seat.shard.head() != before;
        drop(seat);
        if grown && !self.grown[index].swap(true, Ordering::AcqRel) {
            self.changed.notify_one();
        }
        if let Some(at) = deadline.map(Time::as_micros)
            && self.deadline.fetch_min(at, Ordering::AcqRel) > at
        {
            self.wake.notify_one();
        }
        result
    }

    /// Shards whose own feed has grown since the last call, with its head.
    pub(crate) fn take_grown(&self) -> impl Iterator<Item = (u16, u64)> {
        (0..).zip(&self.grown).filter_map(|(shard, grown)| {
            let grown = grown.swap(false, Ordering::AcqRel);
            grown.then(|| (shard, self.with(shard, |s| s.head())))
        })
    }

    // === what sockets do ===

    /// Tells the peers that a topic is wanted here, if they do not know yet.
    pub(crate) fn interest(self: &Arc<Self>, topic: &Topic) -> Interest {
        let (hash, shard) = (topic.hash64(), self.shard_of(topic));
        let now = self.clock.now();
        let seq = self.with(shard, |s| s.acquire_interest(hash, now));
        Interest { tracker: Arc::clone(self), hash, mark: (shard, seq) }
    }

    /// Begins to watch a topic, after listing the client, if it is to be, under a key with a meta.
    ///
    /// `begin` gets the state and subscribes to the diffs after it. It runs under the shard's lock, so
    /// no diff is published between the two. The state has the client's own entry, which the diff that
    /// announces it to the others will repeat.
    pub(crate) fn watch<S>(
        self: &Arc<Self>,
        topic: &Topic,
        hears: Hears,
        own: Option<(&str, &[u8])>,
        begin: impl FnOnce(&State) -> S,
    ) -> Result<(Option<Tracked>, Observation, S), TrackError> {
        let now = self.clock.now();
        let (entry, begun) = self.seat(self.shard_of(topic), |seat| {
            let (entry, state) = match hears {
                Hears::Changes => seat.begin_changes(topic, own, now),
                Hears::Count => seat.begin_count(topic, own, now),
            }?;
            Ok((entry, begin(&state)))
        })?;
        let tracked = entry.map(|entry| self.tracked(topic, entry));
        Ok((tracked, Observation { tracker: Arc::clone(self), topic: topic.clone(), hears }, begun))
    }

    /// Lists a client that watches the topic.
    pub(crate) fn track(
        self: &Arc<Self>,
        topic: &Topic,
        key: &str,
        meta: &[u8],
    ) -> Result<Tracked, TrackError> {
        let now = self.clock.now();
        let entry = self.with(self.shard_of(topic), |shard| shard.track(topic, key, meta, now))?;
        Ok(self.tracked(topic, entry))
    }

    fn tracked(self: &Arc<Self>, topic: &Topic, entry: EntryId) -> Tracked {
        let linger = Some(Duration::ZERO);
        Tracked { tracker: Arc::clone(self), topic: topic.clone(), entry, linger }
    }

    /// From now on clients whose sockets end stay listed for at least that long.
    pub(crate) fn lend(&self, lease: Duration) {
        let micros = u64::try_from(lease.as_micros()).unwrap_or(u64::MAX);
        self.lease_micros.store(micros, Ordering::Release);
    }

    /// Clients that are listed though their sockets are gone.
    pub(crate) fn detached(&self) -> usize {
        (0..self.shards()).map(|shard| self.with(shard, |shard| shard.detached())).sum()
    }

    /// What is left of the longest lease of these.
    pub(crate) fn lease_left(&self) -> Duration {
        let now = self.clock.now();
        let left = |shard| self.with(shard, |shard| shard.lease_left(now));
        (0..self.shards()).filter_map(left).max().unwrap_or_default()
    }

    // === queries ===

    pub(crate) fn list(&self, topic: &Topic, after: Option<&str>, keys_max: usize) -> Listing {
        // Rendered without the lock: thousands of metas take a while.
        let (count, entries, next) = self.with(self.shard_of(topic), |shard| {
            let page = shard.list_page(topic, after, keys_max);
            let entries = Copied::of(&page.entries);
            (shard.count(topic), entries, page.next.map(ToOwned::to_owned))
        });
        Listing { count, presences: render_state(entries.iter()).0, next }
    }

    /// How many are on a topic.
    pub(crate) fn count(&self, topic: &Topic) -> Count {
        self.with(self.shard_of(topic), |shard| shard.count(topic))
    }

    /// `{"metas": […]}` of one key; `None` when nobody is there under it.
    pub(crate) fn get(&self, topic: &Topic, key: &str) -> Option<Bytes> {
        self.with(self.shard_of(topic), |shard| {
            let entries = shard.get(topic, key);
            if entries.is_empty() {
                return None;
            }
            let mut json = Vec::new();
            let metas = entries.iter().map(|entry| Meta::of(entry.meta, entry.reference));
            render_metas(&mut json, metas);
            Some(json.into())
        })
    }

    /// Replaces the metas of this node's clients on a topic for which `change` gives another, and counts
    /// them. It is asked anew about one that changed meanwhile, [`DECISIONS_MAX`] times.
    pub(crate) fn update_where(
        &self,
        topic: &Topic,
        mut change: impl FnMut(&str, &[u8]) -> Option<Vec<u8>>,
    ) -> Result<usize, TrackError> {
        let shard = self.shard_of(topic);
        let mut changed = 0;
        for id in self.with(shard, |shard| shard.own(topic)) {
            let read = |shard: &Shard| {
                let presence::Entry { key, meta, reference, .. } = shard.entry(id)?;
                Some((key.to_owned(), meta.to_vec(), reference))
            };
            // What decides may take its time: not under the lock.
            let mut now = self.with(shard, |shard| read(shard));
            for _ in 0..DECISIONS_MAX {
                let Some((key, meta, reference)) = now.take() else { break };
                let Some(new) = change(&key, &meta) else { break };
                now = self.with(shard, |shard| {
                    if shard.reference(id) != Some(reference) {
                        return Ok(read(shard));
                    }
                    match shard.update(id, &new, self.clock.now()) {
                        Ok(()) => changed += 1,
                        // Its client has gone meanwhile.
                        Err(TrackError::Unknown) => {}
                        Err(error) => return Err(error),
                    }
                    Ok(None)
                })?;
            }
        }
        Ok(changed)
    }

    /// The first topics with presences that start so, by name, with their counts.
    pub(crate) fn topics(&self, prefix: &str, limit: usize) -> BTreeMap<Topic, Count> {
        let mut first = BTreeMap::new();
        for shard in 0..self.shards() {
            self.with(shard, |s| {
                let topics = s.topics(prefix, None).take(limit);
                first.extend(topics.map(|(topic, count)| (topic.clone(), count)));
            });
            while first.len() > limit {
                first.pop_last();
            }
        }
        first
    }

    // === the driver ===

    /// Publishes diffs when they are due, for as long as the node lives.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let deadline = Time::from_micros(self.deadline.load(Ordering::Acquire));
            if deadline.as_micros() == u64::MAX {
                self.wake.notified().await;
                continue;
            }
            let at = tokio::time::Instant::from_std(self.clock.instant(deadline));
            tokio::select! {
                () = tokio::time::sleep_until(at) => {
                    let begun = Instant::now();
                    self.flush().await;
                    let took = begun.elapsed();
                    if took >= PAUSE_MIN {
                        tokio::time::sleep(took.min(PAUSE_MAX)).await;
                    }
                }
                () = self.wake.notified() => {}
            }
        }
    }

    async fn flush(&self) {
        self.deadline.store(u64::MAX, Ordering::Release);
        for shard in 0..self.shards() {
            let now = self.clock.now();
            self.with(shard, |shard| {
                if shard.poll_timeout().is_some_and(|at| at <= now) {
                    shard.handle_timeout(now);
                }
            });
            self.publishing.store(true, Ordering::Release);
            let (diffs, counts) = self.seat(shard, |seat| {
                (std::mem::take(&mut seat.diffs), std::mem::take(&mut seat.counts))
            });
            for diff in diffs {
                let mut flush = Flush::new();
                let payload = render_diff(&diff);
                let payload = Payload::Json(&payload);
                let broadcast = Broadcast::new(&diff.topic, "presence_diff", payload, encode);
                self.registry.presence(&broadcast, diff.version, &mut flush);
                flush.write().await;
            }
            for (topic, version, count) in counts {
                let mut flush = Flush::new();
                let payload = counts::render(count);
                let payload = Payload::Json(&payload);
                let broadcast = Broadcast::new(&topic, counts::EVENT, payload, encode);
                self.registry.presence(&broadcast, count_version(version), &mut flush);
                flush.write().await;
            }
            self.publishing.store(false, Ordering::Release);
        }
    }
}

impl Seat {
    /// Lists a client, if it is to be, and tells it who is there.
    fn begin_changes(
        &mut self,
        topic: &Topic,
        own: Option<(&str, &[u8])>,
        now: Time,
    ) -> Result<(Option<EntryId>, State), TrackError> {
        // First this: whom the first observer finds is told, not news.
        self.shard.observe(topic, now);
        let mut state = self.state(topic);
        let track = |(key, meta)| self.shard.track(topic, key, meta, now);
        match own.map(track).transpose() {
            Ok(entry) => {
                if let Some(entry) = entry {
                    self.add_own(topic, entry, &mut state);
                }
                Ok((entry, state))
            }
            Err(error) => {
                self.shard.unobserve(topic, now);
                Err(error)
            }
        }
    }

    fn state(&mut self, topic: &Topic) -> State {
        let version = self.shard.told_version(topic);
        if let Some(kept) = self.states.get(topic).filter(|kept| kept.version == version) {
            return State::new("presence_state", version, kept.payload.clone());
        }
        let (version, entries) = self.shard.told(topic);
        let metas = entries.iter().map(|entry| (entry.key, entry.meta, entry.reference));
        let (payload, places) = render_state(metas);
        if entries.len() >= STATE_KEPT_MIN && self.states.len() < STATES_MAX {
            let kept = Rendered::new(version, payload.clone(), &places);
            self.states.insert(topic.clone(), kept);
        }
        State::new("presence_state", version, payload)
    }

    /// Adds an entry that is not yet told to a state.
    fn add_own(&self, topic: &Topic, entry: EntryId, state: &mut State) {
        let Some(own) = self.shard.entry(entry) else {
            return;
        };
        if !self.shard.is_told(topic, own.key) {
            return state.add_key(own.key, Meta::of(own.meta, own.reference));
        }
        // The key is listed already, by another of its user's clients, or by this one as it was before
        // it moved.
        let kept = self.states.get(topic).filter(|kept| kept.version == state.version);
        if let Some(end) = kept.and_then(|kept| kept.end_of(own.key)) {
            return state.add_meta(end, Meta::of(own.meta, own.reference));
        }
        let (_, mut entries) = self.shard.told(topic);
        let at = entries.partition_point(|entry| entry.key <= own.key);
        entries.insert(at, own);
        let metas = entries.iter().map(|entry| (entry.key, entry.meta, entry.reference));
        state.payload = render_state(metas).0;
    }
}

impl Tracked {
    /// Keeps the client listed for that long after its socket has ended.
    pub(crate) fn lingering(mut self, linger: Duration) -> Self {
        self.linger = Some(linger);
        self
    }

    /// The client leaves: it is taken off at once.
    pub(crate) fn leave(mut self) {
        self.linger = None;
    }

    /// Replaces the client's meta.
    pub(crate) fn update(&self, meta: &[u8]) -> Result<(), TrackError> {
        let now = self.tracker.clock.now();
        let shard = self.tracker.shard_of(&self.topic);
        self.tracker.with(shard, |shard| shard.update(self.entry, meta, now))
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let now = self.tracker.clock.now();
        let shard = self.tracker.shard_of(&self.topic);
        let lease = self.linger.map(|linger| {
            let lent = self.tracker.lease_micros.load(Ordering::Acquire);
            linger.max(Duration::from_micros(lent))
        });
        self.tracker.with(shard, |shard| match lease {
            Some(lease) => shard.detach(self.entry, lease, now),
            None => shard.untrack(self.entry, now),
        });
    }
}

impl Observation {
    /// Tells anew what is there; `begin` as for [`Tracker::watch`].
    pub(crate) fn resume(&self, begin: impl FnOnce(&State)) {
        let shard = self.tracker.shard_of(&self.topic);
        self.tracker.seat(shard, |seat| match self.hears {
            Hears::Changes => begin(&seat.state(&self.topic)),
            Hears::Count => begin(&seat.count_state(&self.topic)),
        });
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let now = self.tracker.clock.now();
        let shard = self.tracker.shard_of(&self.topic);
        self.tracker.seat(shard, |seat| {
            if self.hears == Hears::Count {
                return seat.shard.unobserve_count(&self.topic, now);
            }
            seat.shard.unobserve(&self.topic, now);
            if !seat.shard.is_observed(&self.topic) {
                seat.states.remove(&self.topic);
            }
        });
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let now = self.tracker.clock.now();
        self.tracker.with(self.mark.0, |shard| shard.release_interest(self.hash, now));
    }
}

//! Which topics of a prefix get their first client.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use presence::Topic;

use super::Tracker;
use crate::pubsub::Mailbox;

/// Topics that wait for one follower, at most; then it looks at all again.
pub(crate) const TOPICS_MAX: usize = 10_000;

/// Followers of prefixes, by the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Followers(Mutex<(u64, BTreeMap<u64, Arc<Follower>>)>);

#[derive(Debug)]
struct Follower {
    prefix: Box<str>,
    /// Whose owner is nudged.
    mailbox: Arc<Mailbox>,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    topics: BTreeSet<Topic>,
    /// There were too many.
    missed: bool,
    /// There were, when all were looked at.
    has_more: bool,
}

/// Keeps the topics of a prefix coming. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Openings {
    tracker: Arc<Tracker>,
    id: u64,
    follower: Arc<Follower>,
}

impl Tracker {
    /// Gives the topics with clients whose names start so, then each that gets its first one. Whoever
    /// owns the mailbox is woken for each.
    pub(crate) fn openings(self: &Arc<Self>, prefix: &str, mailbox: &Arc<Mailbox>) -> Openings {
        let (mailbox, pending) = (Arc::clone(mailbox), Mutex::default());
        let follower = Arc::new(Follower { prefix: prefix.into(), mailbox, pending });
        let mut all = lock(&self.followers.0);
        all.0 += 1;
        let id = all.0;
        all.1.insert(id, Arc::clone(&follower));
        drop(all);
        for shard in 0..self.shards() {
            self.with(shard, presence::Shard::observe_openings);
        }
        self.look(&follower);
        Openings { tracker: Arc::clone(self), id, follower }
    }

    /// Gives a follower all topics that there are.
    fn look(&self, follower: &Follower) {
        for shard in 0..self.shards() {
            self.with(shard, |shard| {
                let mut pending = lock(&follower.pending);
                for topic in shard.known_topics(&follower.prefix).take(TOPICS_MAX + 1) {
                    pending.add(topic);
                }
            });
        }
        let mut pending = lock(&follower.pending);
        // The others are for who has room, and looks again.
        pending.has_more = std::mem::take(&mut pending.missed);
    }

    /// A topic has got its first client.
    pub(super) fn opened(&self, topic: &Topic) {
        for follower in lock(&self.followers.0).1.values() {
            if topic.as_str().starts_with(&*follower.prefix) {
                lock(&follower.pending).add(topic);
                follower.mailbox.nudge();
            }
        }
    }

    /// Whether all that the topic's shard has told so far is in the mailboxes, or was skipped there.
    pub(crate) fn has_published(&self, topic: &Topic) -> bool {
        let all_taken = self.seat(self.shard_of(topic), |seat| seat.diffs.is_empty());
        // In this order: what was taken before is being published until this says no.
        all_taken && !self.publishing.load(Ordering::Acquire)
    }

    /// Whether the topic's next client is its first, and all were told of the former ones.
    pub(crate) fn is_closed(&self, topic: &Topic) -> bool {
        self.with(self.shard_of(topic), |shard| shard.is_closed(topic))
    }
}

impl Pending {
    fn add(&mut self, topic: &Topic) {
        self.topics.insert(topic.clone());
        if self.topics.len() > TOPICS_MAX {
            self.topics.pop_last();
            self.missed = true;
        }
    }
}

impl Openings {
    /// One of the topics.
    pub(crate) fn next(&self) -> Option<Topic> {
        let mut pending = lock(&self.follower.pending);
        let next = pending.topics.pop_first();
        if next.is_none() && pending.missed {
            drop(pending);
            self.look_again();
            pending = lock(&self.follower.pending);
            return pending.topics.pop_first();
        }
        next
    }

    /// Gives all topics that there are, once more.
    pub(crate) fn look_again(&self) {
        self.tracker.look(&self.follower);
    }

    /// Whether there were more topics than are given, when all were looked at.
    pub(crate) fn has_more(&self) -> bool {
        lock(&self.follower.pending).has_more
    }
}

impl Drop for Openings {
    fn drop(&mut self) {
        lock(&self.tracker.followers.0).1.remove(&self.id);
        for shard in 0..self.tracker.shards() {
            self.tracker.with(shard, presence::Shard::unobserve_openings);
        }
    }
}

/// Nothing panics while one of these is locked, so a poisoned lock guards nothing broken.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

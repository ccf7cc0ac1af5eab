//! How many are on a topic, told seldom: for rooms that are too large to be told who.
//!
//! Of a topic whose count is followed the index notes that members came or went, once, until it is
//! counted again; when an owner is shown or hidden, all such topics are looked at, a few at a time.
//! A count is told at once after a pause, then when the interval is over, and never twice alike: so
//! however many come, those who follow are told once an interval, and the last count always.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroU32,
    ops::Bound,
    time::Duration,
};

use crate::{
    Count, Event, Time, Topic,
    index::{Index, TopicId},
    listed,
    owner::Owners,
};

/// Topics that are looked at between two inputs.
const LOOKS_MAX: usize = if cfg!(test) { 2 } else { 1024 };

/// The topics whose counts are followed.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    topics: BTreeMap<TopicId, Counted>,
    due: BTreeSet<(Time, TopicId)>,
    /// [`Owners::epoch`] that the topics were looked at in, or are being.
    epoch: u64,
    /// The topics after this one are still to be looked at.
    sweep: Option<Bound<TopicId>>,
    /// Not below any version of topics that are no longer followed.
    base: u64,
}

#[derive(Debug)]
struct Counted {
    observers: NonZeroU32,
    told: Count,
    version: u64,
    /// When the next count may be told.
    ready: Time,
    due: Option<Time>,
}

impl Counter {
    /// One more who follows a topic's count, and knows it at present.
    pub(crate) fn observe(&mut self, topic: &Topic, owners: &Owners, index: &mut Index) {
        if self.topics.is_empty() {
            (self.epoch, self.sweep) = (owners.epoch(), None);
        }
        let id = index.start_counting(topic);
        if let Some(counted) = self.topics.get_mut(&id) {
            counted.observers = counted.observers.saturating_add(1);
            return;
        }
        let told = index.roster(id).map(|roster| listed::count(owners, roster)).unwrap_or_default();
        let (observers, version) = (NonZeroU32::MIN, self.base);
        let counted = Counted { observers, told, version, ready: Time::ZERO, due: None };
        self.topics.insert(id, counted);
    }

    /// One less.
    pub(crate) fn unobserve(&mut self, id: TopicId, index: &mut Index) {
        let Some(counted) = self.topics.get_mut(&id) else {
            return;
        };
        if let Some(left) = NonZeroU32::new(counted.observers.get() - 1) {
            counted.observers = left;
            return;
        }
        if let Some(at) = counted.due {
            self.due.remove(&(at, id));
        }
        self.base = self.base.max(counted.version + 1);
        self.topics.remove(&id);
        index.stop_counting(id);
    }

    /// The version told last; of a topic that nobody follows, the one that the next one knows.
    pub(crate) fn version(&self, id: Option<TopicId>) -> u64 {
        id.and_then(|id| self.topics.get(&id)).map_or(self.base, |counted| counted.version)
    }

    /// When there is something to do.
    pub(crate) fn next_deadline(&self, owners: &Owners, index: &Index) -> Option<Time> {
        if self.topics.is_empty() {
            return None;
        }
        let is_stale = self.epoch != owners.epoch() || self.sweep.is_some() || index.has_changed();
        if is_stale {
            return Some(Time::ZERO);
        }
        // Once nobody is frozen any more, the epoch is another one.
        self.due.first().filter(|_| !owners.any_frozen()).map(|(at, _)| *at)
    }

    /// Finds some of the topics whose counts may have changed, and tells some that have.
    pub(crate) fn handle_timeout(
        &mut self,
        (owners, index): (&Owners, &mut Index),
        interval: Duration,
        now: Time,
        events: &mut VecDeque<Event>,
    ) {
        if self.epoch != owners.epoch() {
            (self.epoch, self.sweep) = (owners.epoch(), Some(Bound::Unbounded));
        }
        let mut left = LOOKS_MAX;
        while left > 0
            && let Some(after) = self.sweep
        {
            left -= 1;
            let next = self.topics.range((after, Bound::Unbounded)).next().map(|(id, _)| *id);
            self.sweep = next.map(Bound::Excluded);
            if let Some(id) = next {
                self.arm(id, now);
            }
        }
        while left > 0
            && let Some(id) = index.pop_changed()
        {
            left -= 1;
            self.arm(id, now);
        }
        if self.due.is_empty() || owners.any_frozen() {
            return;
        }
        while left > 0
            && let Some(&(at, id)) = self.due.first()
            && at <= now
        {
            left -= 1;
            self.due.remove(&(at, id));
            events.extend(self.tell(id, (owners, index), now + interval));
        }
    }

    fn arm(&mut self, id: TopicId, now: Time) {
        if let Some(counted) = self.topics.get_mut(&id)
            && counted.due.is_none()
        {
            let at = now.max(counted.ready);
            counted.due = Some(at);
            self.due.insert((at, id));
        }
    }

    /// What is to be told of a topic, if its count is another one.
    fn tell(
        &mut self,
        id: TopicId,
        (owners, index): (&Owners, &mut Index),
        ready: Time,
    ) -> Option<Event> {
        let counted = self.topics.get_mut(&id)?;
        counted.due = None;
        let roster = index.count_anew(id)?;
        let count = listed::count(owners, roster);
        if count == counted.told {
            return None;
        }
        counted.told = count;
        counted.version += 1;
        counted.ready = ready;
        Some(Event::Count { topic: roster.name.clone(), version: counted.version, count })
    }
}

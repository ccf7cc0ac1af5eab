//! What observers of topics were told last, and the diffs from there to the present.
//!
//! Of an entry that changes, the *first* old value since the last diff is kept (`pending`): the
//! next diff compares it with the present one, so a join and a leave in between annihilate, and
//! several updates are one. An entry that does not change, but whose owner is shown or hidden,
//! keeps nothing: a bit per member says what observers know, and the next diffs look for members
//! whose bit is wrong (`scan`). Which topics have to be looked at is found a few at a time
//! (`sweeps`), so a large owner that goes down blocks nobody.

use std::{collections::BTreeMap, num::NonZeroU32};

use crate::{
    Change, Config, Diff, Entry, NodeIx, Ref, Time, Topic,
    feed::Held,
    index::{Index, Member, TopicId},
    owner::{OwnerId, Owners},
    range::Pair,
    table::Table,
};

/// Members whose bit is looked at for one diff.
const SCAN_MAX: usize = 16 * 1024;

/// What a diff costs beside its changes, counted in changes.
const TOPIC_WORK: usize = 4;

/// Topics that are looked at between two inputs, for an owner shown or hidden.
const SWEEP_MAX: usize = 4096;

/// The observed topics.
#[derive(Debug, Default)]
pub(crate) struct Differ {
    /// By topic; a node observes most of the topics that it knows.
    watched: Table<Option<Watched>>,
    due: Queue,
    sweeps: BTreeMap<OwnerId, Sweep>,
    /// Above all versions of topics that are no longer observed: no topic and version ever
    /// stands for two states.
    base: u64,
}

/// What is kept of an observed topic. There are as many as topics, and few have work.
#[derive(Debug)]
struct Watched {
    observers: NonZeroU32,
    /// The last diff's number.
    version: u64,
    /// When the next diff may be told.
    ready: Time,
    work: Option<Box<Work>>,
}

/// What an observed topic's next diffs are made of.
#[derive(Debug, Default)]
struct Work {
    pending: BTreeMap<(OwnerId, u32), Option<Old>>,
    /// The first member whose bit may be wrong.
    scan: Option<usize>,
    due: Option<Turn>,
}

#[derive(Clone, Copy, Debug)]
struct Sweep {
    /// The number of the next topic to look at.
    next: usize,
    since: Time,
}

/// Topics by the time at which they are due; among equals, first come, first served.
#[derive(Debug, Default)]
struct Queue {
    turns: BTreeMap<Turn, TopicId>,
    taken: u64,
}

type Turn = (Time, u64);

impl Queue {
    fn insert(&mut self, at: Time, id: TopicId) -> Turn {
        self.taken += 1;
        self.turns.insert((at, self.taken), id);
        (at, self.taken)
    }

    fn remove(&mut self, turn: Turn) {
        self.turns.remove(&turn);
    }

    fn first(&self) -> Option<(Turn, TopicId)> {
        self.turns.first_key_value().map(|(turn, id)| (*turn, *id))
    }
}

/// A value that observers were told and that is no longer there.
#[derive(Debug)]
pub(crate) struct Old {
    pub(crate) owner: NodeIx,
    pub(crate) incarnation: u64,
    pub(crate) born: u64,
    pub(crate) reference: Ref,
    pub(crate) pair: Pair,
}

/// A diff being filled.
#[derive(Debug, Default)]
struct Changes {
    joins: Vec<Change>,
    leaves: Vec<Change>,
}

impl Changes {
    fn len(&self) -> usize {
        self.joins.len() + self.leaves.len()
    }
}

impl Differ {
    /// One more observer; returns the version that it knows from [`Self::told`].
    pub(crate) fn observe(&mut self, topic: &Topic, owners: &Owners, index: &mut Index) -> u64 {
        let id = index.pin(topic);
        if !self.is_watched(id)
            && let Some(roster) = index.roster_mut(id)
        {
            for member in roster.members_mut() {
                member.told = owners.is_shown(member.owner);
            }
        }
        self.watched.grow_to(id.index() + 1, || None);
        let seat = &mut self.watched[id.index()];
        if let Some(watched) = seat {
            watched.observers = watched.observers.saturating_add(1);
            return watched.version;
        }
        *seat = Some(Watched {
            observers: NonZeroU32::MIN,
            version: self.base,
            ready: Time::ZERO,
            work: None,
        });
        self.base
    }

    /// One observer less; with the last one all that was pending is dropped.
    pub(crate) fn unobserve(&mut self, id: TopicId, index: &mut Index) {
        let Some(seat) = self.watched.get_mut(id.index()) else {
            return;
        };
        let Some(watched) = seat else { return };
        if let Some(left) = NonZeroU32::new(watched.observers.get() - 1) {
            watched.observers = left;
            return;
        }
        if let Some(due) = watched.work.as_ref().and_then(|work| work.due) {
            self.due.remove(due);
        }
        self.base = self.base.max(watched.version + 1);
        *seat = None;
        index.unpin(id);
    }

    pub(crate) fn is_watched(&self, id: TopicId) -> bool {
        self.watched(id).is_some()
    }

    /// The version told last; of a topic without observers, the one that the next is given.
    pub(crate) fn version(&self, id: Option<TopicId>) -> u64 {
        id.and_then(|id| self.watched(id)).map_or(self.base, |watched| watched.version)
    }

    fn watched(&self, id: TopicId) -> Option<&Watched> {
        self.watched.get(id.index())?.as_ref()
    }

    fn watched_mut(&mut self, id: TopicId) -> Option<&mut Watched> {
        self.watched.get_mut(id.index())?.as_mut()
    }

    /// A slot changed: `old` is what observers were told of it, if they were.
    pub(crate) fn touch(
        &mut self,
        id: TopicId,
        at: (OwnerId, u32),
        old: Option<Old>,
        is_shown: bool,
        now: Time,
    ) {
        let Some(Some(watched)) = self.watched.get_mut(id.index()) else {
            return;
        };
        // Nothing was told and nothing is to be told.
        let is_moot = old.is_none() && !is_shown;
        if is_moot || watched.pending(at).is_some() {
            return;
        }
        watched.work(&mut self.due, id, now).pending.insert(at, old);
    }

    /// The old value that is kept for a slot of a topic.
    pub(crate) fn pending_mut(
        &mut self,
        id: TopicId,
        at: (OwnerId, u32),
    ) -> Option<&mut Option<Old>> {
        self.watched_mut(id)?.work.as_mut()?.pending.get_mut(&at)
    }

    /// Another member took the place `pos`: the scan may not miss it.
    pub(crate) fn moved(&mut self, id: TopicId, pos: u32) {
        if let Some(work) = self.watched_mut(id).and_then(|watched| watched.work.as_mut())
            && let Some(scan) = &mut work.scan
        {
            *scan = (*scan).min(pos as usize);
        }
    }

    /// An owner was shown or hidden, or is no longer frozen.
    pub(crate) fn start_sweep(&mut self, who: OwnerId, now: Time) {
        self.sweeps.insert(who, Sweep { next: 0, since: now });
    }

    /// When there is something to do.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let sweep = self.sweeps.values().map(|sweep| sweep.since).min();
        sweep.into_iter().chain(self.due.first().map(|((at, _), _)| at)).min()
    }

    /// Finds some of the topics that an owner shown or hidden has entries in.
    pub(crate) fn sweep(&mut self, index: &Index, now: Time) {
        let mut left = SWEEP_MAX;
        while left > 0
            && let Some((who, sweep)) = self.sweeps.pop_first()
        {
            let end = self.watched.len().min(sweep.next + left);
            for at in sweep.next..end {
                let (id, Some(watched)) = (TopicId::at(at), &mut self.watched[at]) else {
                    continue;
                };
                let has_entries = index.roster(id).is_some_and(|roster| roster.has_owner(who));
                if has_entries || watched.has_pending_of(who) {
                    watched.work(&mut self.due, id, now).scan = Some(0);
                }
            }
            left -= end.saturating_sub(sweep.next);
            if end < self.watched.len() {
                self.sweeps.insert(who, Sweep { next: end, ..sweep });
            }
        }
    }

    /// The next diff that is due, and how much work it was; it has no changes when all that was
    /// pending annihilated. `None` when nothing is due.
    pub(crate) fn flush_next(
        &mut self,
        owners: &Owners,
        index: &mut Index,
        config: &Config,
        now: Time,
    ) -> Option<(Diff, usize)> {
        let (turn, id) = self.due.first().filter(|((at, _), _)| *at <= now)?;
        self.due.remove(turn);
        let watched = self.watched.get_mut(id.index())?.as_mut()?;
        let topic = index.name(id)?.clone();
        let mut changes = Changes::default();
        let mut done = TOPIC_WORK;
        if let Some(mut work) = watched.work.take() {
            work.due = None;
            let max = config.diff_events_max;
            let (settled, pending_work) = work.settle(id, owners, index, max, &mut changes);
            let compared = changes.len();
            let (scanned, scan_work) = work.scan(id, owners, index, max, &mut changes);
            done += pending_work + scan_work + changes.len() - compared;
            if !settled || !scanned {
                // The rest follows at once, behind the topics that are due already.
                work.due = Some(self.due.insert(now, id));
            }
            // What is kept without being due waits for a frozen owner.
            watched.work = Some(work).filter(|work| !work.is_done());
        }
        if changes.len() > 0 {
            watched.version += 1;
            watched.ready = now + config.flush_pause(watched.observers.get(), changes.len());
        }
        let Changes { joins, leaves } = changes;
        let diff = Diff { topic, version: watched.version, joins, leaves };
        Some((diff, done))
    }

    /// What observers of a topic were told last, in no order.
    pub(crate) fn told<'a>(
        &'a self,
        id: TopicId,
        owners: &'a Owners,
        index: &'a Index,
    ) -> Option<Vec<Entry<'a>>> {
        let watched = self.watched(id)?;
        let members = index.roster(id).map_or(&[][..], |roster| roster.members());
        let unchanged = members
            .iter()
            .filter(|m| m.told && watched.pending((m.owner, m.slot)).is_none())
            .filter_map(|m| owners.get(m.owner)?.entry(m.slot));
        let pending = watched.work.iter().flat_map(|work| &work.pending);
        let old = pending.filter_map(|(_, old)| {
            old.as_ref().map(|old| Entry {
                owner: old.owner,
                key: old.pair.key(),
                meta: old.pair.meta(),
                reference: old.reference,
                previous: None,
            })
        });
        Some(unchanged.chain(old).collect())
    }
}

impl Watched {
    /// The value kept for a slot, if one is.
    fn pending(&self, at: (OwnerId, u32)) -> Option<&Option<Old>> {
        self.work.as_ref()?.pending.get(&at)
    }

    fn has_pending_of(&self, who: OwnerId) -> bool {
        let slots = (who, 0)..=(who, u32::MAX);
        self.work.as_ref().is_some_and(|work| work.pending.range(slots).next().is_some())
    }

    /// Room for something to tell: at once after a pause, else when the interval is over.
    fn work(&mut self, due: &mut Queue, id: TopicId, now: Time) -> &mut Work {
        let ready = now.max(self.ready);
        let work = self.work.get_or_insert_default();
        work.due.get_or_insert_with(|| due.insert(ready, id));
        work
    }
}

impl Work {
    fn is_done(&self) -> bool {
        self.pending.is_empty() && self.scan.is_none() && self.due.is_none()
    }

    /// Compares old values with the present, until all are or the diff is full.
    fn settle(
        &mut self,
        id: TopicId,
        owners: &Owners,
        index: &mut Index,
        max: usize,
        changes: &mut Changes,
    ) -> (bool, usize) {
        let mut next = (OwnerId::SELF, 0);
        let mut work = 0;
        // An update needs room for two, and annihilated ones count as work too.
        while changes.len() + 1 < max && work < max {
            let Some((&at, _)) = self.pending.range(next..).next() else {
                return (true, work);
            };
            let (who, slot) = at;
            if owners.is_frozen(who) {
                let Some(other) = who.next() else {
                    return (true, work);
                };
                next = (other, 0);
                continue;
            }
            work += 1;
            let old = self.pending.remove(&at).flatten();
            changes.compare(old, (who, slot), id, owners, index);
        }
        (self.pending.range(next..).next().is_none(), work)
    }

    /// Looks for members whose bit is wrong, until all were seen or the diff is full.
    fn scan(
        &mut self,
        id: TopicId,
        owners: &Owners,
        index: &mut Index,
        max: usize,
        changes: &mut Changes,
    ) -> (bool, usize) {
        let (Some(start), Some(roster)) = (self.scan, index.roster_mut(id)) else {
            return (true, 0);
        };
        let members = roster.members_mut();
        let end = members.len().min(start + SCAN_MAX);
        for (pos, member) in members.iter_mut().enumerate().take(end).skip(start) {
            if changes.len() >= max {
                self.scan = Some(pos);
                return (false, pos - start);
            }
            let is_shown = owners.is_shown(member.owner);
            let at = (member.owner, member.slot);
            if member.told != is_shown
                && !owners.is_frozen(member.owner)
                && !self.pending.contains_key(&at)
            {
                member.told = is_shown;
                changes.flip(member, owners);
            }
        }
        let is_done = end == members.len();
        self.scan = (!is_done).then_some(end);
        // Looking at a bit is far cheaper than making a change.
        (is_done, end.saturating_sub(start) / 16)
    }
}

impl Changes {
    /// From what observers were told of a slot to what it holds.
    fn compare(
        &mut self,
        old: Option<Old>,
        (who, at): (OwnerId, u32),
        id: TopicId,
        owners: &Owners,
        index: &mut Index,
    ) {
        let owner = owners.get(who);
        let slot = owner.and_then(|owner| owner.feed.slot(at));
        let mut now = None;
        if let (Some(owner), Some(slot)) = (owner, slot)
            && let Held::Presence { topic, pos, pair } = &slot.held
            && *topic == id
        {
            index.set_told(id, *pos, owner.is_shown());
            now = owner.is_shown().then_some((owner, slot, pair));
        }
        let Some((owner, slot, pair)) = now else {
            self.leaves.extend(old.map(|old| change(&old.pair, old.reference, None)));
            return;
        };
        let reference = owner.refs.at(slot.seq);
        let mut previous = None;
        if let Some(old) = old {
            if old.reference == reference {
                return;
            }
            let is_update = (old.incarnation, old.born) == (owner.replica.incarnation, slot.born)
                && old.pair.key() == pair.key();
            previous = is_update.then_some(old.reference);
            self.leaves.push(change(&old.pair, old.reference, None));
        }
        self.joins.push(change(pair, reference, previous));
    }

    /// A member that did not change was shown or hidden.
    fn flip(&mut self, member: &Member, owners: &Owners) {
        let Some(entry) = owners.get(member.owner).and_then(|o| o.entry(member.slot)) else {
            return;
        };
        let change = Change {
            key: entry.key.into(),
            meta: entry.meta.into(),
            reference: entry.reference,
            previous: None,
        };
        if member.told {
            self.joins.push(change);
        } else {
            self.leaves.push(change);
        }
    }
}

fn change(pair: &Pair, reference: Ref, previous: Option<Ref>) -> Change {
    Change { key: pair.key().into(), meta: pair.meta().into(), reference, previous }
}

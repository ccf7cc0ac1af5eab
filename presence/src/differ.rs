//! What observers of topics were told last, and the diffs from there to the present.
//!
//! Of an entry that changes, the *first* old value since the last diff is kept (`pending`): the
//! next diff compares it with the present one, so a join and a leave in between annihilate, and
//! several updates are one. An entry that does not change, but whose owner is shown or hidden,
//! keeps nothing: a bit per member says what observers know, and the next diffs look for members
//! whose bit is wrong (`scan`). Which topics have to be looked at is found a few at a time
//! (`sweeps`), so a large owner that goes down blocks nobody.
//!
//! Where entries of a key are detached, one may be told in place of another: what is told of such a
//! key is told in one diff (`moves`), so no observer ever takes it for gone.

mod changes;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    time::Duration,
};

pub(crate) use self::changes::Old;
use self::changes::{Changes, Told};
use crate::{
    Config, Diff, Entry, Time, Topic,
    index::{Index, Member, TopicId},
    listed::{self, is_listed},
    owner::{OwnerId, Owners},
    small_map::SmallMap,
    table::Table,
};

/// Members whose bit is looked at for one diff.
const SCAN_MAX: usize = 16 * 1024;

/// What a diff costs beside its changes, counted in changes.
const TOPIC_WORK: usize = 4;

/// Topics that are looked at between two inputs, for an owner shown or hidden.
const SWEEP_MAX: usize = 4096;

/// The share of time that one member of a topic is given when an owner is shown or hidden. Its topics
/// are told one after the other, so that changes of others find their turn in between; with 16 shards
/// that is half a million members a second.
const SWEEP_PACE: Duration = Duration::from_micros(32);

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
    pending: SmallMap<(OwnerId, u32), Pending>,
    /// Those of `pending` whose keys' changes are told together, by the keys' hashes.
    moves: BTreeSet<(u64, OwnerId, u32)>,
    /// The first member whose bit may be wrong.
    scan: Option<usize>,
    due: Option<Turn>,
}

/// A slot that changed since the last diff.
#[derive(Debug)]
struct Pending {
    /// What the key that observers were told hashes to, else that of its latest tenant.
    key: u64,
    /// What observers were told of it, if they were.
    old: Option<Old>,
}

#[derive(Clone, Copy, Debug)]
struct Sweep {
    /// The number of the next topic to look at.
    next: usize,
    since: Time,
    /// When the next topic is told.
    told_at: Time,
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

impl Differ {
    /// One more observer; returns the version that it knows from [`Self::told`].
    pub(crate) fn observe(&mut self, topic: &Topic, owners: &Owners, index: &mut Index) -> u64 {
        let id = index.pin(topic);
        if !self.is_watched(id)
            && let Some(roster) = index.roster_mut(id)
        {
            for at in 0..roster.members().len() {
                let told = is_listed(owners, roster, &roster.members()[at]);
                roster.members_mut()[at].told = told;
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

    /// A slot changed: `old` is what observers were told of it, if they were; `key` what its key
    /// hashes to.
    pub(crate) fn touch(
        &mut self,
        id: TopicId,
        at: (OwnerId, u32),
        key: u64,
        old: Option<Old>,
        is_present: bool,
        now: Time,
    ) {
        let Some(Some(watched)) = self.watched.get_mut(id.index()) else {
            return;
        };
        // Nothing was told and nothing is to be told.
        let is_moot = old.is_none() && !is_present;
        if let Some(pending) = watched.work.as_mut().and_then(|work| work.pending.get_mut(&at)) {
            if pending.old.is_none() {
                pending.key = key;
            }
        } else if is_moot {
            return;
        } else {
            watched.work(&mut self.due, id, now).pending.insert(at, Pending { key, old });
        }
        if let Some(work) = &mut watched.work
            && work.has_moves(key)
        {
            work.moves.insert((key, at.0, at.1));
        }
    }

    /// What is told next of these slots, whose keys have this hash, is told in one diff.
    pub(crate) fn tell_together(
        &mut self,
        id: TopicId,
        key: u64,
        slots: impl Iterator<Item = (OwnerId, u32)>,
    ) {
        let Some(work) = self.watched_mut(id).and_then(|watched| watched.work.as_mut()) else {
            return;
        };
        // Those that change from now on follow by themselves.
        if work.has_moves(key) {
            return;
        }
        let Work { pending, moves, .. } = &mut **work;
        moves.extend(slots.filter(|at| pending.contains_key(at)).map(|(who, at)| (key, who, at)));
    }

    /// The old value that is kept for a slot of a topic.
    pub(crate) fn pending_mut(
        &mut self,
        id: TopicId,
        at: (OwnerId, u32),
    ) -> Option<&mut Option<Old>> {
        let work = self.watched_mut(id)?.work.as_mut()?;
        work.pending.get_mut(&at).map(|pending| &mut pending.old)
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
        self.sweeps.insert(who, Sweep { next: 0, since: now, told_at: now });
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
            && let Some((who, mut sweep)) = self.sweeps.pop_first()
        {
            let end = self.watched.len().min(sweep.next + left);
            for at in sweep.next..end {
                let (id, Some(watched)) = (TopicId::at(at), &mut self.watched[at]) else {
                    continue;
                };
                let roster = index.roster(id);
                let has_entries = roster.is_some_and(|roster| roster.has_owner(who));
                if has_entries || watched.has_pending_of(who) {
                    watched.work(&mut self.due, id, sweep.told_at.max(now)).scan = Some(0);
                    let members = roster.map_or(0, |roster| roster.members().len());
                    let members = u32::try_from(members.min(SCAN_MAX)).unwrap_or(u32::MAX);
                    sweep.told_at = sweep.told_at + SWEEP_PACE * members;
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
            let roster = index.roster_mut(id)?;
            let mut told = Told { id, owners, roster, changes: &mut changes };
            let (settled, pending_work) = work.settle(&mut told, max);
            let compared = told.changes.len();
            let (scanned, scan_work) = work.scan(&mut told, max);
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

    /// Whether observers of a topic were told last of an entry with this key, and its hash.
    pub(crate) fn is_told(
        &self,
        id: TopicId,
        key: &str,
        hash: u64,
        owners: &Owners,
        index: &Index,
    ) -> bool {
        let (Some(watched), Some(roster)) = (self.watched(id), index.roster(id)) else {
            return false;
        };
        let is_known = |m: &Member| m.told && watched.pending((m.owner, m.slot)).is_none();
        let mut known = roster.find(hash).into_iter().filter(is_known);
        let mut olds = watched.work.iter().flat_map(|work| work.pending.values());
        known.any(|m| {
            owners.get(m.owner).and_then(|o| o.entry(m.slot)).is_some_and(|e| e.key == key)
        }) || olds.any(|pending| pending.old.as_ref().is_some_and(|old| old.pair.key() == key))
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
        let pending = watched.work.iter().flat_map(|work| work.pending.values());
        let old = pending.filter_map(|pending| {
            pending.old.as_ref().map(|old| Entry {
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
    fn pending(&self, at: (OwnerId, u32)) -> Option<&Pending> {
        self.work.as_ref()?.pending.get(&at)
    }

    fn has_pending_of(&self, who: OwnerId) -> bool {
        let first = self.work.as_ref().and_then(|work| work.pending.first_from(&(who, 0)));
        first.is_some_and(|((owner, _), _)| owner == who)
    }

    /// Room for something to tell at `at` or before: at once after a pause, else when the interval is
    /// over.
    fn work(&mut self, due: &mut Queue, id: TopicId, at: Time) -> &mut Work {
        let ready = at.max(self.ready);
        let work = self.work.get_or_insert_default();
        if work.due.is_none_or(|(at, _)| at > ready) {
            if let Some(later) = work.due.take() {
                due.remove(later);
            }
            work.due = Some(due.insert(ready, id));
        }
        work
    }
}

impl Work {
    fn is_done(&self) -> bool {
        self.pending.is_empty() && self.scan.is_none() && self.due.is_none()
    }

    fn has_moves(&self, key: u64) -> bool {
        let all = (key, OwnerId::SELF, 0)..=(key, OwnerId::LAST, u32::MAX);
        self.moves.range(all).next().is_some()
    }

    /// Compares old values with the present, until all are or the diff is full.
    fn settle(&mut self, told: &mut Told<'_>, max: usize) -> (bool, usize) {
        let mut next = (OwnerId::SELF, 0);
        let mut work = 0;
        // An update needs room for two, and annihilated ones count as work too.
        while told.changes.len() + 1 < max && work < max {
            let Some((at, pending)) = self.pending.first_from(&next) else {
                return (true, work);
            };
            let (who, slot) = at;
            if told.owners.is_frozen(who) {
                let Some(other) = who.next() else {
                    return (true, work);
                };
                next = (other, 0);
                continue;
            }
            if self.moves.contains(&(pending.key, who, slot)) {
                work += self.settle_key(pending.key, told);
                continue;
            }
            work += 1;
            let old = self.pending.remove(&at).and_then(|pending| pending.old);
            told.compare(old, at);
        }
        (self.pending.first_from(&next).is_none(), work)
    }

    /// Tells all that is to be told of a key at once: some of its entries are told in place of others.
    fn settle_key(&mut self, key: u64, told: &mut Told<'_>) -> usize {
        let mut work = 1;
        let mut keys = vec![key];
        while let Some(key) = keys.pop() {
            let first = (told.changes.joins.len(), told.changes.leaves.len());
            let all = (key, OwnerId::SELF, 0)..=(key, OwnerId::LAST, u32::MAX);
            let moved = self.moves.range(all).map(|(_, who, at)| (*who, *at));
            let mut slots: Vec<_> = moved.collect();
            slots.extend(told.roster.find(key).iter().map(|member| (member.owner, member.slot)));
            let mut replaced = Vec::new();
            for at in slots.into_iter().filter(|(who, _)| !told.owners.is_frozen(*who)) {
                self.moves.remove(&(key, at.0, at.1));
                work += 1;
                match self.pending.remove(&at) {
                    Some(pending) => {
                        replaced.extend(told.compare(pending.old, at));
                        // The slot changed hands, and what else had the other key moves too.
                        keys.extend(Some(pending.key).filter(|key| self.has_moves(*key)));
                    }
                    None => replaced.extend(told.flip_if_wrong(at)),
                }
            }
            told.changes.link(first, replaced);
        }
        work
    }

    /// Looks for members whose bit is wrong, until all were seen or the diff is full.
    fn scan(&mut self, told: &mut Told<'_>, max: usize) -> (bool, usize) {
        let Some(start) = self.scan else {
            return (true, 0);
        };
        let may_move = listed::may_be_detached(told.owners, told.roster);
        let len = told.roster.members().len();
        let end = len.min(start + SCAN_MAX);
        for pos in start..end {
            if told.changes.len() >= max {
                self.scan = Some(pos);
                return (false, pos - start);
            }
            let member = told.roster.members()[pos];
            if self.pending.contains_key(&(member.owner, member.slot)) || !told.is_wrong(&member) {
                continue;
            }
            if may_move {
                self.settle_key(member.key, told);
            } else {
                told.flip_if_wrong((member.owner, member.slot));
            }
        }
        let is_done = end == len;
        self.scan = (!is_done).then_some(end);
        // Looking at a bit is far cheaper than making a change.
        (is_done, end.saturating_sub(start) / 16)
    }
}

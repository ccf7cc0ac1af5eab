//! One change of one slot, seen by everything that depends on it: the log, the topic's members,
//! what observers are told, and the interests that are passed on.

use std::collections::VecDeque;

use crate::{
    Config, Deadlines, Event, INTEREST_ALL, Replica, Time, Topic,
    counter::Counter,
    differ::{Differ, Old},
    feed::{Feed, Former, Held, Slot},
    index::{Index, Member, TopicId},
    leases::Leases,
    listed,
    owner::{OwnerId, Owners},
    range::{Bitmap, Pair},
};

/// Slots of owners that are gone that are emptied between two inputs. A few in this crate's tests,
/// whose owners are small.
const REAP_MAX: usize = if cfg!(test) { 2 } else { 1024 };

/// Slots of an owner to be fetched anew that are emptied in one call.
pub(crate) const CLEAR_MAX: usize = if cfg!(test) { 2 } else { 4096 };

/// The state of a shard, own and others'.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) config: Config,
    pub(crate) owners: Owners,
    pub(crate) index: Index,
    pub(crate) differ: Differ,
    pub(crate) counter: Counter,
    pub(crate) leases: Leases,
    /// Entries of owners that said goodbye whose clients have been seen elsewhere: when to take them off, as
    /// none of these owners can.
    pub(crate) moved: Deadlines<(OwnerId, u32)>,
    pub(crate) events: VecDeque<Event>,
}

/// What to put into a slot.
#[derive(Debug)]
pub(crate) enum Tenant<'a> {
    Presence { topic: &'a Topic, pair: Pair },
    Interest { hash: u64 },
}

impl Store {
    pub(crate) fn new(config: Config, shard: u16, me: Replica) -> Self {
        // The incarnation is drawn at random in part, so clients cannot know the seed.
        let seed = me.incarnation.rotate_left(32) ^ u64::from(shard);
        Self {
            config,
            owners: Owners::new(shard, me),
            index: Index::new(seed),
            differ: Differ::default(),
            counter: Counter::default(),
            leases: Leases::default(),
            moved: Deadlines::default(),
            events: VecDeque::new(),
        }
    }

    /// The change `seq` puts a tenant into a slot, whatever was there.
    pub(crate) fn put(
        &mut self,
        (who, at): (OwnerId, u32),
        (seq, born): (u64, u64),
        tenant: Tenant<'_>,
        now: Time,
    ) {
        let Some(owner) = self.owners.get_mut(who) else {
            return;
        };
        let former = owner.feed.take(at);
        let held = match tenant {
            Tenant::Interest { hash } => {
                self.evict((who, at), former, now);
                self.interest(who, hash, true);
                Held::Interest { hash }
            }
            Tenant::Presence { topic, pair } => {
                let (place, covered) = match self.place_of(former.as_ref(), topic, &pair) {
                    Some(place) => {
                        self.touch((who, at), former, place, now);
                        (place, self.covered(place, None))
                    }
                    None => {
                        self.evict((who, at), former, now);
                        let place = self.index.insert(topic, who, at, pair.key());
                        (place, self.covered(place, Some((who, at))))
                    }
                };
                let (topic, pos) = place;
                self.index.set_detached(topic, pos, pair.version().is_some());
                self.note_covered(topic, (covered, self.covered(place, None)));
                self.touch((who, at), None, (topic, pos), now);
                self.look_elsewhere((topic, pos), now);
                Held::Presence { topic, pos, pair }
            }
        };
        if let Some(owner) = self.owners.get_mut(who) {
            owner.feed.append(at, seq, born, held);
        }
    }

    /// The change `seq` empties a slot.
    pub(crate) fn remove(&mut self, (who, at): (OwnerId, u32), seq: u64, now: Time) {
        let Some(owner) = self.owners.get_mut(who) else {
            return;
        };
        let former = owner.feed.take(at);
        owner.feed.bury(at, seq);
        let capacity = self.config.tombstones(owner.feed.len());
        owner.feed.trim(capacity);
        self.evict((who, at), former, now);
    }

    /// Empties the slots that are not in the bitmap.
    pub(crate) fn retain(&mut self, who: OwnerId, bits: &Bitmap, now: Time) {
        let width = self.owners.get(who).map_or(0, |owner| owner.feed.width());
        for at in 0..width {
            if !bits.contains(at)
                && let Some(owner) = self.owners.get_mut(who)
            {
                let former = owner.feed.take(at);
                self.evict((who, at), former, now);
            }
        }
    }

    /// Empties some more slots of an owner that is to be fetched anew; whether none is left.
    pub(crate) fn clear(&mut self, who: OwnerId, slots: usize, now: Time) -> bool {
        for _ in 0..slots {
            if !self.take_oldest(who, now) {
                if let Some(owner) = self.owners.get_mut(who) {
                    owner.feed = Feed::default();
                    owner.clearing = false;
                }
                return true;
            }
        }
        false
    }

    /// Frees some of what owners that are gone have left; whether nothing is left of them.
    pub(crate) fn reap(&mut self, now: Time) -> bool {
        for _ in 0..REAP_MAX {
            if let Some(who) = self.owners.next_leaving() {
                if !self.take_oldest(who, now) {
                    self.owners.free_next_leaving();
                }
            } else if let Some((who, at)) = self.owners.next_unwanted() {
                self.sift((who, at), now);
            } else {
                return true;
            }
        }
        false
    }

    /// Numbers the own log anew under another incarnation. Observers will see updates.
    pub(crate) fn rekey(&mut self, incarnation: u64, now: Time) {
        let Self { owners, index, differ, .. } = self;
        let me = owners.me();
        for (seq, (at, slot)) in (1..).zip(me.feed.live()) {
            let Held::Presence { topic, pos, pair } = &slot.held else {
                continue;
            };
            if !differ.is_watched(*topic) {
                continue;
            }
            let here = (OwnerId::SELF, at);
            let old = Old::of(me, (slot.born, slot.version()), pair.clone());
            let old = Old { incarnation, born: seq, ..old };
            if let Some(pending) = differ.pending_mut(*topic, here) {
                // The tenant that was told lives on under its new name.
                if let Some(told) = pending
                    && (told.incarnation, told.born) == (me.replica.incarnation, slot.born)
                {
                    (told.incarnation, told.born) = (incarnation, seq);
                }
                continue;
            }
            let told = index.set_told(*topic, *pos, false);
            let Some(member) = index.member(*topic, *pos) else { continue };
            differ.touch(*topic, here, member.key, told.then_some(old), true, now);
        }
        owners.rename_me(incarnation);
        if let Some(me) = owners.get_mut(OwnerId::SELF) {
            me.feed.renumber();
        }
    }

    /// The place among a topic's members that a new value inherits from the old one.
    fn place_of(
        &self,
        former: Option<&Former>,
        topic: &Topic,
        new: &Pair,
    ) -> Option<(TopicId, u32)> {
        let Held::Presence { topic: id, pos, pair } = &former?.held else {
            return None;
        };
        let is_same = self.index.name(*id) == Some(topic) && pair.key() == new.key();
        is_same.then_some((*id, *pos))
    }

    /// Forgets what a slot held, wherever it is known.
    fn evict(&mut self, (who, at): (OwnerId, u32), former: Option<Former>, now: Time) {
        let Some(former) = former else { return };
        match former.held {
            Held::Interest { hash } => self.interest(who, hash, false),
            Held::Presence { topic, pos, .. } => {
                self.touch((who, at), Some(former), (topic, pos), now);
                self.look_elsewhere((topic, pos), now);
                let covered = |but| self.covered((topic, pos), but);
                self.note_covered(topic, (covered(None), covered(Some((who, at)))));
                if let Some(moved) = self.index.remove(topic, pos) {
                    if let Some(owner) = self.owners.get_mut(moved.owner) {
                        owner.feed.relocate(moved.slot, pos);
                    }
                    self.differ.moved(topic, pos);
                }
            }
        }
    }

    /// Keeps the value for the topic's next diff, if observers know it.
    fn touch(
        &mut self,
        (who, at): (OwnerId, u32),
        former: Option<Former>,
        (topic, pos): (TopicId, u32),
        now: Time,
    ) {
        if !self.differ.is_watched(topic) {
            return;
        }
        let is_told = self.index.set_told(topic, pos, false);
        let Some(member) = self.index.member(topic, pos).copied() else { return };
        let old = former.filter(|_| is_told).and_then(|former| self.old(who, former));
        let is_present = self.owners.is_present(who);
        self.differ.touch(topic, (who, at), member.key, old, is_present, now);
    }

    /// What observers were told of a tenant that is gone.
    fn old(&self, who: OwnerId, former: Former) -> Option<Old> {
        let owner = self.owners.get(who)?;
        let version = former.version();
        let Held::Presence { pair, .. } = former.held else {
            return None;
        };
        Some(Old::of(owner, (former.born, version), pair))
    }

    /// How many entries with the key of this one another covers; `but` as for [`listed::covered`].
    fn covered(&self, (topic, pos): (TopicId, u32), but: Option<(OwnerId, u32)>) -> u32 {
        let Some(roster) = self.index.roster(topic) else { return 0 };
        if !listed::may_be_detached(&self.owners, roster) {
            return 0;
        }
        let member = roster.members().get(pos as usize);
        member.map_or(0, |member| listed::covered(&self.owners, roster, member.key, but))
    }

    /// Of the entries of one key of a topic others cover so many now: (before, now).
    fn note_covered(&self, topic: TopicId, covered: (u32, u32)) {
        if let Some(roster) = self.index.roster(topic).filter(|_| covered != (0, 0)) {
            roster.change_covered(self.owners.epoch(), covered);
        }
    }

    /// An entry came, changed or goes: detached ones with its key may be covered now, or no longer.
    fn look_elsewhere(&mut self, (topic, pos): (TopicId, u32), now: Time) {
        let Some(roster) = self.index.roster(topic) else { return };
        let Some(member) = roster.members().get(pos as usize).copied() else { return };
        if !listed::may_be_detached(&self.owners, roster) {
            return;
        }
        let same = roster.find(member.key);
        let detached: Vec<Member> =
            same.into_iter().filter(|other| listed::is_detached(&self.owners, other)).collect();
        if detached.is_empty() {
            return;
        }
        if !listed::is_detached(&self.owners, &member) {
            let retire_at = now + self.config.retire_after;
            for other in &detached {
                if other.owner == OwnerId::SELF && member.owner != OwnerId::SELF {
                    self.leases.retire(other.slot, retire_at);
                } else if self.owners.has_departed(other.owner) {
                    note_moved(&mut self.moved, (other.owner, other.slot), retire_at);
                }
            }
        }
        if self.differ.is_watched(topic) {
            self.tell_together(topic, member.key, &detached, now);
        }
    }

    /// What observers are told next of the entries with a key is told in one diff.
    fn tell_together(&mut self, topic: TopicId, key: u64, detached: &[Member], now: Time) {
        for other in detached {
            let at = (other.owner, other.slot);
            let Some(owner) = self.owners.get(other.owner) else { continue };
            let Some(slot) = owner.feed.slot(other.slot) else { continue };
            let Held::Presence { pos, pair, .. } = &slot.held else { continue };
            let old = Old::of(owner, (slot.born, slot.version()), pair.clone());
            let told = self.index.set_told(topic, *pos, false);
            let is_present = self.owners.is_present(other.owner);
            self.differ.touch(topic, at, key, told.then_some(old), is_present, now);
        }
        if let Some(roster) = self.index.roster(topic) {
            let same = roster.find(key);
            self.differ.tell_together(topic, key, same.iter().map(|m| (m.owner, m.slot)));
        }
    }

    /// Takes an interest of an owner that is gone out of its slot, and looks where the client of an
    /// entry is.
    fn sift(&mut self, (who, at): (OwnerId, u32), now: Time) {
        if self.is_covered((who, at)) {
            let retire_at = now + self.config.retire_after;
            return note_moved(&mut self.moved, (who, at), retire_at);
        }
        let Some(owner) = self.owners.get_mut(who) else { return };
        let is_interest = |slot: &Slot| matches!(slot.held, Held::Interest { .. });
        if owner.feed.slot(at).is_some_and(is_interest) {
            let former = owner.feed.take(at);
            self.evict((who, at), former, now);
        }
    }

    /// Takes off an entry of an owner that said goodbye, if its client is elsewhere.
    pub(crate) fn take_moved(&mut self, (who, at): (OwnerId, u32), now: Time) {
        if self.owners.has_departed(who)
            && self.is_covered((who, at))
            && let Some(owner) = self.owners.get_mut(who)
        {
            let former = owner.feed.take(at);
            self.evict((who, at), former, now);
        }
    }

    /// Whether an attached entry of the topic and key of this one is listed.
    pub(crate) fn is_covered(&self, (who, at): (OwnerId, u32)) -> bool {
        let slot = self.owners.get(who).and_then(|owner| owner.feed.slot(at));
        let Some(Held::Presence { topic, pos, .. }) = slot.map(|slot| &slot.held) else {
            return false;
        };
        let Some(roster) = self.index.roster(*topic) else { return false };
        let member = roster.members().get(*pos as usize);
        member.is_some_and(|member| listed::is_covered(&self.owners, roster, member.key))
    }

    /// Whether a detached entry of another owner would be listed if this one, which is attached, went.
    pub(crate) fn covers_alone(&self, (who, at): (OwnerId, u32)) -> bool {
        let slot = self.owners.get(who).and_then(|owner| owner.feed.slot(at));
        let Some(Held::Presence { topic, pos, .. }) = slot.map(|slot| &slot.held) else {
            return false;
        };
        let place = (*topic, *pos);
        self.covered(place, None) > 0 && self.covered(place, Some((who, at))) == 0
    }

    /// Empties the slot of an owner whose last change is the oldest, if one is left.
    fn take_oldest(&mut self, who: OwnerId, now: Time) -> bool {
        let Some(owner) = self.owners.get_mut(who) else {
            return false;
        };
        let Some(at) = owner.feed.oldest() else {
            return false;
        };
        let former = owner.feed.take(at);
        self.evict((who, at), former, now);
        true
    }

    fn interest(&mut self, who: OwnerId, hash: u64, present: bool) {
        let Some(owner) = self.owners.get_mut(who) else {
            return;
        };
        if hash == INTEREST_ALL {
            owner.all_interest = present;
        }
        let ix = owner.ix;
        if who != OwnerId::SELF && self.owners.is_news((who, ix), hash) {
            self.events.push_back(Event::Interest { owner: ix, hash, present });
        }
    }
}

/// The first time at which the client of an entry was seen elsewhere counts.
fn note_moved(moved: &mut Deadlines<(OwnerId, u32)>, place: (OwnerId, u32), retire_at: Time) {
    if !moved.contains(place) {
        moved.set(place, Some(retire_at));
    }
}

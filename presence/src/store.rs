//! One change of one slot, seen by everything that depends on it: the log, the topic's members,
//! what observers are told, and the interests that are passed on.

use std::collections::VecDeque;

use crate::{
    Config, Event, INTEREST_ALL, Replica, Time, Topic,
    counter::Counter,
    differ::{Differ, Old},
    feed::{Feed, Former, Held},
    index::{Index, TopicId},
    owner::{Owner, OwnerId, Owners},
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
        let is_shown = owner.is_shown();
        let former = owner.feed.take(at);
        let held = match tenant {
            Tenant::Interest { hash } => {
                self.detach((who, at), former, now);
                self.interest(who, hash, true);
                Held::Interest { hash }
            }
            Tenant::Presence { topic, pair } => {
                let (topic, pos) = match self.place_of(former.as_ref(), topic, &pair) {
                    Some((topic, pos)) => {
                        self.touch((who, at), former, (topic, pos), now);
                        (topic, pos)
                    }
                    None => {
                        self.detach((who, at), former, now);
                        self.index.insert(topic, who, at, pair.key())
                    }
                };
                self.differ.touch(topic, (who, at), None, is_shown, now);
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
        self.detach((who, at), former, now);
    }

    /// Empties the slots that are not in the bitmap.
    pub(crate) fn retain(&mut self, who: OwnerId, bits: &Bitmap, now: Time) {
        let width = self.owners.get(who).map_or(0, |owner| owner.feed.width());
        for at in 0..width {
            if !bits.contains(at)
                && let Some(owner) = self.owners.get_mut(who)
            {
                let former = owner.feed.take(at);
                self.detach((who, at), former, now);
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
            let Some(who) = self.owners.next_leaving() else {
                break;
            };
            if !self.take_oldest(who, now) {
                self.owners.free_next_leaving();
            }
        }
        self.owners.next_leaving().is_none()
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
            let old = Old {
                owner: me.ix,
                incarnation,
                born: seq,
                reference: me.refs.at(slot.seq),
                pair: pair.clone(),
            };
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
            differ.touch(*topic, here, told.then_some(old), true, now);
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
    fn detach(&mut self, (who, at): (OwnerId, u32), former: Option<Former>, now: Time) {
        let Some(former) = former else { return };
        match former.held {
            Held::Interest { hash } => self.interest(who, hash, false),
            Held::Presence { topic, pos, .. } => {
                self.touch((who, at), Some(former), (topic, pos), now);
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
        at: (OwnerId, u32),
        former: Option<Former>,
        (topic, pos): (TopicId, u32),
        now: Time,
    ) {
        if !self.differ.is_watched(topic) {
            return;
        }
        let is_told = self.index.set_told(topic, pos, false);
        let owner = self.owners.get(at.0);
        let old = match (owner, former) {
            (Some(owner), Some(Former { seq, born, held: Held::Presence { pair, .. } }))
                if is_told =>
            {
                Some(Old {
                    owner: owner.ix,
                    incarnation: owner.replica.incarnation,
                    born,
                    reference: owner.refs.at(seq),
                    pair,
                })
            }
            _ => None,
        };
        let is_shown = owner.is_some_and(Owner::is_shown);
        self.differ.touch(topic, at, old, is_shown, now);
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
        self.detach((who, at), former, now);
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

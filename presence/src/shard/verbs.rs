//! What clients of this node do.

use super::Shard;
use crate::{
    Actor, Dot, Entry, KEY_LEN_MAX, META_LEN_MAX, Ref, SLOTS_MAX, Time, Topic,
    feed::{Held, Slot},
    interest::Acquired,
    owner::OwnerId,
    range::Pair,
    store::Tenant,
};

/// An entry that this node tracks, until it is untracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    pub(super) slot: u32,
    pub(super) serial: u64,
}

/// Why an entry was not tracked or updated. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrackError {
    /// The key is empty or over [`KEY_LEN_MAX`].
    #[error("presence key of {len} bytes, want 1 to {KEY_LEN_MAX}")]
    KeyLength {
        /// Bytes of the key.
        len: usize,
    },
    /// The meta is over [`META_LEN_MAX`].
    #[error("presence meta of {len} bytes, limit {META_LEN_MAX}")]
    MetaTooLong {
        /// Bytes of the meta.
        len: usize,
    },
    /// This node tracks as many entries as it may, and all have clients, see [`crate::Config::entries_max`].
    #[error("too many presences")]
    Full,
    /// The entry was untracked or detached before.
    #[error("no such presence")]
    Unknown,
}

impl Shard {
    /// Lists a client in a topic. The meta is opaque here; clients expect a JSON object.
    ///
    /// It holds the topic's interest as long as the entry lives. One that was listed with the same key
    /// and has no client any more, see [`Self::detach`], is replaced.
    pub fn track(
        &mut self,
        topic: &Topic,
        key: &str,
        meta: &[u8],
        now: Time,
    ) -> Result<EntryId, TrackError> {
        match key.len() {
            1..=KEY_LEN_MAX => check_meta(meta)?,
            len => return Err(TrackError::KeyLength { len }),
        }
        if let Some(slot) = self.detached_slot(topic, key) {
            return Ok(self.take_over(slot, topic, Pair::new(key, meta), now));
        }
        if self.own.entries >= self.store.config.entries_max && !self.make_room(now) {
            return Err(TrackError::Full);
        }
        // Before the entry: who knows the entry must know the interest.
        self.acquire_interest(topic.hash64(), now);
        let Some(slot) = self.allocate() else {
            self.release_interest(topic.hash64(), now);
            return Err(TrackError::Full);
        };
        self.own.entries += 1;
        let serial = self.name(slot);
        let seq = self.head() + 1;
        let tenant = Tenant::Presence { topic, pair: Pair::new(key, meta) };
        self.store.put((OwnerId::SELF, slot), (seq, seq), tenant, now);
        Ok(EntryId { slot, serial })
    }

    /// Replaces an entry's meta; its key and topic stay.
    pub fn update(&mut self, id: EntryId, meta: &[u8], now: Time) -> Result<(), TrackError> {
        check_meta(meta)?;
        let Some(Slot { born, held: Held::Presence { topic, pair, .. }, .. }) = self.slot_of(id)
        else {
            return Err(TrackError::Unknown);
        };
        if pair.version().is_some() {
            return Err(TrackError::Unknown);
        }
        let (born, pair) = (*born, Pair::new(pair.key(), meta));
        let name = self.store.index.name(*topic).ok_or(TrackError::Unknown)?.clone();
        let seq = self.head() + 1;
        let tenant = Tenant::Presence { topic: &name, pair };
        self.store.put((OwnerId::SELF, id.slot), (seq, born), tenant, now);
        Ok(())
    }

    /// Takes an entry off its topic; `false` when it was already.
    ///
    /// Where its client came from another node a moment ago, and what it left there is still known, that
    /// would be listed in its place: then the entry goes once that has, some time after
    /// [`crate::Config::retire_after`].
    pub fn untrack(&mut self, id: EntryId, now: Time) -> bool {
        let is_attached = |slot: &Slot| matches!(&slot.held, Held::Presence { pair, .. } if pair.version().is_none());
        if self.slot_of(id).is_some_and(is_attached)
            && self.store.covers_alone((OwnerId::SELF, id.slot))
        {
            // For whoever tracked it, it is gone.
            self.name(id.slot);
            let after = self.store.config.retire_after;
            self.store.leases.start(id.slot, after + after / 2, now);
            return true;
        }
        self.take_off(id, now)
    }

    pub(super) fn take_off(&mut self, id: EntryId, now: Time) -> bool {
        let Some(Slot { held: Held::Presence { topic, .. }, .. }) = self.slot_of(id) else {
            return false;
        };
        let hash = self.store.index.name(*topic).map(Topic::hash64);
        self.own.entries -= 1;
        self.empty(id.slot, now);
        if let Some(hash) = hash {
            self.release_interest(hash, now);
        }
        true
    }

    /// What clients know the entry's present version by.
    pub fn reference(&self, id: EntryId) -> Option<Ref> {
        self.slot_of(id).map(|slot| self.store.owners.me().refs.at(slot.version()))
    }

    /// The own entries of a topic whose clients are there.
    pub fn own(&self, topic: &Topic) -> Vec<EntryId> {
        let index = &self.store.index;
        let roster = index.id(topic).and_then(|id| index.roster(id));
        let members = roster.map_or(&[][..], |roster| roster.members());
        let own = members.iter().filter(|m| m.owner == OwnerId::SELF && !m.detached);
        let id = |slot: u32| {
            let serial = *self.own.serials.get(slot as usize)?;
            Some(EntryId { slot, serial })
        };
        own.filter_map(|member| id(member.slot)).collect()
    }

    /// The operation that made the entry's present version; [`Ref::of`] it is its reference.
    pub fn dot(&self, id: EntryId) -> Option<Dot<Actor>> {
        let owners = &self.store.owners;
        self.slot_of(id).map(|slot| owners.dot(owners.me(), slot.version()))
    }

    /// The entry as it is.
    pub fn entry(&self, id: EntryId) -> Option<Entry<'_>> {
        self.slot_of(id)?;
        self.store.owners.me().entry(id.slot)
    }

    /// One more observer of a topic. It knows the state that [`Self::told`] gives, whose version
    /// is returned, and needs all diffs with higher versions.
    pub fn observe(&mut self, topic: &Topic, _now: Time) -> u64 {
        let store = &mut self.store;
        store.differ.observe(topic, &store.owners, &mut store.index)
    }

    /// One observer less.
    pub fn unobserve(&mut self, topic: &Topic, _now: Time) {
        if let Some(id) = self.store.index.id(topic) {
            self.store.differ.unobserve(id, &mut self.store.index);
        }
    }

    /// Asks peers for the broadcasts of the topics with this hash, one holder more.
    ///
    /// Returns the sequence number of the interest in this node's log: peers whose position has
    /// reached it send the broadcasts. With too many interests it is the one in everything.
    pub fn acquire_interest(&mut self, hash: u64, now: Time) -> u64 {
        let feed = &self.store.owners.me().feed;
        match self.interests.acquire(hash, feed) {
            Acquired::Held(slot) => feed.slot(slot).map_or(0, |slot| slot.seq),
            Acquired::Fresh(hash) => {
                // The limits of the configuration leave a slot for each interest.
                let Some(slot) = self.allocate() else {
                    return self.head();
                };
                let seq = self.head() + 1;
                let tenant = Tenant::Interest { hash };
                self.store.put((OwnerId::SELF, slot), (seq, seq), tenant, now);
                self.interests.insert(hash, slot, &self.store.owners.me().feed);
                seq
            }
        }
    }

    /// One holder of an interest less. The last one's stays for [`crate::Config::interest_linger`].
    pub fn release_interest(&mut self, hash: u64, now: Time) {
        let until = now + self.store.config.interest_linger;
        self.interests.release(hash, until, &self.store.owners.me().feed);
    }

    /// A peer has seen a higher incarnation of this node than its own: all entries and interests
    /// are written anew under `incarnation`, from 1 on. Observers see updates.
    ///
    /// An incarnation that is not higher than the present one is ignored.
    pub fn rekey(&mut self, incarnation: u64, now: Time) {
        if incarnation > self.me().incarnation {
            self.store.rekey(incarnation, now);
        }
    }

    /// Empties an own slot.
    pub(super) fn empty(&mut self, slot: u32, now: Time) {
        let seq = self.head() + 1;
        self.store.remove((OwnerId::SELF, slot), seq, now);
        self.own.serials[slot as usize] = 0;
        self.own.free.insert(slot);
        self.store.leases.end(slot);
    }

    /// The lowest free slot, so that repair bitmaps stay short.
    fn allocate(&mut self) -> Option<u32> {
        if let Some(slot) = self.own.free.pop_first() {
            return Some(slot);
        }
        let slot = u32::try_from(self.own.serials.len()).ok().filter(|slot| *slot < SLOTS_MAX)?;
        self.own.serials.push(0);
        Some(slot)
    }

    /// Names a slot's new tenant.
    pub(super) fn name(&mut self, slot: u32) -> u64 {
        self.own.tracked += 1;
        self.own.serials[slot as usize] = self.own.tracked;
        self.own.tracked
    }

    pub(super) fn slot_of(&self, id: EntryId) -> Option<&Slot> {
        let serial = self.own.serials.get(id.slot as usize)?;
        let slot = self.store.owners.me().feed.slot(id.slot)?;
        (*serial == id.serial).then_some(slot)
    }
}

fn check_meta(meta: &[u8]) -> Result<(), TrackError> {
    match meta.len() {
        0..=META_LEN_MAX => Ok(()),
        len => Err(TrackError::MetaTooLong { len }),
    }
}

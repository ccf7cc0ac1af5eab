//! Own entries whose clients are gone, and may come back here or elsewhere.

use std::time::Duration;

use super::{EntryId, Shard};
use crate::{
    Time, Topic,
    feed::{Held, Slot},
    index::Member,
    owner::OwnerId,
    range::Pair,
    store::Tenant,
};

/// Leases that are looked at between two inputs.
const RETIRE_MAX: usize = 4096;

impl Shard {
    /// An entry's client is gone without saying that it leaves: the entry stays for the lease.
    ///
    /// Observers are told nothing. When the key is tracked again, here or on another node, within the
    /// lease, they are told one change of its meta; when it is not, it leaves. An entry whose key has
    /// another one here with a client leaves at once, as the key stays. `false` when it was untracked
    /// before, or is detached already.
    pub fn detach(&mut self, id: EntryId, lease: Duration, now: Time) -> bool {
        let Some(Slot { seq, born, held: Held::Presence { topic, pos, pair }, .. }) =
            self.slot_of(id)
        else {
            return false;
        };
        if pair.version().is_some() {
            return false;
        }
        let (born, pair, topic, pos) = (*born, pair.detached(*seq), *topic, *pos);
        if lease.is_zero() || self.has_sibling((topic, pos), pair.key()) {
            return self.take_off(id, now);
        }
        let Some(name) = self.store.index.name(topic).cloned() else {
            return false;
        };
        let seq = self.head() + 1;
        let tenant = Tenant::Presence { topic: &name, pair };
        self.store.put((OwnerId::SELF, id.slot), (seq, born), tenant, now);
        self.store.leases.start(id.slot, lease, now);
        if self.store.is_covered((OwnerId::SELF, id.slot)) {
            self.store.leases.retire(id.slot, now + self.store.config.retire_after);
        }
        true
    }

    /// Whether an entry is detached.
    pub fn is_detached(&self, id: EntryId) -> bool {
        self.slot_of(id).is_some_and(
            |slot| matches!(&slot.held, Held::Presence { pair, .. } if pair.version().is_some()),
        )
    }

    /// Own entries that are detached.
    pub fn detached(&self) -> usize {
        self.store.leases.len()
    }

    /// What is left of the longest lease; `None` when no own entry is detached.
    pub fn lease_left(&self, now: Time) -> Option<Duration> {
        self.store.leases.last_until().map(|until| until.since(now))
    }

    /// Removes own entries whose leases are over, and those whose clients have been elsewhere for a while,
    /// of owners that said goodbye too.
    pub(super) fn retire(&mut self, now: Time) {
        for _ in 0..RETIRE_MAX {
            let Some(place) = self.store.moved.pop_due(now) else { break };
            self.store.take_moved(place, now);
        }
        for _ in 0..RETIRE_MAX {
            let Some((slot, is_over)) = self.store.leases.due(now) else {
                return;
            };
            let serial = self.own.serials.get(slot as usize).copied().unwrap_or_default();
            if is_over || self.store.is_covered((OwnerId::SELF, slot)) {
                self.take_off(EntryId { slot, serial }, now);
                self.store.leases.end(slot);
            } else {
                self.store.leases.keep(slot);
            }
        }
    }

    /// Takes off the entry whose lease is over first: who has a client goes before who has none, so
    /// clients that come and go fill a shard for nobody. Whether there was one.
    pub(super) fn make_room(&mut self, now: Time) -> bool {
        let Some(slot) = self.store.leases.first() else {
            return false;
        };
        let serial = self.own.serials.get(slot as usize).copied().unwrap_or_default();
        self.take_off(EntryId { slot, serial }, now)
    }

    /// All entries of a topic that no owner's phase hides: owner, key, reference, whether detached.
    #[cfg(test)]
    pub(crate) fn raw(&self, topic: &Topic) -> Vec<(crate::NodeIx, String, crate::Ref, bool)> {
        let store = &self.store;
        let roster = store.index.id(topic).and_then(|id| store.index.roster(id));
        let members = roster.map_or(&[][..], |roster| roster.members());
        let present = members.iter().filter(|member| store.owners.is_present(member.owner));
        let entry = |member: &Member| {
            let entry = store.owners.get(member.owner)?.entry(member.slot)?;
            let detached = crate::listed::is_detached(&store.owners, member);
            Some((entry.owner, entry.key.to_owned(), entry.reference, detached))
        };
        present.filter_map(entry).collect()
    }

    /// The own entry of this topic and key that has no client.
    pub(super) fn detached_slot(&self, topic: &Topic, key: &str) -> Option<u32> {
        let index = &self.store.index;
        let roster = index.id(topic).and_then(|id| index.roster(id))?;
        if !roster.has_detached() {
            return None;
        }
        let is_it = |member: &Member| member.detached && self.is_own(member, key);
        roster.find(index.hash(key)).into_iter().find(is_it).map(|member| member.slot)
    }

    /// Gives the slot of an entry without a client to a new one of the same topic and key: for
    /// observers its meta changes.
    pub(super) fn take_over(&mut self, slot: u32, topic: &Topic, pair: Pair, now: Time) -> EntryId {
        let serial = self.name(slot);
        self.store.leases.end(slot);
        let seq = self.head() + 1;
        let born = self.store.owners.me().feed.slot(slot).map_or(seq, |held| held.born);
        let tenant = Tenant::Presence { topic, pair };
        self.store.put((OwnerId::SELF, slot), (seq, born), tenant, now);
        EntryId { slot, serial }
    }

    /// Whether another own entry of the topic has this key, and a client.
    fn has_sibling(&self, (topic, pos): (crate::index::TopicId, u32), key: &str) -> bool {
        let Some(roster) = self.store.index.roster(topic) else {
            return false;
        };
        let own = roster.members().get(pos as usize).map(|member| member.slot);
        let is_it = |member: &Member| {
            let has_client = !member.detached && !self.store.leases.contains(member.slot);
            has_client && Some(member.slot) != own && self.is_own(member, key)
        };
        roster.find(self.store.index.hash(key)).iter().any(is_it)
    }

    fn is_own(&self, member: &Member, key: &str) -> bool {
        let entry = self.store.owners.me().entry(member.slot);
        member.owner == OwnerId::SELF && entry.is_some_and(|entry| entry.key == key)
    }
}

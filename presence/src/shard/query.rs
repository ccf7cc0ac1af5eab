//! Who is where: the entries of all owners that are shown.

use std::collections::BTreeSet;

use super::Shard;
use crate::{
    NodeIx, Ref, Topic,
    index::{Member, Roster},
    listed,
};

/// One client in one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The node that holds the client.
    pub owner: NodeIx,
    /// What the client is listed under; not unique.
    pub key: &'a str,
    /// What the client says of itself.
    pub meta: &'a [u8],
    /// The version's name, `phx_ref`.
    pub reference: Ref,
    /// The version before, `phx_ref_prev`. Lists do not know it: it is only told in diffs.
    pub previous: Option<Ref>,
}

/// How many are in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Entries.
    pub entries: usize,
    /// Different keys among them.
    pub keys: usize,
}

/// A part of a topic's list, by keys in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// All entries of the page's keys.
    pub entries: Vec<Entry<'a>>,
    /// The last key of the page, when more follow it.
    pub next: Option<&'a str>,
}

impl Shard {
    /// All entries of a topic at present, by key and reference.
    pub fn list(&self, topic: &Topic) -> Vec<Entry<'_>> {
        sorted(self.shown(topic).collect())
    }

    /// The entries of a topic with this key, by reference.
    pub fn get(&self, topic: &Topic, key: &str) -> Vec<Entry<'_>> {
        let index = &self.store.index;
        let Some(roster) = index.id(topic).and_then(|id| index.roster(id)) else {
            return Vec::new();
        };
        let found = roster.find(index.hash(key)).into_iter();
        let listed = found.filter_map(|member| self.resolve(roster, &member));
        sorted(listed.filter(|entry| entry.key == key).collect())
    }

    /// How many are in a topic. Takes a time proportional to the nodes that have entries in it,
    /// while none of these is hidden; then to the entries.
    pub fn count(&self, topic: &Topic) -> Count {
        let index = &self.store.index;
        let roster = index.id(topic).and_then(|id| index.roster(id));
        roster.map_or_else(Count::default, |roster| self.count_of(roster))
    }

    /// The entries of the `keys_max` lowest keys above `after_key`, always all of a key.
    pub fn list_page(&self, topic: &Topic, after_key: Option<&str>, keys_max: usize) -> Page<'_> {
        let follows = |entry: &Entry<'_>| after_key.is_none_or(|after| entry.key > after);
        if self.members(topic) <= keys_max {
            return Page {
                entries: sorted(self.shown(topic).filter(follows).collect()),
                next: None,
            };
        }
        // One more key than asked for says whether there is a next page.
        let mut keys = BTreeSet::new();
        for entry in self.shown(topic).filter(follows) {
            keys.insert(entry.key);
            if keys.len() > keys_max.saturating_add(1) {
                keys.pop_last();
            }
        }
        let has_more = keys.len() > keys_max;
        if has_more {
            keys.pop_last();
        }
        let entries = self.shown(topic).filter(|entry| keys.contains(entry.key)).collect();
        let next = keys.last().copied().filter(|_| has_more);
        Page { entries: sorted(entries), next }
    }

    /// The topics with entries whose names start with `prefix` and come after `after`, in order.
    pub fn topics<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Topic, Count)> + 'a {
        let rosters = self.store.index.with_prefix(prefix, after);
        rosters
            .map(|roster| (&roster.name, self.count_of(roster)))
            .filter(|(_, count)| count.entries > 0)
    }

    /// The topics with entries of any owner, shown or not, whose names start with `prefix`, in order.
    pub fn known_topics<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Topic> + 'a {
        self.store.index.with_prefix(prefix, None).map(|roster| &roster.name)
    }

    /// What the observers of a topic were told, by key and reference, and the version of it:
    /// diffs with higher versions lead from here to the present. Without observers, the present.
    pub fn told<'a>(&'a self, topic: &Topic) -> (u64, Vec<Entry<'a>>) {
        let store = &self.store;
        let id = store.index.id(topic);
        let told = id.and_then(|id| store.differ.told(id, &store.owners, &store.index));
        (store.differ.version(id), told.map_or_else(|| self.list(topic), sorted))
    }

    /// Whether [`told`](Self::told) has an entry with this key.
    pub fn is_told(&self, topic: &Topic, key: &str) -> bool {
        let store = &self.store;
        let Some(id) = store.index.id(topic).filter(|id| store.differ.is_watched(*id)) else {
            return !self.get(topic, key).is_empty();
        };
        store.differ.is_told(id, key, store.index.hash(key), &store.owners, &store.index)
    }

    /// The version that [`told`](Self::told) gives, without the entries.
    pub fn told_version(&self, topic: &Topic) -> u64 {
        self.store.differ.version(self.store.index.id(topic))
    }

    /// Whether the topic has an observer.
    pub fn is_observed(&self, topic: &Topic) -> bool {
        let id = self.store.index.id(topic);
        id.is_some_and(|id| self.store.differ.is_watched(id))
    }

    /// Entries of a topic, shown or not.
    fn members(&self, topic: &Topic) -> usize {
        let index = &self.store.index;
        let roster = index.id(topic).and_then(|id| index.roster(id));
        roster.map_or(0, |roster| roster.members().len())
    }

    fn shown(&self, topic: &Topic) -> impl Iterator<Item = Entry<'_>> {
        let index = &self.store.index;
        let roster = index.id(topic).and_then(|id| index.roster(id));
        roster.into_iter().flat_map(|roster| {
            let members = roster.members().iter();
            members.filter_map(|member| self.resolve(roster, member))
        })
    }

    fn resolve(&self, roster: &Roster, member: &Member) -> Option<Entry<'_>> {
        let owners = &self.store.owners;
        let is_listed = listed::is_listed(owners, roster, member);
        owners.get(member.owner).filter(|_| is_listed)?.entry(member.slot)
    }

    fn count_of(&self, roster: &Roster) -> Count {
        listed::count(&self.store.owners, roster)
    }
}

fn sorted(mut entries: Vec<Entry<'_>>) -> Vec<Entry<'_>> {
    entries.sort_unstable_by_key(|entry| (entry.key, entry.reference));
    entries
}

//! An observer of one topic that believes nothing: it replays diffs and checks each one.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Diff, Event, Ref, Shard, Time, Topic};

/// What one client of a topic knows.
pub(super) struct Observer {
    topic: Topic,
    version: u64,
    known: BTreeMap<Ref, (String, Vec<u8>)>,
    joined: BTreeSet<Ref>,
    /// Keys that have to be listed after each diff.
    pub(super) expected: BTreeSet<String>,
    /// Whether owners may be hidden and shown again.
    pub(super) may_rejoin: bool,
}

impl Observer {
    pub(super) fn new(shard: &mut Shard, topic: &Topic, now: Time) -> Self {
        let version = shard.observe(topic, now);
        let (told_version, told) = shard.told(topic);
        assert_eq!(version, told_version);
        let known: BTreeMap<_, _> =
            told.iter().map(|e| (e.reference, (e.key.to_owned(), e.meta.to_vec()))).collect();
        let joined = known.keys().copied().collect();
        Self {
            topic: topic.clone(),
            version,
            known,
            joined,
            expected: BTreeSet::new(),
            may_rejoin: false,
        }
    }

    /// Versions have no gap; a leave is of a known version, a join of an unknown one that comes
    /// once only unless its owner was hidden, and its predecessor leaves with it, under the same key.
    fn follow(&mut self, diff: Diff) {
        assert_eq!(diff.version, self.version + 1, "a gap");
        self.version = diff.version;
        let mut left = BTreeMap::new();
        for leave in diff.leaves {
            let known = self.known.remove(&leave.reference).expect("leave of an unknown version");
            assert_eq!(known, (leave.key.to_string(), leave.meta.to_vec()));
            assert_eq!(leave.previous, None);
            left.insert(leave.reference, leave.key);
        }
        for join in diff.joins {
            if let Some(previous) = join.previous {
                assert_eq!(left.get(&previous), Some(&join.key), "update of what did not leave");
            }
            let is_first = self.joined.insert(join.reference);
            assert!(is_first || self.may_rejoin, "joined a second time");
            let value = (join.key.to_string(), join.meta.to_vec());
            assert!(self.known.insert(join.reference, value).is_none(), "known already");
        }
        let keys = self.keys();
        assert!(self.expected.is_subset(&keys), "{:?} of {:?}", keys, self.expected);
    }

    /// The keys that it knows.
    pub(super) fn keys(&self) -> BTreeSet<String> {
        self.known.values().map(|(key, _)| key.clone()).collect()
    }

    /// As `presence_state` would show it.
    pub(super) fn contents(&self) -> Vec<(String, Vec<u8>, Ref)> {
        let mut all: Vec<_> =
            self.known.iter().map(|(r, (key, meta))| (key.clone(), meta.clone(), *r)).collect();
        all.sort_by(|a, b| (&a.0, a.2).cmp(&(&b.0, b.2)));
        all
    }

    /// What a client that joins now would be shown is what this one knows.
    pub(super) fn assert_told(&self, shard: &Shard) {
        let (version, told) = shard.told(&self.topic);
        let entry = |e: crate::Entry<'_>| (e.key.to_owned(), e.meta.to_vec(), e.reference);
        let told: Vec<_> = told.into_iter().map(entry).collect();
        assert_eq!((version, told), (self.version, self.contents()));
    }
}

/// Gives each diff to its observer, and returns the changes of interest.
pub(super) fn dispatch<'a>(
    events: Vec<Event>,
    observers: impl IntoIterator<Item = &'a mut Observer>,
) -> Vec<(u16, u64, bool)> {
    let mut by_topic: BTreeMap<Topic, &mut Observer> =
        observers.into_iter().map(|observer| (observer.topic.clone(), observer)).collect();
    let mut interests = Vec::new();
    for event in events {
        match event {
            Event::Interest { owner, hash, present } => interests.push((owner.0, hash, present)),
            Event::Diff(diff) => match by_topic.get_mut(&diff.topic) {
                Some(observer) => observer.follow(diff),
                None => panic!("a diff of {} without observers", diff.topic),
            },
            Event::Count { topic, .. } => panic!("nobody follows the count of {topic}"),
            Event::Opened { topic } => panic!("nobody wants to know that {topic} opened"),
        }
    }
    interests
}

//! What clients of one node see of each other.

use std::time::Duration;

use super::{OWNER, T0, contents, drain, owner, pull, ring, topic, viewer};
use crate::{
    Config, Diff, Event, INTEREST_ALL, KEY_LEN_MAX, META_LEN_MAX, NodeIx, Op, Shard, Time,
    TrackError, Value,
};

const fn ms(millis: u64) -> Time {
    Time::from_micros(millis * 1000)
}

fn diffs(shard: &mut Shard, now: Time) -> Vec<Diff> {
    let diff = |event| match event {
        Event::Diff(diff) => Some(diff),
        Event::Interest { .. } | Event::Count { .. } | Event::Opened { .. } => None,
    };
    drain(shard, now).into_iter().filter_map(diff).collect()
}

/// "+key", "-key" or, for an update, "-key +key<".
fn told(diff: &Diff) -> String {
    let leaves = diff.leaves.iter().map(|change| format!("-{}", change.key));
    let joins = diff.joins.iter().map(|change| {
        format!("+{}{}", change.key, if change.previous.is_some() { "<" } else { "" })
    });
    leaves.chain(joins).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_first_change_is_told_at_once_and_the_next_after_the_interval() {
    let mut shard = owner(Config::default());
    let version = shard.observe(&topic(0), ms(0));
    shard.track(&topic(0), "a", b"{}", ms(100)).unwrap();
    assert_eq!(shard.poll_timeout(), Some(ms(100)));
    let first = diffs(&mut shard, ms(100));
    shard.track(&topic(0), "b", b"{}", ms(101)).unwrap();
    shard.track(&topic(0), "c", b"{}", ms(102)).unwrap();
    assert_eq!(shard.poll_timeout(), Some(ms(105)));
    assert!(diffs(&mut shard, ms(104)).is_empty());
    let second = diffs(&mut shard, ms(105));
    assert_eq!([&first, &second].map(|diffs| told(&diffs[0])), ["+a", "+b +c"]);
    assert_eq!([first[0].version, second[0].version], [version + 1, version + 2]);
    assert_eq!(shard.poll_timeout(), None);
}

#[test]
fn what_came_and_went_between_two_diffs_is_not_told() {
    let mut shard = owner(Config::default());
    shard.observe(&topic(0), T0);
    let a = shard.track(&topic(0), "a", b"{}", T0).unwrap();
    diffs(&mut shard, T0);
    let b = shard.track(&topic(0), "b", b"{}", ms(1)).unwrap();
    shard.update(b, b"1", ms(1)).unwrap();
    shard.untrack(b, ms(2));
    assert!(diffs(&mut shard, ms(9)).is_empty());
    // Updates are one, from what was told last.
    let told_last = shard.reference(a);
    shard.update(a, b"1", ms(10)).unwrap();
    shard.update(a, b"2", ms(10)).unwrap();
    let diff = diffs(&mut shard, ms(20)).remove(0);
    assert_eq!(told(&diff), "-a +a<");
    assert_eq!(diff.joins[0].previous, told_last);
    assert_eq!(&*diff.joins[0].meta, b"2");
    // Another tenant of the same slot is no update.
    shard.untrack(a, ms(30));
    shard.track(&topic(0), "a", b"{}", ms(30)).unwrap();
    assert_eq!(told(&diffs(&mut shard, ms(40))[0]), "-a +a");
}

#[test]
fn a_new_observer_starts_from_what_the_others_were_told() {
    let mut shard = owner(Config::default());
    let first = shard.observe(&topic(0), T0);
    shard.track(&topic(0), "a", b"{}", T0).unwrap();
    diffs(&mut shard, T0);
    shard.track(&topic(0), "b", b"{}", ms(1)).unwrap();
    let version = shard.observe(&topic(0), ms(1));
    let (told_version, known) = shard.told(&topic(0));
    assert_eq!((version, told_version), (first + 1, first + 1));
    assert_eq!(known.iter().map(|entry| entry.key).collect::<Vec<_>>(), ["a"]);
    assert_eq!(shard.list(&topic(0)).len(), 2);
    assert_eq!(told(&diffs(&mut shard, ms(9))[0]), "+b");
}

#[test]
fn nothing_is_prepared_without_observers() {
    let mut shard = owner(Config::default());
    let version = shard.observe(&topic(0), T0);
    shard.track(&topic(0), "a", b"{}", T0).unwrap();
    shard.observe(&topic(0), T0);
    shard.unobserve(&topic(0), T0);
    assert_eq!(diffs(&mut shard, T0).len(), 1);
    shard.unobserve(&topic(0), T0);
    shard.track(&topic(0), "b", b"{}", T0).unwrap();
    assert_eq!(shard.poll_timeout(), None);
    assert_eq!(shard.told(&topic(0)).1.len(), 2);
    // A version never stands for two states.
    assert!(shard.observe(&topic(0), T0) > version + 1);
    shard.unobserve(&topic(9), T0);
}

#[test]
fn many_changes_are_told_in_slices_between_those_of_other_topics() {
    let mut shard = owner(Config { diff_events_max: 10, ..Config::default() });
    shard.observe(&topic(0), T0);
    shard.observe(&topic(1), T0);
    for n in 0..95 {
        shard.track(&topic(0), &format!("{n}"), b"{}", T0).unwrap();
    }
    shard.handle_timeout(T0);
    shard.track(&topic(1), "other", b"{}", ms(1)).unwrap();
    let diffs = diffs(&mut shard, ms(1));
    assert!(diffs.iter().all(|diff| diff.joins.len() <= 10));
    assert_eq!(diffs.iter().map(|diff| diff.joins.len()).sum::<usize>(), 96);
    let other = diffs.iter().position(|diff| diff.topic == topic(1)).unwrap();
    assert!(other < diffs.len() - 2, "the other topic waited for all");
}

#[test]
fn limits_are_errors_that_change_nothing() {
    let mut shard = owner(Config { entries_max: 1, ..Config::default() });
    let key = "k".repeat(KEY_LEN_MAX + 1);
    let meta = vec![b' '; META_LEN_MAX + 1];
    let track = |shard: &mut Shard, key: &str, meta: &[u8]| shard.track(&topic(0), key, meta, T0);
    assert_eq!(track(&mut shard, &key, b""), Err(TrackError::KeyLength { len: 257 }));
    assert_eq!(track(&mut shard, "", b""), Err(TrackError::KeyLength { len: 0 }));
    assert_eq!(track(&mut shard, "k", &meta), Err(TrackError::MetaTooLong { len: 16_385 }));
    assert_eq!(shard.head(), 0);
    let id = track(&mut shard, &key[1..], &meta[1..]).unwrap();
    let head = shard.head();
    assert_eq!(track(&mut shard, "k", b""), Err(TrackError::Full));
    assert_eq!(shard.update(id, &meta, T0), Err(TrackError::MetaTooLong { len: 16_385 }));
    assert_eq!(shard.head(), head);
    assert!(shard.untrack(id, T0) && !shard.untrack(id, T0));
    assert_eq!(shard.update(id, b"", T0), Err(TrackError::Unknown));
    assert_eq!((shard.reference(id), shard.entry(id)), (None, None));
    assert!(track(&mut shard, "k", b"").is_ok());
    // The slot's new entry has another id.
    assert!(!shard.untrack(id, T0));
}

#[test]
fn interest_comes_before_the_first_entry_and_goes_some_time_after_the_last() {
    let mut shard = owner(Config::default());
    let id = shard.track(&topic(0), "a", b"{}", T0).unwrap();
    let range = shard.serve(NodeIx::SELF, 0, 10_000).unwrap();
    let hash = topic(0).hash64();
    assert!(
        matches!(range.ops[0], Op::Put { seq: 1, value: Value::Interest { hash: h }, .. } if h == hash)
    );
    assert_eq!(shard.acquire_interest(hash, T0), 1);
    shard.untrack(id, T0);
    assert_eq!(shard.poll_timeout(), None);
    shard.release_interest(hash, ms(1));
    assert_eq!(shard.poll_timeout(), Some(ms(1) + Duration::from_secs(10)));
    let removed = shard.head();
    shard.handle_timeout(ms(10_001));
    assert_eq!(shard.head(), removed + 1);
    // It left nothing but tombstones.
    assert_eq!(shard.checksum(), 0);
}

#[test]
fn a_slot_is_used_again() {
    let mut shard = owner(ring(0));
    for n in 0..100 {
        let id = shard.track(&topic(n % 3), "a", b"{}", T0).unwrap();
        assert!(shard.untrack(id, T0));
        shard.handle_timeout(ms(10));
    }
    let last = shard.track(&topic(0), "a", b"{}", T0).unwrap();
    let range = shard.serve(NodeIx::SELF, 0, 10_000).unwrap();
    assert!(range.ops.iter().all(|op| op.slot() < 5));
    assert!(shard.entry(last).is_some());
}

#[test]
fn too_many_interests_become_one_in_everything() {
    let mut shard = owner(Config { interests_max: 1, ..ring(4) });
    shard.acquire_interest(topic(0).hash64(), T0);
    let all = shard.acquire_interest(topic(1).hash64(), T0);
    assert_eq!(shard.acquire_interest(topic(2).hash64(), T0), all);
    let mut viewer = viewer("viewer", ring(4));
    pull((&mut viewer, OWNER), (&shard, NodeIx::SELF), 10_000, T0);
    assert!(viewer.position(OWNER).unwrap().all_interest);
    let event = Event::Interest { owner: OWNER, hash: INTEREST_ALL, present: true };
    assert!(drain(&mut viewer, T0).contains(&event));
    shard.release_interest(topic(1).hash64(), T0);
    shard.release_interest(topic(2).hash64(), T0);
    shard.handle_timeout(ms(3));
    pull((&mut viewer, OWNER), (&shard, NodeIx::SELF), 10_000, T0);
    assert!(!viewer.position(OWNER).unwrap().all_interest);
}

#[test]
fn a_node_that_takes_another_incarnation_looks_updated() {
    let mut shard = owner(Config::default());
    shard.observe(&topic(0), T0);
    let a = shard.track(&topic(0), "a", b"{}", T0).unwrap();
    let gone = shard.track(&topic(1), "gone", b"{}", T0).unwrap();
    diffs(&mut shard, T0);
    shard.untrack(gone, T0);
    shard.update(a, b"1", ms(1)).unwrap();
    let b = shard.track(&topic(0), "b", b"{}", ms(1)).unwrap();
    let dot = shard.dot(a).unwrap();
    shard.rekey(1, ms(1));
    assert_eq!(shard.dot(a), Some(dot));
    shard.rekey(9, ms(1));
    assert_eq!(shard.me().incarnation, 9);
    // Two interests and two entries, as if they had just come.
    assert_eq!(shard.head(), 4);
    assert_eq!(told(&diffs(&mut shard, ms(9))[0]), "-a +a< +b");
    let mut viewer = Shard::new(Config::default(), 0, super::replica("viewer", 1));
    viewer.member_up(OWNER, shard.me(), true, T0);
    pull((&mut viewer, OWNER), (&shard, NodeIx::SELF), 10_000, T0);
    assert_eq!(contents(&viewer, &topic(0)), contents(&shard, &topic(0)));
    assert!(shard.untrack(a, ms(10)) && shard.untrack(b, ms(10)));
    assert_eq!(told(&diffs(&mut shard, ms(20))[0]), "-a -b");
}

#[test]
fn topics_are_listed_by_prefix_with_counts() {
    let mut shard = owner(Config::default());
    for (n, key) in [(1, "a"), (0, "a"), (0, "a"), (0, "b")] {
        shard.track(&topic(n), key, b"{}", T0).unwrap();
    }
    shard.observe(&topic(5), T0);
    let topics = |prefix, after| -> Vec<_> {
        let one = |(topic, count): (&crate::Topic, crate::Count)| {
            (topic.to_string(), count.entries, count.keys)
        };
        shard.topics(prefix, after).map(one).collect()
    };
    assert_eq!(topics("room:", None), [("room:0".into(), 3, 2), ("room:1".into(), 1, 1)]);
    assert_eq!(topics("", Some("room:0")), [("room:1".into(), 1, 1)]);
    assert_eq!(shard.count(&topic(5)), crate::Count::default());
}

#[test]
fn many_observers_are_told_seldomer_but_the_first_change_at_once() {
    let mut shard = owner(Config::default());
    for _ in 0..2000 {
        shard.observe(&topic(0), T0);
    }
    let told_at = |shard: &mut Shard, first: u64| {
        (first..first + 50).filter(|n| !diffs(shard, ms(*n)).is_empty()).collect::<Vec<_>>()
    };
    shard.track(&topic(0), "a", b"{}", ms(1)).unwrap();
    assert_eq!(diffs(&mut shard, ms(1)).len(), 1, "the first at once");
    shard.track(&topic(0), "b", b"{}", ms(2)).unwrap();
    shard.track(&topic(0), "c", b"{}", ms(3)).unwrap();
    // 2,000 observers and one change took 21 ms, and 22 ms are behind two.
    assert_eq!(told_at(&mut shard, 3), [22]);
    shard.track(&topic(0), "d", b"{}", ms(100)).unwrap();
    assert_eq!(told_at(&mut shard, 100), [100], "at once again");
}

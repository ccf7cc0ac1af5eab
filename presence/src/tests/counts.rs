//! What those who follow a topic's count are told, and the totals.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::{OWNER, T0, drain, owner, pull, replica, ring, topic, viewer};
use crate::{Config, Count, Event, NodeIx, Shard, Time, Topic, Total};

const SECOND: u64 = 1_000_000;

fn at(micros: u64) -> Time {
    Time::from_micros(micros)
}

fn told(shard: &mut Shard, now: Time) -> Vec<(Topic, Count)> {
    let count = |event| match event {
        Event::Count { topic, count, .. } => Some((topic, count)),
        Event::Interest { .. } | Event::Diff(_) | Event::Opened { .. } => None,
    };
    drain(shard, now).into_iter().filter_map(count).collect()
}

fn of(entries: usize, keys: usize) -> Count {
    Count { entries, keys }
}

#[test]
fn a_crowd_is_told_once_a_second_and_the_last_count_always() {
    let mut shard = owner(Config::default());
    shard.observe_count(&topic(0), T0);
    assert_eq!(shard.counted(&topic(0)), (0, of(0, 0)));
    let mut ids = Vec::new();
    let mut counts = Vec::new();
    for n in 0..1000 {
        let now = at(n * 1000);
        ids.push(shard.track(&topic(0), &format!("k{}", n / 2), b"{}", now).unwrap());
        counts.extend(told(&mut shard, now).into_iter().map(|(_, count)| count));
    }
    assert_eq!(counts, [of(1, 1)], "the first at once, the others wait");
    assert_eq!(shard.poll_timeout(), Some(at(SECOND)));
    assert_eq!(told(&mut shard, at(SECOND)), [(topic(0), of(1000, 500))]);
    assert_eq!(shard.poll_timeout(), None, "nothing changes any more");

    // One that comes and goes between two tellings is not told of at all.
    let id = shard.track(&topic(0), "k", b"{}", at(SECOND)).unwrap();
    shard.untrack(id, at(SECOND));
    assert_eq!(told(&mut shard, at(3 * SECOND)), []);
    // Neither is another meta.
    shard.update(ids[0], b"{\"a\":1}", at(4 * SECOND)).unwrap();
    assert_eq!(told(&mut shard, at(4 * SECOND)), []);
    ids.into_iter().for_each(|id| assert!(shard.untrack(id, at(5 * SECOND))));
    assert_eq!(told(&mut shard, at(5 * SECOND)), [(topic(0), of(0, 0))]);
}

#[test]
fn who_does_not_follow_any_more_is_told_nothing_and_the_topic_is_forgotten() {
    let mut shard = owner(ring(0));
    for _ in 0..2 {
        shard.observe_count(&topic(0), T0);
    }
    let (version, _) = shard.counted(&topic(0));
    shard.unobserve_count(&topic(0), T0);
    shard.track(&topic(0), "k", b"{}", T0).unwrap();
    assert_eq!(told(&mut shard, T0).len(), 1, "one still follows");
    shard.unobserve_count(&topic(0), T0);
    shard.track(&topic(0), "l", b"{}", T0).unwrap();
    assert_eq!(told(&mut shard, at(SECOND)), []);
    shard.observe_count(&topic(0), at(SECOND));
    let (later, count) = shard.counted(&topic(0));
    assert!(later > version + 1, "versions are never used for two counts");
    assert_eq!(count, of(2, 2));
}

#[test]
fn a_node_that_goes_down_and_comes_back_is_told_by_its_numbers() {
    let mut shard = viewer("viewer", Config::default());
    let mut other = owner(Config::default());
    for n in 0..5_u8 {
        shard.observe_count(&topic(n), T0);
        other.track(&topic(n), "k", b"{}", T0).unwrap();
    }
    let (there, gone) = (of(1, 1), of(0, 0));
    let all = |count| (0..5).map(|n| (topic(n), count)).collect::<Vec<_>>();
    let sorted = |mut told: Vec<(Topic, Count)>| {
        told.sort_by(|a, b| a.0.cmp(&b.0));
        told
    };
    pull((&mut shard, OWNER), (&other, NodeIx::SELF), 1000, T0);
    assert_eq!(sorted(told(&mut shard, T0)), all(there));
    shard.member_down(OWNER, 1, at(2 * SECOND));
    assert_eq!(sorted(told(&mut shard, at(2 * SECOND))), all(gone));
    shard.member_up(OWNER, &replica("owner", 1), true, at(4 * SECOND));
    shard.saw_head(OWNER, 1, other.head(), at(4 * SECOND));
    assert_eq!(sorted(told(&mut shard, at(4 * SECOND))), all(there));

    // A replica that is fetched anew is not taken for one whose clients have gone.
    shard.refetch(OWNER, at(6 * SECOND));
    assert_eq!(told(&mut shard, at(6 * SECOND)), []);
    pull((&mut shard, OWNER), (&other, NodeIx::SELF), 1000, at(6 * SECOND));
    assert_eq!(told(&mut shard, at(8 * SECOND)), []);
    assert_eq!(shard.count(&topic(0)), there);
}

#[test]
fn topics_that_open_are_told_to_who_wants_it() {
    let mut shard = owner(ring(0));
    let opened = |shard: &mut Shard, now| {
        let opened = |event| match event {
            Event::Opened { topic } => Some(topic),
            Event::Interest { .. } | Event::Diff(_) | Event::Count { .. } => None,
        };
        drain(shard, now).into_iter().filter_map(opened).collect::<Vec<_>>()
    };
    shard.track(&topic(0), "k", b"{}", T0).unwrap();
    assert!(opened(&mut shard, T0).is_empty());
    shard.observe_openings();
    let first = shard.track(&topic(1), "k", b"{}", T0).unwrap();
    shard.track(&topic(0), "l", b"{}", T0).unwrap();
    assert_eq!(opened(&mut shard, T0), [topic(1)]);
    assert!(shard.known_topics("room:").eq(&[topic(0), topic(1)]));
    shard.observe(&topic(1), T0);
    shard.untrack(first, T0);
    assert!(!shard.is_closed(&topic(1)), "observers have yet to be told");
    drain(&mut shard, at(SECOND));
    assert!(shard.is_closed(&topic(1)));
    shard.track(&topic(1), "k", b"{}", at(SECOND)).unwrap();
    assert_eq!(opened(&mut shard, at(SECOND)), [topic(1)]);
    shard.unobserve_openings();
    shard.track(&topic(2), "k", b"{}", at(SECOND)).unwrap();
    assert!(opened(&mut shard, at(SECOND)).is_empty());
}

/// Totals as the lists have them.
pub(super) fn recomputed(shard: &Shard, topics: &[Topic]) -> (Total, BTreeMap<NodeIx, Total>) {
    let mut all = Total::default();
    let mut owners: BTreeMap<NodeIx, Total> = BTreeMap::new();
    for topic in topics {
        let mut here: BTreeMap<NodeIx, usize> = BTreeMap::new();
        for entry in shard.list(topic) {
            *here.entry(entry.owner).or_default() += 1;
        }
        all.topics += usize::from(!here.is_empty());
        for (owner, entries) in here {
            let total = owners.entry(owner).or_default();
            total.topics += 1;
            total.entries += entries;
            all.entries += entries;
        }
    }
    (all, owners)
}

proptest! {
    /// Whoever follows knows the last count once all is quiet, and is never told twice in a second.
    #[test]
    fn who_follows_ends_with_the_present_count(
        steps in prop::collection::vec((0..8_u8, 0..3_u8, 0..600_u64), 0..80),
    ) {
        let lease = Duration::from_millis(250);
        let mut config = ring(2);
        config.count_interval = Duration::from_millis(100);
        let mut shard = viewer("viewer", config);
        let mut other = owner(ring(2));
        let topics: Vec<Topic> = (0..3).map(topic).collect();
        topics.iter().for_each(|topic| shard.observe_count(topic, T0));
        let mut known: BTreeMap<Topic, (u64, Count, Time)> = BTreeMap::new();
        let (mut own, mut theirs) = (Vec::new(), Vec::new());
        let mut now = 0;
        let quiet = [(8, 0, 0), (8, 0, 300)];
        for (kind, pick, millis) in steps.into_iter().chain(quiet) {
            now += millis * 1000;
            let (now, topic) = (at(now), &topics[usize::from(pick)]);
            match kind {
                0 => own.push(shard.track(topic, &pick.to_string(), b"{}", now).unwrap()),
                1 => theirs.push(other.track(topic, &pick.to_string(), b"{}", now).unwrap()),
                2 => {
                    own.pop().map(|id| shard.untrack(id, now));
                    theirs.pop().map(|id| other.untrack(id, now));
                }
                3 => shard.member_down(OWNER, 1, now),
                4 => drop(shard.member_up(OWNER, &replica("owner", 1), true, now)),
                5 => drop(own.pop().map(|id| shard.detach(id, lease, now))),
                6 => drop(theirs.pop().map(|id| other.detach(id, lease, now))),
                7 => shard.member_depart(OWNER, 1, lease, now),
                _ => {
                    shard.member_up(OWNER, &replica("owner", 1), true, now);
                    shard.saw_head(OWNER, 1, other.head(), now);
                    pull((&mut shard, OWNER), (&other, NodeIx::SELF), 100, now);
                }
            }
            drain(&mut other, now);
            for event in drain(&mut shard, now) {
                if let Event::Count { topic, version, count } = event
                    && let Some((before, _, last)) = known.insert(topic, (version, count, now))
                {
                    prop_assert!(version > before);
                    prop_assert!(now.since(last) >= Duration::from_millis(100));
                }
            }
            let (all, owners) = recomputed(&shard, &topics);
            let totals = shard.totals();
            prop_assert_eq!(totals.cluster, all);
            let listed: BTreeMap<_, _> =
                totals.owners.into_iter().filter(|(_, total)| *total != Total::default()).collect();
            prop_assert_eq!(listed, owners);
        }
        for topic in &topics {
            let (_, present) = shard.counted(topic);
            let told = known.get(topic).map_or_else(Count::default, |(_, count, _)| *count);
            prop_assert_eq!(told, present);
        }
    }
}

proptest! {
    /// Counts are what the list says, however entries lose their clients and cover each other.
    #[test]
    fn counts_follow_moves(
        steps in prop::collection::vec((0..6_u8, 0..4_u8, any::<u8>()), 0..120),
    ) {
        let mut shard = viewer("viewer", ring(2));
        let mut other = owner(ring(2));
        shard.member_up(OWNER, &replica("owner", 1), true, T0);
        shard.saw_head(OWNER, 1, 0, T0);
        let (mut own, mut theirs) = (Vec::new(), Vec::new());
        for (now, (kind, key, pick)) in (0..).map(at).zip(steps) {
            let key = key.to_string();
            let take = |ids: &mut Vec<_>| {
                let place = usize::from(pick) % ids.len().max(1);
                (place < ids.len()).then(|| ids.swap_remove(place))
            };
            let lease = Duration::from_micros(u64::from(pick));
            match kind {
                0 => own.push(shard.track(&topic(0), &key, b"{}", now).unwrap()),
                1 => theirs.push(other.track(&topic(0), &key, b"{}", now).unwrap()),
                2 => drop(take(&mut own).map(|id| shard.detach(id, lease, now))),
                3 => drop(take(&mut theirs).map(|id| other.detach(id, lease, now))),
                4 => drop(take(&mut theirs).map(|id| other.untrack(id, now))),
                _ if pick < 20 => shard.member_depart(OWNER, 1, lease, now),
                _ => drop(drain(&mut shard, now)),
            }
            pull((&mut shard, OWNER), (&other, NodeIx::SELF), 100, now);
            let list = shard.list(&topic(0));
            let keys: std::collections::BTreeSet<_> = list.iter().map(|entry| entry.key).collect();
            prop_assert_eq!(shard.count(&topic(0)), of(list.len(), keys.len()));
        }
    }
}

//! Nodes that come, go and come back.

use super::{
    OWNER, T0, contents, drain,
    observer::{Observer, dispatch},
    owner, pull, replica, ring, topic, viewer,
};
use crate::{Applied, Config, Event, NodeIx, Rejection, Shard, Time, Up};

const fn ms(millis: u64) -> Time {
    Time::from_micros(millis * 1000)
}

/// An owner with keys a and b, and a viewer with an observer that knows them.
fn pair() -> (Shard, Shard) {
    let mut owner = owner(ring(1));
    for key in ["a", "b"] {
        owner.track(&topic(0), key, b"{}", T0).unwrap();
    }
    let mut viewer = viewer("viewer", ring(1));
    viewer.observe(&topic(0), T0);
    pull((&mut viewer, OWNER), (&owner, NodeIx::SELF), 10_000, T0);
    assert_eq!(told(&mut viewer, T0), ["+a", "+b"]);
    (owner, viewer)
}

/// "+key" and "-key" of all diffs that are due.
fn told(shard: &mut Shard, now: Time) -> Vec<String> {
    let mut all = Vec::new();
    for event in drain(shard, now) {
        if let Event::Diff(diff) = event {
            all.extend(diff.leaves.iter().map(|change| format!("-{}", change.key)));
            all.extend(diff.joins.iter().map(|change| format!("+{}", change.key)));
        }
    }
    all
}

#[test]
fn a_node_that_is_down_is_hidden_at_once_and_shown_when_caught_up_with() {
    let (mut owner, mut viewer) = pair();
    viewer.member_down(OWNER, 1, ms(10));
    assert!(viewer.list(&topic(0)).is_empty());
    assert_eq!(viewer.count(&topic(0)).keys, 0);
    assert_eq!(viewer.topics("", None).count(), 0);
    assert_eq!(told(&mut viewer, ms(10)), ["-a", "-b"]);
    // Meanwhile b leaves and c comes; nobody sees b again.
    let b = viewer.position(OWNER).unwrap().v;
    let c = owner.track(&topic(0), "c", b"{}", ms(20)).unwrap();
    assert!(owner.entry(c).is_some() && owner.head() > b);
    assert_eq!(viewer.member_up(OWNER, &replica("owner", 1), true, ms(30)), Up::Revealing);
    viewer.saw_head(OWNER, 1, owner.head(), ms(30));
    assert!(viewer.list(&topic(0)).is_empty());
    pull((&mut viewer, OWNER), (&owner, NodeIx::SELF), 10_000, ms(31));
    assert_eq!(contents(&viewer, &topic(0)), contents(&owner, &topic(0)));
    assert_eq!(told(&mut viewer, ms(31)), ["+a", "+b", "+c"]);
    assert_eq!(viewer.member_up(OWNER, &replica("owner", 1), false, ms(32)), Up::Known);
}

#[test]
fn a_node_that_cannot_be_caught_up_with_is_shown_after_a_second() {
    let (owner, mut viewer) = pair();
    viewer.member_down(OWNER, 1, ms(10));
    told(&mut viewer, ms(10));
    viewer.member_up(OWNER, &replica("owner", 1), true, ms(20));
    viewer.saw_head(OWNER, 1, owner.head() + 1, ms(20));
    assert_eq!(viewer.poll_timeout(), Some(ms(1020)));
    assert!(told(&mut viewer, ms(1019)).is_empty());
    assert_eq!(told(&mut viewer, ms(1020)), ["+a", "+b"]);
    assert!(!viewer.position(OWNER).unwrap().is_current());
}

/// The changes wait for their diff when their owner is hidden: they are not news any more.
#[test]
fn what_changed_just_before_its_node_went_down_is_not_told() {
    let (mut owner, mut viewer) = pair();
    let d = owner.track(&topic(0), "d", b"{}", T0).unwrap();
    owner.update(d, b"{\"n\":1}", T0).unwrap();
    owner.track(&topic(0), "c", b"{}", T0).unwrap();
    pull((&mut viewer, OWNER), (&owner, NodeIx::SELF), 10_000, ms(1));
    viewer.member_down(OWNER, 1, ms(2));
    assert_eq!(told(&mut viewer, ms(20)), ["-a", "-b"]);
    viewer.saw_head(OWNER, 1, owner.head(), ms(30));
    viewer.member_up(OWNER, &replica("owner", 1), true, ms(30));
    let mut news = told(&mut viewer, ms(40));
    news.sort();
    assert_eq!(news, ["+a", "+b", "+c", "+d"]);
}

#[test]
fn a_flap_between_two_diffs_is_not_told() {
    let (owner, mut viewer) = pair();
    viewer.member_down(OWNER, 1, ms(1));
    viewer.saw_head(OWNER, 1, owner.head(), ms(2));
    assert_eq!(viewer.member_up(OWNER, &replica("owner", 1), true, ms(2)), Up::Known);
    assert!(told(&mut viewer, ms(10)).is_empty());
    assert_eq!(viewer.list(&topic(0)).len(), 2);
}

#[test]
fn a_restarted_node_replaces_its_old_run() {
    let (_, mut viewer) = pair();
    assert_eq!(viewer.member_up(OWNER, &replica("owner", 2), false, ms(10)), Up::Replaced);
    let mut events = drain(&mut viewer, ms(10));
    let first = events.remove(0);
    let hash = topic(0).hash64();
    assert_eq!(first, Event::Interest { owner: OWNER, hash, present: false });
    assert!(matches!(&events[..], [Event::Diff(diff)] if diff.leaves.len() == 2));
    let old = replica("owner", 1);
    assert_eq!(viewer.member_up(OWNER, &old, true, ms(10)), Up::Ignored { seen: 2 });
    // Late news of the old run are void.
    viewer.saw_head(OWNER, 1, 99, ms(10));
    viewer.saw_head(OWNER, 2, 0, ms(10));
    viewer.member_down(OWNER, 1, ms(10));
    viewer.member_forget(OWNER, 1, ms(10));
    let position = viewer.position(OWNER).unwrap();
    assert_eq!((position.incarnation, position.v, position.visible), (2, 0, true));
}

#[test]
fn a_forgotten_run_comes_back_only_by_itself() {
    let (owner, mut viewer) = pair();
    let range = owner.serve(NodeIx::SELF, 0, 10_000).unwrap();
    viewer.member_forget(OWNER, 1, ms(10));
    assert_eq!(told(&mut viewer, ms(10)), ["-a", "-b"]);
    assert_eq!(viewer.position(OWNER), None);
    let unknown = Applied::Rejected(Rejection::UnknownOwner);
    assert_eq!(viewer.apply(OWNER, range.clone(), ms(10)), unknown);
    let (old, run) = (replica("owner", 0), replica("owner", 1));
    assert_eq!(viewer.member_up(OWNER, &old, true, ms(10)), Up::Ignored { seen: 1 });
    assert_eq!(viewer.member_up(OWNER, &run, false, ms(10)), Up::Ignored { seen: 1 });
    assert_eq!(viewer.member_up(OWNER, &run, true, ms(10)), Up::New);
    assert!(matches!(viewer.apply(OWNER, range, ms(20)), Applied::Applied { .. }));
    assert_eq!(told(&mut viewer, ms(20)), ["+a", "+b"]);
}

#[test]
fn a_number_given_to_another_node_frees_the_first() {
    let (_, mut viewer) = pair();
    assert_eq!(viewer.member_up(OWNER, &replica("newcomer", 1), false, ms(10)), Up::New);
    assert_eq!(told(&mut viewer, ms(10)), ["-a", "-b"]);
    assert_eq!(
        viewer.member_up(NodeIx(2), &replica("owner", 1), false, ms(10)),
        Up::Ignored { seen: 1 }
    );
}

#[test]
fn fetching_anew_tells_only_the_difference() {
    let (mut owner, mut viewer) = pair();
    owner.track(&topic(0), "c", b"{}", ms(10)).unwrap();
    viewer.saw_head(OWNER, 1, owner.head(), ms(10));
    while !viewer.refetch(OWNER, ms(10)) {}
    assert!(viewer.list(&topic(0)).is_empty());
    assert_eq!(viewer.told(&topic(0)).1.len(), 2);
    let position = viewer.position(OWNER).unwrap();
    assert_eq!((position.v, position.checksum, position.visible), (0, 0, false));
    assert!(told(&mut viewer, ms(10)).is_empty());
    pull((&mut viewer, OWNER), (&owner, NodeIx::SELF), 60, ms(11));
    assert_eq!(told(&mut viewer, ms(20)), ["+c"]);
    assert_eq!(viewer.list(&topic(0)).len(), 3);
    // One that never comes back is gone after the timeout, or when it is down.
    while !viewer.refetch(OWNER, ms(30)) {}
    assert!(told(&mut viewer, ms(30)).is_empty());
    viewer.member_down(OWNER, 1, ms(31));
    assert_eq!(told(&mut viewer, ms(40)), ["-a", "-b", "-c"]);
}

#[test]
fn what_cannot_be_fetched_anew_is_told_as_gone_after_a_second() {
    let (_, mut viewer) = pair();
    while !viewer.refetch(OWNER, ms(30)) {}
    assert!(told(&mut viewer, ms(1029)).is_empty());
    assert_eq!(told(&mut viewer, ms(1030)), ["-a", "-b"]);
}

#[test]
fn changes_between_the_slices_of_a_mass_leave_are_not_lost() {
    let mut owner = owner(ring(9));
    let track = |n: u32| owner.track(&topic(0), &format!("{n}"), b"{}", T0).unwrap();
    let ids: Vec<_> = (0..60).map(track).collect();
    let mut viewer = viewer("viewer", Config { diff_events_max: 3, ..ring(9) });
    pull((&mut viewer, OWNER), (&owner, NodeIx::SELF), 10_000, T0);
    let mut observer = Observer::new(&mut viewer, &topic(0), T0);
    let mut slice = |viewer: &mut Shard, now| {
        viewer.handle_timeout(now);
        let events = std::iter::from_fn(|| viewer.poll_event()).collect();
        dispatch(events, [&mut observer]);
        observer.assert_told(viewer);
        observer.contents().len()
    };
    viewer.member_down(OWNER, 1, ms(10));
    let after_down = slice(&mut viewer, ms(10));
    assert!((1..60).contains(&after_down), "slices are too large for this test");
    // The last members of the topic take the places of the first.
    for (id, at) in ids.iter().zip(11..) {
        assert!(owner.untrack(*id, ms(at)));
        pull((&mut viewer, OWNER), (&owner, NodeIx::SELF), 10_000, ms(at));
        if at > 20 {
            break;
        }
        slice(&mut viewer, ms(at));
    }
    while viewer.poll_timeout().is_some_and(|at| at <= ms(99)) {
        slice(&mut viewer, ms(99));
    }
    assert_eq!(slice(&mut viewer, ms(99)), 0);
}

#[test]
fn restarts_leave_nothing_behind() {
    let mut viewer = Shard::new(Config::default(), 0, replica("viewer", 1));
    for incarnation in 1..200 {
        let run = replica("owner", incarnation);
        viewer.member_up(OWNER, &run, true, T0);
        let mut owner = Shard::new(Config::default(), 0, run);
        owner.track(&topic(0), "a", b"{}", T0).unwrap();
        pull((&mut viewer, OWNER), (&owner, NodeIx::SELF), 10_000, T0);
        assert_eq!(viewer.list(&topic(0)).len(), 1);
    }
    let mut clock = crate::VClock::new();
    viewer.clock(&mut clock);
    assert_eq!(clock.iter().count(), 1);
}

/// Lets a shard do all that is due a call at a time, and returns the effects of each call.
fn steps(shard: &mut Shard, now: Time) -> Vec<Vec<Event>> {
    let mut steps = vec![std::iter::from_fn(|| shard.poll_event()).collect()];
    while shard.poll_timeout().is_some_and(|at| at <= now) {
        shard.handle_timeout(now);
        steps.push(std::iter::from_fn(|| shard.poll_event()).collect());
    }
    steps
}

#[test]
fn a_large_node_that_is_forgotten_is_gone_at_once_and_freed_little_by_little() {
    const ENTRIES: usize = 5000;
    let mut owner = owner(ring(1));
    for n in 0..ENTRIES {
        owner.track(&topic(u8::try_from(n % 7).unwrap()), &format!("{n}"), b"{}", T0).unwrap();
    }
    let mut viewer = viewer("viewer", ring(1));
    viewer.observe(&topic(0), T0);
    pull((&mut viewer, OWNER), (&owner, NodeIx::SELF), 30_000, T0);
    let mine = viewer.track(&topic(0), "0", b"{}", T0).unwrap();
    let before = told(&mut viewer, T0).len();
    assert_eq!(before, viewer.list(&topic(0)).len());
    viewer.member_forget(OWNER, 1, ms(10));
    assert_eq!(viewer.position(OWNER), None);
    assert_eq!((viewer.count(&topic(0)).entries, viewer.count(&topic(0)).keys), (1, 1));
    assert_eq!(viewer.topics("", None).count(), 1);
    assert_eq!(viewer.told(&topic(0)).1.len(), before);
    // Its number can be given away meanwhile.
    assert_eq!(viewer.member_up(OWNER, &replica("other", 1), true, ms(10)), Up::New);
    assert!(viewer.untrack(mine, ms(10)));
    let steps = steps(&mut viewer, ms(10));
    assert!(steps.len() > ENTRIES / 1024, "freed in too few calls");
    let mut leaves = Vec::new();
    for event in steps.into_iter().flatten() {
        if let Event::Diff(diff) = event {
            assert!(diff.joins.is_empty());
            leaves.extend(diff.leaves.into_iter().map(|leave| leave.reference));
        }
    }
    let told = leaves.len();
    leaves.sort_unstable();
    leaves.dedup();
    assert_eq!((told, leaves.len()), (before, before));
    assert_eq!(viewer.poll_timeout(), Some(ms(13)));
    assert!(drain(&mut viewer, ms(5010)).is_empty());
    assert_eq!(viewer.poll_timeout(), None);
}

#[test]
fn what_the_next_run_of_a_large_node_wants_is_not_taken_back() {
    let mut wanted = std::collections::BTreeSet::new();
    let mut note = |events: Vec<Vec<Event>>| {
        for event in events.into_iter().flatten() {
            if let Event::Interest { owner: OWNER, hash, present } = event {
                if present {
                    wanted.insert(hash)
                } else {
                    wanted.remove(&hash)
                };
            }
        }
        wanted.clone()
    };
    let run = |incarnation, hashes: std::ops::Range<u64>| {
        let mut owner = Shard::new(Config::default(), 0, replica("owner", incarnation));
        for hash in hashes {
            owner.acquire_interest(hash, T0);
        }
        owner
    };
    let mut viewer = viewer("viewer", Config::default());
    pull((&mut viewer, OWNER), (&run(1, 1..5000), NodeIx::SELF), 30_000, T0);
    assert_eq!(note(steps(&mut viewer, T0)), (1..5000).collect());
    // The next two runs come before the first is freed.
    viewer.member_up(OWNER, &replica("owner", 2), true, ms(10));
    pull((&mut viewer, OWNER), (&run(2, 4000..9000), NodeIx::SELF), 30_000, ms(10));
    viewer.member_up(OWNER, &replica("owner", 3), true, ms(10));
    pull((&mut viewer, OWNER), (&run(3, 4900..5100), NodeIx::SELF), 30_000, ms(10));
    assert_eq!(note(steps(&mut viewer, ms(10))), (4900..5100).collect());
}

#[test]
fn this_node_is_no_member_of_its_own_list() {
    let (_, mut viewer) = pair();
    let me = replica("viewer", 5);
    assert_eq!(viewer.member_up(NodeIx::SELF, &me, true, T0), Up::Ignored { seen: 1 });
    viewer.track(&topic(0), "me", b"{}", T0).unwrap();
    viewer.member_down(NodeIx::SELF, 9, T0);
    viewer.member_forget(NodeIx::SELF, 9, T0);
    viewer.refetch(NodeIx::SELF, T0);
    assert_eq!(viewer.list(&topic(0)).len(), 3);
}

#[test]
fn a_node_that_goes_down_again_and_again_is_shown_ever_later_but_hidden_at_once() {
    let (owner, mut viewer) = pair();
    let mut now = 10;
    for held in [0, 0, 1_000, 2_000, 4_000, 5_000, 5_000] {
        viewer.member_down(OWNER, 1, ms(now));
        assert!(viewer.list(&topic(0)).is_empty());
        assert_eq!(told(&mut viewer, ms(now + 5)), ["-a", "-b"], "at {now}");
        now += 1_000;
        viewer.member_up(OWNER, &replica("owner", 1), true, ms(now));
        viewer.saw_head(OWNER, 1, owner.head(), ms(now));
        if held > 0 {
            assert_eq!(viewer.poll_timeout(), Some(ms(now + held)));
            assert!(told(&mut viewer, ms(now + held - 1)).is_empty());
            assert!(viewer.list(&topic(0)).is_empty());
        }
        now += held + 10;
        assert_eq!(told(&mut viewer, ms(now)), ["+a", "+b"], "at {now}");
    }
    // Down while it is held: nobody has heard of its return.
    viewer.member_down(OWNER, 1, ms(now));
    assert_eq!(told(&mut viewer, ms(now + 10)), ["-a", "-b"]);
    viewer.member_up(OWNER, &replica("owner", 1), true, ms(now + 20));
    viewer.member_down(OWNER, 1, ms(now + 40));
    assert!(told(&mut viewer, ms(now + 20_000)).is_empty());
    // A minute of rest, and all is forgiven.
    viewer.member_up(OWNER, &replica("owner", 1), true, ms(now + 61_000));
    viewer.saw_head(OWNER, 1, owner.head(), ms(now + 61_000));
    assert_eq!(told(&mut viewer, ms(now + 61_000)), ["+a", "+b"]);
}

/// Two minutes, down and up every half second.
#[test]
fn a_storm_of_flaps_is_told_twice() {
    let (owner, mut viewer) = pair();
    let mut changes = 0;
    for flap in 1..=120 {
        viewer.member_down(OWNER, 1, ms(flap * 1_000));
        changes += told(&mut viewer, ms(flap * 1_000 + 400)).len();
        viewer.member_up(OWNER, &replica("owner", 1), true, ms(flap * 1_000 + 500));
        viewer.saw_head(OWNER, 1, owner.head(), ms(flap * 1_000 + 500));
        changes += told(&mut viewer, ms(flap * 1_000 + 900)).len();
    }
    // Both went and came twice, and went once more.
    assert_eq!(changes, 10);
    assert_eq!(told(&mut viewer, ms(126_000)), ["+a", "+b"]);
}

/// What it says while it is held still has to be caught up with.
#[test]
fn a_node_that_is_held_is_not_shown_with_less_than_it_spoke_of() {
    let (mut owner, mut viewer) = pair();
    for at in [10, 20, 30] {
        viewer.member_down(OWNER, 1, ms(at));
        viewer.member_up(OWNER, &replica("owner", 1), true, ms(at + 5));
        viewer.saw_head(OWNER, 1, owner.head(), ms(at + 5));
    }
    told(&mut viewer, ms(100));
    assert_eq!(viewer.poll_timeout(), Some(ms(1_035)));
    owner.track(&topic(0), "c", b"{}", ms(900)).unwrap();
    viewer.saw_head(OWNER, 1, owner.head(), ms(900));
    // The deadlines of both, the later of which is that of the hold.
    assert_eq!(viewer.poll_timeout(), Some(ms(1_035)));
    pull((&mut viewer, OWNER), (&owner, NodeIx::SELF), 10_000, ms(950));
    assert!(viewer.list(&topic(0)).is_empty());
    assert_eq!(told(&mut viewer, ms(1_035)), ["+a", "+b", "+c"]);
    assert_eq!(viewer.list(&topic(0)).len(), 3);
}

#[test]
fn a_large_replica_is_emptied_in_pieces_and_nothing_shows_between_them() {
    let (mut owner, mut viewer) = pair();
    for n in 0..7 {
        owner.track(&topic(0), &format!("k{n}"), b"{}", T0).unwrap();
    }
    pull((&mut viewer, OWNER), (&owner, NodeIx::SELF), 10_000, T0);
    told(&mut viewer, ms(10));
    let mut pieces = 1;
    while !viewer.refetch(OWNER, ms(20)) {
        pieces += 1;
        let at = viewer.position(OWNER).unwrap();
        assert_eq!((at.v, at.is_current(), at.visible), (0, false, false));
        assert_eq!(viewer.serve(OWNER, 0, 10_000), None, "it relays nothing of it");
        assert!(told(&mut viewer, ms(20)).is_empty());
    }
    assert!(pieces > 3);
    pull((&mut viewer, OWNER), (&owner, NodeIx::SELF), 10_000, ms(30));
    assert!(told(&mut viewer, ms(40)).is_empty(), "all is as it was");
    // Who does not wait for it gets the same.
    assert!(!viewer.refetch(OWNER, ms(50)));
    pull((&mut viewer, OWNER), (&owner, NodeIx::SELF), 10_000, ms(60));
    assert_eq!(contents(&viewer, &topic(0)), contents(&owner, &topic(0)));
    assert_eq!(viewer.position(OWNER).unwrap().checksum, owner.checksum());
    assert!(told(&mut viewer, ms(70)).is_empty());
}

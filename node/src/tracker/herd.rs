//! A crowd that joins one topic: what rendering its state costs.

use std::collections::HashMap;

use super::*;

/// Twenty thousand in a second: each is told all who were told of so far and itself, and of each version
/// only one rendering is made, which they share.
#[test]
fn a_herd_of_joiners_costs_one_rendering_for_each_version() {
    let me = Replica { name: "n".parse().expect("a name"), incarnation: 1 };
    let mut seat = Seat {
        shard: Shard::new(presence::Config::default(), 0, me),
        states: HashMap::default(),
        diffs: VecDeque::new(),
        counts: VecDeque::new(),
    };
    let topic: Topic = "room".parse().expect("a topic");
    let herd: u64 = 20_000;
    // Held on to, so that no two of them are ever in one place.
    let mut renderings: HashMap<*const u8, (u64, Bytes)> = HashMap::new();
    for user in 0..herd {
        let now = Time::from_micros(1_000_000 + user * 50);
        if seat.shard.poll_timeout().is_some_and(|at| at <= now) {
            seat.shard.handle_timeout(now);
            while seat.shard.poll_event().is_some() {}
        }
        let key = format!("u{user}");
        let told = seat.begin_changes(&topic, Some((&key, b"{}")), now);
        let (_, State { version, payload, own, .. }) = told.expect("there is room");
        assert!(String::from_utf8_lossy(&own).contains(&key), "it is told of itself");
        if user >= STATE_KEPT_MIN as u64 * 10 {
            renderings.entry(payload.as_ptr()).or_insert((version, payload));
        }
    }
    let mut versions: Vec<u64> = renderings.values().map(|(version, _)| *version).collect();
    versions.sort_unstable();
    let made = versions.len();
    versions.dedup();
    assert_eq!(made, versions.len(), "a version is rendered once");
    assert!(made < 100, "{made} versions in a second");
}

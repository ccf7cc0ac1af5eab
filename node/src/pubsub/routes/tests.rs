//! Routes against a naive model, and under threads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use proptest::prelude::*;

use super::*;

fn peers(routes: &Routes, hash: u64, feed_shard: u16) -> Vec<u16> {
    let mut peers = Vec::new();
    routes.peers(hash, feed_shard, |peer| peers.push(peer.0));
    peers
}

#[test]
fn a_broadcast_goes_to_interested_and_flooded_peers_once_each_in_order() {
    let routes = Routes::new(4);
    for peer in [70, 3, 1, 2000, 5] {
        routes.link(NodeIx(peer), true);
    }
    for peer in [2000, 3, 70] {
        routes.interest(9, NodeIx(peer), true);
    }
    routes.flood(2, NodeIx(1), true);
    routes.flood(2, NodeIx(3), true);
    routes.flood(3, NodeIx(5), true);

    assert_eq!(peers(&routes, 9, 2), [1, 3, 70, 2000]);
    assert_eq!(peers(&routes, 9, 0), [3, 70, 2000], "flooded in another shard only");
    assert_eq!(peers(&routes, 8, 0), [0; 0], "nobody is interested");
}

#[test]
fn a_peer_without_a_link_gets_nothing() {
    let routes = Routes::new(1);
    routes.interest(9, NodeIx(1), true);
    routes.flood(0, NodeIx(1), true);
    assert!(!routes.any_known());
    assert_eq!(peers(&routes, 9, 0), [0; 0]);

    routes.link(NodeIx(1), true);
    routes.link(NodeIx(1), true);
    assert!(routes.any_known());
    assert_eq!(peers(&routes, 9, 0), [1]);

    routes.link(NodeIx(1), false);
    assert!(routes.any_known());
    assert_eq!(peers(&routes, 9, 0), [0; 0]);
    assert_eq!(routes.peers(9, 0, |_| ()), 1, "it is missed");
    assert_eq!(routes.peers(8, 0, |_| ()), 0, "flooded, but not known to want it");

    routes.forget(NodeIx(1));
    assert!(!routes.any_known());
}

#[test]
fn every_peer_number_has_its_place() {
    let routes = Routes::new(1);
    for peer in [0, 63, 64, 1023, 1024, u16::MAX] {
        routes.link(NodeIx(peer), true);
        routes.interest(1, NodeIx(peer), true);
        routes.flood(0, NodeIx(peer), true);
    }
    assert_eq!(peers(&routes, 1, 0), [0, 63, 64, 1023, 1024, u16::MAX]);
    routes.flood(9, NodeIx(1), true);
    assert_eq!(peers(&routes, 2, 9), [0; 0], "there is no feed shard 9");
}

#[test]
fn a_forgotten_peer_leaves_nothing_behind() {
    let routes = Routes::new(2);
    for hash in 1..=1000 {
        routes.interest(hash << 32, NodeIx(1), true);
    }
    routes.interest(1 << 32, NodeIx(2), true);
    routes.link(NodeIx(1), true);
    routes.flood(1, NodeIx(1), true);
    assert_eq!(routes.topics(), 1000);

    routes.forget(NodeIx(1));
    assert_eq!(routes.topics(), 1, "the other peer's");
    routes.link(NodeIx(1), true);
    assert_eq!(peers(&routes, 1 << 32, 1), [0; 0]);
}

#[test]
fn interest_that_is_taken_back_frees_its_memory() {
    let routes = Routes::new(1);
    let hashes = || (1..=100_000_u64).map(|hash| hash.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    hashes().for_each(|hash| routes.interest(hash, NodeIx(1), true));
    hashes().for_each(|hash| routes.interest(hash, NodeIx(1), false));
    assert_eq!(routes.topics(), 0);
    let room: usize = routes.interested.iter().map(|shard| shard.read().unwrap().capacity()).sum();
    assert!(room <= SHARDS * TOPICS_KEPT * 4, "room for {room}");
}

/// A peer goes to and fro between "flooded" and "interested", in the order the type asks for.
/// No broadcast of the meantime may miss it.
#[test]
fn no_broadcast_slips_between_flood_and_interest() {
    let routes = Routes::new(1);
    let (hash, peer) = (42, NodeIx(130));
    routes.link(peer, true);
    routes.flood(0, peer, true);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0_u64;
            while !done.load(Relaxed) || reads == 0 {
                assert_eq!(peers(&routes, hash, 0), [peer.0]);
                reads += 1;
            }
        });
        for _ in 0..300_000 {
            routes.interest(hash, peer, true);
            routes.flood(0, peer, false);
            routes.flood(0, peer, true);
            routes.interest(hash, peer, false);
        }
        done.store(true, Relaxed);
        reader.join().unwrap();
    });
}

#[derive(Clone, Debug)]
enum Change {
    Interest { hash: u64, peer: u16, present: bool },
    Flood { feed_shard: u16, peer: u16, on: bool },
    Link { peer: u16, up: bool },
    Forget { peer: u16 },
}

fn a_peer() -> impl Strategy<Value = u16> {
    prop_oneof![0..4_u16, 62..66_u16, 1022..1026_u16]
}

fn a_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (1..6_u64, a_peer(), any::<bool>())
            .prop_map(|(hash, peer, present)| Change::Interest { hash, peer, present }),
        3 => (0..3_u16, a_peer(), any::<bool>())
            .prop_map(|(feed_shard, peer, on)| Change::Flood { feed_shard, peer, on }),
        3 => (a_peer(), any::<bool>()).prop_map(|(peer, up)| Change::Link { peer, up }),
        1 => a_peer().prop_map(|peer| Change::Forget { peer }),
    ]
}

/// The same, in the plainest words.
#[derive(Default)]
struct Model {
    interested: BTreeMap<u64, BTreeSet<u16>>,
    flooded: BTreeMap<u16, BTreeSet<u16>>,
    linked: BTreeSet<u16>,
    unlinked: BTreeSet<u16>,
}

fn toggle(set: &mut BTreeSet<u16>, peer: u16, on: bool) {
    if on {
        set.insert(peer);
    } else {
        set.remove(&peer);
    }
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match *change {
            Change::Interest { hash, peer, present } => {
                toggle(self.interested.entry(hash).or_default(), peer, present);
            }
            Change::Flood { feed_shard, peer, on } => {
                toggle(self.flooded.entry(feed_shard).or_default(), peer, on);
            }
            Change::Link { peer, up } => {
                toggle(&mut self.linked, peer, up);
                toggle(&mut self.unlinked, peer, !up);
            }
            Change::Forget { peer } => {
                let sets = self.interested.values_mut().chain(self.flooded.values_mut());
                sets.chain([&mut self.linked, &mut self.unlinked])
                    .for_each(|set| toggle(set, peer, false));
            }
        }
    }

    fn peers(&self, hash: u64, feed_shard: u16) -> Vec<u16> {
        let wants = |peer: &&u16| {
            self.interested.get(&hash).is_some_and(|set| set.contains(*peer))
                || self.flooded.get(&feed_shard).is_some_and(|set| set.contains(*peer))
        };
        self.linked.iter().filter(wants).copied().collect()
    }
}

proptest! {
    #[test]
    fn routes_agree_with_a_naive_model(changes in prop::collection::vec(a_change(), 0..80)) {
        let routes = Routes::new(3);
        let mut model = Model::default();
        for change in &changes {
            model.apply(change);
            match *change {
                Change::Interest { hash, peer, present } => {
                    routes.interest(hash, NodeIx(peer), present);
                }
                Change::Flood { feed_shard, peer, on } => {
                    routes.flood(feed_shard, NodeIx(peer), on);
                }
                Change::Link { peer, up } => routes.link(NodeIx(peer), up),
                Change::Forget { peer } => routes.forget(NodeIx(peer)),
            }
        }
        for (hash, feed_shard) in (1..6).flat_map(|hash| (0..3).map(move |shard| (hash, shard))) {
            prop_assert_eq!(peers(&routes, hash, feed_shard), model.peers(hash, feed_shard));
            let missed = model.interested.get(&hash).map_or(0, |set| set.intersection(&model.unlinked).count());
            prop_assert_eq!(routes.peers(hash, feed_shard, |_| ()) as usize, missed);
        }
        prop_assert_eq!(routes.any_known(), !(model.linked.is_empty() && model.unlinked.is_empty()));
        let topics = model.interested.values().filter(|set| !set.is_empty()).count();
        prop_assert_eq!(routes.topics(), topics);
    }
}

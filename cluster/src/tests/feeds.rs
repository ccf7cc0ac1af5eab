//! Presence between cores.

use super::*;
use crate::wire::{FeedRange, Message};
use presence::{Op, Range, Value};

#[test]
fn what_is_tracked_on_one_node_is_listed_on_the_others() {
    let mut net = Net::together(3, &config());
    net.track(0, "room", "ann");
    net.track(2, "room", "bob");
    net.pump();
    for node in 0..3 {
        assert_eq!(net.keys(node, "room"), ["ann", "bob"]);
    }
}

#[test]
fn changes_that_a_full_lane_holds_up_share_one_range() {
    let mut net = Net::together(2, &config());
    let before = net.cores[0].cluster.stats().ranges_sent;
    net.shut(0, 1);
    for user in 0..50 {
        net.track(0, "room", &format!("u{user}"));
    }
    net.pass(Duration::from_millis(10));
    net.shut.clear();
    net.pump();
    assert_eq!(net.keys(1, "room").len(), 50);
    assert_eq!(net.cores[0].cluster.stats().ranges_sent, before + 1);
}

/// A driver sleeps until the deadline: one in the past would make it spin.
#[test]
fn a_lane_without_room_leaves_no_deadline_in_the_past() {
    let mut net = Net::together(2, &config());
    net.shut(0, 1);
    net.track(0, "room", "ann");
    net.track(0, "another", "ann");
    let now = net.now;
    let core = &mut net.cores[0];
    core.cluster.handle_timeout(&mut core.shards, now);
    assert!(core.cluster.poll_timeout().is_some_and(|at| at > now));
}

#[test]
fn a_peer_that_comes_back_gets_only_what_it_missed() {
    let mut net = Net::together(2, &config());
    for user in 0..500 {
        net.track(0, "room", &format!("u{user}"));
    }
    net.pass(Duration::from_millis(100));
    net.unlink(0, 1);
    net.track(0, "room", "last");
    net.pass(Duration::from_millis(100));
    let before = net.cores[0].cluster.stats().ranges_sent;
    net.link(0, 1);
    net.pass(Duration::from_millis(100));
    assert_eq!(net.keys(1, "room").len(), 501);
    assert_eq!(net.cores[0].cluster.stats().ranges_sent, before + 1);
}

#[test]
fn a_lost_range_is_asked_for_again() {
    let mut net = Net::together(2, &config());
    net.track(0, "room", "ann");
    let (ix, now) = (net.ix(0, 1), net.now);
    let core = &mut net.cores[0];
    let lost = core.cluster.poll_transmit(ix, Lane::FeedLive, 1 << 16, &mut core.shards, now);
    assert!(lost.is_some());
    net.pass(Duration::from_millis(10));
    net.track(0, "room", "bob");
    net.pass(Duration::from_millis(10));
    assert_eq!(net.keys(1, "room"), ["ann", "bob"]);
    assert_eq!(net.cores[1].cluster.stats().nacks_sent, 1);
}

/// Should the code ever lead a replica astray, a digest finds it.
#[test]
fn a_replica_that_went_wrong_is_fetched_anew_after_a_digest() {
    let mut net = Net::together(2, &config());
    net.track(1, "room", "ann");
    net.pass(Duration::from_millis(100));
    let shard = presence::shard_of(topic("room").hash64(), SHARDS);
    let head = net.cores[1].shards.0[usize::from(shard)].head();
    let range = Range {
        incarnation: 10,
        from: head,
        to: head + 1,
        head: head + 1,
        horizon: 0,
        retain: None,
        topics: vec![topic("room")],
        ops: vec![Op::Put {
            slot: 9,
            seq: head + 1,
            born: head + 1,
            value: Value::Presence { topic: 0, kv: (*b"\x05\x00ghost{}").into() },
        }],
    };
    let forged = Message::Range(FeedRange { shard, epoch: 0, ack_now: false, range });
    assert_eq!(net.forge(0, 1, &forged), Ok(()));
    assert_eq!(net.keys(0, "room"), ["ann", "ghost"]);
    net.track(1, "room", "bob");
    net.pass(Duration::from_secs(11));
    assert_eq!(net.keys(0, "room"), ["ann", "bob"]);
    assert_eq!(net.cores[0].cluster.stats().refetches, 1);
    let members = net.members(0);
    assert_eq!(members[0].agrees, Some(true));
}

#[test]
fn a_cluster_at_rest_sends_no_range_and_few_digests() {
    let mut net = Net::together(3, &config());
    net.track(0, "room", "ann");
    net.pass(Duration::from_secs(6));
    let before: Vec<_> = net.cores.iter().map(|core| core.cluster.stats()).collect();
    net.pass(Duration::from_secs(60));
    for (core, before) in net.cores.iter().zip(before) {
        assert_eq!(core.cluster.stats(), before);
    }
}

//! Feeds by way of a third node.

use super::*;
use crate::wire::{FeedRange, Message, Pull, Relayed};
use presence::Range;

/// 0 and 2 have lost their link; 1 has one to both. Membership still says that all are alive.
fn line(nodes: usize) -> Net {
    let mut net = Net::together(nodes, &config());
    net.track(0, "room", "ann");
    net.pass(Duration::from_secs(1));
    net.unlink(0, 2);
    net
}

fn via(net: &mut Net, node: usize, of: usize) -> Option<String> {
    let name = replica(of).name;
    let member = net.members(node).into_iter().find(|member| member.replica.name == name)?;
    Some(member.via?.as_str().to_owned())
}

fn stale(net: &mut Net, node: usize, of: usize) -> Duration {
    let name = replica(of).name;
    let members = net.members(node);
    members.iter().find(|member| member.replica.name == name).expect("a member").stale
}

#[test]
fn a_link_missing_for_a_second_is_gone_round() {
    let mut net = line(3);
    net.track(0, "room", "bob");
    net.pass(Duration::from_millis(990));
    assert_eq!(net.keys(2, "room"), ["ann"]);
    // It was heard last 200 ms before the link broke.
    assert_eq!(stale(&mut net, 2, 0), Duration::from_millis(1190));
    net.pass(Duration::from_millis(20));
    assert_eq!(net.keys(2, "room"), ["ann", "bob"]);
    assert_eq!(via(&mut net, 2, 0).as_deref(), Some("n1"));
    assert_eq!(stale(&mut net, 2, 0), Duration::ZERO);
    // From here on without delay, in both directions.
    net.track(0, "room", "cyn");
    net.track(2, "room", "dan");
    net.pump();
    for node in 0..3 {
        assert_eq!(net.keys(node, "room"), ["ann", "bob", "cyn", "dan"], "n{node}");
    }
}

#[test]
fn the_relay_ends_when_the_link_is_back() {
    let mut net = line(3);
    net.pass(Duration::from_secs(2));
    net.track(0, "room", "bob");
    net.pump();
    let relayed = net.cores[1].cluster.stats().ranges_relayed;
    assert!(relayed >= 1);
    net.link(0, 2);
    net.pump();
    assert_eq!(via(&mut net, 2, 0), None);
    let (sent, applied) =
        (net.cores[0].cluster.stats().ranges_sent, net.cores[2].cluster.stats().ranges_applied);
    net.track(0, "room", "cyn");
    net.pass(Duration::from_millis(10));
    assert_eq!(net.keys(2, "room"), ["ann", "bob", "cyn"]);
    // One to each peer, and none besides.
    assert_eq!(net.cores[0].cluster.stats().ranges_sent, sent + 2);
    assert_eq!(net.cores[2].cluster.stats().ranges_applied, applied + 1);
    assert_eq!(net.cores[1].cluster.stats().ranges_relayed, relayed);
    for core in &net.cores {
        assert_eq!(
            (core.cluster.stats().ranges_duplicate, core.cluster.stats().nacks_sent),
            (0, 0)
        );
    }
}

#[test]
fn a_relay_that_goes_is_replaced_by_another() {
    let mut net = line(5);
    net.pass(Duration::from_millis(1_010));
    let first = via(&mut net, 2, 0).expect("a relay");
    let relay = first[1..].parse().expect("a number");
    // It loses what it relays, then the other link too.
    net.unlink(0, relay);
    net.track(0, "room", "bob");
    net.pass(Duration::from_millis(300));
    let second = via(&mut net, 2, 0).expect("a relay");
    assert_ne!(second, first);
    assert_eq!(net.keys(2, "room"), ["ann", "bob"]);
    let relay = second[1..].parse().expect("a number");
    net.unlink(2, relay);
    net.track(0, "room", "cyn");
    net.pass(Duration::from_millis(600));
    assert!(via(&mut net, 2, 0).is_some_and(|third| third != second));
    assert_eq!(net.keys(2, "room"), ["ann", "bob", "cyn"]);
}

#[test]
fn a_node_that_is_down_is_neither_relayed_nor_pulled() {
    let mut net = line(3);
    net.pass(Duration::from_millis(1_100));
    net.shut(0, 1);
    net.shut(1, 0);
    net.pass(Duration::from_secs(6));
    assert_eq!(net.keys(2, "room"), Vec::<String>::new());
    assert_eq!(via(&mut net, 2, 0), None);
    assert!(stale(&mut net, 2, 0) > Duration::from_secs(2));
    let pull = Pull { id: 77, owner: "n0".to_owned(), incarnation: 10, positions: vec![0, 0] };
    assert_eq!(net.forge(1, 2, &Message::Pull(pull)), Ok(()));
    let relayed = net.cores[1].cluster.stats().ranges_relayed;
    net.pass(Duration::from_secs(1));
    assert_eq!(net.cores[1].cluster.stats().ranges_relayed, relayed);
}

#[test]
fn without_a_peer_that_reaches_it_nothing_is_lost_and_little_asked() {
    let mut net = line(3);
    net.unlink(0, 1);
    net.pass(Duration::from_secs(1));
    net.track(0, "room", "bob");
    net.pass(Duration::from_secs(1));
    assert_eq!(net.keys(2, "room"), ["ann"]);
    assert!(net.cores[2].cluster.pulls < 10);
    assert_eq!(via(&mut net, 2, 0), None);
    assert!(stale(&mut net, 2, 0) > Duration::from_secs(1));
    net.link(0, 1);
    net.pass(Duration::from_secs(3));
    assert_eq!(net.keys(2, "room"), ["ann", "bob"]);
}

/// What was not asked for, or is asked for no more, changes nothing.
#[test]
fn relayed_ranges_that_nobody_pulled_are_ignored() {
    let mut net = line(3);
    let range = Range {
        incarnation: 10,
        from: 0,
        to: 9,
        head: 9,
        horizon: 0,
        retain: None,
        topics: Vec::new(),
        ops: Vec::new(),
    };
    let feed = FeedRange { shard: 0, epoch: 0, ack_now: false, range };
    for pull in [0, 1, 7] {
        let forged = Message::Relayed(Relayed { pull, feed: feed.clone() });
        assert_eq!(net.forge(2, 1, &forged), Ok(()));
    }
    let feed = FeedRange { shard: SHARDS, ..feed };
    let forged = Message::Relayed(Relayed { pull: 1, feed });
    assert_eq!(net.forge(2, 1, &forged), Err(WireError::Shards { theirs: 3, ours: SHARDS }));
    let pull = Pull { id: 1, owner: "n0".to_owned(), incarnation: 10, positions: vec![0] };
    let refused = net.forge(2, 1, &Message::Pull(pull));
    assert_eq!(refused, Err(WireError::Shards { theirs: 1, ours: SHARDS }));
    net.pass(Duration::from_secs(2));
    assert_eq!(net.keys(2, "room"), ["ann"]);
}

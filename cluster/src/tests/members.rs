//! Nodes that come, go, and come back.

use super::*;
use crate::{
    Down,
    wire::{Identity, MemberRecord},
};

#[test]
fn linked_nodes_become_members_and_are_flooded_until_their_interest_is_known() {
    let mut net = Net::apart(2, &config());
    net.link(0, 1);
    let ix = net.ix(0, 1);
    let floods = |net: &mut Net| {
        let events = net.events(0).into_iter();
        events
            .filter_map(|event| {
                let Event::Flood { node, shard, on } = event else { return None };
                (node == ix).then_some((shard, on))
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(floods(&mut net), [(0, true), (1, true)]);
    assert!(!net.cores[0].cluster.caught_up(ix));
    net.pump();
    assert_eq!(floods(&mut net), [(0, false), (1, false)]);
    assert!(net.cores[0].cluster.caught_up(ix));
    let members = net.members(0);
    assert_eq!(members.len(), 1);
    assert!(members[0].up && members[0].linked && members[0].lag == 0);
    assert_eq!(members[0].address, "10.0.0.1:4400".parse().ok());
}

#[test]
fn a_peer_is_flooded_with_a_shard_until_its_feed_is_at_the_head_that_it_spoke_of() {
    let mut net = Net::apart(2, &config());
    net.track(1, "room", "ann");
    let full = presence::shard_of(topic("room").hash64(), SHARDS);
    net.shut.extend([(1, 0, Lane::FeedLive), (1, 0, Lane::FeedBulk)]);
    net.link(0, 1);
    net.pass(Duration::from_secs(3));
    let ended = |net: &mut Net| -> Vec<u16> {
        let events = net.events(0).into_iter();
        let ended = events.filter_map(|event| {
            let Event::Flood { shard, on: false, .. } = event else { return None };
            Some(shard)
        });
        ended.collect()
    };
    assert_eq!(ended(&mut net), [1 - full], "its first frame has come, and nothing of the feed");
    net.shut.clear();
    net.pass(Duration::from_millis(10));
    assert_eq!(ended(&mut net), [full]);
}

#[test]
fn a_goodbye_hides_at_once_and_the_end_of_its_link_forgets() {
    let mut net = Net::together(3, &config());
    net.track(1, "room", "ann");
    net.pass(Duration::from_millis(10));
    assert_eq!(net.keys(0, "room"), ["ann"]);
    let (ix, now) = (net.ix(0, 1), net.now);
    net.cores[1].cluster.leave(Duration::ZERO, now);
    net.pump();
    assert_eq!(net.keys(0, "room"), Vec::<String>::new());
    let down = Event::MemberDown { node: ix, replica: replica(1), why: Down::Left };
    assert!(net.events(0).contains(&down));
    net.unlink(0, 1);
    net.unlink(1, 2);
    let name = replica(1).name;
    assert!(net.events(0).contains(&Event::Forgotten { node: ix, name }));
    // Nobody dials it again, whatever is still told of it.
    net.pass(Duration::from_secs(10));
    assert_eq!(net.cores[0].cluster.up().count(), 1);
    let dialled = net.events(0).into_iter().any(|event| matches!(event, Event::Keep(_)));
    assert!(!dialled);
}

/// It goes as soon as it has come, before membership here knows of it, and others still tell that it lives.
#[test]
fn late_gossip_does_not_bring_back_who_said_goodbye() {
    let mut net = Net::apart(3, &config());
    net.link(1, 2);
    net.pass(Duration::from_secs(1));
    net.link(0, 1);
    net.forge(0, 1, &Message::Leave(0)).expect("a goodbye is sound");
    net.link(0, 2);
    net.shut(1, 0);
    net.pass(Duration::from_millis(500));
    let up: Vec<_> = net.cores[0].cluster.up().cloned().collect();
    assert_eq!(up, [replica(2)]);
}

/// A machine is replaced by one of another name at the same address.
#[test]
fn an_address_is_kept_as_long_as_any_node_has_it() {
    let settings = Config { forget_after: Duration::from_secs(60), ..config() };
    let mut net = Net::together(2, &settings);
    let address = "10.0.0.1:4400".parse().expect("an address");
    net.unlink(0, 1);
    net.pass(Duration::from_secs(10));
    let heir = Replica { name: "heir".parse().expect("a name"), incarnation: 10 };
    let (core, now) = (&mut net.cores[0], net.now);
    let ix = core.cluster.member_up(&heir, Some(address), true, &mut core.shards, now);
    let (kept, gone) = (Event::Keep(address), Event::Unkeep(address));
    let dialled = |net: &mut Net| {
        let events = net.events(0).into_iter();
        events.filter_map(|event| (event == kept || event == gone).then_some(event == kept)).last()
    };
    assert_eq!(dialled(&mut net), Some(true));
    net.pass(Duration::from_secs(60));
    let known: Vec<_> = net.members(0).into_iter().map(|member| member.replica.name).collect();
    assert_eq!(known, [heir.name], "the former one is forgotten");
    assert_eq!(dialled(&mut net), None, "the heir is still there");
    // It moves: then nobody is there.
    let core = &mut net.cores[0];
    core.cluster.set_address(ix.expect("there is room"), "10.0.0.9:4400".parse().expect("one"));
    assert_eq!(dialled(&mut net), Some(false));
}

#[test]
fn the_entries_of_a_node_that_says_goodbye_stay_for_their_lease() {
    let mut net = Net::together(3, &config());
    net.track(1, "room", "ann");
    net.pass(Duration::from_millis(100));
    assert!(net.cores[1].cluster.is_known());
    net.cores[1].cluster.drain();
    net.pump();
    let peer = |net: &mut Net, at| net.members(at).into_iter().find(|m| m.replica == replica(1));
    assert!(peer(&mut net, 0).is_some_and(|member| member.draining && member.up));
    let now = net.now;
    net.cores[1].cluster.leave(Duration::from_secs(5), now);
    net.pump();
    net.unlink(0, 1);
    net.unlink(1, 2);
    net.pass(Duration::from_millis(4900));
    assert!(peer(&mut net, 0).is_none());
    assert_eq!(
        (net.keys(0, "room"), net.keys(2, "room")),
        (vec!["ann".into()], vec!["ann".into()])
    );
    net.pass(Duration::from_millis(200));
    assert_eq!((net.keys(0, "room").len(), net.keys(2, "room").len()), (0, 0));
}

/// What a node knows of those that are down says nothing of what it lists.
#[test]
fn nodes_agree_when_they_list_the_same() {
    let agree = |net: &mut Net| -> Vec<Option<bool>> {
        let nodes = [0, 2];
        let others = |net: &mut Net, at| net.members(at).into_iter().filter(|m| m.up && m.linked);
        nodes
            .into_iter()
            .flat_map(|at| others(net, at).map(|m| m.agrees).collect::<Vec<_>>())
            .collect()
    };
    let mut net = Net::together(3, &config());
    net.track(1, "room", "ann");
    net.pass(Duration::from_secs(30));
    assert!(agree(&mut net).iter().all(|agrees| *agrees == Some(true)));
    // One of them never hears of the last change of a node that crashes.
    net.shut(1, 2);
    net.track(1, "room", "bob");
    net.pump();
    assert_eq!((net.keys(0, "room").len(), net.keys(2, "room").len()), (2, 1));
    net.unlink(0, 1);
    net.unlink(1, 2);
    net.shut(1, 0);
    net.pass(Duration::from_secs(60));
    assert_eq!((net.keys(0, "room").len(), net.keys(2, "room").len()), (0, 0));
    assert_eq!(agree(&mut net), [Some(true), Some(true)]);
}

#[test]
fn a_goodbye_is_not_that_of_the_next_run_which_others_know_first() {
    let mut net = Net::together(3, &config());
    let now = net.now;
    net.cores[1].cluster.leave(Duration::ZERO, now);
    net.pump();
    let next = Replica { incarnation: 11, ..replica(1) };
    let address = "10.0.0.1:4400".parse().expect("an address");
    let identity = Identity::new(next.name.clone(), address, next.incarnation, 0);
    net.forge(0, 2, &Message::Members(vec![MemberRecord { identity, incarnation: 0, state: 0 }]))
        .expect("sound");
    assert!(net.cores[0].cluster.up().any(|up| *up == next));
    net.unlink(0, 1);
    // A link of its own would tell: here it has none, as behind a cut.
    net.pass(Duration::from_millis(200));
    assert!(net.cores[0].cluster.up().any(|up| *up == next), "it is not the one that left");
    assert!(!net.events(0).iter().any(|event| matches!(event, Event::Forgotten { .. })));
}

#[test]
fn a_node_whose_link_ends_before_it_is_a_member_is_down_soon_and_forgotten_later() {
    let settings = Config { forget_after: Duration::from_secs(60), ..config() };
    let mut net = Net::apart(2, &settings);
    net.shut = vec![(0, 1, Lane::Swim), (1, 0, Lane::Swim)];
    net.link(0, 1);
    net.pass(Duration::from_secs(1));
    let ix = net.ix(0, 1);
    net.unlink(0, 1);
    net.pass(Duration::from_millis(2_900));
    assert_eq!(net.cores[0].cluster.up().count(), 1);
    net.pass(Duration::from_millis(100));
    let down = Event::MemberDown { node: ix, replica: replica(1), why: Down::NeverConfirmed };
    assert!(net.events(0).contains(&down));
    net.pass(Duration::from_secs(60));
    let name = replica(1).name;
    assert!(net.events(0).contains(&Event::Forgotten { node: ix, name }));
    assert!(net.members(0).is_empty());
}

#[test]
fn a_member_whose_link_ends_stays_until_membership_says_otherwise() {
    let mut net = Net::together(3, &config());
    net.unlink(0, 1);
    net.pass(Duration::from_secs(1));
    assert_eq!(net.cores[0].cluster.up().count(), 2);
    // Nobody reaches it.
    net.unlink(1, 2);
    net.pass(Duration::from_secs(4));
    assert_eq!(net.cores[0].cluster.up().cloned().collect::<Vec<_>>(), [replica(2)]);
    let why = |event: &Event| matches!(event, Event::MemberDown { why: Down::Unreachable, .. });
    assert!(net.events(0).iter().any(why));
}

#[test]
fn members_beyond_the_limit_are_refused_and_counted() {
    let mut net = Net::apart(3, &Config { members_max: 1, ..config() });
    assert!(net.link(0, 1));
    assert!(!net.link(0, 2));
    assert_eq!(net.cores[0].cluster.stats().members_refused, 1);
    assert_eq!(net.cores[0].cluster.up().count(), 1);
}

#[test]
fn an_earlier_run_is_not_admitted_and_starts_over() {
    let net = Net::together(2, &config());
    let earlier = Replica { incarnation: 9, ..replica(1) };
    assert_eq!(net.cores[0].cluster.admit(&earlier), Err(10));
    assert_eq!(net.cores[0].cluster.admit(&replica(1)), Ok(()));
    assert_eq!(net.cores[0].cluster.admit(&replica(7)), Ok(()));
}

/// Two runs that start over from the same incarnation must not be taken for one.
#[test]
fn an_incarnation_above_another_is_not_just_the_next_one() {
    let mut net = Net::apart(2, &config());
    let seen = 7 << 20 | 5;
    let mut above = |node: usize| net.cores[node].cluster.incarnation_above(seen);
    let (a, b) = (above(0), above(1));
    assert_ne!(a, b);
    assert!([a, b].into_iter().flatten().all(|incarnation| incarnation > seen));
    let now = net.now;
    net.cores[0].cluster.rekey(seen + 1, now);
    assert_eq!(net.cores[0].cluster.incarnation_above(seen), None);
}

#[test]
fn a_node_that_starts_over_under_a_higher_incarnation_keeps_its_clients() {
    let mut net = Net::together(2, &config());
    net.track(1, "room", "ann");
    net.pass(Duration::from_millis(10));
    net.unlink(0, 1);
    let now = net.now;
    let core = &mut net.cores[1];
    for shard in &mut core.shards.0 {
        shard.rekey(77, now);
    }
    core.cluster.rekey(77, now);
    assert!(net.link(0, 1));
    net.pass(Duration::from_secs(2));
    assert_eq!(net.keys(0, "room"), ["ann"]);
    let up: Vec<u64> = net.cores[0].cluster.up().map(|replica| replica.incarnation).collect();
    assert_eq!(up, [77]);
}

/// It met nobody yet who knew the run before; now somebody tells of it.
/// The other side of a split has given up all of this side.
#[test]
fn a_newcomer_that_holds_a_linked_member_for_dead_hides_nobody() {
    let mut net = Net::apart(3, &config());
    net.link(0, 1);
    net.pass(Duration::from_secs(2));
    net.events(0);
    let mut sync = net.sync_from(2);
    sync.members = vec![MemberRecord::down(net.sync_from(1).identity)];
    net.shut(2, 0);
    net.link(0, 2);
    assert_eq!(net.forge(0, 2, &Message::Sync(sync)), Ok(()));
    net.pass(Duration::from_secs(1));
    let is_down = |event: &Event| matches!(event, Event::MemberDown { .. });
    assert!(!net.events(0).iter().any(is_down));
}

#[test]
fn a_linked_run_that_turns_out_to_be_an_earlier_one_is_cut_and_not_admitted_again() {
    let mut net = Net::apart(3, &config());
    net.link(0, 1);
    net.pass(Duration::from_secs(1));
    let ix = net.ix(0, 1);
    let above = net.cores[2].cluster.incarnation_above(99 << 20).expect("it is lower");
    let mut sync = net.sync_from(2);
    let mut other = sync.identity.clone();
    (other.name, other.incarnation) = (replica(1).name, above);
    sync.members = vec![MemberRecord { identity: other, incarnation: 0, state: 0 }];
    net.shut(2, 0);
    net.link(0, 2);
    assert_eq!(net.forge(0, 2, &Message::Sync(sync)), Ok(()));
    assert!(
        net.events(0).iter().any(|event| matches!(event, Event::Cut { node, .. } if *node == ix))
    );
    assert_eq!(net.cores[0].cluster.admit(&replica(1)), Err(above));
}

#[test]
fn frames_of_a_link_that_was_replaced_are_ignored() {
    let mut net = Net::together(2, &config());
    let (ix, now) = (net.ix(0, 1), net.now);
    let old = net.ids;
    net.link(0, 1);
    net.pump();
    let core = &mut net.cores[0];
    let goodbye = Message::Leave(0).encode();
    assert_eq!(core.cluster.handle_frame(ix, old, &goodbye, &mut core.shards, now), Ok(()));
    // Its end does not end the newer one.
    core.cluster.handle_link_down(ix, old, &mut core.shards, now);
    assert_eq!((core.cluster.up().count(), core.cluster.linked().count()), (1, 1));
}

#[test]
fn an_order_to_disconnect_reaches_all_linked_peers() {
    let mut net = Net::together(3, &config());
    net.cores[0].cluster.disconnect("users:1");
    net.pump();
    let order = Event::Disconnect { socket_id: "users:1".to_owned() };
    assert!(!net.events(0).contains(&order));
    assert!(net.events(1).contains(&order) && net.events(2).contains(&order));
}

#[test]
fn a_peer_that_does_not_read_is_cut_before_its_queue_is_over_the_limit() {
    let mut net = Net::together(2, &Config { control_queue_max: 270, ..config() });
    net.shut(0, 1);
    let is_cut = |event: &Event| matches!(event, Event::Cut { .. });
    for _ in 0..10 {
        net.cores[0].cluster.disconnect("twenty-four bytes, so it");
    }
    assert!(!net.events(0).iter().any(is_cut));
    net.cores[0].cluster.disconnect("twenty-four bytes, so it");
    assert!(net.events(0).iter().any(is_cut));
    assert_eq!(net.cores[1].cluster.up().count(), 1);
}

#[test]
fn membership_packets_that_cannot_leave_are_dropped_and_counted() {
    let mut net = Net::together(2, &Config { swim_queue_max: 3, ..config() });
    net.shut = vec![(0, 1, Lane::Swim)];
    net.pass(Duration::from_secs(3));
    assert!(net.cores[0].cluster.stats().swim_dropped > 0);
    let (ix, now) = (net.ix(0, 1), net.now);
    let core = &mut net.cores[0];
    let mut left = 0;
    while core.cluster.poll_transmit(ix, Lane::Swim, 1 << 16, &mut core.shards, now).is_some() {
        left += 1;
    }
    assert_eq!(left, 3);
}

/// Somebody has told a node that a peer is dead.
fn told_dead(net: &mut Net, node: usize, peer: usize) {
    let now = net.now;
    let core = &mut net.cores[node];
    let identity = core.cluster.membership.active(&replica(peer)).expect("a member").clone();
    core.cluster.membership.handle_records(vec![MemberRecord::down(identity)], now);
    core.cluster.settle_membership(&mut core.shards, now);
}

#[test]
fn a_peer_that_others_take_for_dead_is_asked_before_it_is_hidden() {
    let mut net = Net::together(3, &config());
    net.track(1, "room", "ann");
    net.pass(Duration::from_secs(1));
    told_dead(&mut net, 0, 1);
    for _ in 0..40 {
        net.pass(Duration::from_millis(50));
        assert_eq!(net.keys(0, "room"), ["ann"]);
    }
    // It has denied it by now, so nobody asks any more.
    assert!(net.cores[0].cluster.nodes.iter().all(|(_, node)| node.doubt.is_none()));
    // One that does not answer is hidden after a round trip.
    net.shut(1, 0);
    net.pass(Duration::from_millis(300));
    told_dead(&mut net, 0, 1);
    assert_eq!(net.keys(0, "room"), ["ann"]);
    net.pass(Duration::from_millis(150));
    assert_eq!(net.keys(0, "room"), Vec::<String>::new());
}

#[test]
fn a_newcomer_is_told_of_all_members_in_frames_of_bounded_length() {
    let mut net = Net::apart(2, &config());
    let (now, padding) = (net.now, "x".repeat(110));
    let record = |node: u16| MemberRecord {
        identity: Identity::new(
            format!("member{node}{padding}").parse().expect("a name"),
            format!("[2001:db8:ffff:ffff::{node:x}]:65535").parse().expect("an address"),
            u64::MAX - 1,
            u32::MAX,
        ),
        incarnation: u16::MAX,
        state: 0,
    };
    let core = &mut net.cores[0];
    core.cluster.membership.handle_records((0..1_000).map(record).collect(), now);
    core.cluster.settle_membership(&mut core.shards, now);
    let ix = core.cluster.handle_link_up(1, &replica(1), &mut core.shards, now).expect("a place");
    let mut told = 0;
    while let Some(frame) =
        core.cluster.poll_transmit(ix, Lane::Control, usize::MAX, &mut core.shards, now)
    {
        assert!(frame.len() <= crate::wire::FRAME_LEN_MAX, "{} bytes", frame.len());
        told += match Message::decode(&frame) {
            Ok(Some(Message::Sync(sync))) => sync.members.len(),
            Ok(Some(Message::Members(members))) => members.len(),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(told, 1_000);
}

//! A linked peer that sends what no sound one does: refused or ignored, and nobody else notices.

use proptest::prelude::*;

use super::*;
use crate::wire::{
    Departed, Digest, FeedRange, MemberRecord, Message, Nack, Positions, Pull, PullAnswer, Relayed,
    Sums, Sync,
};
use presence::{Bitmap, Op, Range, Value};

/// Node 0 is attacked by node 1; node 2 is honest.
fn net() -> Net {
    let mut net = Net::together(3, &config());
    for node in 0..3 {
        net.track(node, "room", &format!("u{node}"));
    }
    net.pass(Duration::from_millis(100));
    net
}

fn sync_of(net: &mut Net, node: usize, to: usize) -> Sync {
    let ix = net.ix(node, to);
    let core = &mut net.cores[node];
    core.cluster.sync_for(ix, &mut core.shards)
}

fn range(incarnation: u64, from: u64, to: u64) -> Range {
    let (topics, ops) = (Vec::new(), Vec::new());
    Range { incarnation, from, to, head: to, horizon: 0, retain: None, topics, ops }
}

fn feed(shard: u16, range: Range) -> Message {
    Message::Range(FeedRange { shard, epoch: 0, ack_now: true, range })
}

#[test]
fn garbage_is_refused() {
    let mut net = net();
    let (ix, now) = (net.ix(0, 1), net.now);
    let core = &mut net.cores[0];
    let (_, link) = core.links[&ix];
    for frame in [&b""[..], b"\x03", b"GET / HTTP/1.1\r\n\r\n", b"\x02\x01\x00\x00\x00\x05"] {
        let done =
            core.cluster.handle_frame(ix, link, &frame.to_vec().into(), &mut core.shards, now);
        assert!(done.is_err(), "{frame:?}");
    }
    let swim = Message::Swim(b"no packet"[..].into());
    assert_eq!(net.forge(0, 1, &swim), Ok(()));
    assert_eq!(net.cores[0].cluster.stats().swim_refused, 1);
}

#[test]
fn a_range_of_another_run_or_of_a_shard_that_does_not_exist_is_refused() {
    let mut net = net();
    for incarnation in [0, 9, 11, u64::MAX] {
        let refused = net.forge(0, 1, &feed(0, range(incarnation, 0, 5)));
        assert!(matches!(refused, Err(WireError::BadRange { shard: 0, .. })));
    }
    let refused = net.forge(0, 1, &feed(SHARDS, range(10, 0, 5)));
    assert_eq!(refused, Err(WireError::Shards { theirs: 3, ours: SHARDS }));
    assert_eq!(net.keys(0, "room"), ["u0", "u1", "u2"]);
}

#[test]
fn a_range_whose_numbers_contradict_each_other_is_refused() {
    let mut net = net();
    let backwards = range(10, 5, 4);
    let endless = range(10, 0, u64::MAX);
    let horizon = Range { horizon: 9, ..range(10, 0, 5) };
    let bitmap = Range { retain: Some(Bitmap(vec![0; 5_121])), ..range(10, 0, 5) };
    for range in [backwards, endless, horizon, bitmap] {
        let refused = net.forge(0, 1, &feed(0, range));
        assert!(matches!(refused, Err(WireError::BadRange { .. })), "{refused:?}");
    }
}

#[test]
fn a_first_frame_of_somebody_else_or_with_other_shards_is_refused() {
    let mut net = net();
    let as_another = sync_of(&mut net, 2, 0);
    let own = sync_of(&mut net, 1, 0);
    net.unlink(0, 1);
    net.link(0, 1);
    let refused = net.forge(0, 1, &Message::Sync(as_another));
    assert!(matches!(refused, Err(WireError::Malformed { kind: "sync", .. })));
    let mut other_run = own.clone();
    other_run.identity.incarnation = 11;
    assert!(net.forge(0, 1, &Message::Sync(other_run)).is_err());
    let more = Sync { heads: vec![0; 3], ..own.clone() };
    let refused = net.forge(0, 1, &Message::Sync(more));
    assert_eq!(refused, Err(WireError::Shards { theirs: 3, ours: SHARDS }));
    // None of it has harmed the link.
    assert_eq!(net.forge(0, 1, &Message::Sync(own)), Ok(()));
    net.pass(Duration::from_secs(2));
    assert_eq!(net.keys(1, "room"), ["u0", "u1", "u2"]);
}

#[test]
fn a_second_first_frame_is_ignored() {
    let mut net = net();
    let again = Sync { positions: vec![0; 2], ..sync_of(&mut net, 1, 0) };
    let before = net.cores[0].cluster.stats();
    assert_eq!(net.forge(0, 1, &Message::Sync(again)), Ok(()));
    net.pump();
    assert_eq!(net.cores[0].cluster.stats(), before);
}

/// It has read the log of another run, or lies: it gets all from the start.
#[test]
fn a_peer_that_claims_to_be_ahead_of_us_is_served_from_the_start() {
    let mut net = net();
    let ahead = Sync { positions: vec![u64::MAX, 1_000], ..sync_of(&mut net, 1, 0) };
    net.unlink(0, 1);
    net.link(0, 1);
    assert_eq!(net.forge(0, 1, &Message::Sync(ahead)), Ok(()));
    net.track(0, "room", "new");
    net.pass(Duration::from_millis(100));
    assert_eq!(net.keys(1, "room"), ["new", "u0", "u1", "u2"]);
}

#[test]
fn a_claim_to_have_more_than_was_sent_does_not_release_a_join() {
    let mut net = net();
    net.shut(0, 1);
    net.track(0, "room", "new");
    let shard = presence::shard_of(topic("room").hash64(), SHARDS);
    let (head, now) = (net.cores[0].shards.0[usize::from(shard)].head(), net.now);
    net.cores[0].cluster.barrier(shard, head, 1, now);
    net.pump();
    let positions = vec![(shard, u64::MAX), (shard, head), (99, 1)];
    let ack = Message::Ack(Positions { incarnation: 10, positions });
    assert_eq!(net.forge(0, 1, &ack), Ok(()));
    let is_answer = |event: &Event| matches!(event, Event::Barrier { .. });
    assert!(!net.events(0).iter().any(is_answer));
}

#[test]
fn a_request_to_resume_beyond_our_head_is_taken_as_our_head() {
    let mut net = net();
    for (incarnation, shard) in [(10, 0), (10, 1), (11, 0), (10, 99)] {
        let nack = Message::Nack(Nack { incarnation, shard, position: u64::MAX });
        assert_eq!(net.forge(0, 1, &nack), Ok(()));
    }
    net.track(0, "room", "new");
    net.pass(Duration::from_millis(100));
    assert_eq!(net.keys(1, "room"), ["new", "u0", "u1", "u2"]);
}

#[test]
fn nothing_is_sent_before_the_first_frame_whatever_is_asked_for() {
    let mut net = net();
    net.unlink(0, 1);
    net.shut(1, 0);
    net.link(0, 1);
    let nack = Message::Nack(Nack { incarnation: 10, shard: 0, position: 0 });
    assert_eq!(net.forge(0, 1, &nack), Ok(()));
    let before = net.cores[0].cluster.stats().ranges_sent;
    net.pump();
    assert_eq!(net.cores[0].cluster.stats().ranges_sent, before);
}

#[test]
fn heads_out_of_this_world_only_show_as_lag() {
    let mut net = net();
    let endless = Sync { heads: vec![u64::MAX; 2], ..sync_of(&mut net, 1, 0) };
    net.unlink(0, 1);
    net.link(0, 1);
    assert_eq!(net.forge(0, 1, &Message::Sync(endless)), Ok(()));
    let members = net.members(0);
    assert_eq!(members[0].lag, u64::MAX);
}

/// Membership believes a member about the others. The one it lies about hides until it starts over; it
/// must not be told so, and deny it, as fast as frames travel. (The net itself checks that.)
#[test]
fn a_lie_about_a_later_run_of_a_node_starts_no_storm() {
    let mut net = net();
    let mut later = sync_of(&mut net, 1, 0);
    let mut identity = sync_of(&mut net, 2, 0).identity;
    identity.incarnation += 1;
    later.members = vec![MemberRecord::down(identity)];
    net.unlink(0, 1);
    net.link(0, 1);
    assert_eq!(net.forge(0, 1, &Message::Sync(later)), Ok(()));
    net.pass(Duration::from_secs(10));
    assert_eq!(net.keys(1, "room"), ["u0", "u1", "u2"]);
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..12_u64, 1 => any::<u64>(), 1 => (u64::MAX - 2)..=u64::MAX]
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop_oneof![
        (0..3_u32, Just((*b"\x01\x00x{}").into()))
            .prop_map(|(topic, kv)| Value::Presence { topic, kv }),
        (0..3_u64).prop_map(|hash| Value::Interest { hash }),
    ];
    prop_oneof![
        3 => (0..4_u32, number(), number(), value)
            .prop_map(|(slot, seq, born, value)| Op::Put { slot, seq, born, value }),
        1 => (0..4_u32, number()).prop_map(|(slot, seq)| Op::Remove { slot, seq }),
    ]
}

fn forged_range() -> impl Strategy<Value = FeedRange> {
    let positions = prop_oneof![
        3 => prop::array::uniform4(number()).prop_map(|mut p| { p.sort_unstable(); p }),
        1 => prop::array::uniform4(number()),
    ];
    let retain = prop::option::of(prop::collection::vec(any::<u64>(), 0..3).prop_map(Bitmap));
    let ops = prop::collection::vec(op(), 0..4);
    let head = (0..3_u16, prop_oneof![0..3_u32, any::<u32>()], any::<bool>());
    (head, positions, retain, ops).prop_map(|(head, [from, horizon, to, last], retain, mut ops)| {
        ops.sort_by_key(Op::seq);
        let topics = vec![topic("room"); usize::from(!ops.is_empty())];
        let range = Range { incarnation: 10, from, to, head: last, horizon, retain, topics, ops };
        FeedRange { shard: head.0, epoch: head.1, ack_now: head.2, range }
    })
}

/// Of nodes that nobody else speaks for: in SWIM a member is believed about the others, so a lie about
/// an honest one hides it until it is heard itself.
fn record() -> impl Strategy<Value = MemberRecord> {
    (prop_oneof![Just(1), 3..6_usize], 8..12_u64, 0..3_u32, 0..3_u16, 0..4_u8).prop_map(
        |(node, incarnation, renewal, member, state)| MemberRecord {
            identity: crate::wire::Identity::new(
                replica(node).name,
                format!("10.0.0.{node}:4400").parse().expect("an address"),
                incarnation,
                renewal,
            ),
            incarnation: member,
            state,
        },
    )
}

fn forgery() -> impl Strategy<Value = Message> {
    let pairs = || prop::collection::vec((number(), number()), 0..4);
    let records = prop::collection::vec(record(), 0..3);
    prop_oneof![
        4 => forged_range().prop_map(Message::Range),
        1 => (9..12_u64, prop::collection::vec((0..4_u16, number()), 0..4)).prop_map(
            |(incarnation, positions)| Message::Ack(Positions { incarnation, positions })
        ),
        2 => (9..12_u64, 0..4_u16, number()).prop_map(|(incarnation, shard, position)| {
            Message::Nack(Nack { incarnation, shard, position })
        }),
        1 => any::<(u64, u64)>().prop_map(|(clock, own)| Message::Digest(Digest { clock, own })),
        1 => Just(Message::DigestRequest),
        1 => (9..12_u64, pairs())
            .prop_map(|(incarnation, feeds)| Message::Sums(Sums { incarnation, feeds })),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(|b| Message::Swim(b.into())),
        1 => (prop::collection::vec(number(), 1..4), prop::array::uniform2(number()), records)
            .prop_map(|(heads, positions, members)| Message::Sync(Sync {
                identity: crate::wire::Identity::new(
                    replica(1).name,
                    "10.0.0.1:4400".parse().expect("an address"),
                    10,
                    0,
                ),
                region: String::new(),
                version: String::new(),
                heads,
                positions: positions.to_vec(),
                members,
            })),
        1 => Just(Message::Draining),
        1 => prop_oneof![Just(0), Just(5_000), any::<u64>()].prop_map(Message::Leave),
        2 => relay_forgery(),
    ]
}

fn relay_forgery() -> impl Strategy<Value = Message> {
    let positions = || prop::collection::vec(number(), 0..4);
    prop_oneof![
        (0..4_u64, 0..4_usize, 9..12_u64, positions()).prop_map(
            |(id, owner, incarnation, positions)| {
                let owner = format!("n{owner}");
                Message::Pull(Pull { id, owner, incarnation, positions })
            }
        ),
        (0..4_u64, prop::option::of(positions()))
            .prop_map(|(id, heads)| Message::PullAnswer(PullAnswer { id, heads })),
        (0..4_u64).prop_map(Message::PullEnd),
        (0..4_usize, 9..12_u64, any::<u64>()).prop_map(|(node, incarnation, lease)| {
            Message::Departed(Departed { name: format!("n{node}"), incarnation, lease })
        }),
        (0..4_u64, forged_range())
            .prop_map(|(pull, feed)| Message::Relayed(Relayed { pull, feed })),
    ]
}

proptest! {
    #[test]
    fn hostile_peer_harms_nobody_else(
        forgeries in prop::collection::vec((forgery(), 0..300_u64), 1..12),
        relink in any::<bool>(),
    ) {
        let mut net = net();
        // What the attacker itself thinks of it does not matter.
        net.shut(0, 1);
        net.shut(1, 0);
        net.shut(1, 2);
        if relink {
            net.unlink(0, 1);
            net.link(0, 1);
        }
        for (message, millis) in forgeries {
            if net.cores[0].links.values().all(|(peer, _)| *peer != 1) {
                break;
            }
            if net.forge(0, 1, &message).is_err() {
                net.unlink(0, 1);
            }
            net.drain(0);
            net.pass(Duration::from_millis(millis));
        }
        net.track(0, "room", "new0");
        net.track(2, "room", "new2");
        net.pass(Duration::from_secs(1));
        for node in [0, 2] {
            let keys = net.keys(node, "room");
            for key in ["new0", "new2", "u0", "u2"] {
                prop_assert!(keys.iter().any(|listed| listed == key), "{key} on n{node}: {keys:?}");
            }
        }
    }
}

//! Ranges that no sound peer sends.

use proptest::prelude::*;

use super::{OWNER, T0, contents, drain, topic, viewer};
use crate::{Applied, Bitmap, Config, NodeIx, Op, Range, Rejection, SLOTS_MAX, Shard, Time, Value};

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..12_u64, 1 => any::<u64>(), 1 => (u64::MAX - 3)..=u64::MAX]
}

fn op() -> impl Strategy<Value = Op> {
    let slot = || prop_oneof![6 => 0..4_u32, 1 => (SLOTS_MAX - 1)..=SLOTS_MAX, 1 => any::<u32>()];
    let kv = prop_oneof![
        3 => Just(b"\x01\x00k{}".to_vec()),
        2 => (0..4_u8).prop_map(|n| [b"\x01\x80", &[n, 0, 0, 0, 0, 0, 0, 0][..], b"k{}"].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    let value = prop_oneof![
        (0..3_u32, kv).prop_map(|(topic, kv)| Value::Presence { topic, kv: kv.into() }),
        (0..3_u64).prop_map(|hash| Value::Interest { hash }),
    ];
    prop_oneof![
        3 => (slot(), number(), number(), value)
            .prop_map(|(slot, seq, born, value)| Op::Put { slot, seq, born, value }),
        1 => (slot(), number()).prop_map(|(slot, seq)| Op::Remove { slot, seq }),
    ]
}

/// Nearly sound: positions mostly in order, operations sorted.
fn range() -> impl Strategy<Value = Range> {
    let retain = prop::option::of(prop::collection::vec(any::<u64>(), 0..3).prop_map(Bitmap));
    let positions = prop_oneof![
        4 => prop::array::uniform4(number()).prop_map(|mut p| { p.sort_unstable(); p }),
        1 => prop::array::uniform4(number()),
    ];
    let ops = prop::collection::vec(op(), 0..5);
    (1..3_u64, positions, any::<bool>(), retain, ops, 0..3_u8).prop_map(
        |(incarnation, [from, horizon, to, head], fix, retain, mut ops, topics)| {
            ops.sort_by_key(Op::seq);
            let topics = (0..topics).map(topic).collect();
            let mut range = Range { incarnation, from, to, head, horizon, retain, topics, ops };
            if fix {
                range.retain = (from > 0 && from < horizon).then(Bitmap::default);
                range.ops.retain(|op| op.seq() > from && op.seq() <= to);
                range.ops.dedup_by_key(|op| op.seq());
                for op in &mut range.ops {
                    if let Op::Put { born, seq, .. } = op {
                        *born = (*born).clamp(1, *seq);
                    }
                }
                range.topics.truncate(range.ops.len());
            }
            range
        },
    )
}

fn state(shard: &Shard) -> impl PartialEq + std::fmt::Debug + use<> {
    (contents(shard, &topic(0)), contents(shard, &topic(1)), shard.position(OWNER))
}

proptest! {
    #[test]
    fn a_rejected_range_changes_nothing_and_none_breaks_the_shard(
        ranges in prop::collection::vec(range(), 1..12),
    ) {
        let mut shard = viewer("viewer", Config::default());
        for t in 0..3 {
            shard.observe(&topic(t), T0);
        }
        for (step, range) in (0..).zip(ranges) {
            let before = state(&shard);
            let head = range.head;
            match shard.apply(OWNER, range, T0) {
                Applied::Applied { v } => prop_assert_eq!(shard.position(OWNER).unwrap().v, v),
                Applied::Rejected(_) => prop_assert_eq!(state(&shard), before),
                Applied::Duplicate | Applied::Nack { .. } => {
                    prop_assert!(shard.position(OWNER).unwrap().head_seen >= head);
                }
            }
            drain(&mut shard, Time::from_micros(step * 7_000));
            let relayed = shard.serve(OWNER, step, 100);
            prop_assert!(relayed.is_none_or(|range| range.validate().is_ok()));
        }
        shard.member_forget(OWNER, 1, T0);
        drain(&mut shard, Time::from_micros(1_000_000));
        prop_assert!(shard.topics("", None).next().is_none());
    }
}

#[test]
fn only_known_runs_of_members_are_heard() {
    let mut shard = viewer("viewer", Config::default());
    let range = Range {
        incarnation: 2,
        from: 0,
        to: 0,
        head: 0,
        horizon: 0,
        retain: None,
        topics: vec![],
        ops: vec![],
    };
    let other_run = Applied::Rejected(Rejection::Incarnation { known: 1 });
    assert_eq!(shard.apply(OWNER, range.clone(), T0), other_run);
    let stranger = Applied::Rejected(Rejection::UnknownOwner);
    assert_eq!(shard.apply(NodeIx(7), range.clone(), T0), stranger);
    assert_eq!(shard.apply(NodeIx::SELF, range, T0), stranger);
}

//! The laws of a join-semilattice. Positions merge as `crdts::VClock` does; contents follow.

use proptest::prelude::*;

use super::{OWNER, T0, contents, owner, ring, topic, viewer};
use crate::{
    Actor, Applied, NodeIx, Range, Shard, VClock,
    crdts::{CmRDT, CvRDT},
};

/// A replica of the owner, that can be made as often as needed.
type State = Vec<Range>;

/// The states of three replicas at different moments of one owner's life.
fn states(history: &[(bool, u8)], reads: &[(usize, usize)], tombstones: usize) -> [State; 3] {
    let mut owner = owner(ring(tombstones));
    let mut ids = Vec::new();
    let mut states = [State::new(), State::new(), State::new()];
    for (at, (remove, pick)) in history.iter().enumerate() {
        match (*remove, ids.len()) {
            (true, 1..) => {
                owner.untrack(ids.swap_remove(usize::from(*pick) % ids.len()), T0);
            }
            _ => ids.push(owner.track(&topic(pick % 2), "k", &[*pick], T0).unwrap()),
        }
        for (_, reader) in reads.iter().filter(|(moment, _)| moment % history.len() == at) {
            let v = states[*reader].last().map_or(0, |range| range.to);
            states[*reader].extend(owner.serve(NodeIx::SELF, v, 60 * usize::from(*pick)));
        }
    }
    // One of them is at the head.
    let v = states[2].last().map_or(0, |range| range.to);
    states[2].extend(owner.serve(NodeIx::SELF, v, usize::MAX));
    states
}

fn make(state: &State) -> Shard {
    let mut shard = viewer("viewer", ring(2));
    for range in state {
        assert!(matches!(shard.apply(OWNER, range.clone(), T0), Applied::Applied { .. }));
    }
    shard
}

fn merge(mut into: Shard, from: &Shard) -> Shard {
    while let Some(range) = from.serve(OWNER, into.position(OWNER).unwrap().v, 200) {
        assert!(matches!(into.apply(OWNER, range, T0), Applied::Applied { .. }));
    }
    into
}

fn clock(shard: &Shard) -> VClock<Actor> {
    let mut clock = VClock::new();
    shard.clock(&mut clock);
    clock
}

/// Equal positions, and at the owner's head equal contents.
fn assert_equal(a: &Shard, b: &Shard, head: u64) {
    assert_eq!(clock(a), clock(b));
    if a.position(OWNER).unwrap().v == head {
        assert_eq!(a.position(OWNER).unwrap().checksum, b.position(OWNER).unwrap().checksum);
        for t in [topic(0), topic(1)] {
            assert_eq!(contents(a, &t), contents(b, &t));
        }
    }
}

proptest! {
    #[test]
    fn merging_is_idempotent_commutative_and_associative(
        history in prop::collection::vec(any::<(bool, u8)>(), 1..40),
        reads in prop::collection::vec((0..40_usize, 0..3_usize), 0..30),
        tombstones in 0..3_usize,
    ) {
        let [x, y, z] = states(&history, &reads, tombstones);
        let head = z.last().map_or(0, |range| range.to);
        assert_equal(&merge(make(&x), &make(&x)), &make(&x), head);
        assert_equal(&merge(make(&x), &make(&z)), &merge(make(&z), &make(&x)), head);
        assert_equal(&merge(make(&x), &make(&y)), &merge(make(&y), &make(&x)), head);
        let left = merge(merge(make(&x), &make(&y)), &make(&z));
        let right = merge(make(&x), &merge(make(&y), &make(&z)));
        assert_equal(&left, &right, head);

        // Positions are a VClock, and merge as it does.
        let mut merged = clock(&make(&x));
        merged.merge(clock(&make(&y)));
        prop_assert_eq!(clock(&merge(make(&x), &make(&y))), merged);
    }
}

#[test]
fn a_dot_names_an_operation_and_the_clock_has_seen_it() {
    let mut owner = owner(ring(0));
    let id = owner.track(&topic(0), "k", b"{}", T0).unwrap();
    let first = owner.dot(id).unwrap();
    owner.update(id, b"{\"a\":1}", T0).unwrap();
    let second = owner.dot(id).unwrap();
    assert!(first < second);
    assert_eq!(owner.reference(id), Some(crate::Ref::of(&second)));
    assert_eq!(clock(&owner).dot(second.actor.clone()), second);
    assert!(clock(&owner).validate_op(&second.inc()).is_ok());
}

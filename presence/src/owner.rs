//! Who writes the logs of this shard, and which of them are shown.
//!
//! An owner that the members' list calls down is hidden by a flag: its log stays as it is, so
//! that only what it missed has to be transferred when it comes back. Then it stays hidden until
//! its log is caught up with, so that nobody sees clients come back who left meanwhile. A
//! forgotten owner is freed; its grave keeps other nodes from bringing it back.

mod graves;

use std::collections::BTreeMap;

pub(crate) use self::graves::Graves;
use crate::{
    Actor, Dot, Entry, NodeIx, Replica, Time,
    feed::{Feed, Held},
    reference::Refs,
};

/// One run of one node, as this shard knows it.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) replica: Replica,
    pub(crate) refs: Refs,
    pub(crate) feed: Feed,
    /// The highest position known of it.
    pub(crate) head_seen: u64,
    /// Whether it holds the interest in everything.
    pub(crate) all_interest: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Shown,
    /// Down; a head heard of it meanwhile is kept for when it comes up.
    Hidden {
        heard: Option<u64>,
    },
    /// Up, and hidden until the log reaches `target`, the head heard first.
    CatchingUp {
        target: Option<u64>,
        /// Observers are not told that it is hidden: it is being fetched anew.
        frozen: bool,
    },
}

/// All owners; this node itself is [`NodeIx::SELF`].
#[derive(Debug)]
pub(crate) struct Owners {
    shard: u16,
    me: Owner,
    others: Vec<Option<Box<Owner>>>,
    /// When owners that are being caught up with are shown at the latest.
    deadlines: BTreeMap<NodeIx, Time>,
}

impl Owner {
    fn new(replica: Replica, shard: u16, phase: Phase) -> Self {
        Self {
            refs: Refs::new(&replica, shard),
            replica,
            feed: Feed::default(),
            head_seen: 0,
            all_interest: false,
            phase,
        }
    }

    /// Notes a head that a range, perhaps of a third node, speaks of.
    pub(crate) fn hear(&mut self, head: u64) {
        self.head_seen = self.head_seen.max(head);
        match &mut self.phase {
            Phase::Hidden { heard: target } | Phase::CatchingUp { target, .. } => {
                target.get_or_insert(self.head_seen);
            }
            Phase::Shown => {}
        }
    }

    /// Notes the head that the owner itself speaks of: it has to be reached before it is shown.
    pub(crate) fn hear_directly(&mut self, head: u64) {
        self.hear(head);
        match &mut self.phase {
            Phase::Hidden { heard: target } | Phase::CatchingUp { target, .. } => {
                *target = Some(self.head_seen);
            }
            Phase::Shown => {}
        }
    }

    /// Whether its entries are listed.
    pub(crate) fn is_shown(&self) -> bool {
        self.phase == Phase::Shown
    }

    /// Whether observers are told nothing of it for now.
    pub(crate) fn is_frozen(&self) -> bool {
        matches!(self.phase, Phase::CatchingUp { frozen: true, .. })
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether it can be shown.
    pub(crate) fn is_caught_up(&self) -> bool {
        matches!(self.phase, Phase::CatchingUp { target: Some(target), .. } if self.feed.v() >= target)
    }

    /// The entry in a slot.
    pub(crate) fn entry(&self, ix: NodeIx, at: u32) -> Option<Entry<'_>> {
        let slot = self.feed.slot(at)?;
        let Held::Presence { pair, .. } = &slot.held else {
            return None;
        };
        Some(Entry {
            owner: ix,
            key: pair.key(),
            meta: pair.meta(),
            reference: self.refs.at(slot.seq),
            previous: None,
        })
    }
}

impl Owners {
    pub(crate) fn new(shard: u16, me: Replica) -> Self {
        Self {
            shard,
            me: Owner::new(me, shard, Phase::Shown),
            others: Vec::new(),
            deadlines: BTreeMap::new(),
        }
    }

    /// Adds an owner that has to be caught up with, until `deadline` at the latest.
    pub(crate) fn insert(&mut self, ix: NodeIx, replica: Replica, deadline: Time) {
        let Some(at) = ix.index().checked_sub(1) else {
            return;
        };
        if self.others.len() <= at {
            self.others.resize_with(at + 1, || None);
        }
        let phase = Phase::CatchingUp { target: None, frozen: false };
        self.others[at] = Some(Box::new(Owner::new(replica, self.shard, phase)));
        self.deadlines.insert(ix, deadline);
    }

    pub(crate) fn remove(&mut self, ix: NodeIx) -> Option<Box<Owner>> {
        self.deadlines.remove(&ix);
        self.others.get_mut(ix.index().checked_sub(1)?)?.take()
    }

    /// Shows or hides another owner.
    pub(crate) fn set_phase(&mut self, ix: NodeIx, phase: Phase, deadline: Option<Time>) {
        match deadline {
            Some(deadline) => drop(self.deadlines.insert(ix, deadline)),
            None => drop(self.deadlines.remove(&ix)),
        }
        if let Some(owner) = self.other_mut(ix) {
            owner.phase = phase;
        }
    }

    /// This node enters its shards anew, under another incarnation.
    pub(crate) fn rename_me(&mut self, incarnation: u64) {
        self.me.replica.incarnation = incarnation;
        self.me.refs = Refs::new(&self.me.replica, self.shard);
    }

    pub(crate) fn me(&self) -> &Owner {
        &self.me
    }

    pub(crate) fn get(&self, ix: NodeIx) -> Option<&Owner> {
        match ix.index().checked_sub(1) {
            None => Some(&self.me),
            Some(at) => self.others.get(at)?.as_deref(),
        }
    }

    pub(crate) fn get_mut(&mut self, ix: NodeIx) -> Option<&mut Owner> {
        if ix == NodeIx::SELF { Some(&mut self.me) } else { self.other_mut(ix) }
    }

    /// As [`Self::get_mut`], but never this node.
    pub(crate) fn other_mut(&mut self, ix: NodeIx) -> Option<&mut Owner> {
        self.others.get_mut(ix.index().checked_sub(1)?)?.as_deref_mut()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Owner> {
        std::iter::once(&self.me).chain(self.others.iter().flatten().map(|owner| &**owner))
    }

    pub(crate) fn is_shown(&self, ix: NodeIx) -> bool {
        self.get(ix).is_some_and(Owner::is_shown)
    }

    pub(crate) fn is_frozen(&self, ix: NodeIx) -> bool {
        self.get(ix).is_some_and(Owner::is_frozen)
    }

    /// The name of an owner's operation.
    pub(crate) fn dot(&self, owner: &Owner, seq: u64) -> Dot<Actor> {
        Dot::new(Actor { replica: owner.replica.clone(), shard: self.shard }, seq)
    }

    /// When the next owner has to be shown, caught up with or not.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.values().min().copied()
    }

    /// Owners whose deadline has passed.
    pub(crate) fn overdue(&self, now: Time) -> Vec<NodeIx> {
        self.deadlines.iter().filter(|(_, at)| **at <= now).map(|(ix, _)| *ix).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners() -> Owners {
        let replica = |name: &str| Replica { name: name.parse().unwrap(), incarnation: 1 };
        let mut owners = Owners::new(0, replica("me"));
        owners.insert(NodeIx(3), replica("other"), Time::from_micros(10));
        owners
    }

    #[test]
    fn a_new_owner_waits_for_a_head_and_for_reaching_it() {
        let mut owners = owners();
        let owner = owners.get_mut(NodeIx(3)).unwrap();
        assert!(!owner.is_shown() && !owner.is_caught_up());
        owner.hear(5);
        assert!(!owner.is_caught_up());
        owner.feed.advance(5, 0);
        assert!(owner.is_caught_up());
        // What others say does not move the goal, what the owner says does.
        owner.hear(9);
        assert!(owner.is_caught_up());
        owner.hear_directly(9);
        assert!(!owner.is_caught_up());
    }

    #[test]
    fn a_deadline_lasts_until_the_owner_is_shown_or_gone() {
        let mut owners = owners();
        assert_eq!(owners.next_deadline(), Some(Time::from_micros(10)));
        assert!(owners.overdue(Time::from_micros(9)).is_empty());
        assert_eq!(owners.overdue(Time::from_micros(10)), [NodeIx(3)]);
        owners.set_phase(NodeIx(3), Phase::Shown, None);
        assert_eq!(owners.next_deadline(), None);
        assert!(owners.is_shown(NodeIx(3)));
        assert!(owners.remove(NodeIx(3)).is_some());
        assert!(!owners.is_shown(NodeIx(3)) && owners.is_shown(NodeIx::SELF));
    }
}

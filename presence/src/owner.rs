//! Who writes the logs of this shard, and which of them are shown.
//!
//! An owner that the members' list calls down is hidden by a flag: its log stays as it is, so
//! that only what it missed has to be transferred when it comes back. Then it stays hidden until
//! its log is caught up with, so that nobody sees clients come back who left meanwhile. A
//! forgotten owner is freed, little by little when it is large; its grave keeps other nodes from
//! bringing it back. One that said goodbye and lent its entries a lease leaves them until that is over.

mod flaps;
mod graves;
mod leaving;

use std::{collections::BTreeMap, time::Duration};

pub(crate) use self::graves::Graves;
use self::{flaps::Flaps, leaving::Leaving};
use crate::{
    Actor, Deadlines, Dot, Entry, NodeIx, Replica, Time,
    feed::{Feed, Held},
    reference::Refs,
};

/// An owner's small number in this shard, until nothing is left of it; then it is given to another.
///
/// A node's number ([`NodeIx`]) leads to the one run of it that is known; earlier ones, and nodes
/// that had the number before, may still be there under theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnerId(u16);

/// One run of one node, as this shard knows it.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) ix: NodeIx,
    pub(crate) replica: Replica,
    pub(crate) refs: Refs,
    pub(crate) feed: Feed,
    /// The highest position known of it.
    pub(crate) head_seen: u64,
    /// Whether it holds the interest in everything.
    pub(crate) all_interest: bool,
    /// Its slots are being emptied, to be fetched from the start.
    pub(crate) clearing: bool,
    phase: Phase,
    /// When it is shown at the latest while it is being caught up with, unless it is held.
    show_by: Time,
    /// Not shown before, as it went down too often.
    held_until: Time,
    flaps: Flaps,
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
    /// It said goodbye; its entries, all detached now, are there until their lease is over.
    Departed,
}

/// All owners; this node itself is [`OwnerId::SELF`].
#[derive(Debug)]
pub(crate) struct Owners {
    shard: u16,
    me: Owner,
    /// By their numbers, less one.
    others: Vec<Option<Box<Owner>>>,
    by_ix: BTreeMap<NodeIx, OwnerId>,
    /// When owners that are being caught up with are shown at the latest.
    deadlines: Deadlines<OwnerId>,
    /// When the leases of those that said goodbye are over.
    departed: BTreeMap<OwnerId, Time>,
    leaving: Leaving,
    /// Grows whenever an owner is shown or hidden, or may be.
    epoch: u64,
}

impl OwnerId {
    /// This node.
    pub(crate) const SELF: Self = Self(0);

    /// No number is above it.
    pub(crate) const LAST: Self = Self(u16::MAX);

    /// The one after it, if there can be one.
    pub(crate) fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// Its place in a table by owners.
    pub(crate) fn index(self) -> usize {
        self.0.into()
    }

    /// Its place among the others.
    fn place(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }

    #[cfg(test)]
    pub(crate) const fn at(number: u16) -> Self {
        Self(number)
    }
}

impl Owner {
    fn new(ix: NodeIx, replica: Replica, shard: u16, phase: Phase) -> Self {
        Self {
            ix,
            refs: Refs::new(&replica, shard),
            replica,
            feed: Feed::default(),
            head_seen: 0,
            all_interest: false,
            clearing: false,
            phase,
            show_by: Time::ZERO,
            held_until: Time::ZERO,
            flaps: Flaps::default(),
        }
    }

    /// It has come up after it was down; it may be held hidden for a while, at most `max`.
    pub(crate) fn note_return(&mut self, now: Time, max: Duration) {
        self.held_until = now + self.flaps.note(now, max);
    }

    /// When it is to be shown, as things are; `None` when it is, or is down.
    pub(crate) fn due(&self) -> Option<Time> {
        let Phase::CatchingUp { .. } = self.phase else { return None };
        let ready = if self.is_caught_up() { Time::ZERO } else { self.show_by };
        Some(ready.max(self.held_until))
    }

    /// Notes a head that a range, perhaps of a third node, speaks of. Once one is known, the owner is shown
    /// by `show_by`, caught up with or not.
    pub(crate) fn hear(&mut self, head: u64, show_by: Time) {
        self.head_seen = self.head_seen.max(head);
        match &mut self.phase {
            Phase::Hidden { heard } => drop(heard.get_or_insert(self.head_seen)),
            Phase::CatchingUp { target, .. } => {
                if target.is_none() {
                    self.show_by = self.show_by.min(show_by);
                }
                target.get_or_insert(self.head_seen);
            }
            Phase::Shown | Phase::Departed => {}
        }
    }

    /// Notes the head that the owner itself speaks of: it has to be reached before it is shown.
    pub(crate) fn hear_directly(&mut self, head: u64, show_by: Time) {
        self.hear(head, show_by);
        match &mut self.phase {
            Phase::Hidden { heard: target } | Phase::CatchingUp { target, .. } => {
                *target = Some(self.head_seen);
            }
            Phase::Shown | Phase::Departed => {}
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
    pub(crate) fn entry(&self, at: u32) -> Option<Entry<'_>> {
        let slot = self.feed.slot(at)?;
        let Held::Presence { pair, .. } = &slot.held else {
            return None;
        };
        Some(Entry {
            owner: self.ix,
            key: pair.key(),
            meta: pair.meta(),
            reference: self.refs.at(slot.version()),
            previous: None,
        })
    }
}

impl Owners {
    pub(crate) fn new(shard: u16, me: Replica) -> Self {
        Self {
            shard,
            me: Owner::new(NodeIx::SELF, me, shard, Phase::Shown),
            others: Vec::new(),
            by_ix: BTreeMap::new(),
            deadlines: Deadlines::default(),
            departed: BTreeMap::new(),
            leaving: Leaving::default(),
            epoch: 0,
        }
    }

    /// Adds an owner that has to be caught up with, until `deadline` at the latest.
    pub(crate) fn insert(&mut self, ix: NodeIx, replica: Replica, deadline: Time) {
        let vacant = self.others.iter().position(Option::is_none);
        let place = vacant.unwrap_or(self.others.len());
        // A cluster has far fewer nodes than there are numbers.
        let Some(id) = u16::try_from(place + 1).ok().map(OwnerId).filter(|_| ix != NodeIx::SELF)
        else {
            return;
        };
        let phase = Phase::CatchingUp { target: None, frozen: false };
        let owner = Some(Box::new(Owner::new(ix, replica, self.shard, phase)));
        match self.others.get_mut(place) {
            Some(vacant) => *vacant = owner,
            None => self.others.push(owner),
        }
        self.by_ix.insert(ix, id);
        self.set_phase(id, phase, Some(deadline));
    }

    /// Hides another owner for good, to be freed; its node's number can be given to another.
    ///
    /// What it has lent a lease stays until that is over.
    pub(crate) fn dismiss(&mut self, ix: NodeIx, now: Time) {
        if let Some(id) = self.by_ix.remove(&ix) {
            if !self.departed.contains_key(&id) {
                self.set_phase(id, Phase::Hidden { heard: None }, None);
            }
            self.leaving.push(id, ix, now);
        }
    }

    /// Another owner said goodbye; its entries stay until then.
    pub(crate) fn depart(&mut self, id: OwnerId, until: Time) {
        self.set_phase(id, Phase::Departed, None);
        self.departed.insert(id, until);
    }

    /// Hides an owner whose lease is over, or the one whose lease is over first where there are more
    /// than `max`.
    pub(crate) fn next_lapsed(&mut self, max: usize, now: Time) -> Option<OwnerId> {
        let (id, until) = self.departed.iter().min_by_key(|(_, until)| **until)?;
        let id = *id;
        if *until > now && self.departed.len() <= max {
            return None;
        }
        self.set_phase(id, Phase::Hidden { heard: None }, None);
        Some(id)
    }

    /// The owner that is to be freed first.
    pub(crate) fn next_leaving(&self) -> Option<OwnerId> {
        self.leaving.first(|id| !self.has_departed(id))
    }

    /// A slot that may hold an interest of an owner that said goodbye and is gone.
    pub(crate) fn next_unwanted(&mut self) -> Option<(OwnerId, u32)> {
        let Self { leaving, departed, others, .. } = self;
        leaving.next_slot(|id| {
            let owner = id.place().and_then(|place| others.get(place)?.as_deref());
            owner.filter(|_| departed.contains_key(&id)).map_or(0, |owner| owner.feed.width())
        })
    }

    /// Forgets that owner; nothing may refer to it any more.
    pub(crate) fn free_next_leaving(&mut self) {
        let first = self.next_leaving();
        let place = first.and_then(OwnerId::place);
        if let Some(id) = first {
            self.leaving.remove(id);
        }
        if let Some(owner) = place.and_then(|place| self.others.get_mut(place)) {
            *owner = None;
        }
    }

    /// Owners that are to be freed.
    pub(crate) fn leaving(&self) -> usize {
        self.leaving.len()
    }

    /// Whether a change of an owner's interest is about what its node wants now: of an owner that
    /// is to be freed, it is not where the next one under its node's number has spoken.
    pub(crate) fn is_news(&mut self, owner: (OwnerId, NodeIx), hash: u64) -> bool {
        self.leaving.is_news(owner, hash)
    }

    /// Shows or hides another owner; one that is to be caught up with is shown at the deadline, or later
    /// where it is held.
    pub(crate) fn set_phase(&mut self, id: OwnerId, phase: Phase, deadline: Option<Time>) {
        self.departed.remove(&id);
        if let Some(owner) = id.place().and_then(|place| self.others.get_mut(place)?.as_mut()) {
            owner.phase = phase;
            owner.show_by = deadline.unwrap_or_default();
            self.epoch += 1;
        }
        self.settle_deadline(id);
    }

    /// Finds out anew when an owner is to be shown: what is known of it has changed.
    pub(crate) fn settle_deadline(&mut self, id: OwnerId) {
        let due = self.get(id).and_then(Owner::due);
        self.deadlines.set(id, due);
    }

    /// Another number than before when an owner may have been shown or hidden.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// All owners by their numbers, those too that are to be freed.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (OwnerId, &Owner)> {
        let others = (1..).map(OwnerId).zip(&self.others);
        let others = others.filter_map(|(id, owner)| Some((id, owner.as_deref()?)));
        std::iter::once((OwnerId::SELF, &self.me)).chain(others)
    }

    /// Whether observers are told nothing of some owner for now.
    pub(crate) fn any_frozen(&self) -> bool {
        self.others.iter().flatten().any(|owner| owner.is_frozen())
    }

    /// This node enters its shards anew, under another incarnation.
    pub(crate) fn rename_me(&mut self, incarnation: u64) {
        self.me.replica.incarnation = incarnation;
        self.me.refs = Refs::new(&self.me.replica, self.shard);
    }

    pub(crate) fn me(&self) -> &Owner {
        &self.me
    }

    pub(crate) fn get(&self, id: OwnerId) -> Option<&Owner> {
        match id.place() {
            None => Some(&self.me),
            Some(place) => self.others.get(place)?.as_deref(),
        }
    }

    pub(crate) fn get_mut(&mut self, id: OwnerId) -> Option<&mut Owner> {
        match id.place() {
            None => Some(&mut self.me),
            Some(place) => self.others.get_mut(place)?.as_deref_mut(),
        }
    }

    /// The run of a node that is known.
    pub(crate) fn of(&self, ix: NodeIx) -> Option<&Owner> {
        if ix == NodeIx::SELF { Some(&self.me) } else { self.get(*self.by_ix.get(&ix)?) }
    }

    /// As [`Self::of`], but never this node.
    pub(crate) fn other(&mut self, ix: NodeIx) -> Option<(OwnerId, &mut Owner)> {
        let id = *self.by_ix.get(&ix)?;
        self.get_mut(id).map(|owner| (id, owner))
    }

    /// Whether an owner is the run that its node's number leads to.
    pub(crate) fn is_latest(&self, id: OwnerId) -> bool {
        let ix = self.get(id).map(|owner| owner.ix);
        id == OwnerId::SELF || ix.is_some_and(|ix| self.by_ix.get(&ix) == Some(&id))
    }

    /// The known runs of all nodes.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Owner> {
        std::iter::once(&self.me).chain(self.by_ix.values().filter_map(|id| self.get(*id)))
    }

    pub(crate) fn is_shown(&self, id: OwnerId) -> bool {
        self.get(id).is_some_and(Owner::is_shown)
    }

    /// Whether its detached entries are listed, where no other one covers them.
    pub(crate) fn is_present(&self, id: OwnerId) -> bool {
        self.is_shown(id) || self.has_departed(id)
    }

    /// Whether it said goodbye, and what it left is still there.
    pub(crate) fn has_departed(&self, id: OwnerId) -> bool {
        self.departed.contains_key(&id)
    }

    /// Whether one said goodbye, and what it left is still there.
    pub(crate) fn any_departed(&self) -> bool {
        !self.departed.is_empty()
    }

    /// Those that said goodbye, and whose entries are still there.
    pub(crate) fn departed(&self) -> impl Iterator<Item = OwnerId> {
        self.departed.keys().copied()
    }

    pub(crate) fn is_frozen(&self, id: OwnerId) -> bool {
        self.get(id).is_some_and(Owner::is_frozen)
    }

    /// The name of an owner's operation.
    pub(crate) fn dot(&self, owner: &Owner, seq: u64) -> Dot<Actor> {
        Dot::new(Actor { replica: owner.replica.clone(), shard: self.shard }, seq)
    }

    /// When the next owner has to be shown, caught up with or not, or freed.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let to_show = self.deadlines.next();
        let lapse = self.departed.values().min().copied();
        let width = |id: OwnerId| self.get(id).map_or(0, |owner| owner.feed.width());
        let leaving = self.leaving.since(|id| self.has_departed(id).then(|| width(id)));
        to_show.into_iter().chain(lapse).chain(leaving).min()
    }

    /// Owners whose deadline has passed.
    pub(crate) fn overdue(&self, now: Time) -> Vec<OwnerId> {
        self.deadlines.due(now)
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
        let (_, owner) = owners.other(NodeIx(3)).unwrap();
        assert!(!owner.is_shown() && !owner.is_caught_up());
        owner.hear(5, Time::ZERO);
        assert!(!owner.is_caught_up());
        owner.feed.advance(5, 0);
        assert!(owner.is_caught_up());
        // What others say does not move the goal, what the owner says does.
        owner.hear(9, Time::ZERO);
        assert!(owner.is_caught_up());
        owner.hear_directly(9, Time::ZERO);
        assert!(!owner.is_caught_up());
    }

    #[test]
    fn a_deadline_lasts_until_the_owner_is_shown_or_gone() {
        let mut owners = owners();
        assert_eq!(owners.next_deadline(), Some(Time::from_micros(10)));
        assert!(owners.overdue(Time::from_micros(9)).is_empty());
        let (id, _) = owners.other(NodeIx(3)).unwrap();
        assert_eq!(owners.overdue(Time::from_micros(10)), [id]);
        owners.set_phase(id, Phase::Shown, None);
        assert_eq!(owners.next_deadline(), None);
        assert!(owners.is_shown(id));
        owners.dismiss(NodeIx(3), Time::from_micros(20));
        assert_eq!(owners.next_deadline(), Some(Time::from_micros(20)));
        assert!(owners.of(NodeIx(3)).is_none() && !owners.is_shown(id));
        owners.free_next_leaving();
        assert!(owners.get(id).is_none() && owners.is_shown(OwnerId::SELF));
        assert_eq!((owners.next_deadline(), owners.leaving()), (None, 0));
    }
}

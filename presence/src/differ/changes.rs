//! The changes that one diff tells: from what observers knew to what is listed.

use crate::{
    Change, NodeIx, Ref,
    feed::Held,
    index::{Member, Roster, TopicId},
    listed::{self, is_listed},
    owner::{Owner, OwnerId, Owners},
    range::Pair,
};

/// A value that observers were told and that is no longer there.
#[derive(Debug)]
pub(crate) struct Old {
    pub(crate) owner: NodeIx,
    pub(crate) incarnation: u64,
    pub(crate) born: u64,
    pub(crate) reference: Ref,
    pub(crate) pair: Pair,
}

impl Old {
    /// A tenant of an owner that was told as it is, or was; when it was (born, last changed).
    pub(crate) fn of(owner: &Owner, (born, version): (u64, u64), pair: Pair) -> Self {
        Self {
            owner: owner.ix,
            incarnation: owner.replica.incarnation,
            born,
            reference: owner.refs.at(version),
            pair,
        }
    }
}

/// A diff being filled.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) joins: Vec<Change>,
    pub(super) leaves: Vec<Change>,
}

impl Changes {
    pub(super) fn len(&self) -> usize {
        self.joins.len() + self.leaves.len()
    }
}

/// A diff of a topic in the making.
pub(super) struct Told<'a> {
    pub(super) id: TopicId,
    pub(super) owners: &'a Owners,
    pub(super) roster: &'a mut Roster,
    pub(super) changes: &'a mut Changes,
}

impl Told<'_> {
    /// From what observers were told of a slot to what it holds. Returns the version that leaves, if
    /// another entry may be told in its place.
    pub(super) fn compare(&mut self, old: Option<Old>, (who, at): (OwnerId, u32)) -> Option<Ref> {
        let owner = self.owners.get(who);
        let slot = owner.and_then(|owner| owner.feed.slot(at));
        let mut present = None;
        if let (Some(owner), Some(slot)) = (owner, slot)
            && let Held::Presence { topic, pos, pair } = &slot.held
            && *topic == self.id
            && let Some(member) = self.roster.members().get(*pos as usize)
        {
            let told = is_listed(self.owners, self.roster, member);
            self.roster.members_mut()[*pos as usize].told = told;
            present = Some((owner, slot, pair, told));
        }
        let is_tenant = |old: &Old| {
            present.is_some_and(|(owner, slot, pair, _)| {
                (old.incarnation, old.born) == (owner.replica.incarnation, slot.born)
                    && old.pair.key() == pair.key()
            })
        };
        let Some((owner, slot, pair, true)) = present else {
            let old = old?;
            let may_be_replaced = old.pair.version().is_some() || is_tenant(&old);
            let reference = old.reference;
            self.changes.leaves.push(change(&old.pair, reference, None));
            return may_be_replaced.then_some(reference);
        };
        let reference = owner.refs.at(slot.version());
        let mut previous = None;
        if let Some(old) = old {
            if old.reference == reference {
                return None;
            }
            previous = is_tenant(&old).then_some(old.reference);
            self.changes.leaves.push(change(&old.pair, old.reference, None));
        }
        self.changes.joins.push(change(pair, reference, previous));
        None
    }

    /// Whether observers know of a member that is not listed, or do not of one that is.
    pub(super) fn is_wrong(&self, member: &Member) -> bool {
        !self.owners.is_frozen(member.owner)
            && member.told != is_listed(self.owners, self.roster, member)
    }

    /// Tells of a member that did not change, if it is listed now or no longer. Returns its version
    /// if it leaves and another entry may be told in its place.
    pub(super) fn flip_if_wrong(&mut self, (who, at): (OwnerId, u32)) -> Option<Ref> {
        let owner = self.owners.get(who)?;
        let slot = owner.feed.slot(at)?;
        let Held::Presence { topic, pos, pair } = &slot.held else {
            return None;
        };
        let member = *self.roster.members().get(*pos as usize).filter(|_| *topic == self.id)?;
        if !self.is_wrong(&member) {
            return None;
        }
        self.roster.members_mut().get_mut(*pos as usize)?.told = !member.told;
        let reference = owner.refs.at(slot.version());
        let change = change(pair, reference, None);
        if !member.told {
            self.changes.joins.push(change);
            return None;
        }
        self.changes.leaves.push(change);
        listed::is_detached(self.owners, &member).then_some(reference)
    }
}

impl Changes {
    /// Makes the joins of one key the successors of what leaves for them.
    pub(super) fn link(&mut self, (joins, leaves): (usize, usize), replaced: Vec<Ref>) {
        let Self { joins: all_joins, leaves: all_leaves } = self;
        let mut replaced = replaced.into_iter();
        for join in all_joins[joins..].iter_mut().filter(|join| join.previous.is_none()) {
            // Two keys of one hash are not the same.
            let is_of_key = |reference: &Ref| {
                let mut left = all_leaves[leaves..].iter();
                left.any(|leave| leave.reference == *reference && leave.key == join.key)
            };
            join.previous = replaced.next().filter(is_of_key);
        }
    }
}

fn change(pair: &Pair, reference: Ref, previous: Option<Ref>) -> Change {
    Change { key: pair.key().into(), meta: pair.meta().into(), reference, previous }
}

//! Logs between nodes.

use super::Shard;
use crate::{
    Actor, NodeIx, Time, VClock,
    crdts::CmRDT as _,
    index::Roster,
    listed,
    owner::OwnerId,
    range::{InvalidRange, Op, Pair, Range, Value},
    store::Tenant,
};

/// Where this node is in another owner's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The owner's run.
    pub incarnation: u64,
    /// All changes up to here are known.
    pub v: u64,
    /// The highest position heard of.
    pub head_seen: u64,
    /// Over what is live at `v`: two replicas at the owner's head have the same.
    pub checksum: u64,
    /// Whether its entries are listed.
    pub visible: bool,
    /// Whether it wants the broadcasts of all topics.
    pub all_interest: bool,
}

/// What became of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The position is now `v`.
    Applied {
        /// The position.
        v: u64,
    },
    /// All of it was known.
    Duplicate,
    /// It does not continue the position `v`: the sender has to go back to there.
    Nack {
        /// The position.
        v: u64,
    },
    /// It is of no use, and nothing has changed.
    Rejected(Rejection),
}

/// Why a range was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The owner is no known member.
    #[error("owner is not known")]
    UnknownOwner,
    /// It is another run's.
    #[error("owner is known with incarnation {known}")]
    Incarnation {
        /// The known run.
        known: u64,
    },
    /// No sound sender sends it.
    #[error("malformed range: {0}")]
    Malformed(#[from] InvalidRange),
}

impl Position {
    /// Whether nothing is known to be missing.
    pub fn is_current(&self) -> bool {
        self.v >= self.head_seen
    }
}

impl Shard {
    /// The position of this node's own log: the sequence number of its last change.
    pub fn head(&self) -> u64 {
        self.store.owners.me().feed.v()
    }

    /// The checksum of this node's own log, as in [`Position`].
    pub fn checksum(&self) -> u64 {
        self.store.owners.me().feed.checksum()
    }

    /// The position in an owner's log; of [`NodeIx::SELF`] too. `None` for an unknown owner.
    pub fn position(&self, ix: NodeIx) -> Option<Position> {
        let owner = self.store.owners.of(ix)?;
        Some(Position {
            incarnation: owner.replica.incarnation,
            v: owner.feed.v(),
            head_seen: owner.head_seen.max(owner.feed.v()),
            checksum: owner.feed.checksum(),
            visible: owner.is_shown(),
            all_interest: owner.all_interest,
        })
    }

    /// Adds the positions of all owners of which entries may be listed, this node's own too, to a clock
    /// over all shards: equal ones list the same.
    ///
    /// Takes a time proportional to the owners; while some have said goodbye and left entries, to the topics
    /// and these entries.
    pub fn clock(&self, into: &mut VClock<Actor>) {
        let (owners, index) = (&self.store.owners, &self.store.index);
        for owner in owners.all().filter(|owner| owner.is_shown()) {
            into.apply(owners.dot(owner, owner.feed.v()));
        }
        for id in owners.departed() {
            let rosters = || index.with_prefix("", None).filter(|roster| roster.has_owner(id));
            let is_listed = |roster: &Roster| {
                let mut left = roster.members().iter().filter(|member| member.owner == id);
                left.any(|member| listed::is_listed(owners, roster, member))
            };
            if let Some(owner) = owners.get(id).filter(|_| rosters().any(is_listed)) {
                into.apply(owners.dot(owner, owner.feed.v()));
            }
        }
    }

    /// What a peer at the position `from` misses of an owner's log; `None` when it misses
    /// nothing, or the owner is unknown.
    ///
    /// The range has about `max_bytes` when encoded, but at least one change, and never over
    /// 64 KiB while `max_bytes` is at most 46 KiB. What is left out follows from its `to` on.
    pub fn serve(&self, ix: NodeIx, from: u64, max_bytes: usize) -> Option<Range> {
        let owner = self.store.owners.of(ix)?;
        let origin = (owner.replica.incarnation, owner.head_seen);
        owner.feed.serve(from, max_bytes, origin, &self.store.index)
    }

    /// Brings an owner's log forward by a range, from the owner itself or from any other replica.
    pub fn apply(&mut self, ix: NodeIx, range: Range, now: Time) -> Applied {
        let show_by = now + self.store.config.reveal_timeout;
        let Some((who, owner)) = self.store.owners.other(ix) else {
            return Applied::Rejected(Rejection::UnknownOwner);
        };
        let known = owner.replica.incarnation;
        if known != range.incarnation {
            return Applied::Rejected(Rejection::Incarnation { known });
        }
        if let Err(why) = range.validate() {
            return Applied::Rejected(why.into());
        }
        owner.hear(range.head, show_by);
        let (v, clearing) = (owner.feed.v(), owner.clearing);
        let applied = if range.to <= v {
            Applied::Duplicate
        } else if range.from > v || (range.is_exact() && range.from != v) {
            Applied::Nack { v }
        } else {
            let to = range.to;
            if clearing {
                self.store.clear(who, usize::MAX, now);
            }
            self.advance(who, v, range, now);
            Applied::Applied { v: to }
        };
        self.show_if_caught_up(who, now);
        applied
    }

    fn advance(&mut self, who: OwnerId, v: u64, range: Range, now: Time) {
        let Range { from, to, horizon, retain, topics, ops, .. } = range;
        // First what is gone (the position is `from`, so the bitmap is about all slots): an
        // interest may be in another slot now, under the same hash.

        if let Some(bits) = retain {
            self.store.retain(who, &bits, now);
        }
        for op in ops.into_iter().filter(|op| op.seq() > v) {
            match op {
                Op::Remove { slot, seq } => self.store.remove((who, slot), seq, now),
                Op::Put { slot, seq, born, value } => {
                    let tenant = match value {
                        Value::Interest { hash } => Tenant::Interest { hash },
                        Value::Presence { topic, kv } => {
                            let Some(topic) = topics.get(topic as usize) else {
                                continue;
                            };
                            Tenant::Presence { topic, pair: Pair(kv) }
                        }
                    };
                    self.store.put((who, slot), (seq, born), tenant, now);
                }
            }
        }
        if let Some(owner) = self.store.owners.get_mut(who) {
            // An exact range may lack removals up to its horizon, so this log does too.
            owner.feed.advance(to, if from < horizon { to.min(horizon) } else { 0 });
        }
    }
}

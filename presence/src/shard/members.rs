//! What the members' list says of other nodes.

use std::time::Duration;

use super::Shard;
use crate::{
    NodeIx, Replica, Time,
    owner::{Owner, OwnerId, Phase},
    store::CLEAR_MAX,
};

/// Forgotten owners that are still being freed, at most: one more has to wait for the first.
const LEAVING_MAX: usize = 8;

/// What became of a node that is said to be up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Up {
    /// It was not known: its log is to be fetched from the start.
    New,
    /// It is known and shown.
    Known,
    /// It is known, and shown once its log is caught up with.
    Revealing,
    /// An older run of it was known, and is gone now.
    Replaced,
    /// It is an old run, or one that was forgotten and only it can bring back. It is to be told
    /// the incarnation.
    Ignored {
        /// The highest incarnation seen under its name.
        seen: u64,
    },
}

impl Shard {
    /// A node is up; `direct` when it said so itself, over its own link.
    ///
    /// A node is hidden until its log reaches the head heard of it, or for
    /// [`crate::Config::reveal_timeout`] from then, or for [`crate::Config::unheard_timeout`]; one that comes up for the third time in a minute and more
    /// often for 1, 2, 4, … seconds at least, see [`crate::Config::hold_down_max`].
    pub fn member_up(&mut self, ix: NodeIx, replica: &Replica, direct: bool, now: Time) -> Up {
        if ix == NodeIx::SELF {
            return Up::Ignored { seen: self.me().incarnation };
        }
        let mut known = self.store.owners.of(ix).map(|owner| owner.replica.clone());
        if let Some(other) = known.take_if(|known| known.name != replica.name) {
            self.bury(ix, &other, now);
        }
        let Some(known) = known else {
            return self.start(ix, replica, direct, now);
        };
        if replica.incarnation < known.incarnation {
            return Up::Ignored { seen: known.incarnation };
        }
        if replica.incarnation > known.incarnation {
            self.drop_owner(ix, now);
            self.insert(ix, replica, now);
            return Up::Replaced;
        }
        if let Some((who, owner)) = self.store.owners.other(ix)
            && let Phase::Hidden { heard } = owner.phase()
        {
            let config = &self.store.config;
            owner.note_return(now, config.hold_down_max);
            let deadline = now
                + match heard {
                    Some(_) => config.reveal_timeout,
                    None => config.unheard_timeout,
                };
            let phase = Phase::CatchingUp { target: heard, frozen: false };
            self.store.owners.set_phase(who, phase, Some(deadline));
            self.show_if_caught_up(who, now);
        }
        if let Some((who, owner)) = self.store.owners.other(ix)
            && owner.phase() == Phase::Departed
        {
            self.show(who, now);
        }
        let is_shown = self.store.owners.of(ix).is_some_and(Owner::is_shown);
        if is_shown { Up::Known } else { Up::Revealing }
    }

    /// A node's run, and all before it, are down: its entries are hidden at once.
    pub fn member_down(&mut self, ix: NodeIx, incarnation: u64, now: Time) {
        let Some((who, owner)) = self.store.owners.other(ix) else {
            return;
        };
        // What a node that said goodbye left is there for its lease.
        if owner.replica.incarnation <= incarnation
            && !matches!(owner.phase(), Phase::Hidden { .. } | Phase::Departed)
        {
            self.store.owners.set_phase(who, Phase::Hidden { heard: None }, None);
            self.store.differ.start_sweep(who, now);
        }
    }

    /// A node's run said goodbye, and its entries, all without clients now, have this lease: they stay
    /// until it is over, whatever becomes of the node, but for those whose clients are elsewhere.
    /// Those of a node that is hidden stay hidden.
    pub fn member_depart(&mut self, ix: NodeIx, incarnation: u64, lease: Duration, now: Time) {
        let Some((who, owner)) = self.store.owners.other(ix) else {
            return;
        };
        if owner.replica.incarnation == incarnation && owner.is_shown() {
            self.store.owners.depart(who, now + lease);
            self.store.differ.start_sweep(who, now);
            self.lapse(now);
        }
    }

    /// A node's run, and all before it, are gone for good, unless it says otherwise itself.
    ///
    /// What it has lent a lease stays until that is over.
    pub fn member_forget(&mut self, ix: NodeIx, incarnation: u64, now: Time) {
        let Some((_, owner)) = self.store.owners.other(ix) else {
            return;
        };
        if owner.replica.incarnation <= incarnation {
            let buried = Replica { name: owner.replica.name.clone(), incarnation };
            self.bury(ix, &buried, now);
        }
    }

    /// A node speaks of the head of its own log: it is shown once that is reached.
    pub fn saw_head(&mut self, ix: NodeIx, incarnation: u64, head: u64, now: Time) {
        let show_by = now + self.store.config.reveal_timeout;
        if let Some((who, owner)) = self.store.owners.other(ix)
            && owner.replica.incarnation == incarnation
        {
            owner.hear_directly(head, show_by);
            self.show_if_caught_up(who, now);
        }
    }

    /// Another node speaks of the head of an owner's log.
    pub fn heard_head(&mut self, ix: NodeIx, incarnation: u64, head: u64, now: Time) {
        let show_by = now + self.store.config.reveal_timeout;
        if let Some((who, owner)) = self.store.owners.other(ix)
            && owner.replica.incarnation == incarnation
        {
            owner.hear(head, show_by);
            self.show_if_caught_up(who, now);
        }
    }

    /// The replica of this owner is wrong: it is emptied, to be fetched from the start.
    ///
    /// Until it is caught up with, queries do not show the owner, and observers are told nothing
    /// of it: then they are told the difference.
    ///
    /// A call does a bounded part of the work. Call it again until it returns true, and fetch then: a
    /// range that is applied before has to wait for the rest.
    pub fn refetch(&mut self, ix: NodeIx, now: Time) -> bool {
        let Some((who, owner)) = self.store.owners.other(ix) else {
            return true;
        };
        // What is left of one that said goodbye cannot be fetched from it.
        if owner.phase() == Phase::Departed {
            return true;
        }
        if !owner.clearing {
            self.start_clearing(who, now);
        }
        let done = self.store.clear(who, CLEAR_MAX, now);
        self.show_if_caught_up(who, now);
        done
    }

    fn start_clearing(&mut self, who: OwnerId, now: Time) {
        let Some(owner) = self.store.owners.get_mut(who) else {
            return;
        };
        owner.clearing = true;
        owner.feed.disown();
        let target = Some(owner.head_seen);
        let phase = owner.phase();
        match phase {
            Phase::Hidden { .. } | Phase::Departed => {}
            Phase::Shown | Phase::CatchingUp { .. } => {
                let was_shown = phase == Phase::Shown;
                let frozen = owner.is_frozen() || was_shown;
                let deadline = now + self.store.config.reveal_timeout;
                let phase = Phase::CatchingUp { target, frozen };
                self.store.owners.set_phase(who, phase, Some(deadline));
            }
        }
    }

    /// Hides what is left of owners that said goodbye, once their leases are over.
    pub(super) fn lapse(&mut self, now: Time) {
        while let Some(who) = self.store.owners.next_lapsed(LEAVING_MAX, now) {
            self.store.differ.start_sweep(who, now);
        }
    }

    /// Shows an owner that is to be caught up with, if it is.
    pub(super) fn show_if_caught_up(&mut self, who: OwnerId, now: Time) {
        let owners = &mut self.store.owners;
        let Some(owner) = owners.get(who) else { return };
        if owner.is_caught_up() && owner.due().is_some_and(|due| due <= now) {
            self.show(who, now);
        } else {
            owners.settle_deadline(who);
        }
    }

    pub(super) fn show(&mut self, who: OwnerId, now: Time) {
        self.store.owners.set_phase(who, Phase::Shown, None);
        self.store.differ.start_sweep(who, now);
    }

    fn start(&mut self, ix: NodeIx, replica: &Replica, direct: bool, now: Time) -> Up {
        match self.graves.incarnation(&replica.name) {
            // Only a node itself says that it is not gone after all.
            Some(seen)
                if replica.incarnation < seen || (replica.incarnation == seen && !direct) =>
            {
                Up::Ignored { seen }
            }
            Some(_) | None => {
                self.insert(ix, replica, now);
                Up::New
            }
        }
    }

    fn insert(&mut self, ix: NodeIx, replica: &Replica, now: Time) {
        let deadline = now + self.store.config.unheard_timeout;
        self.store.owners.insert(ix, replica.clone(), deadline);
    }

    fn bury(&mut self, ix: NodeIx, replica: &Replica, now: Time) {
        self.graves.dig(&replica.name, replica.incarnation);
        self.drop_owner(ix, now);
    }

    /// Nobody sees an owner any more from now on; a large one is freed little by little.
    fn drop_owner(&mut self, ix: NodeIx, now: Time) {
        let Some((who, owner)) = self.store.owners.other(ix) else {
            return;
        };
        let was_frozen = owner.is_frozen();
        self.store.owners.dismiss(ix, now);
        while !self.store.reap(now) && self.store.owners.leaving() > LEAVING_MAX {}
        if was_frozen || self.store.owners.get(who).is_some() {
            // Observers are told what is still in its slots, or was not told for a while.
            self.store.differ.start_sweep(who, now);
        }
    }
}

//! One shard: a part of all topics, with the logs of all nodes for them.

mod counts;
mod members;
mod moves;
mod query;
mod replicate;
mod verbs;

use std::collections::BTreeSet;

pub use self::{
    counts::{Total, Totals},
    members::Up,
    query::{Count, Entry, Page},
    replicate::{Applied, Position, Rejection},
    verbs::{EntryId, TrackError},
};
use crate::{
    Config, Event, Replica, Time, index::Index, interest::Interests, owner::Graves, store::Store,
    table::Table,
};

/// Interests that are removed between two inputs.
const EXPIRE_MAX: usize = 4096;

/// The presence state machine of one shard.
///
/// It has four kinds of methods:
/// - **verbs**: [`track`](Self::track), [`observe`](Self::observe),
///   [`acquire_interest`](Self::acquire_interest), …: what clients of this node do;
/// - **inputs**: [`member_up`](Self::member_up), [`saw_head`](Self::saw_head),
///   [`apply`](Self::apply), [`handle_timeout`](Self::handle_timeout), …: what the cluster and
///   the clock do;
/// - **queries**: [`list`](Self::list), [`count`](Self::count), [`told`](Self::told),
///   [`serve`](Self::serve), …: they change nothing;
/// - **effects**: [`poll_event`](Self::poll_event) and [`poll_timeout`](Self::poll_timeout).
///
/// After any verb or input call [`poll_event`](Self::poll_event) until it returns `None`, then
/// arm one timer for [`poll_timeout`](Self::poll_timeout); when it fires, call
/// [`handle_timeout`](Self::handle_timeout). A deadline that is not in the future is an ask to
/// call it at once: it does a bounded amount of work each time. Time never goes back.
#[derive(Debug)]
pub struct Shard {
    number: u16,
    store: Store,
    own: Own,
    interests: Interests,
    graves: Graves,
}

/// What only the owner of a log needs to know of it.
#[derive(Debug, Default)]
struct Own {
    free: BTreeSet<u32>,
    /// Names of the tenants, that stay valid when the log is numbered anew; 0 in interests.
    serials: Table<u64>,
    tracked: u64,
    entries: usize,
}

impl Shard {
    /// The shard `number` of the node `me`, empty.
    ///
    /// `me` must be a run that no peer has seen before: its incarnation names its operations.
    pub fn new(config: Config, number: u16, me: Replica) -> Self {
        let config = config.bounded();
        Self {
            number,
            own: Own::default(),
            interests: Interests::new(me.incarnation, config.interests_max),
            graves: Graves::new(config.graves_max),
            store: Store::new(config, number, me),
        }
    }

    /// Does what is due at `now`: tells observers, shows owners, frees forgotten ones, removes
    /// interests.
    ///
    /// The work of one call is bounded; when there is more, [`Self::poll_timeout`] is not in the
    /// future.
    pub fn handle_timeout(&mut self, now: Time) {
        for who in self.store.owners.overdue(now) {
            self.show(who, now);
        }
        self.lapse(now);
        self.store.reap(now);
        self.retire(now);
        for _ in 0..EXPIRE_MAX {
            let Some(slot) = self.interests.expire(now, &self.store.owners.me().feed) else {
                break;
            };
            self.empty(slot, now);
        }
        let Store { config, owners, index, differ, counter, events, .. } = &mut self.store;
        differ.sweep(index, now);
        let mut left = config.diff_events_max.saturating_mul(4);
        while left > 0
            && let Some((diff, work)) = differ.flush_next(owners, index, config, now)
        {
            left = left.saturating_sub(work);
            if !diff.joins.is_empty() || !diff.leaves.is_empty() {
                events.push_back(Event::Diff(diff));
            }
        }
        counter.handle_timeout((owners, index), config.count_interval, now, events);
    }

    /// The next effect.
    pub fn poll_event(&mut self) -> Option<Event> {
        let opened = |index: &mut Index| index.pop_opened().map(|topic| Event::Opened { topic });
        self.store.events.pop_front().or_else(|| opened(&mut self.store.index))
    }

    /// When to call [`Self::handle_timeout`]; `None` when nothing is pending.
    pub fn poll_timeout(&self) -> Option<Time> {
        let Store { owners, index, differ, counter, .. } = &self.store;
        let deadlines = [
            differ.next_deadline(),
            counter.next_deadline(owners, index),
            owners.next_deadline(),
            self.interests.next_deadline(),
            self.store.leases.next_deadline(),
            self.store.moved.next(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// This node.
    pub fn me(&self) -> &Replica {
        &self.store.owners.me().replica
    }

    /// Which shard it is.
    pub fn number(&self) -> u16 {
        self.number
    }
}

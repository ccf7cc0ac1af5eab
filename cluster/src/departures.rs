//! Goodbyes, and how those hear of them whom they did not reach.
//!
//! Without its goodbye a node that is gone has crashed, as far as membership can tell: its entries are
//! hidden at once, lease or not, and a partition is suspected. So whoever hears one passes it on to all
//! it has a link to, at once, and for a while to those that link later: they may have been asleep.

use std::{collections::VecDeque, time::Duration};

use presence::{NodeIx, NodeName, Replica, Time};

use crate::{
    cluster::{Cluster, LEASE_MAX, Shards},
    node::State,
    wire::{Departed, Message},
};

/// Goodbyes that are remembered; the oldest makes room.
const REMEMBERED_MAX: usize = 1024;

/// The goodbyes that came from the nodes themselves, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Departures(VecDeque<Departure>);

#[derive(Debug)]
struct Departure {
    replica: Replica,
    said_at: Time,
    lease_until: Time,
}

impl Departure {
    fn message(&self, now: Time) -> Message {
        let lease = self.lease_until.since(now);
        Message::Departed(Departed {
            name: self.replica.name.as_str().to_owned(),
            incarnation: self.replica.incarnation,
            lease: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

impl Cluster {
    /// A node has said goodbye to this one, with a lease in milliseconds.
    pub(crate) fn hear_leave(
        &mut self,
        ix: NodeIx,
        lease: u64,
        shards: &mut impl Shards,
        now: Time,
    ) {
        let Some(node) = self.nodes.get(ix) else { return };
        let lease = Duration::from_millis(lease).min(LEASE_MAX);
        let departure =
            Departure { replica: node.replica.clone(), said_at: now, lease_until: now + lease };
        self.send_control_to_all(&departure.message(now));
        let Departures(all) = &mut self.departures;
        all.retain(|former| former.said_at + self.config.forget_after > now);
        if all.len() >= REMEMBERED_MAX {
            all.pop_front();
        }
        all.push_back(departure);
        self.handle_leave(ix, lease, shards, now);
    }

    /// Tells a peer, whose link is new, of the goodbyes that it may have missed.
    pub(crate) fn tell_departures(&mut self, ix: NodeIx, now: Time) {
        let Departures(all) = &self.departures;
        let kept = all.iter().filter(|former| former.said_at + self.config.forget_after > now);
        let messages: Vec<Message> = kept.map(|former| former.message(now)).collect();
        for message in messages {
            self.send_control(ix, &message);
        }
    }

    /// A node has said goodbye to a peer.
    pub(crate) fn handle_departed(
        &mut self,
        departed: Departed,
        shards: &mut impl Shards,
        now: Time,
    ) {
        let Departed { name, incarnation, lease } = departed;
        let Some(ix) = name.parse::<NodeName>().ok().and_then(|name| self.nodes.find(&name)) else {
            return;
        };
        let Some(node) = self.nodes.get_mut(ix) else { return };
        if node.replica.incarnation != incarnation || node.left {
            return;
        }
        match node.state {
            State::Up => self.handle_leave(ix, Duration::from_millis(lease), shards, now),
            State::Down(_) => {
                node.left = true;
                self.settle_partition(ix, now);
            }
        }
        // Else it is forgotten when its link ends.
        if self.nodes.get(ix).is_some_and(|node| node.link.is_none()) {
            self.forget(ix, shards, now);
        }
    }
}

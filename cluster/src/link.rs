//! One link to a peer: what was sent of our feeds, what was heard of theirs, what is queued.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use presence::{NodeIx, Time};

use crate::{relay::Relay, wire::Identity};

/// A queue of frames between two nodes. Each is a stream of its own, so none holds up another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Membership packets; dropped when they cannot leave.
    Swim,
    /// Acknowledgements, digests, orders. Never dropped.
    Control,
    /// Changes of feeds whose peer is up to date.
    FeedLive,
    /// Catch-up of feeds.
    FeedBulk,
}

impl Lane {
    /// Those that [`Cluster::poll_transmit`](crate::Cluster::poll_transmit) serves, most urgent first.
    pub const ALL: [Self; 4] = [Self::Swim, Self::Control, Self::FeedLive, Self::FeedBulk];
}

/// How far one of our feeds has gone to the peer.
#[derive(Clone, Debug)]
struct Cursor {
    sent: u64,
    acked: u64,
    /// Bumped by each rewind, so that ranges sent before it are told from those after.
    epoch: u32,
    stage: Stage,
}

/// A feed moves to the live lane only when nothing of it is on its way in the bulk lane: the two
/// are not ordered between each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Behind: served on the bulk lane.
    Bulk,
    /// All is sent; what is new waits for the acknowledgement.
    Settling,
    /// Up to date: served on the live lane.
    Live,
}

/// What was heard of one of the peer's feeds.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) epoch: u32,
    /// The epoch in which a gap was reported; once is enough.
    pub(crate) nacked: Option<u32>,
    pub(crate) progress_at: Time,
    /// Ranges are missing, so what the peer wants is not known.
    pub(crate) behind: bool,
    /// The peer wants all topics of the shard.
    pub(crate) everything: bool,
}

#[derive(Debug)]
pub(crate) struct Link {
    /// The driver's number for it; later links have higher ones.
    pub(crate) id: u64,
    /// The run of the peer that it leads to.
    pub(crate) incarnation: u64,
    /// When the last frame came.
    pub(crate) heard_at: Time,
    /// The peer's first frame has come; before it nothing of ours is sent.
    pub(crate) synced: bool,
    /// The peer's membership identity, once told.
    pub(crate) identity: Option<Identity>,
    pub(crate) incoming: Vec<Incoming>,
    /// Missed a barrier: joins do not wait for it until it acknowledges again.
    pub(crate) lagging: bool,
    pub(crate) control: VecDeque<Bytes>,
    pub(crate) control_bytes: usize,
    pub(crate) swim: VecDeque<Bytes>,
    /// Feeds of other nodes that the peer has pulled, by the node.
    pub(crate) relays: BTreeMap<NodeIx, Relay>,
    cursors: Vec<Cursor>,
    /// Shards with changes that wait for the next live flush.
    waiting: BTreeSet<u16>,
    /// Shards that the present live flush serves.
    due: BTreeSet<u16>,
    /// Shards with changes for the bulk lane.
    bulk: BTreeSet<u16>,
    /// No live flush before.
    quiet_until: Time,
    unacked: BTreeSet<u16>,
    ack_at: Option<Time>,
}

impl Link {
    pub(crate) fn new(id: u64, incarnation: u64, shards: u16, now: Time) -> Self {
        let cursor = Cursor { sent: 0, acked: 0, epoch: 0, stage: Stage::Bulk };
        let incoming =
            Incoming { epoch: 0, nacked: None, progress_at: now, behind: true, everything: false };
        Self {
            id,
            incarnation,
            heard_at: now,
            synced: false,
            identity: None,
            incoming: vec![incoming; usize::from(shards)],
            lagging: false,
            control: VecDeque::new(),
            control_bytes: 0,
            swim: VecDeque::new(),
            relays: BTreeMap::new(),
            cursors: vec![cursor; usize::from(shards)],
            waiting: BTreeSet::new(),
            due: BTreeSet::new(),
            bulk: BTreeSet::new(),
            quiet_until: now,
            unacked: BTreeSet::new(),
            ack_at: None,
        }
    }

    /// Whether broadcasts of the shard go to the peer whatever it asked for.
    pub(crate) fn floods(&self, shard: u16) -> bool {
        let incoming = &self.incoming[usize::from(shard)];
        incoming.behind || incoming.everything
    }

    /// All that the peer had when the link came up has arrived.
    pub(crate) fn caught_up(&self) -> bool {
        self.synced && self.incoming.iter().all(|incoming| !incoming.behind)
    }

    // === our feeds to the peer ===

    /// The peer said where it stands; `heads` are ours.
    pub(crate) fn resume(&mut self, positions: &[u64], heads: &[u64]) {
        self.synced = true;
        for (shard, head) in (0..).zip(heads) {
            let position = positions.get(usize::from(shard)).copied().unwrap_or(0);
            // Beyond our head it knows somebody else's feed: it will refuse ours or start over.
            let position = if position > *head { 0 } else { position };
            self.start(shard, position, *head);
        }
    }

    /// Goes back to `position`, as the peer asked.
    pub(crate) fn rewind(&mut self, shard: u16, position: u64, head: u64) {
        // Before its first frame the peer has nothing of ours to be missed.
        if !self.synced {
            return;
        }
        let epoch = &mut self.cursors[usize::from(shard)].epoch;
        *epoch = epoch.saturating_add(1);
        self.start(shard, position.min(head), head);
    }

    fn start(&mut self, shard: u16, position: u64, head: u64) {
        let cursor = &mut self.cursors[usize::from(shard)];
        cursor.sent = position;
        cursor.acked = position;
        cursor.stage = if position == head { Stage::Live } else { Stage::Bulk };
        self.waiting.remove(&shard);
        self.due.remove(&shard);
        self.bulk.remove(&shard);
        if position < head {
            self.bulk.insert(shard);
        }
    }

    /// Our feed has grown.
    pub(crate) fn grown(&mut self, shard: u16, head: u64) {
        let cursor = &self.cursors[usize::from(shard)];
        if !self.synced || cursor.sent >= head {
            return;
        }
        match cursor.stage {
            Stage::Bulk => drop(self.bulk.insert(shard)),
            Stage::Live if !self.due.contains(&shard) => drop(self.waiting.insert(shard)),
            Stage::Live | Stage::Settling => {}
        }
    }

    /// The shard to serve next on a feed lane, with position and epoch.
    pub(crate) fn next(
        &mut self,
        lane: Lane,
        coalesce: Duration,
        now: Time,
    ) -> Option<(u16, u64, u32)> {
        let shard = match lane {
            Lane::FeedBulk => *self.bulk.first()?,
            Lane::FeedLive => {
                self.flush(coalesce, now);
                *self.due.first()?
            }
            Lane::Swim | Lane::Control => return None,
        };
        let cursor = &self.cursors[usize::from(shard)];
        Some((shard, cursor.sent, cursor.epoch))
    }

    /// Lets the changes that waited go, once the silence after the last flush is over.
    pub(crate) fn flush(&mut self, coalesce: Duration, now: Time) {
        if self.due.is_empty() && !self.waiting.is_empty() && self.quiet_until <= now {
            std::mem::swap(&mut self.due, &mut self.waiting);
            self.quiet_until = now + coalesce;
        }
    }

    /// A range up to `to` has been handed to the lane. Returns whether its acknowledgement is
    /// awaited.
    pub(crate) fn sent(&mut self, shard: u16, to: u64, head: u64) -> bool {
        let cursor = &mut self.cursors[usize::from(shard)];
        cursor.sent = to;
        if to < head {
            return false;
        }
        self.due.remove(&shard);
        self.bulk.remove(&shard);
        if cursor.stage == Stage::Bulk {
            cursor.stage = Stage::Settling;
        }
        cursor.stage == Stage::Settling
    }

    /// The peer has applied our feed up to `position`.
    pub(crate) fn acked(&mut self, shard: u16, position: u64, head: u64) {
        let cursor = &mut self.cursors[usize::from(shard)];
        cursor.acked = cursor.acked.max(position.min(cursor.sent));
        if cursor.stage == Stage::Settling && cursor.acked == cursor.sent {
            cursor.stage = Stage::Live;
            self.grown(shard, head);
        }
    }

    pub(crate) fn acked_position(&self, shard: u16) -> u64 {
        self.cursors[usize::from(shard)].acked
    }

    // === acknowledgements to the peer ===

    pub(crate) fn owe_ack(&mut self, shard: u16, by: Time) {
        self.unacked.insert(shard);
        self.ack_at = Some(self.ack_at.map_or(by, |at| at.min(by)));
    }

    /// Shards to acknowledge, once it is time.
    pub(crate) fn take_acks(&mut self, now: Time) -> Option<BTreeSet<u16>> {
        if self.ack_at.is_none_or(|at| at > now) {
            return None;
        }
        self.ack_at = None;
        Some(std::mem::take(&mut self.unacked))
    }

    /// When this link next has work.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let flush = (!self.waiting.is_empty() && self.due.is_empty()).then_some(self.quiet_until);
        [self.ack_at, flush].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;

//! Our feeds to the peers, theirs to us, and the digests that check both.

use std::hash::Hasher as _;

use bytes::Bytes;
use crdts::VClock;
use presence::{Applied, NodeIx, Op, Time, Value};
use siphasher::sip::SipHasher24;

use crate::{
    cluster::{Cluster, Shards},
    error::WireError,
    event::Event,
    link::Lane,
    membership::RECORDS_PER_FRAME,
    wire::{Digest, FeedRange, Identity, MemberRecord, Message, Nack, Positions, Sums, Sync},
};

impl Cluster {
    /// The first frame for a new link.
    pub(crate) fn sync_for(&mut self, ix: NodeIx, shards: &mut impl Shards) -> Sync {
        let incarnation = self.nodes.get(ix).map(|node| node.replica.incarnation);
        let mut positions = Vec::with_capacity(self.heads.len());
        for shard in 0..self.config.shards {
            let (head, position) = shards.with(shard, |s| (s.head(), s.position(ix)));
            self.handle_head(shard, head);
            let position = position.filter(|at| Some(at.incarnation) == incarnation);
            positions.push(position.map_or(0, |at| at.v));
        }
        let mut members = self.membership.records();
        members.truncate(RECORDS_PER_FRAME);
        Sync {
            identity: self.membership.identity().clone(),
            region: self.config.region.clone(),
            version: self.config.version.clone(),
            heads: self.heads.clone(),
            positions,
            members,
        }
    }

    pub(crate) fn handle_sync(
        &mut self,
        ix: NodeIx,
        sync: Sync,
        shards: &mut impl Shards,
        now: Time,
    ) -> Result<(), WireError> {
        let ours = self.config.shards;
        let (heads, positions) = (sync.heads.len(), sync.positions.len());
        if heads != usize::from(ours) || positions != usize::from(ours) {
            return Err(WireError::Shards { theirs: heads, ours });
        }
        let Some(node) = self.nodes.get_mut(ix) else { return Ok(()) };
        let incarnation = node.replica.incarnation;
        let Some(link) = node.link.as_mut().filter(|link| !link.synced) else { return Ok(()) };
        if sync.identity.replica() != node.replica {
            let why = format!("sync of {}", sync.identity.replica().name);
            return Err(WireError::Malformed { kind: "sync", why });
        }
        link.identity = Some(sync.identity.clone());
        link.resume(&sync.positions, &self.heads);
        node.region = sync.region;
        node.version = sync.version;
        self.set_address(ix, sync.identity.address);
        for (shard, head) in (0..ours).zip(sync.heads) {
            shards.with(shard, |s| s.saw_head(ix, incarnation, head, now));
            self.settle_flood(ix, shard, shards);
        }
        self.settle_lag(ix, now);
        self.believe(sync.members, now);
        if !self.membership.is_active(&sync.identity) {
            self.membership.announce(sync.identity, now);
        }
        self.settle_membership(shards, now);
        self.settle_barriers();
        Ok(())
    }

    pub(crate) fn handle_members(
        &mut self,
        members: Vec<MemberRecord>,
        shards: &mut impl Shards,
        now: Time,
    ) {
        self.believe(members, now);
        self.settle_membership(shards, now);
    }

    /// The other side of a split that heals holds members of this one for dead. That is theirs to
    /// deny, and no reason to hide them here until they have.
    fn believe(&mut self, mut members: Vec<MemberRecord>, now: Time) {
        let active = self.membership.runs();
        let is_active = |id: &Identity| active.contains(&(id.key(), id.incarnation));
        members.retain(|record| record.is_alive() || !is_active(&record.identity));
        self.membership.handle_records(members, now);
    }

    pub(crate) fn handle_range(
        &mut self,
        ix: NodeIx,
        feed: FeedRange,
        shards: &mut impl Shards,
        now: Time,
    ) -> Result<(), WireError> {
        let FeedRange { shard, epoch, ack_now, range } = feed;
        let ours = self.config.shards;
        let ack_by = if ack_now { now } else { now + self.config.ack_delay };
        let Some(link) = self.nodes.link_mut(ix) else { return Ok(()) };
        let Some(incoming) = link.incoming.get_mut(usize::from(shard)) else {
            return Err(WireError::Shards { theirs: usize::from(shard) + 1, ours });
        };
        if epoch < incoming.epoch || self.refetching.contains(&(ix, shard)) {
            return Ok(());
        }
        incoming.epoch = epoch;
        let incarnation = range.incarnation;
        match shards.with(shard, |s| s.apply(ix, range, now)) {
            Applied::Applied { .. } => {
                incoming.progress_at = now;
                link.owe_ack(shard, ack_by);
                self.stats.ranges_applied += 1;
                self.relay_grown(ix, shard);
            }
            Applied::Duplicate => {
                link.owe_ack(shard, ack_by);
                self.stats.ranges_duplicate += 1;
            }
            Applied::Nack { v: position } if incoming.nacked != Some(epoch) => {
                incoming.nacked = Some(epoch);
                self.stats.nacks_sent += 1;
                self.send_control(ix, &Message::Nack(Nack { incarnation, shard, position }));
            }
            Applied::Nack { .. } => {}
            Applied::Rejected(why) => {
                return Err(WireError::BadRange { shard, why: why.to_string() });
            }
        }
        self.settle_flood(ix, shard, shards);
        self.settle_lag(ix, now);
        self.acknowledge(ix, shards, now);
        Ok(())
    }

    pub(crate) fn handle_ack(&mut self, ix: NodeIx, acks: &Positions) {
        if acks.incarnation != self.me.incarnation {
            return;
        }
        let Some(link) = self.nodes.link_mut(ix) else { return };
        link.lagging = false;
        for &(shard, position) in &acks.positions {
            if let Some(head) = self.heads.get(usize::from(shard)) {
                link.acked(shard, position, *head);
            }
        }
        self.settle_barriers();
    }

    pub(crate) fn handle_nack(&mut self, ix: NodeIx, nack: Nack) {
        let head = self.heads.get(usize::from(nack.shard)).copied();
        if let Some(head) = head.filter(|_| nack.incarnation == self.me.incarnation)
            && let Some(link) = self.nodes.link_mut(ix)
        {
            link.rewind(nack.shard, nack.position, head);
        }
    }

    /// The next range of our own feeds for a peer.
    pub(crate) fn poll_feed(
        &mut self,
        ix: NodeIx,
        lane: Lane,
        budget: usize,
        shards: &mut impl Shards,
        now: Time,
    ) -> Option<Bytes> {
        let max = self.config.range_len.min(budget);
        loop {
            let link = self.nodes.polled_link_mut(ix)?;
            let Some((shard, from, epoch)) = link.next(lane, self.config.coalesce, now) else {
                // Behind our own: the peer has no other way to those.
                return if lane == Lane::FeedBulk {
                    self.poll_relay(ix, max, shards)
                } else {
                    None
                };
            };
            let served = shards.with(shard, |s| (s.serve(NodeIx::SELF, from, max), s.head()));
            let (Some(range), head) = served else {
                link.sent(shard, from, from);
                continue;
            };
            let settling = link.sent(shard, range.to, head);
            self.stats.ranges_sent += 1;
            self.stats.ops_sent += range.ops.len() as u64;
            // It may have grown without a word from the driver yet: the other links wait for it too.
            self.handle_head(shard, head);
            // A new interest has a join waiting for it.
            let ack_now = settling || range.ops.iter().any(is_interest);
            let feed = FeedRange { shard, epoch, ack_now, range };
            let frame = Message::Range(feed).encode();
            self.stats.feed_bytes_sent += frame.len() as u64;
            return Some(frame);
        }
    }

    /// Sends a peer the acknowledgements that are due.
    pub(crate) fn acknowledge(&mut self, ix: NodeIx, shards: &mut impl Shards, now: Time) {
        let Some(node) = self.nodes.get_mut(ix) else { return };
        let incarnation = node.replica.incarnation;
        let Some(owed) = node.link.as_mut().and_then(|link| link.take_acks(now)) else { return };
        let positions = owed.into_iter().filter_map(|shard| {
            let position = shards.with(shard, |s| s.position(ix))?;
            (position.incarnation == incarnation).then_some((shard, position.v))
        });
        let positions = positions.collect();
        self.send_control(ix, &Message::Ack(Positions { incarnation, positions }));
    }

    /// Decides anew whether a peer must be flooded with a shard's broadcasts.
    fn settle_flood(&mut self, ix: NodeIx, shard: u16, shards: &mut impl Shards) {
        let Some(node) = self.nodes.get_mut(ix) else { return };
        let Some(link) = &mut node.link else { return };
        let before = link.floods(shard);
        let position = shards.with(shard, |s| s.position(ix));
        let position = position.filter(|at| at.incarnation == node.replica.incarnation);
        let incoming = &mut link.incoming[usize::from(shard)];
        incoming.behind = !link.synced || position.is_none_or(|at| at.v < at.head_seen);
        incoming.everything = position.is_some_and(|at| at.all_interest);
        let on = link.floods(shard);
        if on != before {
            self.events.push_back(Event::Flood { node: ix, shard, on });
        }
    }

    // === digests ===

    /// To one peer in turn.
    pub(crate) fn send_digest(&mut self, shards: &mut impl Shards) {
        let next = self.linked().find(|ix| *ix > self.digest_last);
        let Some(ix) = next.or_else(|| self.linked().next()) else { return };
        self.digest_last = ix;
        let digest =
            Digest { clock: self.clock_hash(shards), own: sums_hash(&self.own_sums(shards)) };
        self.send_control(ix, &Message::Digest(digest));
    }

    pub(crate) fn handle_digest(&mut self, ix: NodeIx, digest: Digest, shards: &mut impl Shards) {
        let agrees = digest.clock == self.clock_hash(shards);
        let known: Vec<(u64, u64)> = (0..self.config.shards)
            .map(|shard| shards.with(shard, |s| s.position(ix)))
            .map(|position| position.map_or((0, 0), |at| (at.v, at.checksum)))
            .collect();
        if let Some(node) = self.nodes.get_mut(ix) {
            node.agrees = Some(agrees);
        }
        if sums_hash(&known) != digest.own {
            self.send_control(ix, &Message::DigestRequest);
        }
    }

    pub(crate) fn handle_digest_request(&mut self, ix: NodeIx, shards: &mut impl Shards) {
        let feeds = self.own_sums(shards);
        let sums = Sums { incarnation: self.me.incarnation, feeds };
        self.send_control(ix, &Message::Sums(sums));
    }

    /// Compares what we hold of a peer's feeds with what it says of them.
    pub(crate) fn handle_sums(
        &mut self,
        ix: NodeIx,
        sums: &Sums,
        shards: &mut impl Shards,
        now: Time,
    ) {
        let incarnation = sums.incarnation;
        let mut wrong = false;
        for (shard, &(head, checksum)) in (0..self.config.shards).zip(&sums.feeds) {
            let position = shards.with(shard, |s| {
                s.saw_head(ix, incarnation, head, now);
                s.position(ix)
            });
            let Some(at) = position.filter(|at| at.incarnation == incarnation) else { continue };
            if self.refetching.contains(&(ix, shard)) {
                continue;
            }
            if at.v == head && at.checksum != checksum {
                self.stats.refetches += 1;
                self.refetching.insert((ix, shard));
                wrong = true;
            } else if at.v < head && self.is_stuck(ix, shard, now) {
                self.ask_again(ix, shard, at.v, shards);
            }
        }
        if wrong {
            self.refetch_some(shards, now);
        }
    }

    /// Empties some more of the replicas that were wrong; those that are empty are fetched.
    pub(crate) fn refetch_some(&mut self, shards: &mut impl Shards, now: Time) {
        for (ix, shard) in self.refetching.clone() {
            if shards.with(shard, |s| s.refetch(ix, now)) {
                self.refetching.remove(&(ix, shard));
                self.ask_again(ix, shard, 0, shards);
            } else {
                self.settle_flood(ix, shard, shards);
            }
            self.settle_lag(ix, now);
        }
    }

    fn ask_again(&mut self, ix: NodeIx, shard: u16, position: u64, shards: &mut impl Shards) {
        let Some(incarnation) = self.nodes.get(ix).map(|node| node.replica.incarnation) else {
            return;
        };
        self.stats.nacks_sent += 1;
        self.send_control(ix, &Message::Nack(Nack { incarnation, shard, position }));
        self.settle_flood(ix, shard, shards);
    }

    /// Nothing of the peer's feed has come for a whole digest round.
    fn is_stuck(&mut self, ix: NodeIx, shard: u16, now: Time) -> bool {
        let interval = self.config.digest_interval;
        let Some(link) = self.nodes.link_mut(ix) else { return false };
        let incoming = &link.incoming[usize::from(shard)];
        incoming.progress_at + interval <= now
    }

    fn own_sums(&self, shards: &mut impl Shards) -> Vec<(u64, u64)> {
        let sums =
            (0..self.config.shards).map(|shard| shards.with(shard, |s| (s.head(), s.checksum())));
        sums.collect()
    }

    /// Of the vector clock over all feeds known here, own ones included.
    fn clock_hash(&self, shards: &mut impl Shards) -> u64 {
        let mut clock = VClock::new();
        for shard in 0..self.config.shards {
            shards.with(shard, |s| s.clock(&mut clock));
        }
        let mut hasher = SipHasher24::new();
        for dot in clock.iter() {
            hasher.write(dot.actor.replica.name.as_str().as_bytes());
            hasher.write(&[0]);
            hasher.write(&dot.actor.replica.incarnation.to_le_bytes());
            hasher.write(&dot.actor.shard.to_le_bytes());
            hasher.write(&dot.counter.to_le_bytes());
        }
        hasher.finish()
    }
}

fn is_interest(op: &Op) -> bool {
    matches!(op, Op::Put { value: Value::Interest { .. }, .. })
}

fn sums_hash(sums: &[(u64, u64)]) -> u64 {
    let mut hasher = SipHasher24::new();
    for (head, checksum) in sums {
        hasher.write(&head.to_le_bytes());
        hasher.write(&checksum.to_le_bytes());
    }
    hasher.finish()
}

//! Feeds of a node without a link to us, by way of a peer that has one.
//!
//! Only presence and interest go this way: a relay serves ranges of its replica as their owner would.
//! Broadcasts do not; when the link is back, the peer is flooded until its head is known from itself.
//! A pull is its own epoch: what an earlier one still brings is ignored. The bulk lane is in order, so
//! nothing of a pull is missing while its link lives.

use std::{collections::BTreeSet, hash::Hasher as _};

use bytes::Bytes;
use presence::{Applied, NodeIx, NodeName, Rejection, Time};
use siphasher::sip::SipHasher24;

use crate::{
    cluster::{Cluster, Shards},
    error::WireError,
    node::{Node, State},
    wire::{FeedRange, Message, Pull, PullAnswer, Relayed},
};

/// Where a node's feeds come from.
#[derive(Debug, Default)]
pub(crate) enum Source {
    /// From itself, or from nowhere while it is down.
    #[default]
    Itself,
    /// There is no link to it: they are to be pulled.
    Wanted {
        /// When the next peer is asked.
        at: Time,
    },
    /// From a peer that has a link to it.
    Pulled {
        from: NodeIx,
        pull: u64,
        /// Shards of which the peer has spoken of more than is here; `None` until it has answered.
        behind: Option<BTreeSet<u16>>,
    },
}

impl Source {
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        match self {
            Self::Wanted { at } => Some(*at),
            Self::Itself | Self::Pulled { .. } => None,
        }
    }

    /// All that the relay has spoken of is here.
    pub(crate) fn is_current(&self) -> bool {
        matches!(self, Self::Pulled { behind: Some(behind), .. } if behind.is_empty())
    }
}

/// The feeds of one node on their way to a peer that pulled them.
#[derive(Debug)]
pub(crate) struct Relay {
    pull: u64,
    /// By shard: how far they have gone.
    sent: Vec<u64>,
    /// Shards that may have more.
    due: BTreeSet<u16>,
}

// === for peers ===

impl Cluster {
    pub(crate) fn handle_pull(
        &mut self,
        ix: NodeIx,
        pull: Pull,
        shards: &mut impl Shards,
    ) -> Result<(), WireError> {
        let Pull { id, owner, incarnation, positions } = pull;
        self.check_shards(positions.len())?;
        let owner = owner.parse().ok().and_then(|name| self.relayable(&name, incarnation));
        let heads = owner.map(|owner| {
            let heads = (0..self.config.shards).map(|shard| {
                shards.with(shard, |s| s.position(owner)).map_or(0, |at| at.head_seen)
            });
            heads.collect()
        });
        if let (Some(owner), Some(link)) = (owner, self.nodes.link_mut(ix)) {
            let due = (0..self.config.shards).collect();
            link.relays.insert(owner, Relay { pull: id, sent: positions, due });
            if let Some(owner) = self.nodes.get_mut(owner) {
                owner.pullers.insert(ix);
            }
        }
        self.send_control(ix, &Message::PullAnswer(PullAnswer { id, heads }));
        Ok(())
    }

    pub(crate) fn handle_pull_end(&mut self, ix: NodeIx, pull: u64) {
        if let Some(link) = self.nodes.link_mut(ix) {
            link.relays.retain(|_, relay| relay.pull != pull);
        }
    }

    /// Only a node that is up here, and that has a link to us, is relayed: a relay of a relay could
    /// go round in circles, and what is down here is not brought up elsewhere.
    fn relayable(&self, name: &NodeName, incarnation: u64) -> Option<NodeIx> {
        let ix = self.nodes.find(name)?;
        let node = self.nodes.get(ix).filter(|node| node.replica.incarnation == incarnation)?;
        let link = node.link.as_ref().filter(|link| link.incarnation == incarnation)?;
        (node.state == State::Up && !node.left && link.synced).then_some(ix)
    }

    /// A replica has grown: those who pull it get more.
    pub(crate) fn relay_grown(&mut self, owner: NodeIx, shard: u16) {
        let pullers = self.nodes.get(owner).map(|node| node.pullers.clone()).unwrap_or_default();
        for ix in pullers {
            let relay = self.nodes.link_mut(ix).and_then(|link| link.relays.get_mut(&owner));
            match relay {
                Some(relay) => drop(relay.due.insert(shard)),
                None => drop(self.nodes.get_mut(owner).map(|node| node.pullers.remove(&ix))),
            }
        }
    }

    /// The next range that a peer has pulled.
    pub(crate) fn poll_relay(
        &mut self,
        ix: NodeIx,
        max: usize,
        shards: &mut impl Shards,
    ) -> Option<Bytes> {
        let relays = &mut self.nodes.polled_link_mut(ix)?.relays;
        for (owner, relay) in relays.iter_mut() {
            while let Some(&shard) = relay.due.first() {
                let sent = &mut relay.sent[usize::from(shard)];
                let Some(range) = shards.with(shard, |s| s.serve(*owner, *sent, max)) else {
                    relay.due.remove(&shard);
                    continue;
                };
                *sent = range.to;
                self.stats.ranges_relayed += 1;
                let feed = FeedRange { shard, epoch: 0, ack_now: false, range };
                return Some(Message::Relayed(Relayed { pull: relay.pull, feed }).encode());
            }
        }
        None
    }

    /// This node cannot relay the feeds of another any more: whoever pulls them must ask elsewhere.
    fn refuse_pullers(&mut self, owner: NodeIx) {
        let Some(node) = self.nodes.get_mut(owner) else { return };
        for ix in std::mem::take(&mut node.pullers) {
            let relay = self.nodes.link_mut(ix).and_then(|link| link.relays.remove(&owner));
            if let Some(Relay { pull: id, .. }) = relay {
                self.send_control(ix, &Message::PullAnswer(PullAnswer { id, heads: None }));
            }
        }
    }
}

// === for this node ===

impl Cluster {
    /// A node's feeds are to be pulled from `at` on, unless there is a link by then.
    pub(crate) fn want_relay(&mut self, ix: NodeIx, at: Time) {
        let Some(node) = self.nodes.get_mut(ix) else { return };
        let is_missing = node.link.is_none() && node.state == State::Up && !node.left;
        if is_missing && matches!(node.source, Source::Itself) {
            node.source = Source::Wanted { at };
        }
    }

    /// Takes a node's feeds from elsewhere from here on. Returns where they came from.
    fn set_source(&mut self, ix: NodeIx, source: Source) -> Option<Source> {
        let node = self.nodes.get_mut(ix)?;
        if let Source::Pulled { pull, .. } = source {
            self.pulling.insert(pull, ix);
        }
        let before = std::mem::replace(&mut node.source, source);
        if let Source::Pulled { pull, .. } = before {
            self.pulling.remove(&pull);
        }
        Some(before)
    }

    /// There is a link to the node, or no use for its feeds.
    pub(crate) fn end_pull(&mut self, ix: NodeIx) {
        if let Some(Source::Pulled { from, pull, .. }) = self.set_source(ix, Source::Itself) {
            self.send_control(from, &Message::PullEnd(pull));
        }
    }

    /// A node is not what it was: its feeds are relayed neither to us nor by us.
    pub(crate) fn end_relays(&mut self, ix: NodeIx) {
        self.end_pull(ix);
        self.refuse_pullers(ix);
    }

    /// The link to a node has ended: it relays nothing any more, and is not relayed.
    pub(crate) fn lose_relay(&mut self, ix: NodeIx, now: Time) {
        let is_from =
            |node: &Node| matches!(node.source, Source::Pulled { from, .. } if from == ix);
        let pulling = self.pulling.values().copied();
        let lost: Vec<NodeIx> =
            pulling.filter(|owner| self.nodes.get(*owner).is_some_and(is_from)).collect();
        for owner in lost {
            self.set_source(owner, Source::Wanted { at: now });
            self.settle_lag(owner, now);
        }
        self.refuse_pullers(ix);
    }

    /// Asks a peer for a node whose link has been missing for too long.
    pub(crate) fn pull_missing(&mut self, ix: NodeIx, shards: &mut impl Shards, now: Time) {
        let wanted_at = self.nodes.get(ix).and_then(|node| node.source.poll_timeout());
        if wanted_at.is_none_or(|at| at > now) {
            return;
        }
        let peer = if self.has_place(ix, shards) { self.next_relay(ix) } else { None };
        let Some(node) = self.nodes.get_mut(ix) else { return };
        match peer {
            Some((peer, rank)) => {
                node.relay_rank = rank;
                self.pull(ix, peer, shards);
            }
            None => node.source = Source::Wanted { at: now + self.config.relay_after },
        }
    }

    /// The shards take the node's feeds: of a run that was forgotten, they do so only once it has a
    /// link of its own.
    fn has_place(&self, ix: NodeIx, shards: &mut impl Shards) -> bool {
        let position = shards.with(0, |s| s.position(ix));
        let known = self.nodes.get(ix).map(|node| node.replica.incarnation);
        position.is_some_and(|at| Some(at.incarnation) == known)
    }

    /// The peer to ask for a node's feeds, if membership says that it is alive: the one after that
    /// asked last, in an order that is another for each node and each that misses it.
    fn next_relay(&self, ix: NodeIx) -> Option<(NodeIx, u64)> {
        let node = self.nodes.get(ix)?;
        self.membership.active(&node.replica)?;
        let could = |peer: &Node| {
            let linked = peer.link.as_ref().is_some_and(|link| link.synced);
            linked && peer.state == State::Up && !peer.left
        };
        let peers = self.nodes.iter().filter(|(_, peer)| could(peer)).map(|(peer_ix, peer)| {
            let names = [&self.me.name, &node.replica.name, &peer.replica.name];
            (peer_ix, rank(names))
        });
        peers.min_by_key(|(_, rank)| (*rank <= node.relay_rank, *rank))
    }

    fn pull(&mut self, ix: NodeIx, from: NodeIx, shards: &mut impl Shards) {
        self.pulls += 1;
        let id = self.pulls;
        self.set_source(ix, Source::Pulled { from, pull: id, behind: None });
        let Some(node) = self.nodes.get(ix) else { return };
        let incarnation = node.replica.incarnation;
        let owner = node.replica.name.as_str().to_owned();
        let positions = (0..self.config.shards).map(|shard| {
            let position = shards.with(shard, |s| s.position(ix));
            position.filter(|at| at.incarnation == incarnation).map_or(0, |at| at.v)
        });
        let positions = positions.collect();
        self.send_control(from, &Message::Pull(Pull { id, owner, incarnation, positions }));
    }

    pub(crate) fn handle_pull_answer(
        &mut self,
        from: NodeIx,
        answer: PullAnswer,
        shards: &mut impl Shards,
        now: Time,
    ) -> Result<(), WireError> {
        let Some(heads) = answer.heads else {
            let again = now + self.config.relay_after / 4;
            if let Some((ix, _)) = self.pulled(from, answer.id) {
                self.set_source(ix, Source::Wanted { at: again });
                self.settle_lag(ix, now);
                self.end_doubt(ix, shards, now);
            }
            return Ok(());
        };
        self.check_shards(heads.len())?;
        let Some((ix, node)) = self.pulled(from, answer.id) else { return Ok(()) };
        let incarnation = node.replica.incarnation;
        let mut missing = BTreeSet::new();
        for (shard, head) in (0..).zip(heads) {
            let position = shards.with(shard, |s| {
                s.heard_head(ix, incarnation, head, now);
                s.position(ix)
            });
            if position.is_none_or(|at| !at.is_current()) {
                missing.insert(shard);
            }
        }
        if let Source::Pulled { behind, .. } = &mut node.source {
            *behind = Some(missing);
        }
        node.settle_lag(now);
        Ok(())
    }

    pub(crate) fn handle_relayed(
        &mut self,
        from: NodeIx,
        relayed: Relayed,
        shards: &mut impl Shards,
        now: Time,
    ) -> Result<(), WireError> {
        let Relayed { pull, feed: FeedRange { shard, range, .. } } = relayed;
        let ours = self.config.shards;
        if shard >= ours {
            return Err(WireError::Shards { theirs: usize::from(shard) + 1, ours });
        }
        let Some((ix, node)) = self.pulled(from, pull) else { return Ok(()) };
        let applied = shards.with(shard, |s| s.apply(ix, range, now));
        let is_current = shards.with(shard, |s| s.position(ix)).is_some_and(|at| at.is_current());
        if let Source::Pulled { behind: Some(behind), .. } = &mut node.source {
            let _ = if is_current { behind.remove(&shard) } else { behind.insert(shard) };
        }
        node.settle_lag(now);
        match applied {
            Applied::Applied { .. } => self.stats.ranges_applied += 1,
            Applied::Duplicate => self.stats.ranges_duplicate += 1,
            Applied::Nack { .. } => {
                self.stats.nacks_sent += 1;
                self.pull(ix, from, shards);
            }
            Applied::Rejected(why @ Rejection::Malformed(_)) => {
                return Err(WireError::BadRange { shard, why: why.to_string() });
            }
            // It has no place for the feed any more.
            Applied::Rejected(_) => {}
        }
        Ok(())
    }

    /// The node whose feeds a peer relays to us under this number.
    fn pulled(&mut self, peer: NodeIx, id: u64) -> Option<(NodeIx, &mut Node)> {
        let ix = *self.pulling.get(&id)?;
        let node = self.nodes.get_mut(ix)?;
        let is_from = matches!(node.source, Source::Pulled { from, .. } if from == peer);
        is_from.then_some((ix, node))
    }

    /// The peer that relays a node's feeds.
    pub(crate) fn relay_of(&self, node: &Node) -> Option<NodeName> {
        let Source::Pulled { from, .. } = &node.source else { return None };
        self.nodes.get(*from).map(|peer| peer.replica.name.clone())
    }

    pub(crate) fn settle_lag(&mut self, ix: NodeIx, now: Time) {
        if let Some(node) = self.nodes.get_mut(ix) {
            node.settle_lag(now);
        }
    }

    fn check_shards(&self, theirs: usize) -> Result<(), WireError> {
        let ours = self.config.shards;
        if theirs == usize::from(ours) { Ok(()) } else { Err(WireError::Shards { theirs, ours }) }
    }
}

fn rank(names: [&NodeName; 3]) -> u64 {
    let mut hasher = SipHasher24::new();
    for name in names {
        hasher.write(name.as_str().as_bytes());
        hasher.write(&[0]);
    }
    hasher.finish()
}

//! Nodes come, go and are forgotten: by their links, by membership, by their own word.

use std::{net::SocketAddr, time::Duration};

use presence::{NodeIx, Replica, Time};

use crate::{
    cluster::{Cluster, LEASE_MAX, Shards},
    event::{Down, Event},
    link::Link,
    membership::Notice,
    node::{Doubt, Node, State},
    wire::{Identity, MemberRecord, Message},
};

/// Names whose highest incarnation is remembered.
const SEEN_MAX: usize = 4096;

impl Cluster {
    /// Learns that a run of a node is alive. `None` when it is older than one known, or one too many.
    pub(crate) fn member_up(
        &mut self,
        replica: &Replica,
        address: Option<SocketAddr>,
        direct: bool,
        shards: &mut impl Shards,
        now: Time,
    ) -> Option<NodeIx> {
        if replica.name == self.me.name || self.admit(replica).is_err() {
            return None;
        }
        let ix = match self.nodes.find(&replica.name) {
            Some(ix) => ix,
            None if self.nodes.len() < self.config.members_max => {
                self.nodes.add(replica.clone(), now)?
            }
            None => {
                self.stats.members_refused += 1;
                return None;
            }
        };
        self.remember(replica);
        if self.nodes.get(ix).is_some_and(|node| node.replica != *replica) {
            self.end_relays(ix);
        }
        let node = self.nodes.get_mut(ix)?;
        let fresh = node.address.is_none() && node.link.is_none();
        if node.replica != *replica || node.state != State::Up || fresh {
            self.events.push_back(Event::MemberUp { node: ix, replica: replica.clone() });
        }
        if node.replica != *replica {
            node.draining = false;
            node.left = false;
            node.agrees = None;
        }
        let is_back_on_its_link = node.state != State::Up && node.link.is_some();
        node.replica = replica.clone();
        node.state = State::Up;
        node.settle_lag(now);
        if let Some(address) = address {
            self.set_address(ix, address);
        }
        for shard in 0..self.config.shards {
            shards.with(shard, |shard| shard.member_up(ix, replica, direct, now));
        }
        if is_back_on_its_link {
            // It is shown once all that it speaks of is here.
            self.send_control(ix, &Message::DigestRequest);
        }
        self.want_relay(ix, now + self.config.relay_after);
        self.settle_partition(ix, now);
        Some(ix)
    }

    fn remember(&mut self, replica: &Replica) {
        self.seen.insert(replica.name.clone(), replica.incarnation);
        if self.seen.len() > SEEN_MAX {
            let gone = self
                .seen
                .keys()
                .find(|name| self.nodes.find(name).is_none() && **name != self.me.name);
            if let Some(name) = gone.cloned() {
                self.seen.remove(&name);
            }
        }
    }

    /// Notes where a node can be dialled.
    pub(crate) fn set_address(&mut self, ix: NodeIx, address: SocketAddr) {
        let Some(node) = self.nodes.get_mut(ix) else { return };
        if node.address == Some(address) {
            return;
        }
        let old = node.address.replace(address);
        self.let_go(old);
        self.events.push_back(Event::Keep(address));
    }

    /// An address that a node had is not dialled any more, unless another node has it by now.
    fn let_go(&mut self, address: Option<SocketAddr>) {
        let Some(address) = address else { return };
        if self.nodes.iter().all(|(_, node)| node.address != Some(address)) {
            self.events.push_back(Event::Unkeep(address));
        }
    }

    fn member_down(&mut self, ix: NodeIx, why: Down, shards: &mut impl Shards, now: Time) {
        let Some(node) = self.nodes.get_mut(ix) else { return };
        node.unconfirmed_at = None;
        node.doubt = None;
        if node.state != State::Up {
            return;
        }
        node.state = State::Down(now);
        node.agrees = None;
        self.end_relays(ix);
        self.settle_lag(ix, now);
        let Some(node) = self.nodes.get(ix) else { return };
        let replica = node.replica.clone();
        for shard in 0..self.config.shards {
            shards.with(shard, |shard| shard.member_down(ix, replica.incarnation, now));
        }
        self.events.push_back(Event::MemberDown { node: ix, replica, why });
        self.settle_partition(ix, now);
    }

    pub(crate) fn forget(&mut self, ix: NodeIx, shards: &mut impl Shards, now: Time) {
        self.end_relays(ix);
        let Some(node) = self.nodes.remove(ix) else { return };
        for shard in 0..self.config.shards {
            shards.with(shard, |s| s.member_forget(ix, node.replica.incarnation, now));
        }
        self.let_go(node.address);
        self.events.push_back(Event::Forgotten { node: ix, name: node.replica.name });
        self.settle_partition(ix, now);
    }

    pub(crate) fn handle_draining(&mut self, ix: NodeIx) {
        if let Some(node) = self.nodes.get_mut(ix) {
            node.draining = true;
        }
    }

    /// A node said goodbye; its entries have that lease left.
    pub(crate) fn handle_leave(
        &mut self,
        ix: NodeIx,
        lease: Duration,
        shards: &mut impl Shards,
        now: Time,
    ) {
        if !lease.is_zero() {
            self.grant(ix, lease.min(LEASE_MAX), shards, now);
        }
        let Some(node) = self.nodes.get_mut(ix) else { return };
        node.left = true;
        self.member_down(ix, Down::Left, shards, now);
        self.settle_partition(ix, now);
        let Some(node) = self.nodes.get_mut(ix) else { return };
        let identity = self.membership.active(&node.replica).cloned();
        // No use to dial it again when it closes the link.
        let address = node.address.take();
        self.let_go(address);
        // Membership passes it on to those that the goodbye does not reach.
        if let Some(identity) = identity {
            self.membership.handle_records(vec![MemberRecord::down(identity)], now);
        }
        self.settle_membership(shards, now);
    }

    /// Keeps the entries of a node that goes for a while.
    fn grant(&mut self, ix: NodeIx, lease: Duration, shards: &mut impl Shards, now: Time) {
        let Some(node) = self.nodes.get(ix) else { return };
        let incarnation = node.replica.incarnation;
        for shard in 0..self.config.shards {
            shards.with(shard, |shard| shard.member_depart(ix, incarnation, lease, now));
        }
    }

    /// Carries out what the membership protocol found.
    pub(crate) fn settle_membership(&mut self, shards: &mut impl Shards, now: Time) {
        while let Some(notice) = self.membership.poll_notice() {
            match notice {
                Notice::Up(identity) => self.notice_up(&identity, shards, now),
                Notice::Renamed(identity) if self.membership.is_active(&identity) => {
                    self.notice_up(&identity, shards, now);
                }
                Notice::Renamed(_) => {}
                Notice::Down(identity) => {
                    let replica = identity.replica();
                    if let Some(ix) = self.nodes.find(&replica.name)
                        && self.nodes.get(ix).is_some_and(|node| node.replica == replica)
                    {
                        self.doubt(ix, shards, now);
                    }
                }
            }
        }
        self.drain_packets();
    }

    /// Membership takes a node for dead. Where there is a link to it, that is asked first: who was
    /// on the other side of a split takes all on this side for dead, and says so until they deny it.
    /// Where there is none, it may have said goodbye to somebody, who passes that on.
    fn doubt(&mut self, ix: NodeIx, shards: &mut impl Shards, now: Time) {
        let Some(node) = self.nodes.get_mut(ix) else { return };
        if node.left || node.state != State::Up {
            self.member_down(ix, Down::Unreachable, shards, now);
        } else if node.doubt.is_none() {
            self.ask(ix, now);
        }
    }

    /// Whatever comes over the link is an answer. Without a link there is none.
    fn ask(&mut self, ix: NodeIx, now: Time) {
        let decide_at = now + self.membership.probe_rtt;
        if let Some(node) = self.nodes.get_mut(ix) {
            node.doubt = Some(Doubt { asked_at: now, decide_at });
            self.send_control(ix, &Message::DigestRequest);
        }
    }

    /// A node in doubt that has been heard is asked again, until membership has heard it too.
    fn expire_doubt(&mut self, ix: NodeIx, shards: &mut impl Shards, now: Time) {
        let Some(node) = self.nodes.get(ix) else { return };
        let Some(doubt) = node.doubt.filter(|doubt| doubt.decide_at <= now) else { return };
        if node.link.as_ref().is_some_and(|link| link.heard_at >= doubt.asked_at) {
            self.ask(ix, now);
        } else {
            self.member_down(ix, Down::Unreachable, shards, now);
        }
    }

    /// Nobody speaks for a node any more that has no link to us: membership is right, if it takes it for
    /// dead.
    pub(crate) fn end_doubt(&mut self, ix: NodeIx, shards: &mut impl Shards, now: Time) {
        if self.nodes.get(ix).is_some_and(|node| node.doubt.is_some() && node.link.is_none()) {
            self.member_down(ix, Down::Unreachable, shards, now);
        }
    }

    fn notice_up(&mut self, identity: &Identity, shards: &mut impl Shards, now: Time) {
        let left = self.nodes.find(&identity.name).and_then(|ix| self.nodes.get(ix));
        let left = left.is_some_and(|n| n.left && n.replica.incarnation == identity.incarnation);
        // Late gossip of a node that has said goodbye.
        if left {
            return;
        }
        let replica = identity.replica();
        if let Some(ix) = self.member_up(&replica, Some(identity.address), false, shards, now)
            && let Some(node) = self.nodes.get_mut(ix)
        {
            node.unconfirmed_at = None;
            node.doubt = None;
            // Its end is near, or its clock is behind: then it learns so when it dials again.
            if node.link.as_ref().is_some_and(|link| link.incarnation < replica.incarnation) {
                let why = format!("{} has a later run than this one", replica.name);
                self.events.push_back(Event::Cut { node: ix, why });
            }
        }
    }

    /// Hands membership packets to the links of those they are for.
    pub(crate) fn drain_packets(&mut self) {
        while let Some((to, packet)) = self.membership.poll_packet() {
            let ix = self.nodes.find(&to.name);
            let Some(link) = ix.and_then(|ix| self.nodes.link_mut(ix)) else {
                self.stats.swim_dropped += 1;
                continue;
            };
            if link.swim.len() >= self.config.swim_queue_max {
                link.swim.pop_front();
                self.stats.swim_dropped += 1;
            }
            link.swim.push_back(Message::Swim(packet).encode());
        }
    }

    /// Introduces this node to linked peers that membership does not count as members, and to all after
    /// a renewal that nobody has answered. A lost packet, a healed partition and a false "down" all
    /// end here.
    pub(crate) fn announce(&mut self, now: Time) {
        let members = self.membership.runs();
        let is_member = |id: &Identity| members.contains(&(id.key(), id.incarnation));
        let strangers: Vec<Identity> = self
            .nodes
            .iter()
            .filter(|(_, node)| !node.left)
            .filter_map(|(_, node)| node.link.as_ref()?.identity.clone())
            .filter(|id| self.membership.is_unheard() || !is_member(id))
            .collect();
        for identity in strangers {
            self.membership.announce(identity, now);
        }
        self.drain_packets();
    }

    pub(crate) fn node_timeout(&self, node: &Node) -> Option<Time> {
        let forget = match node.state {
            State::Down(since) if node.link.is_none() => Some(since + self.config.forget_after),
            State::Down(_) | State::Up => None,
        };
        let link = node.link.as_ref().and_then(Link::poll_timeout);
        let doubt = node.doubt.map(|doubt| doubt.decide_at);
        [forget, node.unconfirmed_at, doubt, node.source.poll_timeout(), link]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn expire_node(&mut self, ix: NodeIx, shards: &mut impl Shards, now: Time) {
        self.expire_doubt(ix, shards, now);
        let Some(node) = self.nodes.get(ix) else { return };
        match node.state {
            State::Up if node.unconfirmed_at.is_some_and(|at| at <= now) => {
                self.member_down(ix, Down::NeverConfirmed, shards, now);
            }
            State::Down(since)
                if node.link.is_none() && since + self.config.forget_after <= now =>
            {
                self.forget(ix, shards, now);
            }
            State::Up | State::Down(_) => {}
        }
    }
}

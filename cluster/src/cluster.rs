//! One node's view of the others: inputs, verbs and effects.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

use bytes::Bytes;
use presence::{NodeIx, NodeName, Replica, Shard, Time};
use rand::{SeedableRng as _, rngs::StdRng};

use crate::{
    barrier::Barriers,
    config::Config,
    error::WireError,
    link::{Lane, Link},
    membership::{Membership, Notice},
    node::{Node, Nodes, State},
    wire::{Identity, Message},
};

/// Lends the node's shards, one at a time.
///
/// A simulator lends from a `Vec`; a driver takes the shard's lock for the length of the call and
/// publishes the shard's events before it gives the lock back.
pub trait Shards {
    /// Does `work` on one shard.
    fn with<R>(&mut self, shard: u16, work: impl FnOnce(&mut Shard) -> R) -> R;
}

/// What the driver must do or may want to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This run of this node is alive.
    MemberUp {
        /// The node.
        node: NodeIx,
        /// Its run.
        replica: Replica,
    },
    /// This run of this node is gone, or seems so; its presences are hidden.
    MemberDown {
        /// The node.
        node: NodeIx,
        /// Its run.
        replica: Replica,
        /// How we know.
        why: Down,
    },
    /// Nothing is kept of the node any more; its number may be given to another.
    Forgotten {
        /// The number.
        node: NodeIx,
        /// Its name.
        name: NodeName,
    },
    /// Keep a link to this address.
    Keep(SocketAddr),
    /// The address is of no use any more.
    Unkeep(SocketAddr),
    /// Whether all broadcasts of a shard must go to the peer, as its interest is not known.
    Flood {
        /// The peer.
        node: NodeIx,
        /// The shard.
        shard: u16,
        /// To start, or to stop.
        on: bool,
    },
    /// A join that waited for the peers may go on.
    Barrier {
        /// The number given to [`Cluster::barrier`].
        id: u64,
        /// False when a linked peer may not know of the interest yet: it did not answer in time, or
        /// was left out as it had not answered before.
        confirmed: bool,
    },
    /// Close the sockets with this id.
    Disconnect {
        /// The socket id.
        socket_id: String,
    },
    /// Close the link: it cannot be used any more.
    Cut {
        /// The peer.
        node: NodeIx,
        /// One line for the log.
        why: String,
    },
}

/// How a member's end became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// It does not answer probes of several members.
    Unreachable,
    /// Its link ended before it was a member.
    NeverConfirmed,
    /// It said goodbye.
    Left,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Joins that waited in vain for a peer.
    pub barrier_timeouts: u64,
    /// Joins that did not wait since too many others did.
    pub barriers_skipped: u64,
    /// Membership packets dropped as there was no link, or its queue was full.
    pub swim_dropped: u64,
    /// Membership packets that made no sense.
    pub swim_refused: u64,
    /// Feed ranges sent.
    pub ranges_sent: u64,
    /// Feed ranges applied.
    pub ranges_applied: u64,
    /// Feed ranges that were known already.
    pub ranges_duplicate: u64,
    /// Gaps reported to peers.
    pub nacks_sent: u64,
    /// Feeds fetched anew as their checksum was wrong. Should stay 0.
    pub refetches: u64,
    /// Nodes ignored as there were too many members.
    pub members_refused: u64,
}

/// A member as `/api/cluster` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number here.
    pub node: NodeIx,
    /// Its run.
    pub replica: Replica,
    /// Where it can be dialled.
    pub address: Option<SocketAddr>,
    /// Free text.
    pub region: String,
    /// Its release.
    pub version: String,
    /// Whether it counts as alive.
    pub up: bool,
    /// Alive, but a probe failed.
    pub suspect: bool,
    /// A link to it is up.
    pub linked: bool,
    /// Operations of its feeds that this node knows to be missing here.
    pub lag: u64,
    /// Whether its last digest was equal to ours.
    pub agrees: Option<bool>,
}

/// All that one node knows of the others and says to them.
///
/// Methods come in four kinds: `handle_*` take the world in, verbs ([`barrier`](Self::barrier),
/// [`disconnect`](Self::disconnect), [`leave`](Self::leave)) take the application in, `poll_*` give
/// effects out, the rest are views. After each input drain [`poll_event`](Self::poll_event), then
/// [`poll_transmit`](Self::poll_transmit) of each linked peer for each lane that has room, then wait
/// until [`poll_timeout`](Self::poll_timeout). Time never goes back.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) config: Config,
    pub(crate) me: Replica,
    pub(crate) membership: Membership,
    pub(crate) nodes: Nodes,
    /// Heads of our own feeds.
    pub(crate) heads: Vec<u64>,
    pub(crate) barriers: Barriers,
    pub(crate) events: VecDeque<Event>,
    pub(crate) stats: Stats,
    /// The highest incarnation known per name, also of nodes long forgotten.
    pub(crate) seen: BTreeMap<NodeName, u64>,
    pub(crate) announce_at: Time,
    pub(crate) digest_at: Time,
    /// The peer that got the last digest.
    pub(crate) digest_last: NodeIx,
}

/// Names whose highest incarnation is remembered.
const SEEN_MAX: usize = 4096;

impl Cluster {
    /// A node alone. `address` is where others dial it; `seed` feeds its one random generator.
    pub fn new(config: Config, me: Replica, address: SocketAddr, seed: u64, now: Time) -> Self {
        let identity = Identity {
            name: me.name.clone(),
            address,
            incarnation: me.incarnation,
            renewal: 0,
        };
        let rng = StdRng::seed_from_u64(seed);
        Self {
            membership: Membership::new(identity, config.profile, rng),
            nodes: Nodes::default(),
            heads: vec![0; usize::from(config.shards)],
            barriers: Barriers::default(),
            events: VecDeque::new(),
            stats: Stats::default(),
            seen: BTreeMap::from([(me.name.clone(), me.incarnation)]),
            announce_at: now + config.announce_interval,
            digest_at: now + config.digest_interval,
            digest_last: NodeIx::SELF,
            config,
            me,
        }
    }

    // === inputs ===

    /// Whether a node that says it is this replica may link; `Err` tells the highest incarnation
    /// known of its name, over which it must start again.
    pub fn admit(&self, replica: &Replica) -> Result<(), u64> {
        match self.seen.get(&replica.name) {
            Some(&seen) if replica.incarnation < seen => Err(seen),
            _ => Ok(()),
        }
    }

    /// A link is up. `id` is higher than that of any link before. Returns the peer's number, or
    /// `None` when it is not admitted or one too many: close the link.
    pub fn handle_link_up(
        &mut self,
        id: u64,
        replica: &Replica,
        shards: &mut impl Shards,
        now: Time,
    ) -> Option<NodeIx> {
        let ix = self.member_up(replica, None, true, shards, now)?;
        let sync = self.sync_for(ix, shards);
        let node = self.nodes.get_mut(ix)?;
        node.link = Some(Link::new(id, replica.incarnation, self.config.shards, now));
        node.unconfirmed_at = None;
        node.left = false;
        for shard in 0..self.config.shards {
            self.events.push_back(Event::Flood { node: ix, shard, on: true });
        }
        self.send_control(ix, &Message::Sync(sync));
        Some(ix)
    }

    /// The link with this number is down.
    pub fn handle_link_down(
        &mut self,
        ix: NodeIx,
        id: u64,
        shards: &mut impl Shards,
        now: Time,
    ) {
        let unconfirmed_at = now + self.config.unconfirmed_after;
        let Some(node) = self.nodes.get_mut(ix) else { return };
        if node.link.as_ref().is_none_or(|link| link.id != id) {
            return;
        }
        let active = node
            .link
            .take()
            .and_then(|link| link.identity)
            .is_some_and(|identity| self.membership.is_active(&identity));
        if node.left {
            self.forget(ix, shards, now);
        } else if !active && node.state == State::Up {
            node.unconfirmed_at = Some(unconfirmed_at);
        }
        self.settle_barriers();
    }

    /// A frame has come on one of the lanes of [`Lane::ALL`], or a membership packet as a datagram.
    /// On an error close the link: the peer is broken or hostile.
    pub fn handle_frame(
        &mut self,
        ix: NodeIx,
        link: u64,
        frame: &Bytes,
        shards: &mut impl Shards,
        now: Time,
    ) -> Result<(), WireError> {
        if !self.is_current(ix, link) {
            return Ok(());
        }
        match Message::decode(frame)? {
            None => {}
            Some(Message::Swim(packet)) => {
                self.membership.handle_packet(&packet, now);
                self.settle_membership(shards, now);
            }
            Some(Message::Sync(sync)) => self.handle_sync(ix, sync, shards, now)?,
            Some(Message::Range(range)) => self.handle_range(ix, range, shards, now)?,
            Some(Message::Ack(positions)) => self.handle_ack(ix, &positions),
            Some(Message::Nack(nack)) => self.handle_nack(ix, nack),
            Some(Message::Digest(digest)) => self.handle_digest(ix, digest, shards),
            Some(Message::DigestRequest) => self.handle_digest_request(ix, shards),
            Some(Message::Sums(sums)) => self.handle_sums(ix, &sums, shards, now),
            Some(Message::Disconnect(socket_id)) => {
                self.events.push_back(Event::Disconnect { socket_id });
            }
            Some(Message::Leave) => self.handle_leave(ix, shards, now),
        }
        Ok(())
    }

    /// The link is the peer's newest, and of the run of it that is known: what an earlier run sent may
    /// still be on its way when others have told of the new one.
    fn is_current(&self, ix: NodeIx, link: u64) -> bool {
        self.nodes.get(ix).is_some_and(|node| {
            let incarnation = node.replica.incarnation;
            node.link.as_ref().is_some_and(|l| l.id == link && l.incarnation == incarnation)
        })
    }

    /// Own feeds have grown up to `head`.
    pub fn handle_head(&mut self, shard: u16, head: u64) {
        let Some(known) = self.heads.get_mut(usize::from(shard)) else { return };
        if *known == head {
            return;
        }
        *known = head;
        for (_, link) in self.nodes.links_mut() {
            link.grown(shard, head);
        }
    }

    /// Time has passed; calling it early does nothing.
    pub fn handle_timeout(&mut self, shards: &mut impl Shards, now: Time) {
        self.membership.handle_timeout(now);
        self.settle_membership(shards, now);
        self.acknowledge(shards, now);
        self.expire_barriers(now);
        self.expire_nodes(shards, now);
        if self.announce_at <= now {
            self.announce_at = now + self.config.announce_interval;
            self.announce(now);
        }
        if self.digest_at <= now {
            self.digest_at = now + self.config.digest_interval;
            self.send_digest(shards);
        }
    }

    // === verbs ===

    /// Waits until all linked peers have our feed of `shard` up to `seq`; the answer is
    /// [`Event::Barrier`] with this `id`, at once when nobody has to be waited for.
    pub fn barrier(&mut self, shard: u16, seq: u64, id: u64, now: Time) {
        if self.floor(shard) >= seq {
            let confirmed = self.all_answer();
            self.events.push_back(Event::Barrier { id, confirmed });
        } else if self.barriers.len() >= self.config.barriers_max {
            self.stats.barriers_skipped += 1;
            self.events.push_back(Event::Barrier { id, confirmed: false });
        } else {
            self.barriers.add((shard, seq), id, self.config.barrier_timeout, now);
        }
    }

    /// Asks all linked peers to close the sockets with this id; own ones are the caller's.
    pub fn disconnect(&mut self, socket_id: &str) {
        self.send_control_to_all(&Message::Disconnect(socket_id.to_owned()));
    }

    /// Says goodbye. Give the control and membership lanes a moment before closing links.
    pub fn leave(&mut self, now: Time) {
        self.send_control_to_all(&Message::Leave);
        self.membership.leave(now);
        self.drain_packets();
    }

    /// Starts over under another incarnation, as this one is not the newest of its name. All links
    /// must be closed, and `Shard::rekey` called on each shard, with it.
    pub fn rekey(&mut self, incarnation: u64, now: Time) {
        self.me.incarnation = incarnation;
        self.seen.insert(self.me.name.clone(), incarnation);
        let identity = Identity { incarnation, renewal: 0, ..self.membership.identity().clone() };
        self.membership.change_identity(identity, now);
    }

    // === effects ===

    /// The next thing to do or tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next frame for a peer's lane, of at most about `budget` bytes where it can be cut. Call it
    /// only while the lane has room: what is not pulled costs nothing and coalesces.
    pub fn poll_transmit(
        &mut self,
        ix: NodeIx,
        lane: Lane,
        budget: usize,
        shards: &mut impl Shards,
        now: Time,
    ) -> Option<Bytes> {
        let link = self.nodes.link_mut(ix)?;
        match lane {
            Lane::Swim => link.swim.pop_front(),
            Lane::Control => {
                let frame = link.control.pop_front_if(|frame| frame.len() <= budget)?;
                link.control_bytes -= frame.len();
                Some(frame)
            }
            Lane::FeedLive | Lane::FeedBulk => self.poll_feed(ix, lane, budget, shards, now),
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) or `poll_transmit` next has work.
    pub fn poll_timeout(&self) -> Option<Time> {
        let nodes = self.nodes.iter().filter_map(|(_, node)| self.node_timeout(node));
        [self.membership.poll_timeout(), self.barriers.poll_timeout()]
            .into_iter()
            .flatten()
            .chain(nodes)
            .chain([self.announce_at, self.digest_at])
            .min()
    }

    // === views ===

    /// This run of this node.
    pub fn me(&self) -> &Replica {
        &self.me
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        Stats { swim_refused: self.membership.refused, ..self.stats }
    }

    /// Peers with a link, ascending.
    pub fn linked(&self) -> impl Iterator<Item = NodeIx> {
        self.nodes.links().map(|(ix, _)| ix)
    }

    /// Members that count as alive, without this node.
    pub fn up(&self) -> impl Iterator<Item = &Replica> {
        self.nodes.iter().filter(|(_, node)| node.state == State::Up).map(|(_, n)| &n.replica)
    }

    /// Whether all that a linked peer had when its link came up has arrived.
    pub fn caught_up(&self, ix: NodeIx) -> bool {
        self.nodes.get(ix).and_then(|node| node.link.as_ref()).is_some_and(Link::caught_up)
    }

    /// All nodes known but this one.
    pub fn members(&self, shards: &mut impl Shards) -> Vec<Member> {
        let suspects: Vec<&Identity> = self.membership.suspects().collect();
        let members = self.nodes.iter().map(|(ix, node)| {
            let lag = (0..self.config.shards).map(|shard| {
                let position = shards.with(shard, |shard| shard.position(ix));
                position.map_or(0, |at| at.head_seen.saturating_sub(at.v))
            });
            Member {
                node: ix,
                replica: node.replica.clone(),
                address: node.address,
                region: node.region.clone(),
                version: node.version.clone(),
                up: node.state == State::Up,
                suspect: suspects.iter().any(|id| id.name == node.replica.name),
                linked: node.link.is_some(),
                lag: lag.sum(),
                agrees: node.agrees,
            }
        });
        members.collect()
    }

    // === members ===

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
            None if self.nodes.len() < self.config.members_max => self.nodes.add(replica.clone())?,
            None => {
                self.stats.members_refused += 1;
                return None;
            }
        };
        self.remember(replica);
        let node = self.nodes.get_mut(ix)?;
        let fresh = node.address.is_none() && node.link.is_none();
        if node.replica != *replica || node.state != State::Up || fresh {
            self.events.push_back(Event::MemberUp { node: ix, replica: replica.clone() });
        }
        if node.replica != *replica {
            node.agrees = None;
        }
        node.replica = replica.clone();
        node.state = State::Up;
        if let Some(address) = address {
            self.set_address(ix, address);
        }
        for shard in 0..self.config.shards {
            shards.with(shard, |shard| shard.member_up(ix, replica, direct, now));
        }
        Some(ix)
    }

    fn remember(&mut self, replica: &Replica) {
        self.seen.insert(replica.name.clone(), replica.incarnation);
        if self.seen.len() > SEEN_MAX {
            let gone = self.seen.keys().find(|name| {
                self.nodes.find(name).is_none() && **name != self.me.name
            });
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
        if let Some(old) = node.address.replace(address) {
            self.events.push_back(Event::Unkeep(old));
        }
        self.events.push_back(Event::Keep(address));
    }

    fn member_down(&mut self, ix: NodeIx, why: Down, shards: &mut impl Shards, now: Time) {
        let Some(node) = self.nodes.get_mut(ix) else { return };
        node.unconfirmed_at = None;
        if node.state != State::Up {
            return;
        }
        node.state = State::Down(now);
        node.agrees = None;
        let replica = node.replica.clone();
        for shard in 0..self.config.shards {
            shards.with(shard, |shard| shard.member_down(ix, replica.incarnation, now));
        }
        self.events.push_back(Event::MemberDown { node: ix, replica, why });
    }

    fn forget(&mut self, ix: NodeIx, shards: &mut impl Shards, now: Time) {
        let Some(node) = self.nodes.remove(ix) else { return };
        for shard in 0..self.config.shards {
            shards.with(shard, |s| s.member_forget(ix, node.replica.incarnation, now));
        }
        if let Some(address) = node.address {
            self.events.push_back(Event::Unkeep(address));
        }
        self.events.push_back(Event::Forgotten { node: ix, name: node.replica.name });
    }

    fn handle_leave(&mut self, ix: NodeIx, shards: &mut impl Shards, now: Time) {
        self.member_down(ix, Down::Left, shards, now);
        let Some(node) = self.nodes.get_mut(ix) else { return };
        node.left = true;
        // No use to dial it again when it closes the link.
        if let Some(address) = node.address.take() {
            self.events.push_back(Event::Unkeep(address));
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
                        self.member_down(ix, Down::Unreachable, shards, now);
                    }
                }
            }
        }
        self.drain_packets();
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
        }
    }

    /// Hands membership packets to the links of those they are for.
    fn drain_packets(&mut self) {
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

    /// Introduces this node to linked peers that membership does not count as members. A lost packet,
    /// a healed partition and a false "down" all end here.
    fn announce(&mut self, now: Time) {
        let strangers: Vec<Identity> = self
            .nodes
            .iter()
            .filter(|(_, node)| !node.left)
            .filter_map(|(_, node)| node.link.as_ref()?.identity.clone())
            .filter(|identity| !self.membership.is_active(identity))
            .collect();
        for identity in strangers {
            self.membership.announce(identity, now);
        }
        self.drain_packets();
    }

    fn node_timeout(&self, node: &Node) -> Option<Time> {
        let forget = match node.state {
            State::Down(since) if node.link.is_none() => Some(since + self.config.forget_after),
            State::Down(_) | State::Up => None,
        };
        let link = node.link.as_ref().and_then(Link::poll_timeout);
        [forget, node.unconfirmed_at, link].into_iter().flatten().min()
    }

    fn expire_nodes(&mut self, shards: &mut impl Shards, now: Time) {
        let forget_after = self.config.forget_after;
        let mut dead = Vec::new();
        let mut forgotten = Vec::new();
        for (ix, node) in self.nodes.iter() {
            match node.state {
                State::Up if node.unconfirmed_at.is_some_and(|at| at <= now) => dead.push(ix),
                State::Down(since) if node.link.is_none() && since + forget_after <= now => {
                    forgotten.push(ix);
                }
                State::Up | State::Down(_) => {}
            }
        }
        for ix in dead {
            self.member_down(ix, Down::NeverConfirmed, shards, now);
        }
        for ix in forgotten {
            self.forget(ix, shards, now);
        }
    }

    // === barriers ===

    /// How far all peers that joins wait for have our feed of the shard.
    fn floor(&self, shard: u16) -> u64 {
        let waited_for = self.nodes.links().filter(|(_, link)| !link.lagging);
        waited_for.map(|(_, link)| link.acked_position(shard)).min().unwrap_or(u64::MAX)
    }

    pub(crate) fn settle_barriers(&mut self) {
        if self.barriers.len() == 0 {
            return;
        }
        let confirmed = self.all_answer();
        for shard in 0..self.config.shards {
            let floor = self.floor(shard);
            for id in self.barriers.reached(shard, floor) {
                self.events.push_back(Event::Barrier { id, confirmed });
            }
        }
    }

    /// No linked peer is left out of barriers.
    fn all_answer(&self) -> bool {
        self.nodes.links().all(|(_, link)| !link.lagging)
    }

    fn expire_barriers(&mut self, now: Time) {
        while let Some(((shard, seq), ids)) = self.barriers.expired(now) {
            self.stats.barrier_timeouts += 1;
            for (_, link) in self.nodes.links_mut() {
                link.lagging |= link.acked_position(shard) < seq;
            }
            let late = ids.into_iter().map(|id| Event::Barrier { id, confirmed: false });
            self.events.extend(late);
            self.settle_barriers();
        }
    }

    // === the control lane ===

    pub(crate) fn send_control(&mut self, ix: NodeIx, message: &Message) {
        self.queue_control(ix, message.encode());
    }

    fn send_control_to_all(&mut self, message: &Message) {
        let frame = message.encode();
        let linked: Vec<NodeIx> = self.linked().collect();
        for ix in linked {
            self.queue_control(ix, frame.clone());
        }
    }

    fn queue_control(&mut self, ix: NodeIx, frame: Bytes) {
        let max = self.config.control_queue_max;
        let Some(link) = self.nodes.link_mut(ix) else { return };
        if link.control_bytes + frame.len() > max {
            let why = format!("it reads too slowly: {max} bytes of control frames are waiting");
            self.events.push_back(Event::Cut { node: ix, why });
            return;
        }
        link.control_bytes += frame.len();
        link.control.push_back(frame);
    }
}

impl Identity {
    pub(crate) fn replica(&self) -> Replica {
        Replica { name: self.name.clone(), incarnation: self.incarnation }
    }
}

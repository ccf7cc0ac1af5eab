//! One node's view of the others: inputs, verbs and effects.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use bytes::Bytes;
use presence::{NodeIx, NodeName, Replica, Shard, Time};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    barrier::Barriers,
    config::Config,
    departures::Departures,
    error::WireError,
    event::Event,
    link::{Lane, Link},
    membership::{Membership, RECORDS_PER_FRAME},
    node::{Nodes, State},
    view::Stats,
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

/// All that one node knows of the others and says to them.
///
/// Methods come in four kinds: `handle_*` take the world in, verbs ([`barrier`](Self::barrier),
/// [`disconnect`](Self::disconnect), [`drain`](Self::drain), [`leave`](Self::leave)) take the application in, `poll_*` give
/// effects out, the rest are views. After each input drain [`poll_event`](Self::poll_event), then
/// [`poll_transmit`](Self::poll_transmit) for each lane that has room, of each linked peer or of those
/// that [`poll_ready`](Self::poll_ready) names, then wait until [`poll_timeout`](Self::poll_timeout).
/// Time never goes back.
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
    /// Replicas that were wrong, and are being emptied: of a node, in a shard.
    pub(crate) refetching: BTreeSet<(NodeIx, u16)>,
    /// Nodes that are down without a goodbye.
    pub(crate) missing: BTreeSet<NodeIx>,
    /// Since when a partition is suspected.
    pub(crate) suspected_since: Option<Time>,
    /// Pulls made so far.
    pub(crate) pulls: u64,
    /// Those that last, with the nodes whose feeds they bring.
    pub(crate) pulling: BTreeMap<u64, NodeIx>,
    pub(crate) departures: Departures,
    /// This node takes no clients any more.
    draining: bool,
    rng: StdRng,
}

/// How far above a known incarnation a new one is taken at random: less than a second as the node
/// makes them of its clock.
const INCARNATION_STEP_MAX: u64 = 1 << 20;

/// The longest lease that a node which says goodbye can give its entries: an hour.
pub const LEASE_MAX: Duration = Duration::from_secs(3600);

impl Cluster {
    /// A node alone. `address` is where others dial it; `seed` feeds its one random generator.
    pub fn new(config: Config, me: Replica, address: SocketAddr, seed: u64, now: Time) -> Self {
        let identity = Identity::new(me.name.clone(), address, me.incarnation, 0);
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            membership: Membership::new(identity, config.profile, StdRng::from_rng(&mut rng)),
            nodes: Nodes::default(),
            heads: vec![0; usize::from(config.shards)],
            barriers: Barriers::default(),
            events: VecDeque::new(),
            stats: Stats::default(),
            seen: BTreeMap::from([(me.name.clone(), me.incarnation)]),
            announce_at: now + config.announce_interval,
            digest_at: now + config.digest_interval,
            digest_last: NodeIx::SELF,
            refetching: BTreeSet::new(),
            missing: BTreeSet::new(),
            suspected_since: None,
            pulls: 0,
            pulling: BTreeMap::new(),
            departures: Departures::default(),
            draining: false,
            rng,
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
        self.end_pull(ix);
        for shard in 0..self.config.shards {
            self.events.push_back(Event::Flood { node: ix, shard, on: true });
        }
        let members = self.membership.records();
        self.send_control(ix, &Message::Sync(sync));
        for more in members.chunks(RECORDS_PER_FRAME).skip(1) {
            self.send_control(ix, &Message::Members(more.to_vec()));
        }
        if self.draining {
            self.send_control(ix, &Message::Draining);
        }
        self.tell_departures(ix, now);
        Some(ix)
    }

    /// The link with this number is down.
    pub fn handle_link_down(&mut self, ix: NodeIx, id: u64, shards: &mut impl Shards, now: Time) {
        let unconfirmed_at = now + self.config.unconfirmed_after;
        let Some(node) = self.nodes.get_mut(ix) else { return };
        if node.link.as_ref().is_none_or(|link| link.id != id) {
            return;
        }
        let heard_at = node.link.take().map_or(now, |link| link.heard_at);
        // Of the run that is known: the link may have led to the one before.
        let active = self.membership.active(&node.replica).is_some();
        if node.left {
            self.forget(ix, shards, now);
        } else {
            node.settle_lag(heard_at);
            if !active && node.state == State::Up {
                node.unconfirmed_at = Some(unconfirmed_at);
            }
            self.want_relay(ix, now + self.config.relay_after);
        }
        self.lose_relay(ix, now);
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
        if let Some(link) = self.nodes.link_mut(ix) {
            link.heard_at = now;
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
            Some(Message::Members(members)) => self.handle_members(members, shards, now),
            Some(Message::Pull(pull)) => self.handle_pull(ix, pull, shards)?,
            Some(Message::PullAnswer(answer)) => {
                self.handle_pull_answer(ix, answer, shards, now)?;
            }
            Some(Message::PullEnd(pull)) => self.handle_pull_end(ix, pull),
            Some(Message::Relayed(relayed)) => self.handle_relayed(ix, relayed, shards, now)?,
            Some(Message::Departed(departed)) => self.handle_departed(departed, shards, now),
            Some(Message::Draining) => self.handle_draining(ix),
            Some(Message::Leave(lease)) => {
                self.hear_leave(ix, lease, shards, now);
            }
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
        self.set_deadlines();
        let due = self.nodes.agenda.due(now);
        for &ix in &due {
            // Here too, not only when the lane is polled: a lane without room must not keep a deadline
            // in the past.
            if let Some(link) = self.nodes.link_mut(ix) {
                link.flush(self.config.coalesce, now);
            }
            self.acknowledge(ix, shards, now);
            self.expire_node(ix, shards, now);
        }
        // Who has just been found dead is not asked to relay.
        for ix in due {
            self.pull_missing(ix, shards, now);
        }
        self.refetch_some(shards, now);
        self.expire_barriers(now);
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

    /// Tells all peers, and those that come, that this node takes no clients any more.
    pub fn drain(&mut self) {
        self.draining = true;
        self.send_control_to_all(&Message::Draining);
    }

    /// Says goodbye. Peers keep this node's entries for what is left of their `lease`, which they measure
    /// from when they hear of it, at most [`LEASE_MAX`]. Give the control and membership lanes a moment
    /// before closing links.
    pub fn leave(&mut self, lease: Duration, now: Time) {
        let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        self.send_control_to_all(&Message::Leave(lease));
        self.membership.leave(now);
        // Its own packets could overtake the goodbye, and would look like a crash.
        while self.membership.poll_packet().is_some() {}
    }

    /// An incarnation for [`rekey`](Self::rekey) that no other run of this node has: just the next one
    /// may belong to a run that whoever has seen `seen` never met. `None` when this run is above
    /// already, as several may say so at once.
    pub fn incarnation_above(&mut self, seen: u64) -> Option<u64> {
        if self.me.incarnation > seen {
            return None;
        }
        Some(seen.saturating_add(self.rng.random_range(1..=INCARNATION_STEP_MAX)))
    }

    /// Starts over under another incarnation, as this one is not the newest of its name. All links
    /// must be closed, and `Shard::rekey` called on each shard, with it.
    pub fn rekey(&mut self, incarnation: u64, now: Time) {
        self.me.incarnation = incarnation;
        self.seen.insert(self.me.name.clone(), incarnation);
        let address = self.membership.identity().address;
        let identity = Identity::new(self.me.name.clone(), address, incarnation, 0);
        self.membership.change_identity(identity, now);
    }

    // === effects ===

    /// The next thing to do or tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next peer that may have frames to send, since one was last polled: an alternative to polling
    /// all. A lane that has had no room must be polled when it has.
    pub fn poll_ready(&mut self) -> Option<NodeIx> {
        self.nodes.agenda.pop_ready()
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
        let link = self.nodes.polled_link_mut(ix)?;
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

    /// When [`handle_timeout`](Self::handle_timeout) next has work; poll the lanes after it.
    pub fn poll_timeout(&mut self) -> Option<Time> {
        self.set_deadlines();
        let nodes = self.nodes.agenda.poll_timeout();
        let refetch = (!self.refetching.is_empty()).then_some(Time::ZERO);
        [self.membership.poll_timeout(), self.barriers.poll_timeout(), nodes, refetch]
            .into_iter()
            .flatten()
            .chain([self.announce_at, self.digest_at])
            .min()
    }

    fn set_deadlines(&mut self) {
        while let Some(ix) = self.nodes.agenda.pop_touched() {
            let at = self.nodes.get(ix).and_then(|node| self.node_timeout(node));
            self.nodes.agenda.set_deadline(ix, at);
        }
    }

    // === the control lane ===

    pub(crate) fn send_control(&mut self, ix: NodeIx, message: &Message) {
        self.queue_control(ix, message.encode());
    }

    pub(crate) fn send_control_to_all(&mut self, message: &Message) {
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

//! The driver of the cluster core: wait for one input, hand it in, carry out what comes of it.

pub(crate) mod lanes;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use cluster::{Cluster, Down, Member, Shards};
use presence::{NodeIx, NodeName, Replica, Shard};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};
use transport::{Admit, DownReason, Event, Events, Link, Responder, Transport};

use crate::{
    discovery,
    endpoint::{Sessions, answer_longpoll},
    publisher::Links,
    pubsub::{Mailbox, Registry, Routes},
    sockets::Sockets,
    tracker::{Clock, Tracker},
};

/// Commands that may wait for the driver; beyond it joins do not wait for peers, and are counted.
const COMMANDS_MAX: usize = 16_384;

/// Topics in an answer to a peer.
const TOPICS_MAX: usize = 10_000;

/// What the rest of the node asks of the driver.
#[derive(Debug)]
enum Command {
    Barrier {
        shard: u16,
        seq: u64,
        mailbox: Arc<Mailbox>,
        channel: u64,
    },
    Disconnect {
        socket_id: String,
    },
    Members {
        answer: oneshot::Sender<Vec<Member>>,
    },
    Drain {
        told: oneshot::Sender<()>,
    },
    /// To be told when all peers know all that this node has.
    Known {
        answer: oneshot::Sender<()>,
    },
    Leave {
        lease: Duration,
        done: oneshot::Sender<()>,
    },
}

/// A partition that is suspected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspected {
    /// When the first member went missing.
    pub(crate) since: Instant,
    /// Members that are down without a goodbye.
    pub(crate) missing: usize,
    /// Those, those that are up, and this node.
    pub(crate) members: usize,
}

/// The driver as the rest of the node sees it.
#[derive(Clone, Debug)]
pub(crate) struct Peers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    linked: AtomicUsize,
    /// Those of them that take clients; followed while this node drains.
    takers: AtomicUsize,
    /// Per shard: how far all peers have had our feed, as the last barrier found.
    reached: Box<[AtomicU64]>,
    barriers_skipped: AtomicU64,
    /// Joined and caught up, or alone by right.
    ready: watch::Sender<bool>,
    stats: Mutex<cluster::Stats>,
    suspected: Mutex<Option<Suspected>>,
    /// Of this run; a clock that jumped back changes it.
    incarnation: AtomicU64,
}

impl Peers {
    /// Whether all linked peers know of an interest. If not, the mailbox is told when its channel may go
    /// on: once they do, or have been waited for long enough.
    pub(crate) fn barrier(
        &self,
        (shard, seq): (u16, u64),
        mailbox: &Arc<Mailbox>,
        channel: u64,
    ) -> bool {
        let known = self.0.reached.get(usize::from(shard));
        let reached = known.is_some_and(|reached| reached.load(Ordering::Acquire) >= seq);
        if reached || self.0.linked.load(Ordering::Acquire) == 0 {
            return true;
        }
        let command = Command::Barrier { shard, seq, mailbox: Arc::clone(mailbox), channel };
        let asked = self.0.commands.try_send(command).is_ok();
        if !asked {
            self.0.barriers_skipped.fetch_add(1, Ordering::Relaxed);
        }
        !asked
    }

    /// Asks all peers to close the sockets with this id.
    pub(crate) async fn disconnect(&self, socket_id: String) {
        // Without a driver the node is going down, and all its sockets with it.
        drop(self.0.commands.send(Command::Disconnect { socket_id }).await);
    }

    /// All other nodes known; none when the node is going down.
    pub(crate) async fn members(&self) -> Vec<Member> {
        let (answer, answered) = oneshot::channel();
        if self.0.commands.send(Command::Members { answer }).await.is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
    }

    /// Tells the others that no clients are taken any more.
    pub(crate) async fn drain(&self) {
        let (told, done) = oneshot::channel();
        // Without a driver there is nobody to tell.
        if self.0.commands.send(Command::Drain { told }).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Waits until all linked peers know all that this node has, for a second at most.
    pub(crate) async fn known(&self) {
        let (answer, answered) = oneshot::channel();
        if self.0.commands.send(Command::Known { answer }).await.is_ok() {
            drop(tokio::time::timeout(Duration::from_secs(1), answered).await);
        }
    }

    /// Says goodbye to the others, who keep this node's entries for what is left of their lease, and waits
    /// until the word is out, for half a second at most.
    pub(crate) async fn leave(&self, lease: Duration) {
        let (done, left) = oneshot::channel();
        if self.0.commands.send(Command::Leave { lease, done }).await.is_ok() {
            drop(tokio::time::timeout(Duration::from_millis(500), left).await);
        }
    }

    pub(crate) fn ready(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.0.incarnation.load(Ordering::Relaxed)
    }

    pub(crate) fn linked(&self) -> usize {
        self.0.linked.load(Ordering::Acquire)
    }

    /// Linked peers that take clients, once this node [drains](Self::drain).
    pub(crate) fn takers(&self) -> usize {
        self.0.takers.load(Ordering::Acquire)
    }

    /// The partition that is suspected, if one is.
    pub(crate) fn suspected(&self) -> Option<Suspected> {
        *self.0.suspected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self) -> cluster::Stats {
        let stats = *self.0.stats.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = self.0.barriers_skipped.load(Ordering::Relaxed);
        cluster::Stats { barriers_skipped: stats.barriers_skipped + skipped, ..stats }
    }
}

/// Incarnations known of each name, read by the transport at each hello.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<BTreeMap<String, u64>>);

/// Names remembered; far more than a cluster has.
const SEEN_MAX: usize = 4096;

impl Seen {
    pub(crate) fn admit(&self, name: &str, incarnation: u64) -> Admit {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get(name) {
            Some(&seen) if incarnation < seen => Admit::Stale { seen },
            _ => Admit::Yes,
        }
    }

    fn note(&self, replica: &Replica) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = seen.entry(replica.name.as_str().to_owned()).or_default();
        *highest = replica.incarnation.max(*highest);
        if seen.len() > SEEN_MAX {
            seen.pop_first();
        }
    }
}

/// All that the driver works on.
pub(crate) struct Driver {
    pub(crate) name: NodeName,
    pub(crate) cluster: Cluster,
    pub(crate) clock: Clock,
    pub(crate) transport: Transport,
    pub(crate) events: Events,
    pub(crate) tracker: Arc<Tracker>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) links: Arc<Links>,
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) seen: Arc<Seen>,
    /// Answers what peers ask.
    pub(crate) registry: Arc<Registry>,
    pub(crate) sessions: Arc<Sessions>,
    /// The tasks of answers that take their time.
    pub(crate) tasks: TaskTracker,
    /// Addresses that are kept whatever the members are.
    pub(crate) seeds: Arc<discovery::Seeds>,
    pub(crate) identity: Box<dyn Fn(u64) -> transport::Identity + Send>,
}

struct Running {
    driver: Driver,
    shared: Arc<Shared>,
    by_link: BTreeMap<u64, NodeIx>,
    /// Barriers under way: whom to tell, and what was waited for.
    barriers: BTreeMap<u64, (Arc<Mailbox>, u64, u16, u64)>,
    barrier_ids: u64,
    /// Who waits for the peers to know all that this node has.
    unknown: Vec<oneshot::Sender<()>>,
    /// This node takes no clients any more.
    drains: bool,
}

/// Why the driver ended; the node must end too.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriverEnd {
    #[error(
        "another node named {name} (incarnation {seen}, seen by {by}) took this node's place: \
         give each node its own --name"
    )]
    Replaced { name: NodeName, seen: u64, by: String },
    #[error("the transport ended")]
    TransportEnded,
}

enum Input {
    Event(Option<Event>),
    Command(Option<Command>),
    Grown,
    Timeout,
}

impl Shards for &Tracker {
    fn with<R>(&mut self, shard: u16, work: impl FnOnce(&mut Shard) -> R) -> R {
        Tracker::with(self, shard, work)
    }
}

/// Makes the handle and the future that drives; somebody must poll it.
pub(crate) fn start(driver: Driver) -> (Peers, impl Future<Output = DriverEnd> + Send) {
    let (commands, received) = mpsc::channel(COMMANDS_MAX);
    let shared = Arc::new(Shared {
        commands,
        linked: AtomicUsize::new(0),
        takers: AtomicUsize::new(0),
        reached: (0..driver.tracker.shards()).map(|_| AtomicU64::new(0)).collect(),
        barriers_skipped: AtomicU64::new(0),
        ready: watch::Sender::new(false),
        stats: Mutex::default(),
        suspected: Mutex::default(),
        incarnation: AtomicU64::new(driver.cluster.me().incarnation),
    });
    let running = Running {
        driver,
        shared: Arc::clone(&shared),
        by_link: BTreeMap::new(),
        barriers: BTreeMap::new(),
        barrier_ids: 0,
        unknown: Vec::new(),
        drains: false,
    };
    (Peers(shared), running.run(received))
}

/// A node in no cluster: nobody is ever waited for.
pub(crate) fn alone(shards: u16, incarnation: u64) -> Peers {
    // Nobody receives: whoever sends a command is told so at once.
    let (commands, _) = mpsc::channel(1);
    Peers(Arc::new(Shared {
        commands,
        linked: AtomicUsize::new(0),
        takers: AtomicUsize::new(0),
        reached: (0..shards).map(|_| AtomicU64::new(0)).collect(),
        barriers_skipped: AtomicU64::new(0),
        ready: watch::Sender::new(true),
        stats: Mutex::default(),
        suspected: Mutex::default(),
        incarnation: AtomicU64::new(incarnation),
    }))
}

impl Running {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> DriverEnd {
        loop {
            self.drain();
            let deadline = self.driver.cluster.poll_timeout();
            let input = tokio::select! {
                event = self.driver.events.next() => Input::Event(event),
                command = commands.recv() => Input::Command(command),
                () = self.driver.tracker.changed.notified() => Input::Grown,
                () = sleep_until(self.driver.clock, deadline) => Input::Timeout,
            };
            match input {
                Input::Event(None) => return DriverEnd::TransportEnded,
                Input::Event(Some(event)) => {
                    if let Err(end) = self.handle_event(event) {
                        return end;
                    }
                }
                Input::Command(command) => {
                    // All that wait, before their feeds go out: one range, one acknowledgement.
                    let mut next = command;
                    while let Some(command) = next {
                        self.handle_command(command);
                        next = commands.try_recv().ok();
                    }
                }
                Input::Grown => {}
                Input::Timeout => {
                    let now = self.driver.clock.now();
                    self.driver.cluster.handle_timeout(&mut &*self.driver.tracker, now);
                }
            }
        }
    }

    // === inputs ===

    fn handle_event(&mut self, event: Event) -> Result<(), DriverEnd> {
        match event {
            Event::Up(link) => self.link_up(&link),
            Event::Down { link, reason } => self.link_down(&link, &reason),
            Event::Frame { link, frame, .. } => self.handle_frame(&link, &frame),
            Event::Datagram { link, data } => self.handle_frame(&link, &data),
            Event::Request { link, body, reply } => self.answer(&link, body, reply),
            Event::Room { .. } => {}
            Event::DialFailed { address, error, attempt, next_try } => {
                let seed = self.driver.seeds.describe(address);
                warn!(node = %self.driver.name, %address, attempt, "cannot reach {seed}: {error}; next try in {next_try:.1?}");
            }
            Event::DialedSelf { address } => {
                debug!(node = %self.driver.name, %address, "a seed is this node itself");
                self.driver.seeds.is_self(address);
            }
            Event::Stale { seen, by, fresh } => return self.stale(seen, by, fresh),
            Event::Refused { reason, .. } => {
                warn!(node = %self.driver.name, "link refused: {reason}")
            }
        }
        Ok(())
    }

    /// Has a task answer what a peer asks: some answers wait long.
    fn answer(&self, link: &Link, body: Bytes, reply: Responder) {
        match cluster::wire::decode_session_request(&body) {
            Ok(Some(request)) => {
                let (node, sessions) =
                    (self.driver.name.clone(), Arc::clone(&self.driver.sessions));
                self.driver.tasks.spawn(answer_longpoll(node, sessions, request, reply));
            }
            Ok(None) => {
                // It looks at every topic, which may take longer than a probe may wait.
                let registry = Arc::clone(&self.driver.registry);
                tokio::task::spawn_blocking(move || {
                    if let Some(answer) = answer(&registry, &body) {
                        // Only one that is too long is refused: the peer counts as not answering.
                        let _ = reply.send(answer);
                    }
                });
            }
            Err(error) => {
                warn!(node = %self.driver.name, peer = %link.peer().name, "request not answered: {error}");
            }
        }
    }

    fn link_up(&mut self, link: &Link) {
        let peer = link.peer();
        let Ok(name) = peer.name.parse() else {
            link.close("your name is no node name");
            return;
        };
        let replica = Replica { name, incarnation: peer.incarnation };
        let now = self.driver.clock.now();
        let tracker = &mut &*self.driver.tracker;
        match self.driver.cluster.handle_link_up(link.id(), &replica, tracker, now) {
            Some(ix) => {
                info!(node = %self.driver.name, peer = %replica.name, address = %peer.address, "peer linked");
                self.by_link.insert(link.id(), ix);
                self.driver.links.set(ix, Some(link.clone()));
                self.shared.linked.store(self.by_link.len(), Ordering::Release);
                // Floods are in the events of the core: they are set before the link is routed to.
                self.carry_out_events();
                self.driver.routes.link(ix, true);
            }
            None => link.close("not admitted"),
        }
    }

    fn link_down(&mut self, link: &Link, reason: &DownReason) {
        let Some(ix) = self.by_link.remove(&link.id()) else {
            return;
        };
        let (node, peer) = (&self.driver.name, &link.peer().name);
        match reason {
            DownReason::Closed(_)
            | DownReason::ClosedByPeer(_)
            | DownReason::Replaced
            | DownReason::Renewed => info!(%node, %peer, "peer link down: {reason}"),
            DownReason::TimedOut
            | DownReason::Reset
            | DownReason::Overflow { .. }
            | DownReason::Protocol(_)
            | DownReason::Connection(_)
            | DownReason::Internal(_) => warn!(%node, %peer, "peer link down: {reason}"),
        }
        self.driver.links.note_ended(link);
        let newer = self.driver.links.get(ix).is_some_and(|known| known.id() != link.id());
        if !newer {
            self.driver.routes.link(ix, false);
            self.driver.links.set(ix, None);
        }
        self.shared.linked.store(self.by_link.len(), Ordering::Release);
        let now = self.driver.clock.now();
        let tracker = &mut &*self.driver.tracker;
        self.driver.cluster.handle_link_down(ix, link.id(), tracker, now);
    }

    fn handle_frame(&mut self, link: &Link, frame: &Bytes) {
        let Some(ix) = self.by_link.get(&link.id()).copied() else {
            return;
        };
        let now = self.driver.clock.now();
        let tracker = &mut &*self.driver.tracker;
        let done = self.driver.cluster.handle_frame(ix, link.id(), frame, tracker, now);
        if let Err(error) = done {
            error!(node = %self.driver.name, peer = %link.peer().name, "closing the link: {error}");
            link.close(&error.to_string());
        }
    }

    fn stale(&mut self, seen: u64, by: String, fresh: bool) -> Result<(), DriverEnd> {
        let Some(incarnation) = self.driver.cluster.incarnation_above(seen) else { return Ok(()) };
        if !fresh {
            return Err(DriverEnd::Replaced { name: self.driver.name.clone(), seen, by });
        }
        warn!(node = %self.driver.name, %by, seen, incarnation, "this machine's clock is behind that of an earlier run: taking a newer incarnation");
        let now = self.driver.clock.now();
        for shard in 0..self.driver.tracker.shards() {
            self.driver.tracker.with(shard, |shard| shard.rekey(incarnation, now));
        }
        self.driver.cluster.rekey(incarnation, now);
        self.shared.incarnation.store(incarnation, Ordering::Relaxed);
        // The feeds are numbered anew: what was waited for has no meaning any more.
        for (_, (mailbox, channel, ..)) in std::mem::take(&mut self.barriers) {
            mailbox.joined(channel, false);
        }
        for reached in &self.shared.reached {
            reached.store(0, Ordering::Release);
        }
        let identity = (self.driver.identity)(incarnation);
        if let Err(error) = self.driver.transport.set_identity(identity) {
            error!(node = %self.driver.name, "cannot take a newer incarnation: {error}");
        }
        Ok(())
    }

    fn handle_command(&mut self, command: Command) {
        let now = self.driver.clock.now();
        match command {
            Command::Barrier { shard, seq, mailbox, channel } => {
                self.barrier_ids += 1;
                self.barriers.insert(self.barrier_ids, (mailbox, channel, shard, seq));
                self.tell_heads();
                self.driver.cluster.barrier(shard, seq, self.barrier_ids, now);
            }
            Command::Disconnect { socket_id } => self.driver.cluster.disconnect(&socket_id),
            Command::Members { answer } => {
                let members = self.driver.cluster.members(&mut &*self.driver.tracker, now);
                // The one who asked may have gone.
                drop(answer.send(members));
            }
            Command::Drain { told } => {
                self.driver.cluster.drain();
                self.drains = true;
                self.drain();
                // Whoever asked may have gone.
                let _ = told.send(());
            }
            Command::Known { answer } => self.unknown.push(answer),
            Command::Leave { lease, done } => {
                self.driver.cluster.leave(lease, now);
                self.drain();
                let _ = done.send(());
            }
        }
    }

    // === effects ===

    fn drain(&mut self) {
        self.tell_heads();
        self.carry_out_events();
        self.transmit();
        if !self.unknown.is_empty() && self.driver.cluster.is_known() {
            // Those who asked may have gone.
            self.unknown.drain(..).for_each(|asked| {
                let _ = asked.send(());
            });
        }
        if self.drains {
            self.shared.takers.store(self.driver.cluster.takers(), Ordering::Release);
        }
        let stats = self.driver.cluster.stats();
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
        let suspected = self.driver.cluster.partition().map(|partition| Suspected {
            since: self.driver.clock.instant(partition.since),
            missing: partition.missing,
            members: partition.members,
        });
        *self.shared.suspected.lock().unwrap_or_else(PoisonError::into_inner) = suspected;
        if !*self.shared.ready.borrow() && self.is_ready() {
            self.shared.ready.send_replace(true);
        }
    }

    fn is_ready(&self) -> bool {
        let caught_up = self.driver.cluster.linked().any(|ix| self.driver.cluster.caught_up(ix));
        caught_up || self.driver.seeds.only_self()
    }

    fn tell_heads(&mut self) {
        for (shard, head) in self.driver.tracker.take_grown() {
            self.driver.cluster.handle_head(shard, head);
        }
    }

    fn carry_out_events(&mut self) {
        while let Some(event) = self.driver.cluster.poll_event() {
            self.carry_out(event);
        }
    }

    fn carry_out(&mut self, event: cluster::Event) {
        let node = &self.driver.name;
        match event {
            cluster::Event::MemberUp { replica, .. } => {
                info!(%node, peer = %replica.name, incarnation = replica.incarnation, "peer up");
                self.driver.seen.note(&replica);
            }
            cluster::Event::MemberDown { replica, why, .. } => {
                let peer = &replica.name;
                match why {
                    Down::Left => info!(%node, %peer, "peer down: it left"),
                    Down::Unreachable => {
                        warn!(%node, %peer, "peer down: it does not answer probes; its presences are hidden")
                    }
                    Down::NeverConfirmed => {
                        warn!(%node, %peer, "peer down: its link ended before it was a member")
                    }
                }
            }
            cluster::Event::Forgotten { node: ix, name } => {
                info!(%node, peer = %name, "peer forgotten");
                self.driver.routes.forget(ix);
                self.driver.links.set(ix, None);
            }
            cluster::Event::PartitionSuspected { missing } => {
                warn!(%node, peer = %missing, "partition suspected: a peer is missing and has not said goodbye; it has crashed, or the cluster is divided");
            }
            cluster::Event::PartitionOver { lasted } => {
                info!(%node, ?lasted, "partition over: no peer is missing any more");
            }
            cluster::Event::Keep(address) => self.set_member(address, true),
            cluster::Event::Unkeep(address) => self.set_member(address, false),
            cluster::Event::Flood { node: peer, shard, on } => {
                self.driver.routes.flood(shard, peer, on);
            }
            cluster::Event::Barrier { id, confirmed } => self.joined(id, confirmed),
            cluster::Event::Disconnect { socket_id } => {
                self.driver.sockets.disconnect(&socket_id);
            }
            cluster::Event::Cut { node: ix, why } => {
                if let Some(link) = self.driver.links.get(ix) {
                    link.close(&why);
                }
            }
        }
    }

    fn set_member(&self, address: SocketAddr, member: bool) {
        let transport = &self.driver.transport;
        let settle = |wanted| discovery::keep(transport, address, wanted);
        self.driver.seeds.set_member(address, member, settle);
    }

    fn joined(&mut self, id: u64, confirmed: bool) {
        let Some((mailbox, channel, shard, seq)) = self.barriers.remove(&id) else {
            return;
        };
        if confirmed && let Some(reached) = self.shared.reached.get(usize::from(shard)) {
            reached.fetch_max(seq, Ordering::AcqRel);
        }
        mailbox.joined(channel, confirmed);
    }

    /// Fills each peer's lanes as far as they have room.
    fn transmit(&mut self) {
        let now = self.driver.clock.now();
        let tracker = &mut &*self.driver.tracker;
        for (ix, link) in self.driver.links.all() {
            for lane in cluster::Lane::ALL {
                let number = lanes::of(lane);
                loop {
                    let room = link.room(number);
                    if room < lanes::room_wanted(lane) {
                        break;
                    }
                    let cluster = &mut self.driver.cluster;
                    let Some(frame) = cluster.poll_transmit(ix, lane, room, tracker, now) else {
                        break;
                    };
                    // A frame that does not leave is lost with its link, or is membership's, which
                    // expects losses.
                    if lane == cluster::Lane::Swim && frame.len() <= link.datagram_max() {
                        let _ = link.datagram(frame);
                    } else {
                        let _ = link.send(number, frame);
                    }
                }
            }
        }
    }
}

async fn sleep_until(clock: Clock, deadline: Option<presence::Time>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(clock.instant(at).into()).await,
        None => std::future::pending().await,
    }
}

/// Topics with this node's own subscribers, for a peer.
fn answer(registry: &Registry, body: &Bytes) -> Option<Bytes> {
    let request = cluster::wire::decode_topics_request(body).ok()?;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX).min(TOPICS_MAX);
    let topics = registry
        .topics(&request.prefix, limit)
        .into_iter()
        .map(|(topic, count)| (topic.to_string(), u32::try_from(count).unwrap_or(u32::MAX)));
    Some(cluster::wire::encode_topics(&cluster::wire::Topics { topics: topics.collect() }))
}

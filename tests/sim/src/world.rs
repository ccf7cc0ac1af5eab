//! The heap of what happens, and the verbs of a test.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hasher as _,
    time::Duration,
};

use bytes::Bytes;
use cluster::{
    Event, Lane,
    wire::{self, Broadcast, PayloadKind},
};
use presence::{INTEREST_ALL, NodeIx, Time, Topic};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use siphasher::sip::SipHasher24;

use crate::{
    network::{LINK_IDLE, Network, Packet, Pair, Weather, pair},
    node::{Client, ClientId, Node, Settings, node_of},
};

/// Lane numbers from here on carry broadcasts.
const DATA_LANES: u8 = 4;

/// Something that will happen.
#[derive(Debug)]
enum What {
    Wake { node: usize },
    Arrival(Packet),
    LinkUp { node: usize, peer: usize, link: u64 },
    LinkSilent { pair: Pair, link: u64 },
    Dial { from: usize, to: usize },
    Resume { node: usize },
}

/// A broadcast that must arrive.
pub(crate) type Expected = (ClientId, u64);

/// A whole cluster.
#[derive(Debug)]
pub struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Time,
    /// What no correct cluster does, as it was seen.
    pub(crate) violations: Vec<String>,
    /// Broadcasts not yet heard: who must hear which, over which link (0: own node).
    pub(crate) expected: BTreeMap<Expected, u64>,
    /// Deliveries in all.
    pub(crate) delivered: u64,
    settings: Settings,
    seed: u64,
    rng: StdRng,
    network: Network,
    happenings: BTreeMap<(Time, u64), What>,
    counted: u64,
    clients: u64,
    broadcasts: u64,
    /// Wall clocks, off by so many milliseconds.
    wall: Vec<i64>,
    silent_since: BTreeMap<Pair, Time>,
    trace: SipHasher24,
}

impl World {
    /// So many nodes, all up; each joins through the first.
    pub fn new(seed: u64, nodes: usize, weather: Weather) -> Self {
        let settings = Settings {
            cluster: cluster::Config { shards: 4, ..cluster::Config::default() },
            presence: presence::Config::default(),
        };
        Self::with_settings(seed, nodes, weather, settings.cluster, settings.presence)
    }

    /// As [`World::new`], with the cores set otherwise.
    pub fn with_settings(
        seed: u64,
        nodes: usize,
        weather: Weather,
        cluster: cluster::Config,
        presence: presence::Config,
    ) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            now: Time::from_micros(1_000_000),
            violations: Vec::new(),
            expected: BTreeMap::new(),
            delivered: 0,
            settings: Settings { cluster, presence },
            seed,
            rng: StdRng::seed_from_u64(seed),
            network: Network::new(weather),
            happenings: BTreeMap::new(),
            counted: 0,
            clients: 0,
            broadcasts: 0,
            wall: vec![0; nodes],
            silent_since: BTreeMap::new(),
            trace: SipHasher24::new(),
        };
        for number in 0..nodes {
            let node = world.boot(number, 1);
            world.nodes.push(node);
            world.drain(number);
            if number > 0 {
                world.dial(number, 0);
            }
        }
        world
    }

    // === verbs ===

    /// Lets time pass.
    pub fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(entry) = self.happenings.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _), what) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happen(what);
        }
        self.now = until;
    }

    /// A client joins a topic on a node and is tracked under `key`; `None` while the node is down.
    pub fn join(&mut self, node: usize, topic: &str, key: &str) -> Option<ClientId> {
        if !self.runs(node) {
            return None;
        }
        let topic: Topic = topic.parse().expect("a topic");
        self.clients += 1;
        let (id, now) = (self.clients, self.now);
        let place = &mut self.nodes[node];
        let number = place.shard_of(&topic);
        let shard = place.shard(&topic);
        let seq = shard.acquire_interest(topic.hash64(), now);
        let head = shard.head();
        let client = Client {
            topic,
            key: key.to_owned(),
            entry: None,
            confirmed: false,
            answered: false,
            heard: BTreeMap::new(),
        };
        place.clients.insert(id, client);
        place.cluster.handle_head(number, head);
        place.cluster.barrier(number, seq, id, now);
        self.drain(node);
        Some(id)
    }

    /// A client leaves. Nothing happens when it is gone.
    pub fn leave(&mut self, node: usize, client: ClientId) {
        if !self.runs(node) {
            return;
        }
        let now = self.now;
        let place = &mut self.nodes[node];
        let Some(gone) = place.clients.remove(&client) else { return };
        let shard = place.shard(&gone.topic);
        if let Some(entry) = gone.entry {
            shard.untrack(entry, now);
            shard.unobserve(&gone.topic, now);
        }
        shard.release_interest(gone.topic.hash64(), now);
        if let Some(observer) = place.observers.get_mut(&gone.topic)
            && gone.entry.is_some()
        {
            observer.watchers -= 1;
            if observer.watchers == 0 {
                place.observers.remove(&gone.topic);
            }
        }
        self.expected.retain(|(id, _), _| *id != client);
        self.drain(node);
    }

    /// A client's meta changes.
    pub fn update(&mut self, node: usize, client: ClientId, meta: &str) {
        let now = self.now;
        let place = &mut self.nodes[node];
        let Some(Client { topic, entry: Some(entry), .. }) = place.clients.get(&client) else {
            return;
        };
        let (topic, entry) = (topic.clone(), *entry);
        if self.runs(node) {
            let done = self.nodes[node].shard(&topic).update(entry, meta.as_bytes(), now);
            self.note(done.map_err(|error| format!("update: {error}")));
            self.drain(node);
        }
    }

    /// A node's own application broadcasts on a topic.
    pub fn broadcast(&mut self, node: usize, topic: &str) {
        if !self.runs(node) {
            return;
        }
        let topic: Topic = topic.parse().expect("a topic");
        self.broadcasts += 1;
        let id = self.broadcasts;
        self.expect(node, &topic, id);
        let place = &mut self.nodes[node];
        place.sequence += 1;
        let header = wire::encode_broadcast(&Broadcast {
            topic: topic.as_str(),
            event: "message",
            kind: PayloadKind::Json,
            sequence: place.sequence,
        });
        let frame = Bytes::from([&header[..], id.to_string().as_bytes()].concat());
        let routes = place.routes(&topic);
        let lane = DATA_LANES + u8::try_from(place.shard_of(&topic) % 4).unwrap_or(0);
        self.deliver(node, node, &topic, id);
        for (to, _) in routes {
            self.send(node, to, lane, frame.clone());
        }
    }

    /// Everything from `from` to `to` is lost from here on.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.network.cut.insert((from, to));
        self.watch_silence(pair(from, to));
    }

    /// The groups lose each other.
    pub fn partition(&mut self, groups: &[&[usize]]) {
        for (at, group) in groups.iter().enumerate() {
            for other in groups.iter().skip(at + 1) {
                for (a, b) in group.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
                    self.cut(a, b);
                    self.cut(b, a);
                }
            }
        }
    }

    /// All nodes reach each other again.
    pub fn heal(&mut self) {
        self.network.cut.clear();
        self.silent_since.clear();
        let pairs: Vec<Pair> = self.network.links.keys().copied().collect();
        for (a, b) in pairs {
            self.flush_stalled((a, b));
        }
    }

    /// Kills a node: no goodbye, its clients vanish with it.
    pub fn crash(&mut self, node: usize) {
        let gone: BTreeSet<ClientId> = self.nodes[node].clients.keys().copied().collect();
        self.expected.retain(|(client, _), _| !gone.contains(client));
        self.nodes[node].alive = false;
        for other in 0..self.nodes.len() {
            self.watch_silence(pair(node, other));
        }
    }

    /// Starts a crashed node anew under the same name, its wall clock off by so many milliseconds.
    pub fn restart(&mut self, node: usize, wall_off_ms: i64) {
        if self.nodes[node].alive {
            return;
        }
        self.wall[node] = wall_off_ms;
        let run = self.nodes[node].run + 1;
        self.nodes[node] = self.boot(node, run);
        self.drain(node);
        for other in 0..self.nodes.len() {
            if other != node {
                self.dial(node, other);
            }
        }
    }

    /// A node says goodbye and ends.
    pub fn stop(&mut self, node: usize) {
        let now = self.now;
        self.nodes[node].cluster.leave(now);
        self.drain(node);
        let gone: BTreeSet<ClientId> = self.nodes[node].clients.keys().copied().collect();
        self.expected.retain(|(client, _), _| !gone.contains(client));
        self.run_for(Duration::from_millis(20));
        self.nodes[node].alive = false;
        for other in 0..self.nodes.len() {
            self.drop_link(pair(node, other));
        }
    }

    /// A node does nothing for a while, as a stopped process does.
    pub fn pause(&mut self, node: usize, span: Duration) {
        if self.runs(node) {
            let until = self.now + span;
            self.nodes[node].paused_until = Some(until);
            self.push(until, What::Resume { node });
            for other in 0..self.nodes.len() {
                self.watch_silence(pair(node, other));
            }
        }
    }

    // === views ===

    /// A hash over all that has happened.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// The line that runs the same again.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Nodes that are up.
    pub fn alive(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].alive)
    }

    /// The clients of a node.
    pub fn clients(&self, node: usize) -> Vec<ClientId> {
        self.nodes[node].clients.keys().copied().collect()
    }

    /// Broadcasts that clients have heard.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// What a node's core counted.
    pub fn stats(&self, node: usize) -> cluster::Stats {
        self.nodes[node].cluster.stats()
    }

    /// One of the world's own dice.
    pub fn draw(&mut self, below: u64) -> u64 {
        self.rng.random_range(0..below.max(1))
    }

    // === nodes ===

    fn runs(&self, node: usize) -> bool {
        self.nodes[node].alive && self.nodes[node].paused_until.is_none()
    }

    fn boot(&mut self, number: usize, run: u64) -> Node {
        let wall = i64::try_from(self.now.as_micros() / 1000).unwrap_or(0) + self.wall[number];
        let wall = u64::try_from(wall.max(1)).unwrap_or(1);
        let incarnation = wall << 20 | self.rng.random_range(0..1 << 20);
        let seed = self.rng.random_range(0..u64::MAX);
        Node::start(number, run, incarnation, &self.settings, seed, self.now)
    }

    fn push(&mut self, at: Time, what: What) {
        self.counted += 1;
        self.happenings.insert((at, self.counted), what);
    }

    fn note(&mut self, outcome: Result<(), String>) {
        if let Err(what) = outcome {
            let at = self.now.as_micros() / 1000;
            self.violations.push(format!("at {at} ms: {what}"));
        }
    }

    fn happen(&mut self, what: What) {
        self.trace.write(&self.now.as_micros().to_le_bytes());
        match what {
            What::Wake { node } => self.wake(node),
            What::Arrival(packet) => self.arrive(packet),
            What::LinkUp { node, peer, link } => self.link_up(node, peer, link),
            What::LinkSilent { pair, link } => self.link_silent(pair, link),
            What::Dial { from, to } => self.dial(from, to),
            What::Resume { node } => self.resume(node),
        }
    }

    fn wake(&mut self, node: usize) {
        let now = self.now;
        let place = &mut self.nodes[node];
        if !place.alive || place.paused_until.is_some() || place.wake_at != Some(now) {
            return;
        }
        place.wake_at = None;
        for shard in &mut place.shards.0 {
            shard.handle_timeout(now);
        }
        place.cluster.handle_timeout(&mut place.shards, now);
        self.drain(node);
    }

    fn resume(&mut self, node: usize) {
        if !self.nodes[node].alive {
            return;
        }
        self.nodes[node].paused_until = None;
        for other in 0..self.nodes.len() {
            let key = pair(node, other);
            if self.connected(key) {
                self.silent_since.remove(&key);
                self.flush_stalled(key);
            }
        }
        self.nodes[node].wake_at = Some(self.now);
        self.wake(node);
    }

    /// Carries out a node's effects until there are none.
    fn drain(&mut self, node: usize) {
        let now = self.now;
        loop {
            let mut busy = self.drain_shards(node);
            while let Some(event) = self.nodes[node].cluster.poll_event() {
                busy = true;
                self.carry_out(node, event);
            }
            let peers: Vec<(NodeIx, usize)> =
                self.nodes[node].links.iter().map(|(ix, (peer, _))| (*ix, *peer)).collect();
            for (ix, peer) in peers {
                for (number, lane) in (0..).zip(Lane::ALL) {
                    loop {
                        let place = &mut self.nodes[node];
                        let polled =
                            place.cluster.poll_transmit(ix, lane, 64 << 10, &mut place.shards, now);
                        let Some(frame) = polled else { break };
                        busy = true;
                        self.send(node, peer, number, frame);
                    }
                }
            }
            if !busy {
                break;
            }
        }
        self.arrange_wake(node);
    }

    fn arrange_wake(&mut self, node: usize) {
        let Some(at) = self.nodes[node].poll_timeout() else { return };
        let at = at.max(self.now);
        if self.nodes[node].wake_at.is_none_or(|set| set > at) {
            self.nodes[node].wake_at = Some(at);
            self.push(at, What::Wake { node });
        }
    }

    fn drain_shards(&mut self, node: usize) -> bool {
        let mut busy = false;
        let mut wrong = Vec::new();
        let place = &mut self.nodes[node];
        for (number, shard) in (0..).zip(&mut place.shards.0) {
            while let Some(event) = shard.poll_event() {
                busy = true;
                match event {
                    presence::Event::Interest { hash: INTEREST_ALL, .. } => {}
                    presence::Event::Interest { owner, hash, present } => {
                        place.forward.interest(hash, owner, present);
                    }
                    presence::Event::Diff(diff) => {
                        if let Some(observer) = place.observers.get_mut(&diff.topic)
                            && let Err(why) = observer.fold(&diff)
                        {
                            wrong.push(format!("n{node} {}: {why}", diff.topic));
                        }
                    }
                }
            }
            place.cluster.handle_head(number, shard.head());
        }
        for why in wrong {
            self.note(Err(why));
        }
        busy
    }

    fn carry_out(&mut self, node: usize, event: Event) {
        match event {
            Event::Keep(address) => {
                let to = node_of(address);
                self.nodes[node].kept.insert(to);
                self.dial(node, to);
            }
            Event::Unkeep(address) => drop(self.nodes[node].kept.remove(&node_of(address))),
            Event::Flood { node: peer, shard, on } => {
                let set = &mut self.nodes[node].flooded[usize::from(shard)];
                let _ = if on { set.insert(peer) } else { set.remove(peer) };
            }
            Event::Barrier { id, confirmed } => self.joined(node, id, confirmed),
            Event::Cut { node: peer, why } => {
                self.note(Err(format!("n{node} cuts its link: {why}")));
                if let Some((peer, _)) = self.nodes[node].links.get(&peer).copied() {
                    self.drop_link(pair(node, peer));
                }
            }
            Event::MemberUp { .. }
            | Event::MemberDown { .. }
            | Event::Forgotten { .. }
            | Event::Disconnect { .. } => {}
        }
    }

    /// The barrier of a join is over: the client is tracked and told who is there.
    fn joined(&mut self, node: usize, id: ClientId, confirmed: bool) {
        let now = self.now;
        let place = &mut self.nodes[node];
        let Some(client) = place.clients.get_mut(&id) else { return };
        client.confirmed = confirmed;
        client.answered = true;
        let (topic, key) = (client.topic.clone(), client.key.clone());
        let shard = place.shard(&topic);
        let version = shard.observe(&topic, now);
        let tracked = shard.track(&topic, &key, b"{}", now);
        let (told_version, told) = place.told(&topic);
        let observer = place.observers.entry(topic.clone()).or_default();
        let mut wrong = Vec::new();
        if version != told_version {
            wrong.push(format!("observe says version {version}, told {told_version}"));
        }
        if observer.watchers > 0 && (observer.version, &observer.shown) != (version, &told) {
            wrong.push(format!("n{node} {topic}: a newcomer is told another state than the rest"));
        }
        observer.version = version;
        observer.shown = told;
        observer.watchers += 1;
        match tracked {
            Ok(entry) => {
                if let Some(client) = self.nodes[node].clients.get_mut(&id) {
                    client.entry = Some(entry);
                }
            }
            Err(error) => wrong.push(format!("track: {error}")),
        }
        for why in wrong {
            self.note(Err(why));
        }
    }

    // === broadcasts ===

    /// Notes who must hear a broadcast: all that were told their join is complete, on nodes that the
    /// publisher has a link with.
    fn expect(&mut self, from: usize, topic: &Topic, id: u64) {
        for (to, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.alive) {
            let link = if to == from {
                0
            } else {
                match self.network.links.get(&pair(from, to)) {
                    Some(link) if link.up.len() == 2 => link.id,
                    _ => continue,
                }
            };
            let listeners = node.clients.iter().filter(|(_, client)| {
                client.topic == *topic && (client.confirmed || to == from && client.answered)
            });
            self.expected.extend(listeners.map(|(client, _)| ((*client, id), link)));
        }
    }

    fn deliver(&mut self, from: usize, to: usize, topic: &Topic, id: u64) {
        let publisher = (from, self.nodes[from].run);
        let mut wrong = Vec::new();
        for (client, state) in &mut self.nodes[to].clients {
            if state.topic != *topic || !state.answered {
                continue;
            }
            let last = state.heard.entry(publisher).or_default();
            if id <= *last {
                wrong.push(format!("client {client} hears broadcast {id} after {last}"));
            }
            *last = id;
            self.delivered += 1;
            self.expected.remove(&(*client, id));
        }
        for why in wrong {
            self.note(Err(why));
        }
    }

    // === links ===

    fn connected(&self, (a, b): Pair) -> bool {
        self.network.whole(a, b) && self.runs(a) && self.runs(b)
    }

    fn dial(&mut self, from: usize, to: usize) {
        if from == to || to >= self.nodes.len() || !self.nodes[from].alive {
            return;
        }
        let key = pair(from, to);
        let runs = (self.nodes[key.0].run, self.nodes[key.1].run);
        if self.network.links.get(&key).is_some_and(|link| link.runs == runs) {
            return;
        }
        if !self.connected(key) {
            let again = Duration::from_millis(self.rng.random_range(200..1_000));
            self.push(self.now + again, What::Dial { from, to });
            return;
        }
        for (node, peer) in [(from, to), (to, from)] {
            if let Err(seen) = self.nodes[peer].cluster.admit(&self.nodes[node].me) {
                self.rekey(node, seen + 1);
            }
        }
        self.drop_link(key);
        let open_at = self.now + self.network.delay(&mut self.rng) * 3;
        let link = self.network.connect(key, runs, open_at);
        for (node, peer) in [key, (key.1, key.0)] {
            let early = Duration::from_micros(self.rng.random_range(0..200));
            let at = Time::from_micros(
                open_at.as_micros().saturating_sub(early.as_micros().try_into().unwrap_or(0)),
            );
            self.push(at, What::LinkUp { node, peer, link });
        }
    }

    fn rekey(&mut self, node: usize, incarnation: u64) {
        let now = self.now;
        for other in 0..self.nodes.len() {
            self.drop_link(pair(node, other));
        }
        let place = &mut self.nodes[node];
        place.me.incarnation = incarnation;
        for shard in &mut place.shards.0 {
            shard.rekey(incarnation, now);
        }
        place.cluster.rekey(incarnation, now);
        self.drain(node);
    }

    fn link_up(&mut self, node: usize, peer: usize, link: u64) {
        let key = pair(node, peer);
        let now = self.now;
        let current = self.network.links.get(&key).is_some_and(|known| known.id == link);
        if !current || !self.nodes[node].alive {
            return;
        }
        if !self.runs(node) {
            self.drop_link(key);
            return;
        }
        let replica = self.nodes[peer].me.clone();
        let place = &mut self.nodes[node];
        let Some(ix) = place.cluster.handle_link_up(link, &replica, &mut place.shards, now) else {
            self.drop_link(key);
            return;
        };
        place.links.insert(ix, (peer, link));
        if let Some(known) = self.network.links.get_mut(&key) {
            known.up.insert(node);
        }
        self.drain(node);
    }

    /// Ends a link at both ends at once.
    fn drop_link(&mut self, key: Pair) {
        let Some(link) = self.network.links.remove(&key) else { return };
        self.silent_since.remove(&key);
        self.expected.retain(|_, over| *over != link.id);
        let now = self.now;
        for (node, peer) in [key, (key.1, key.0)] {
            let place = &mut self.nodes[node];
            let ix = place.links.iter().find(|(_, (_, id))| *id == link.id).map(|(ix, _)| *ix);
            if let Some(ix) = ix {
                place.links.remove(&ix);
                place.cluster.handle_link_down(ix, link.id, &mut place.shards, now);
                if place.alive {
                    self.drain(node);
                }
            }
            if self.nodes[node].kept.contains(&peer) || peer == 0 || node == 0 {
                let again = Duration::from_millis(self.rng.random_range(50..300));
                self.push(now + again, What::Dial { from: node, to: peer });
            }
        }
    }

    fn watch_silence(&mut self, key: Pair) {
        if let Some(link) = self.network.links.get(&key).map(|link| link.id) {
            self.silent_since.entry(key).or_insert(self.now);
            self.push(self.now + LINK_IDLE, What::LinkSilent { pair: key, link });
        }
    }

    fn link_silent(&mut self, key: Pair, link: u64) {
        let current = self.network.links.get(&key).is_some_and(|known| known.id == link);
        let long = self.silent_since.get(&key).is_some_and(|since| {
            self.now.since(*since) >= LINK_IDLE
        });
        if current && long && !self.connected(key) {
            self.drop_link(key);
        }
    }

    fn flush_stalled(&mut self, key: Pair) {
        let Some(link) = self.network.links.get_mut(&key) else { return };
        for packet in std::mem::take(&mut link.stalled) {
            self.dispatch(packet);
        }
    }

    /// Sends a frame. Membership packets are datagrams, all else is a stream.
    fn send(&mut self, from: usize, to: usize, lane: u8, frame: Bytes) {
        let Some(link) = self.network.links.get_mut(&pair(from, to)) else { return };
        let number = (lane != 0).then(|| link.streams.entry((from, lane)).or_default().number());
        let packet = Packet { from, to, link: link.id, lane, number, frame };
        if (lane == 2 || lane == 3) && self.network.doubles(&mut self.rng) {
            self.dispatch(Packet { number: None, ..packet.clone() });
        }
        self.dispatch(packet);
    }

    /// Puts a packet on its way.
    fn dispatch(&mut self, packet: Packet) {
        let key = pair(packet.from, packet.to);
        // Datagrams to a sleeping process wait in its socket's buffer.
        let reaches = if packet.lane == 0 {
            self.network.reaches(packet.from, packet.to)
        } else {
            self.connected(key)
        };
        let delay = if packet.number.is_some() {
            self.network.stream_delay(&mut self.rng)
        } else if self.network.loses(&mut self.rng) {
            return;
        } else {
            self.network.delay(&mut self.rng) * 2
        };
        let Some(link) = self.network.links.get_mut(&key) else { return };
        if reaches {
            let at = (self.now + delay).max(link.open_at);
            self.push(at, What::Arrival(packet));
        } else if packet.number.is_some() {
            link.stalled.push_back(packet);
        }
    }

    fn arrive(&mut self, packet: Packet) {
        let Packet { from, to, link, lane, number, ref frame } = packet;
        let key = pair(from, to);
        let reaches = self.network.reaches(from, to) && self.nodes[to].paused_until.is_none();
        let Some(known) = self.network.links.get_mut(&key).filter(|known| known.id == link) else {
            return;
        };
        if !self.nodes[to].alive || !known.up.contains(&to) {
            return;
        }
        // It was under way when the cut came, or the receiver sleeps.
        if !reaches {
            if number.is_some() || self.nodes[to].paused_until.is_some() {
                known.stalled.push_back(packet);
            }
            return;
        }
        let ready = match number {
            Some(number) => {
                let stream = known.streams.entry((from, lane)).or_default();
                stream.arrived(number, frame.clone())
            }
            None => vec![frame.clone()],
        };
        for frame in ready {
            self.trace.write(&[lane]);
            self.trace.write(&frame);
            if lane >= DATA_LANES {
                self.hear(from, to, &frame);
            } else {
                self.handle_frame((from, to), link, &frame);
            }
        }
    }

    fn handle_frame(&mut self, (from, to): Pair, link: u64, frame: &Bytes) {
        let now = self.now;
        let place = &mut self.nodes[to];
        let ix = place.links.iter().find(|(_, (_, id))| *id == link).map(|(ix, _)| *ix);
        let Some(ix) = ix else { return };
        if let Err(error) = place.cluster.handle_frame(ix, link, frame, &mut place.shards, now) {
            self.note(Err(format!("n{to} refuses a frame of n{from}: {error}")));
            self.drop_link(pair(from, to));
        }
        self.drain(to);
    }

    fn hear(&mut self, from: usize, to: usize, frame: &Bytes) {
        match wire::decode_broadcast(frame) {
            Ok(Some((broadcast, payload))) => {
                let topic: Topic = broadcast.topic.parse().expect("a topic");
                let id = std::str::from_utf8(&payload).ok().and_then(|id| id.parse().ok());
                self.deliver(from, to, &topic, id.expect("our payloads are numbers"));
            }
            Ok(None) => {}
            Err(error) => self.note(Err(format!("broadcast of n{from}: {error}"))),
        }
    }
}

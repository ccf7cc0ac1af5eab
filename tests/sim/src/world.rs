//! The heap of what happens, and the verbs of a test.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hasher as _,
    time::Duration,
};

use bytes::Bytes;
use cluster::wire::{self, Broadcast, PayloadKind};
use presence::{NodeIx, Op, Time, Topic, Value};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use siphasher::sip::SipHasher24;

use crate::{
    links::DATA_LANES,
    network::{Network, Packet, Pair, Slow, Traffic, Weather, pair},
    node::{Client, ClientId, Node, Settings},
};

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum What {
    Wake { node: usize },
    Arrival(Packet),
    LinkUp { node: usize, peer: usize, link: u64 },
    LinkSilent { pair: Pair, link: u64 },
    Dial { from: usize, to: usize },
    Resume { node: usize },
    Room { from: usize, to: usize },
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
    pub(crate) rng: StdRng,
    pub(crate) network: Network,
    happenings: BTreeMap<(Time, u64), What>,
    counted: u64,
    clients: u64,
    broadcasts: u64,
    /// Wall clocks, off by so many milliseconds.
    wall: Vec<i64>,
    pub(crate) silent_since: BTreeMap<Pair, Time>,
    pub(crate) trace: SipHasher24,
    replay: Option<String>,
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
            replay: None,
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
            // Unless its socket was lost, and it stays for a while.
            if !shard.is_detached(entry) {
                shard.untrack(entry, now);
            }
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

    /// A client loses its socket; its entry stays for the lease.
    pub fn lose(&mut self, node: usize, client: ClientId, lease: Duration) {
        if !self.runs(node) {
            return;
        }
        let now = self.now;
        let place = &mut self.nodes[node];
        if let Some(Client { topic, entry: Some(entry), .. }) = place.clients.get(&client) {
            let (topic, entry) = (topic.clone(), *entry);
            place.shard(&topic).detach(entry, lease, now);
            self.leave(node, client);
        }
    }

    /// A node that drains has nothing left to tell: it says goodbye, with what is left of its entries'
    /// lease, and ends.
    pub fn retire(&mut self, node: usize, lease: Duration) {
        if !self.runs(node) {
            return;
        }
        self.nodes[node].cluster.drain();
        self.end(node, lease);
    }

    /// Entries of a node whose clients are gone.
    pub fn detached(&self, node: usize) -> usize {
        self.nodes[node].shards.0.iter().map(presence::Shard::detached).sum()
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

    /// Nothing is lost or doubled from here on.
    pub fn calm(&mut self) {
        self.network.weather.lost = 0;
        self.network.weather.doubled = 0;
    }

    /// All nodes reach each other again.
    pub fn heal(&mut self) {
        self.network.cut.clear();
        let pairs: Vec<Pair> = self.network.links.keys().copied().collect();
        for key in pairs {
            // One end of it may be dead or asleep.
            if self.connected(key) {
                self.silent_since.remove(&key);
                self.flush_stalled(key);
            }
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
        if !self.runs(node) {
            return;
        }
        self.end(node, Duration::ZERO);
    }

    fn end(&mut self, node: usize, lease: Duration) {
        let now = self.now;
        self.nodes[node].cluster.leave(lease, now);
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

    /// Virtual time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.now.since(Time::ZERO)
    }

    /// A hash over all that has happened.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// The seed of all dice.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The line that runs the same again: a test's own, unless another was given.
    pub fn replay(&self) -> String {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        self.replay.clone().unwrap_or_else(|| format!("cargo test -p sim --test clusters {test}"))
    }

    pub(crate) fn replay_with(&mut self, line: String) {
        self.replay = Some(line);
    }

    /// Nodes, up or not.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Any client of a node, by the dice.
    pub fn some_client(&mut self, node: usize) -> Option<ClientId> {
        let at = self.draw(self.nodes[node].clients.len() as u64);
        self.nodes[node].clients.keys().nth(usize::try_from(at).unwrap_or(0)).copied()
    }

    /// What a node has sent to all others in one lane: 0 membership, 1 control, 2 live and 3 bulk feeds,
    /// 4 broadcasts.
    pub fn sent(&self, from: usize, lane: usize) -> Traffic {
        let pairs = self.network.traffic.range((from, 0)..=(from, usize::MAX));
        pairs.map(|(_, lanes)| lanes[lane]).fold(Traffic::default(), |sum, spent| sum + spent)
    }

    /// What a node has sent to one other of its feeds.
    pub fn fed(&self, from: usize, to: usize) -> Traffic {
        let lanes = self.network.traffic.get(&(from, to));
        lanes.map_or_else(Traffic::default, |lanes| lanes[2] + lanes[3])
    }

    /// From here on feeds go this way only so fast.
    pub fn slow_down(&mut self, from: usize, to: usize, bytes_per_second: u64) {
        let slow = Slow { bytes_per_second, free_at: self.now, awaited: false };
        self.network.slow.insert((from, to), slow);
    }

    /// Feeds go as fast as they come again.
    pub fn speed_up(&mut self, from: usize, to: usize) {
        if self.network.slow.remove(&(from, to)).is_some() {
            self.room(from, to);
        }
    }

    /// A measure of what a node holds for its links and members; presence is not in it.
    pub fn core_footprint(&self, node: usize) -> usize {
        format!("{:?}", self.nodes[node].cluster).len()
    }

    /// Whether a node counts another as alive.
    pub fn is_up(&self, node: usize, other: usize) -> bool {
        self.nodes[node].cluster.up().any(|replica| replica.name == self.nodes[other].me.name)
    }

    /// How many others a node counts as alive.
    pub fn members_of(&self, node: usize) -> usize {
        self.nodes[node].cluster.up().count()
    }

    /// How often a node was taken for dead that was not, or whose later run was up.
    pub fn false_downs(&self) -> u64 {
        self.nodes.iter().map(|node| node.watch.false_downs).sum()
    }

    /// Takes an entry out of a node's replica of another's feed behind everybody's back, as a broken memory
    /// would. Does nothing where the replica is behind.
    pub fn corrupt(&mut self, node: usize, owner: usize, topic: &str) {
        let topic: Topic = topic.parse().expect("a topic");
        let now = self.now;
        let name = self.nodes[owner].me.name.clone();
        let Some(ix) = self.nodes[node].number_of(&name) else { return };
        let shard = self.nodes[node].shard(&topic);
        let Some(at) = shard.position(ix) else { return };
        let Some(mut whole) = self.nodes[owner].shard(&topic).serve(NodeIx::SELF, 0, 60_000) else {
            return;
        };
        let entry = |op: &Op| matches!(op, Op::Put { value: Value::Presence { .. }, .. });
        let Some(Op::Put { slot, .. }) = whole.ops.iter().find(|op| entry(op)) else { return };
        let seq = at.v + 1;
        whole.ops = vec![Op::Remove { slot: *slot, seq }];
        whole.topics.clear();
        (whole.from, whole.to, whole.head, whole.horizon) = (at.v, seq, seq, 0);
        let _ = self.nodes[node].shard(&topic).apply(ix, whole, now);
        // Observers are told that it left, and will be told that it is there.
        self.nodes[node].watch.downs += 1;
        self.drain(node);
    }

    /// Nodes that are up.
    pub fn alive(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].alive)
    }

    /// The clients of a node.
    pub fn clients(&self, node: usize) -> Vec<ClientId> {
        self.nodes[node].clients.keys().copied().collect()
    }

    /// Keys that a node lists under a topic.
    pub fn keys(&mut self, node: usize, topic: &str) -> Vec<String> {
        let list = self.nodes[node].list(&topic.parse().expect("a topic"));
        list.into_iter().map(|(key, _)| key).collect()
    }

    /// Keys that the clients of a topic on a node were told to have joined, since the first of them.
    pub fn told_joins(&self, node: usize, topic: &str) -> &[String] {
        let observer = self.nodes[node].observers.get(topic);
        observer.map_or(&[], |observer| &observer.joins)
    }

    /// Keys that the clients of a topic on a node show.
    pub fn told_keys(&self, node: usize, topic: &str) -> BTreeSet<&str> {
        let observer = self.nodes[node].observers.get(topic);
        observer.map_or_else(BTreeSet::new, |o| o.shown.values().map(String::as_str).collect())
    }

    /// From here on it is an error when a key is shown no more that was shown before.
    pub fn expect_keys_to_stay(&mut self) {
        for observer in self.nodes.iter_mut().flat_map(|node| node.observers.values_mut()) {
            observer.keys_stay = true;
        }
    }

    /// A measure of all that a node's cores hold.
    pub fn footprint(&self, node: usize) -> usize {
        let place = &self.nodes[node];
        format!("{:?} {:?} {:?}", place.cluster, place.shards, place.wanted).len()
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

    pub(crate) fn runs(&self, node: usize) -> bool {
        self.nodes[node].alive && self.nodes[node].paused_until.is_none()
    }

    pub(crate) fn boot(&mut self, number: usize, run: u64) -> Node {
        let wall = i64::try_from(self.now.as_micros() / 1000).unwrap_or(0) + self.wall[number];
        let wall = u64::try_from(wall.max(1)).unwrap_or(1);
        let incarnation = wall << 20 | self.rng.random_range(0..1 << 20);
        let seed = self.rng.random_range(0..u64::MAX);
        Node::start(number, run, incarnation, &self.settings, seed, self.now)
    }

    pub(crate) fn push(&mut self, at: Time, what: What) {
        self.counted += 1;
        self.happenings.insert((at, self.counted), what);
    }

    pub(crate) fn note(&mut self, outcome: Result<(), String>) {
        if let Err(what) = outcome {
            let at = self.now.as_micros() / 1000;
            self.violations.push(format!("at {at} ms: {what}"));
        }
    }
}

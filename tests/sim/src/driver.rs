//! What a node's driver does: hand in what happened, carry out what comes of it.

use std::hash::Hasher as _;

use bytes::Bytes;
use cluster::{Event, Lane, wire};
use presence::{INTEREST_ALL, NodeIx, Topic};

use crate::{
    network::{Pair, pair},
    node::{ClientId, Node, Observer, node_of},
    world::{What, World},
};

impl World {
    pub(crate) fn happen(&mut self, what: What) {
        self.trace.write(&self.now.as_micros().to_le_bytes());
        match what {
            What::Wake { node } => self.wake(node),
            What::Arrival(packet) => self.arrive(packet),
            What::LinkUp { node, peer, link } => self.link_up(node, peer, link),
            What::LinkSilent { pair, link } => self.link_silent(pair, link),
            What::Dial { from, to } => self.dial(from, to),
            What::Resume { node } => self.resume(node),
            What::Room { from, to } => self.room(from, to),
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
    pub(crate) fn drain(&mut self, node: usize) {
        loop {
            let mut busy = self.drain_shards(node);
            while let Some(event) = self.nodes[node].cluster.poll_event() {
                busy = true;
                self.carry_out(node, event);
            }
            while let Some(ix) = self.nodes[node].cluster.poll_ready() {
                let Some((peer, _)) = self.nodes[node].links.get(&ix).copied() else { continue };
                busy |= self.transmit(node, ix, peer);
            }
            if !busy {
                break;
            }
        }
        self.arrange_wake(node);
    }

    /// Sends all that a node has for a peer.
    pub(crate) fn transmit(&mut self, node: usize, ix: NodeIx, peer: usize) -> bool {
        let now = self.now;
        let mut busy = false;
        for (number, lane) in (0..).zip(Lane::ALL) {
            loop {
                if lane >= Lane::FeedLive && !self.has_room(node, peer) {
                    break;
                }
                let place = &mut self.nodes[node];
                let polled =
                    place.cluster.poll_transmit(ix, lane, 64 << 10, &mut place.shards, now);
                let Some(frame) = polled else { break };
                busy = true;
                self.send(node, peer, number, frame);
            }
        }
        busy
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
                        place.wanted.set(hash, owner, present);
                    }
                    presence::Event::Diff(diff) => {
                        let Some(observer) = place.observers.get_mut(&diff.topic) else { continue };
                        if let Err(why) = observer.fold(&diff, place.watch.downs) {
                            wrong.push(format!("n{node} {}: {why}", diff.topic));
                        } else if !observer.is_true(&diff.topic, shard) {
                            wrong.push(format!("I6: n{node} {}: not what is told", diff.topic));
                        }
                    }
                    // Nobody here asks for these.
                    presence::Event::Count { .. } | presence::Event::Opened { .. } => {}
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
                let _ = if on { set.insert(peer) } else { set.remove(&peer) };
            }
            Event::Barrier { id, confirmed } => self.joined(node, id, confirmed),
            Event::Cut { node: peer, why } => {
                // In these clusters everybody reads; a later run may turn up.
                if !why.contains("later run") {
                    self.note(Err(format!("n{node} cuts its link: {why}")));
                }
                if let Some((peer, _)) = self.nodes[node].links.get(&peer).copied() {
                    self.drop_link(pair(node, peer));
                }
            }
            Event::MemberUp { node: ix, replica } => {
                self.nodes[node].watch.names.insert(ix, replica.name);
                self.watch(node, ix);
            }
            Event::MemberDown { replica, .. } => {
                let lives = |other: &Node| other.alive && other.me == replica;
                let is_false = self.nodes.iter().any(lives);
                let watch = &mut self.nodes[node].watch;
                watch.downs += 1;
                watch.false_downs += u64::from(is_false);
            }
            Event::Forgotten { node: ix, name } => self.nodes[node].watch.forgotten(ix, &name),
            Event::PartitionSuspected { .. }
            | Event::PartitionOver { .. }
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
        let told_version = shard.told_version(&topic);
        let mut wrong = Vec::new();
        if version != told_version {
            wrong.push(format!("observe says version {version}, told {told_version}"));
        }
        // A crowd is told what those before it show: compared now and then, as it is long.
        let crowd = place.observers.get(&topic).is_some_and(Observer::is_long);
        if !crowd || id.is_multiple_of(1024) {
            let (_, told) = place.told(&topic);
            let observer = place.observers.entry(topic.clone()).or_default();
            if observer.watchers > 0 && (observer.version, &observer.shown) != (version, &told) {
                wrong.push(format!("n{node} {topic}: a newcomer is told another state"));
            }
            observer.version = version;
            observer.start(told);
        }
        if let Some(observer) = place.observers.get_mut(&topic) {
            observer.watchers += 1;
        }
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

    pub(crate) fn handle_frame(&mut self, (from, to): Pair, link: u64, frame: &Bytes) {
        let now = self.now;
        let place = &mut self.nodes[to];
        let ix = place.links.iter().find(|(_, (_, id))| *id == link).map(|(ix, _)| *ix);
        let Some(ix) = ix else { return };
        if let Err(error) = place.cluster.handle_frame(ix, link, frame, &mut place.shards, now) {
            self.note(Err(format!("n{to} refuses a frame of n{from}: {error}")));
            self.drop_link(pair(from, to));
        }
        self.drain(to);
        self.watch(to, ix);
    }

    // === broadcasts ===

    /// Notes who must hear a broadcast: all that were told their join is complete, on nodes that the
    /// publisher has a link with.
    pub(crate) fn expect(&mut self, from: usize, topic: &Topic, id: u64) {
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

    pub(crate) fn deliver(&mut self, from: usize, to: usize, topic: &Topic, id: u64) {
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

    pub(crate) fn hear(&mut self, from: usize, to: usize, frame: &Bytes) {
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

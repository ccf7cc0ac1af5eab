//! Links as nodes see them: dialled, up, silent, gone; and the frames on them.

use std::{hash::Hasher as _, time::Duration};

use bytes::Bytes;
use presence::Time;
use rand::RngExt as _;

use crate::{
    network::{LINK_IDLE, Packet, Pair, Traffic, pair},
    world::{What, World},
};

/// Lane numbers from here on carry broadcasts.
pub(crate) const DATA_LANES: u8 = 4;

/// Bytes of the longest frame that a node may send: a message's 64 KiB, or all members for a newcomer.
const FRAME_MAX: usize = 64 << 10;

impl World {
    pub(crate) fn connected(&self, (a, b): Pair) -> bool {
        self.network.whole(a, b) && self.runs(a) && self.runs(b)
    }

    pub(crate) fn dial(&mut self, from: usize, to: usize) {
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
                self.rekey(node, seen);
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

    /// The node learns that a run of it with the incarnation `seen` is known: it starts over above it.
    fn rekey(&mut self, node: usize, seen: u64) {
        let now = self.now;
        let above = self.nodes[node].cluster.incarnation_above(seen);
        let Some(incarnation) = above else { return };
        for other in 0..self.nodes.len() {
            self.drop_link(pair(node, other));
        }
        let place = &mut self.nodes[node];
        // Another node has said so while the links ended.
        if incarnation <= place.me.incarnation {
            return;
        }
        place.me.incarnation = incarnation;
        for shard in &mut place.shards.0 {
            shard.rekey(incarnation, now);
        }
        place.cluster.rekey(incarnation, now);
        self.drain(node);
    }

    pub(crate) fn link_up(&mut self, node: usize, peer: usize, link: u64) {
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
    pub(crate) fn drop_link(&mut self, key: Pair) {
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

    pub(crate) fn watch_silence(&mut self, key: Pair) {
        if let Some(link) = self.network.links.get(&key).map(|link| link.id) {
            self.silent_since.entry(key).or_insert(self.now);
            self.push(self.now + LINK_IDLE, What::LinkSilent { pair: key, link });
        }
    }

    pub(crate) fn link_silent(&mut self, key: Pair, link: u64) {
        let current = self.network.links.get(&key).is_some_and(|known| known.id == link);
        let long =
            self.silent_since.get(&key).is_some_and(|since| self.now.since(*since) >= LINK_IDLE);
        if current && long && !self.connected(key) {
            self.drop_link(key);
        }
    }

    pub(crate) fn flush_stalled(&mut self, key: Pair) {
        let Some(link) = self.network.links.get_mut(&key) else { return };
        for packet in std::mem::take(&mut link.stalled) {
            self.dispatch(packet);
        }
    }

    /// Whether feeds may go on this way; when they may not, they are asked for again when they may.
    pub(crate) fn has_room(&mut self, from: usize, to: usize) -> bool {
        let Some(slow) = self.network.slow.get_mut(&(from, to)) else { return true };
        let at = slow.free_at;
        if at <= self.now {
            return true;
        }
        if !std::mem::replace(&mut slow.awaited, true) {
            self.push(at, What::Room { from, to });
        }
        false
    }

    pub(crate) fn room(&mut self, from: usize, to: usize) {
        if let Some(slow) = self.network.slow.get_mut(&(from, to)) {
            slow.awaited = false;
        }
        if !self.runs(from) {
            return;
        }
        let mut links = self.nodes[from].links.iter();
        let ix = links.find(|(_, (peer, _))| *peer == to).map(|(ix, _)| *ix);
        if let Some(ix) = ix {
            self.transmit(from, ix, to);
            self.drain(from);
        }
    }

    /// Sends a frame. Membership packets are datagrams, all else is a stream.
    pub(crate) fn send(&mut self, from: usize, to: usize, lane: u8, frame: Bytes) {
        if frame.len() > FRAME_MAX {
            self.note(Err(format!("I10: n{from} sends a frame of {} bytes", frame.len())));
        }
        let Some(link) = self.network.links.get_mut(&pair(from, to)) else { return };
        let spent = self.network.traffic.entry((from, to)).or_default();
        let spent = &mut spent[usize::from(lane.min(DATA_LANES))];
        *spent = *spent + Traffic { frames: 1, bytes: frame.len() };
        if let Some(slow) = self.network.slow.get_mut(&(from, to))
            && (lane == 2 || lane == 3)
        {
            let micros = frame.len() as u64 * 1_000_000 / slow.bytes_per_second.max(1);
            slow.free_at = slow.free_at.max(self.now) + Duration::from_micros(micros);
        }
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

    pub(crate) fn arrive(&mut self, packet: Packet) {
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
}

//! Who reaches whom, and how late.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use presence::Time;
use rand::{RngExt as _, rngs::StdRng};

/// How long a silent link lives: QUIC's idle timeout and one keep-alive.
pub(crate) const LINK_IDLE: Duration = Duration::from_secs(5);

/// What the network does to packets.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// One-way delay, least and most, in microseconds. Lanes of a link overtake one another.
    pub delay: (u64, u64),
    /// Of 1,000 packets, how many are lost. Streams send them again, datagrams do not.
    pub lost: u32,
    /// Of 1,000 feed frames, how many come twice. QUIC never does that; the cores must bear it.
    pub doubled: u32,
}

impl Default for Weather {
    fn default() -> Self {
        Self { delay: (200, 1_500), lost: 0, doubled: 0 }
    }
}

/// One direction of one link, one lane: whole and in order, whatever the packets do.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    sent: u64,
    next: u64,
    early: BTreeMap<u64, Bytes>,
}

impl Stream {
    /// The number of the next frame sent.
    pub(crate) fn number(&mut self) -> u64 {
        self.sent += 1;
        self.sent - 1
    }

    /// Takes a frame that arrived; gives those whose turn it is.
    pub(crate) fn arrived(&mut self, number: u64, frame: Bytes) -> Vec<Bytes> {
        if number >= self.next {
            self.early.insert(number, frame);
        }
        let mut ready = Vec::new();
        while let Some(frame) = self.early.remove(&self.next) {
            self.next += 1;
            ready.push(frame);
        }
        ready
    }
}

/// A frame on its way. Without a number it is a packet by itself.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) link: u64,
    pub(crate) lane: u8,
    pub(crate) number: Option<u64>,
    pub(crate) frame: Bytes,
}

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames.
    pub frames: usize,
    /// Bytes in them.
    pub bytes: usize,
}

impl std::ops::Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { frames: self.frames + other.frames, bytes: self.bytes + other.bytes }
    }
}

impl std::ops::Sub for Traffic {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { frames: self.frames - other.frames, bytes: self.bytes - other.bytes }
    }
}

/// A direction that takes feeds only so fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slow {
    pub(crate) bytes_per_second: u64,
    /// When all that was sent is through.
    pub(crate) free_at: Time,
    /// The sender will be told then.
    pub(crate) awaited: bool,
}

/// A link as both ends see it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: u64,
    /// Which ends have been told that it is up.
    pub(crate) up: BTreeSet<usize>,
    /// The runs of both ends, the smaller node's first; another run needs another link.
    pub(crate) runs: (u64, u64),
    /// No frame arrives before both ends know of the link.
    pub(crate) open_at: Time,
    pub(crate) streams: BTreeMap<(usize, u8), Stream>,
    /// Packets that wait for a cut to heal.
    pub(crate) stalled: VecDeque<Packet>,
}

/// Pairs are ordered: the smaller node first.
pub(crate) type Pair = (usize, usize);

pub(crate) fn pair(a: usize, b: usize) -> Pair {
    (a.min(b), a.max(b))
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    pub(crate) links: BTreeMap<Pair, Link>,
    /// Directions that lose everything: (from, to).
    pub(crate) cut: BTreeSet<Pair>,
    /// By sender and receiver: membership, control, live feeds, bulk feeds, broadcasts.
    pub(crate) traffic: BTreeMap<Pair, [Traffic; 5]>,
    pub(crate) slow: BTreeMap<Pair, Slow>,
    ids: u64,
}

impl Network {
    pub(crate) fn new(weather: Weather) -> Self {
        Self {
            weather,
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            traffic: BTreeMap::new(),
            slow: BTreeMap::new(),
            ids: 0,
        }
    }

    pub(crate) fn connect(&mut self, (a, b): Pair, runs: (u64, u64), open_at: Time) -> u64 {
        self.ids += 1;
        let link = Link {
            id: self.ids,
            up: BTreeSet::new(),
            runs,
            open_at,
            streams: BTreeMap::new(),
            stalled: VecDeque::new(),
        };
        self.links.insert((a, b), link);
        self.ids
    }

    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// QUIC needs both directions.
    pub(crate) fn whole(&self, a: usize, b: usize) -> bool {
        self.reaches(a, b) && self.reaches(b, a)
    }

    pub(crate) fn delay(&self, rng: &mut StdRng) -> Duration {
        let (least, most) = self.weather.delay;
        Duration::from_micros(rng.random_range(least..=most))
    }

    /// How late a packet of a stream is: more so when it had to be sent again.
    pub(crate) fn stream_delay(&self, rng: &mut StdRng) -> Duration {
        let mut delay = self.delay(rng);
        while rng.random_range(0..1000) < self.weather.lost {
            delay += Duration::from_millis(30) + self.delay(rng) * 2;
        }
        delay
    }

    pub(crate) fn loses(&self, rng: &mut StdRng) -> bool {
        rng.random_range(0..1000) < self.weather.lost
    }

    pub(crate) fn doubles(&self, rng: &mut StdRng) -> bool {
        rng.random_range(0..1000) < self.weather.doubled
    }
}

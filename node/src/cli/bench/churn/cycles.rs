//! The life of a socket, again and again.

use std::time::{Duration, Instant};

use super::super::{
    super::Failure,
    client::{JOIN, Lost, OpenError, reply_to},
    engine::{Dial, Engine, Handler, Sockets},
    measure::Histogram,
    message::{Envelope, push},
    progress::Bar,
    swarm::not_opened,
    target::Target,
};

/// The `ref` of a leave.
const LEAVE: &str = "2";

/// How long one turn waits.
const TURN: Duration = Duration::from_millis(50);

/// What a cycle consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connect,
    Upgrade,
    Join,
    Leave,
    Close,
}

/// How many phases there are.
const PHASES: usize = 5;

/// All places for sockets.
#[derive(Debug)]
pub(super) struct Cycles {
    places: Vec<Place>,
    nodes: Vec<Dial>,
    /// Places without a socket.
    vacant: Vec<usize>,
    /// No cycle begins from then on.
    end: Instant,
    /// When something last happened.
    moved: Instant,
    begun: usize,
    phases: [Histogram; PHASES],
    whole: Histogram,
    failed: u64,
    first_failure: Option<OpenError>,
}

#[derive(Debug)]
struct Place {
    join: String,
    leave: String,
    phase: Phase,
    begun: Instant,
    /// When the phase began.
    since: Instant,
}

impl Cycles {
    /// A place for each topic.
    pub(super) fn new(topics: &[String], nodes: Vec<Dial>) -> Self {
        let now = Instant::now();
        let places: Vec<_> = topics
            .iter()
            .map(|topic| Place {
                join: push(JOIN, topic, "phx_join", "{}"),
                leave: push(LEAVE, topic, "phx_leave", "{}"),
                phase: Phase::Connect,
                begun: now,
                since: now,
            })
            .collect();
        Self {
            vacant: (0..places.len()).collect(),
            places,
            nodes,
            end: now,
            moved: now,
            begun: 0,
            phases: std::array::from_fn(|_| Histogram::default()),
            whole: Histogram::default(),
            failed: 0,
            first_failure: None,
        }
    }

    /// Forgets what was measured; failures stay.
    pub(super) fn measure(&mut self) {
        self.phases.iter_mut().for_each(|phase| *phase = Histogram::default());
        self.whole = Histogram::default();
    }

    /// Cycles that are done.
    pub(super) fn done(&self) -> u64 {
        self.whole.count()
    }

    pub(super) fn whole(&self) -> &Histogram {
        &self.whole
    }

    pub(super) fn phase(&self, phase: Phase) -> &Histogram {
        &self.phases[phase as usize]
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    pub(super) fn first_failure(&self) -> Option<String> {
        self.first_failure.as_ref().map(ToString::to_string)
    }

    /// Fails if a cycle has before anything was measured.
    pub(super) fn intact(&self, target: &Target) -> Result<(), Failure> {
        match (&self.first_failure, target.nodes.first()) {
            (Some(error), Some(node)) => Err(not_opened(node, error)),
            _ => Ok(()),
        }
    }

    /// Begins cycles for `duration`, and waits for the last of them. What has not moved for
    /// `patience` has failed.
    pub(super) fn turn_for(
        &mut self,
        duration: Duration,
        patience: Duration,
        engine: &mut Engine,
        bar: &mut Bar,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        self.end = started + duration;
        self.moved = started;
        loop {
            let now = Instant::now();
            if now < self.end {
                self.fill(&mut engine.sockets, now);
            } else if self.vacant.len() == self.places.len() {
                return Ok(());
            }
            if now.saturating_duration_since(self.moved) > patience {
                self.abandon(&mut engine.sockets, now);
            }
            engine.turn(TURN, self)?;
            bar.show(started.elapsed().as_secs(), now);
        }
    }

    /// Begins a cycle in each vacant place, once: one that fails at once waits for the next turn.
    fn fill(&mut self, sockets: &mut Sockets, now: Instant) {
        for place in std::mem::take(&mut self.vacant) {
            self.begin(sockets, place, now);
        }
    }

    fn begin(&mut self, sockets: &mut Sockets, id: usize, now: Instant) {
        let turn = self.begun % self.nodes.len().max(1);
        self.begun += 1;
        let (Some(place), Some(node)) = (self.places.get_mut(id), self.nodes.get(turn)) else {
            return;
        };
        (place.phase, place.begun, place.since) = (Phase::Connect, now, now);
        if let Err(error) = sockets.open(id, node) {
            self.vacant.push(id);
            self.fail(error);
        }
    }

    /// Gives up all that is open.
    fn abandon(&mut self, sockets: &mut Sockets, now: Instant) {
        for id in 0..self.places.len() {
            if sockets.take(id).is_some() {
                self.vacant.push(id);
                self.fail(OpenError::Late("answer"));
            }
        }
        self.moved = now;
    }

    fn fail(&mut self, error: OpenError) {
        self.failed += 1;
        self.first_failure.get_or_insert(error);
    }

    /// Ends a phase.
    fn advance(&mut self, id: usize, to: Phase, now: Instant) {
        if let Some(place) = self.places.get_mut(id) {
            let took = now.saturating_duration_since(place.since);
            self.phases[place.phase as usize].record(took);
            (place.phase, place.since) = (to, now);
            self.moved = now;
        }
    }
}

impl Handler for Cycles {
    fn connected(&mut self, _sockets: &mut Sockets, id: usize, now: Instant) {
        self.advance(id, Phase::Upgrade, now);
    }

    fn upgraded(&mut self, sockets: &mut Sockets, id: usize, now: Instant) {
        self.advance(id, Phase::Join, now);
        if let Some(place) = self.places.get(id) {
            sockets.send(id, place.join.as_bytes());
            sockets.flush();
        }
    }

    fn frame(&mut self, sockets: &mut Sockets, id: usize, frame: &[u8], now: Instant) {
        let Some(place) = self.places.get(id) else {
            return;
        };
        match place.phase {
            Phase::Join => match reply_to(JOIN, frame) {
                Some(Ok(())) => {
                    sockets.send(id, place.leave.as_bytes());
                    sockets.flush();
                    self.advance(id, Phase::Leave, now);
                }
                Some(Err(reason)) => {
                    drop(sockets.take(id));
                    self.vacant.push(id);
                    self.fail(OpenError::Refused { topic: "its own topic".to_owned(), reason });
                }
                None => {}
            },
            // It comes behind the reply.
            Phase::Leave => {
                if Envelope::scan(frame).is_some_and(|envelope| envelope.event == b"phx_close") {
                    sockets.close(id);
                    self.advance(id, Phase::Close, now);
                }
            }
            Phase::Connect | Phase::Upgrade | Phase::Close => {}
        }
    }

    fn ended(&mut self, sockets: &mut Sockets, id: usize, why: OpenError, now: Instant) {
        let place = self.places.get(id).map(|place| (place.phase, place.begun));
        match (place, why) {
            (Some((Phase::Close, begun)), OpenError::Lost(Lost::Closed { .. })) => {
                self.advance(id, Phase::Connect, now);
                self.whole.record(now.saturating_duration_since(begun));
                if now < self.end {
                    self.begin(sockets, id, now);
                } else {
                    self.vacant.push(id);
                }
            }
            (_, why) => {
                self.vacant.push(id);
                self.fail(why);
            }
        }
    }
}

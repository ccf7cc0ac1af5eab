//! The sockets of a load scenario, opened and joined some at a time.

use std::time::{Duration, Instant};

use super::{
    super::Failure,
    client::{Endpoint, JOIN, OpenError, reply_to},
    engine::{Dial, Engine, Handler, Sockets},
    message::{Envelope, push},
    progress::Bar,
    swarm::{explained, not_opened},
};

/// When nothing has moved for so long, what is awaited is late. Generous: thousands come at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long one turn waits.
const TURN: Duration = Duration::from_millis(100);

/// Who is on the stage: client `n` has place `n` of the engine.
#[derive(Debug)]
pub(super) struct Cast<'a> {
    pub(super) nodes: &'a [Endpoint],
    pub(super) topics: &'a [String],
    pub(super) clients: Vec<Client>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Its node's index.
    pub(super) node: usize,
    /// The indices of the topics that it joins.
    pub(super) topics: Vec<usize>,
    /// Whether its receive buffer is small.
    pub(super) slow: bool,
}

impl Cast<'_> {
    /// The pushes that join a client's topics.
    fn joins(&self, client: usize) -> impl Iterator<Item = String> {
        let topics = self.clients.get(client).into_iter().flat_map(|client| &client.topics);
        let topics = topics.filter_map(|topic| self.topics.get(*topic));
        topics.map(|topic| push(JOIN, topic, "phx_join", "{}"))
    }

    /// Opens all, so many at a time, and joins them.
    pub(super) fn open(
        &self,
        engine: &mut Engine,
        concurrency: usize,
        bar: &mut Bar,
    ) -> Result<(), Failure> {
        let dials = self.nodes.iter().map(Endpoint::dial).collect();
        let mut opening = Opening {
            cast: self,
            dials,
            missing: vec![0; self.clients.len()],
            begun: 0,
            opened: 0,
            moved: Instant::now(),
            failure: None,
        };
        while opening.opened < self.clients.len() {
            while opening.begun < self.clients.len()
                && opening.begun < opening.opened + concurrency
                && opening.failure.is_none()
            {
                opening.begin(&mut engine.sockets);
            }
            if let Some(failure) = opening.failure {
                return Err(explained(failure, opening.opened as u64));
            }
            engine.turn(TURN, &mut opening)?;
            let now = Instant::now();
            if now.duration_since(opening.moved) > PATIENCE {
                opening.fail(opening.begun.saturating_sub(1), &OpenError::Late("answer"));
            }
            bar.show(opening.opened as u64, now);
        }
        opening.failure.map_or(Ok(()), Err)
    }
}

#[derive(Debug)]
struct Opening<'a> {
    cast: &'a Cast<'a>,
    dials: Vec<Dial>,
    /// Replies that each client lacks.
    missing: Vec<usize>,
    begun: usize,
    opened: usize,
    moved: Instant,
    failure: Option<Failure>,
}

impl Opening<'_> {
    fn begin(&mut self, sockets: &mut Sockets) {
        let id = self.begun;
        self.begun += 1;
        let Some(client) = self.cast.clients.get(id) else {
            return;
        };
        let Some(dial) = self.dials.get_mut(client.node) else {
            return;
        };
        dial.slow = client.slow;
        if let Err(error) = sockets.open(id, dial) {
            self.fail(id, &error);
        }
    }

    fn fail(&mut self, id: usize, error: &OpenError) {
        let node = self.cast.clients.get(id).and_then(|client| self.cast.nodes.get(client.node));
        if let Some(node) = node {
            self.failure.get_or_insert_with(|| not_opened(node, error));
        }
    }

    /// Notes that a client has what it lacks, but for so many replies.
    fn lacks(&mut self, id: usize, replies: usize, now: Instant) {
        self.moved = now;
        self.opened += usize::from(replies == 0);
        if let Some(missing) = self.missing.get_mut(id) {
            *missing = replies;
        }
    }
}

impl Handler for Opening<'_> {
    fn upgraded(&mut self, sockets: &mut Sockets, id: usize, now: Instant) {
        let mut joins = 0;
        for join in self.cast.joins(id) {
            sockets.send(id, join.as_bytes());
            joins += 1;
        }
        sockets.flush();
        self.lacks(id, joins, now);
    }

    fn frame(&mut self, _sockets: &mut Sockets, id: usize, frame: &[u8], now: Instant) {
        match reply_to(JOIN, frame) {
            Some(Ok(())) => {
                if let Some(missing) = self.missing.get(id).filter(|missing| **missing > 0) {
                    self.lacks(id, missing - 1, now);
                }
            }
            Some(Err(reason)) => {
                let topic = Envelope::scan(frame).map_or(&[][..], |envelope| envelope.topic);
                let topic = String::from_utf8_lossy(topic).into_owned();
                self.fail(id, &OpenError::Refused { topic, reason });
            }
            None => {}
        }
    }

    fn ended(&mut self, _sockets: &mut Sockets, id: usize, why: OpenError, _now: Instant) {
        self.fail(id, &why);
    }
}

//! Before, the event, and after.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    super::{
        super::Failure,
        block_on,
        client::{JOIN, OpenError, reply_to},
        closes::Closes,
        engine::{Engine, Handler, Sockets, kill},
        load::{Crowd, Pace},
        measure::Histogram,
        message::push,
        progress::Bar,
        server::{Buckets, Servers},
    },
    Doomed, Event, MassArgs,
};

/// The nodes' own measure of a fan-out.
const METRIC: &str = "wingbeat_fanout_seconds";

/// How long "during" is at least: what an event does may come later.
const DURING_MIN: Duration = Duration::from_secs(2);

/// The longest turn while joins are sent, so that they are spread evenly.
const TURN: Duration = Duration::from_millis(5);

/// All sockets of the scenario.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    args: &'a MassArgs,
    pub(super) crowd: Crowd,
    /// The first place that is not the background's.
    first: usize,
    sockets: usize,
    join: String,
    servers: Arc<Servers>,
    doomed: Option<Doomed>,
    /// When the background began.
    began: Instant,
    /// When each of the sockets asked to join.
    asked: Vec<Instant>,
    pub(super) joins: Histogram,
    pub(super) refused: u64,
    /// Sockets that ended since their node was asked to stop, and when the last did.
    pub(super) closes: Closes,
    closed: Option<Instant>,
    pub(super) disconnected: u64,
    pub(super) first_fault: Option<String>,
}

/// What was measured while it played.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) event: Duration,
    /// Of the background: before, during, after.
    pub(super) latency: [Histogram; 3],
    /// What the nodes measured in the same parts.
    pub(super) server: [Option<Buckets>; 3],
}

/// A look at the nodes' histograms, on its way.
type Look = JoinHandle<Option<Buckets>>;

impl<'a> Stage<'a> {
    pub(super) fn new(
        args: &'a MassArgs,
        crowd: Crowd,
        topic: Option<&String>,
        doomed: Option<Doomed>,
        servers: Arc<Servers>,
    ) -> Self {
        let topic = topic.map_or("", String::as_str);
        Self {
            args,
            first: args.background().sockets(),
            crowd,
            sockets: usize::try_from(args.sockets).unwrap_or(usize::MAX),
            join: push(JOIN, topic, "phx_join", "{}"),
            servers,
            doomed,
            began: Instant::now(),
            asked: Vec::new(),
            joins: Histogram::default(),
            refused: 0,
            closes: Closes::default(),
            closed: None,
            disconnected: 0,
            first_fault: None,
        }
    }

    /// Plays all parts, the background going on throughout.
    pub(super) fn play(&mut self, engine: &mut Engine, bar: &mut Bar) -> Result<Outcome, Failure> {
        let pace = Pace::Rate(self.args.background_rate);
        self.crowd.books.measure();
        self.crowd.begin(pace, Duration::MAX, usize::MAX, &mut engine.sockets);
        self.began = Instant::now();
        let looks_0 = self.look(engine, bar)?;
        self.go_on(engine, bar, self.args.around)?;
        let looks_1 = self.look(engine, bar)?;
        let before = self.crowd.books.take_latency();

        let started = Instant::now();
        let event = match self.args.event {
            Event::Kill => self.kill(engine, bar)?,
            Event::Join => self.join_all(engine, bar)?,
            Event::Stop => self.stop(engine, bar)?,
        };
        self.go_on(engine, bar, DURING_MIN.saturating_sub(started.elapsed()))?;
        let looks_2 = self.look(engine, bar)?;
        let during = self.crowd.books.take_latency();

        self.go_on(engine, bar, self.args.around)?;
        self.crowd.finish();
        while self.turn(engine, TURN)? {}
        let looks_3 = self.look(engine, bar)?;
        let after = self.crowd.books.take_latency();
        let part = |to: &Option<Buckets>, from: &Option<Buckets>| {
            to.as_ref().zip(from.as_ref()).map(|(to, from)| to.since(from))
        };
        let server = [part(&looks_1, &looks_0), part(&looks_2, &looks_1), part(&looks_3, &looks_2)];
        Ok(Outcome { event, latency: [before, during, after], server })
    }

    /// Turns the loop once, for so long at most; whether the background goes on.
    fn turn(&mut self, engine: &mut Engine, longest: Duration) -> Result<bool, Failure> {
        let now = Instant::now();
        let wake = self.crowd.next_wake(now, self.args.patience);
        let wait = wake.map_or(longest, |wake| wake.saturating_duration_since(now).min(longest));
        engine.turn(wait, self)?;
        self.crowd.send_due(&mut engine.sockets, Instant::now());
        self.crowd.failed()?;
        Ok(wake.is_some())
    }

    fn go_on(&mut self, engine: &mut Engine, bar: &mut Bar, time: Duration) -> Result<(), Failure> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(engine, end.saturating_duration_since(Instant::now()))?;
            bar.show(self.began.elapsed().as_secs(), Instant::now());
        }
        Ok(())
    }

    /// Asks the nodes for their histograms, and goes on until they have answered.
    fn look(&mut self, engine: &mut Engine, bar: &mut Bar) -> Result<Option<Buckets>, Failure> {
        let servers = Arc::clone(&self.servers);
        let look: Look = thread::spawn(move || block_on(servers.buckets(METRIC)).ok().flatten());
        while !look.is_finished() {
            self.go_on(engine, bar, TURN)?;
        }
        Ok(look.join().ok().flatten())
    }

    fn kill(&mut self, engine: &mut Engine, bar: &mut Bar) -> Result<Duration, Failure> {
        let places = self.first..self.first + self.sockets;
        let streams = places.filter_map(|place| engine.sockets.take(place)).collect();
        let started = Instant::now();
        // Ten thousand resets take a while, in which this loop must go on.
        let killing = thread::spawn(move || {
            kill(streams);
            started.elapsed()
        });
        while !killing.is_finished() {
            self.go_on(engine, bar, TURN)?;
        }
        Ok(killing.join().unwrap_or_else(|_| started.elapsed()))
    }

    /// Sends the joins, spread evenly, and waits for the replies.
    fn join_all(&mut self, engine: &mut Engine, bar: &mut Bar) -> Result<Duration, Failure> {
        let started = Instant::now();
        let patience = self.args.patience + self.args.within;
        self.wait_for_all("joins were answered", patience, |stage| {
            let share = started.elapsed().as_secs_f64() / stage.args.within.as_secs_f64().max(1e-9);
            stage.send_joins(&mut engine.sockets, share);
            stage.turn(engine, TURN)?;
            bar.show(stage.began.elapsed().as_secs(), Instant::now());
            Ok(stage.joins.count() + stage.refused + stage.disconnected)
        })?;
        Ok(started.elapsed())
    }

    /// Stops the node, and waits until all of its sockets have ended.
    fn stop(&mut self, engine: &mut Engine, bar: &mut Bar) -> Result<Duration, Failure> {
        let started = Instant::now();
        self.doomed.map_or(Ok(()), Doomed::stop)?;
        self.closed = Some(started);
        self.wait_for_all("sockets were closed", self.args.patience, |stage| {
            stage.turn(engine, TURN)?;
            bar.show(stage.began.elapsed().as_secs(), Instant::now());
            Ok(stage.closes.count() + stage.disconnected)
        })?;
        Ok(self.closed.map_or(Duration::ZERO, |closed| closed.saturating_duration_since(started)))
    }

    /// Turns the loop until something is done for all sockets; `turn` tells for how many it is.
    fn wait_for_all(
        &mut self,
        what: &str,
        patience: Duration,
        mut turn: impl FnMut(&mut Self) -> Result<u64, Failure>,
    ) -> Result<(), Failure> {
        let (mut done, mut moved) = (0, Instant::now());
        while done < self.sockets as u64 {
            let (before, now) = (done, Instant::now());
            done = turn(self)?;
            if done != before {
                moved = now;
            } else if now.saturating_duration_since(moved) > patience {
                return Err(Failure::failed(format_args!(
                    "{done} of {} {what}, and then none for {patience:?}",
                    self.sockets
                )));
            }
        }
        Ok(())
    }

    fn send_joins(&mut self, sockets: &mut Sockets, share: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a count of sockets, and a share of it"
        )]
        let due = (self.sockets as f64 * share.min(1.0)) as usize;
        for place in self.asked.len()..due {
            self.asked.push(Instant::now());
            sockets.send(self.first + place, self.join.as_bytes());
        }
        sockets.flush();
    }

    fn fault(&mut self, why: String) {
        self.first_fault.get_or_insert(why);
    }
}

impl Handler for Stage<'_> {
    /// They are, when they come here.
    fn upgraded(&mut self, _sockets: &mut Sockets, _id: usize, _now: Instant) {}

    fn frame(&mut self, sockets: &mut Sockets, id: usize, frame: &[u8], now: Instant) {
        let Some(place) = id.checked_sub(self.first) else {
            self.crowd.frame(sockets, id, frame, now);
            return;
        };
        match reply_to(JOIN, frame) {
            Some(Ok(())) => {
                if let Some(asked) = self.asked.get(place) {
                    self.joins.record(now.saturating_duration_since(*asked));
                }
            }
            Some(Err(reason)) => {
                self.refused += 1;
                self.fault(reason);
            }
            None => {}
        }
    }

    fn drained(&mut self, sockets: &mut Sockets) {
        self.crowd.drained(sockets);
    }

    fn ended(&mut self, sockets: &mut Sockets, id: usize, why: OpenError, now: Instant) {
        if id < self.first {
            self.crowd.ended(sockets, id, why, now);
        } else if let Some(closed) = &mut self.closed {
            *closed = now;
            self.closes.note(&why);
        } else {
            self.disconnected += 1;
            self.fault(why.to_string());
        }
    }
}

//! All subscribers and publishers of a run, and their books.

use std::time::{Duration, Instant};

use super::{
    super::{
        super::Failure,
        books::Books,
        client::OpenError,
        closes::Closes,
        engine::{Engine, Handler, Sockets},
        message::{self, NumberScanner, Numbered, TopicScanner},
        progress::Bar,
    },
    pace::{Pace, counted_from},
    shape::{Counts, Shape},
};

/// The event of all messages.
const EVENT: &str = "bench";

/// Bytes handed to a socket and not written, beyond which its publisher waits.
const BACKLOG_MAX: usize = 256 * 1024;

/// A time that no run lasts.
const FOREVER: Duration = Duration::from_secs(1 << 32);

/// How long one turn waits while nothing is published.
const TURN: Duration = Duration::from_millis(100);

/// Reads for all and publishes.
#[derive(Debug)]
pub(in super::super) struct Crowd {
    shape: Shape,
    pub(in super::super) books: Books,
    topics: TopicScanner,
    scanners: Vec<NumberScanner>,
    messages: Vec<Numbered>,
    /// The publisher of topic 0, for people.
    url: String,
    pushed: Vec<u8>,
    publishing: Option<Publishing>,
    /// Topics with a message less in flight since the last look.
    freed: Vec<usize>,
    stalls: u64,
    /// Frames that are no deliveries.
    others: u64,
    disconnected: u64,
    first_loss: Option<String>,
    /// Subscribers from this one on are slow on purpose.
    excused_from: usize,
    /// Frames that those read, and how those ended that have.
    excused_frames: u64,
    excused_ends: Closes,
    failure: Option<Failure>,
}

#[derive(Clone, Copy, Debug)]
struct Publishing {
    pace: Pace,
    started: Instant,
    end: Instant,
    sent: u64,
    /// When something last arrived.
    moved: Instant,
    /// More in flight than this is a queue that only grows.
    in_flight_max: usize,
    overloaded: bool,
}

impl Crowd {
    /// The topics are the prefix and their number.
    pub(in super::super) fn new(shape: Shape, prefix: &str, url: String) -> Self {
        let names = (0..shape.topics).map(|topic| format!("{prefix}{topic}"));
        Self {
            shape,
            topics: TopicScanner::new(prefix),
            books: Books::new(shape.topics, shape.each),
            scanners: names.clone().map(|topic| NumberScanner::new(&topic, EVENT)).collect(),
            messages: names.map(|topic| Numbered::new(&topic, EVENT, shape.payload)).collect(),
            url,
            pushed: Vec::new(),
            publishing: None,
            freed: Vec::new(),
            stalls: 0,
            others: 0,
            disconnected: 0,
            first_loss: None,
            excused_from: usize::MAX,
            excused_frames: 0,
            excused_ends: Closes::default(),
            failure: None,
        }
    }

    /// Expects nothing more of the subscribers from `first` on.
    pub(super) fn excuse(&mut self, first: usize) {
        self.excused_from = first;
        let shape = self.shape;
        for socket in first..shape.subscribers() {
            for topic in shape.topics_of(socket) {
                self.books.excuse(shape.subscription(socket, topic));
            }
        }
    }

    /// How those ended that have.
    pub(super) fn excused_ends(&self) -> &Closes {
        &self.excused_ends
    }

    /// Times that its patience ended.
    pub(in super::super) fn stalls(&self) -> u64 {
        self.stalls
    }

    /// Sockets that ended.
    pub(in super::super) fn disconnected(&self) -> u64 {
        self.disconnected
    }

    /// Why the first of them did.
    pub(in super::super) fn first_loss(&self) -> Option<&str> {
        self.first_loss.as_deref()
    }

    /// Reads until nothing but deliveries has come for `quiet`, at most for `limit`.
    pub(in super::super) fn settle(
        &mut self,
        engine: &mut Engine,
        quiet: Duration,
        limit: Duration,
    ) -> Result<(), Failure> {
        self.wait(engine, quiet, limit, |crowd| crowd.others)?;
        self.intact()
    }

    /// Reads until those that are excused have ended, or got nothing for `quiet`.
    pub(super) fn settle_excused(
        &mut self,
        engine: &mut Engine,
        quiet: Duration,
        limit: Duration,
    ) -> Result<(), Failure> {
        self.wait(engine, quiet, limit, |crowd| crowd.excused_frames + crowd.excused_ends.count())
    }

    fn wait(
        &mut self,
        engine: &mut Engine,
        quiet: Duration,
        limit: Duration,
        count: impl Fn(&Self) -> u64,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let mut seen = (count(self), started);
        while seen.1.elapsed() < quiet && started.elapsed() < limit {
            engine.turn(TURN.min(quiet), self)?;
            if count(self) != seen.0 {
                seen = (count(self), Instant::now());
            }
            self.failed()?;
        }
        Ok(())
    }

    /// Publishes for `duration`, then waits until all have all. When nothing has moved for
    /// `patience`, what is in flight is not waited for; if it does not come at all, it is lost.
    pub(in super::super) fn publish(
        &mut self,
        engine: &mut Engine,
        pace: Pace,
        duration: Duration,
        patience: Duration,
        bar: &mut Bar,
    ) -> Result<(), Failure> {
        self.begin(pace, duration, usize::MAX, &mut engine.sockets);
        while self.go_on(engine, patience)? {
            bar.show(self.seconds_published(), Instant::now());
        }
        Ok(())
    }

    /// Likewise, but gives up as soon as more than `in_flight_max` messages are on the way; whether
    /// it came to that.
    pub(super) fn overloads(
        &mut self,
        engine: &mut Engine,
        pace: Pace,
        duration: Duration,
        patience: Duration,
        in_flight_max: usize,
    ) -> Result<bool, Failure> {
        self.begin(pace, duration, in_flight_max, &mut engine.sockets);
        let mut overloaded = false;
        while self.go_on(engine, patience)? {
            overloaded |= self.publishing.is_some_and(|publishing| publishing.overloaded);
        }
        Ok(overloaded)
    }

    /// Publishes from now on, whenever the loop turns.
    pub(in super::super) fn begin(
        &mut self,
        pace: Pace,
        duration: Duration,
        in_flight_max: usize,
        sockets: &mut Sockets,
    ) {
        let now = Instant::now();
        self.publishing = Some(Publishing {
            pace,
            started: now,
            end: now.checked_add(duration).unwrap_or(now + FOREVER),
            sent: 0,
            moved: now,
            in_flight_max,
            overloaded: false,
        });
        if matches!(pace, Pace::InFlightEach(_)) {
            self.freed.extend(0..self.shape.topics);
        }
        self.send_due(sockets, now);
    }

    /// Turns the loop once; whether anything is left to publish or to wait for.
    fn go_on(&mut self, engine: &mut Engine, patience: Duration) -> Result<bool, Failure> {
        let now = Instant::now();
        let Some(wake) = self.next_wake(now, patience) else {
            return Ok(false);
        };
        engine.turn(wake.saturating_duration_since(now), self)?;
        self.send_due(&mut engine.sockets, Instant::now());
        self.failed().map(|()| true)
    }

    /// Publishes no more; what is in flight is waited for.
    pub(in super::super) fn finish(&mut self) {
        if let Some(publishing) = &mut self.publishing {
            publishing.end = publishing.end.min(Instant::now());
        }
    }

    /// When there is something to do though nothing comes; `None` when all is done.
    pub(in super::super) fn next_wake(
        &mut self,
        now: Instant,
        patience: Duration,
    ) -> Option<Instant> {
        let publishing = self.publishing.as_mut()?;
        if self.books.in_flight() == 0 {
            publishing.moved = now;
            if now >= publishing.end {
                self.publishing = None;
                return None;
            }
        } else if now >= publishing.moved + patience {
            self.stalls += 1;
            self.books.give_up();
            publishing.moved = now;
        }
        let mut wake = publishing.moved + patience;
        if now < publishing.end {
            let due = publishing.pace.due(publishing.started, publishing.sent);
            wake = wake.min(due.map_or(publishing.end, |due| due.min(publishing.end)));
        }
        Some(wake)
    }

    /// Sends what is due.
    pub(in super::super) fn send_due(&mut self, sockets: &mut Sockets, now: Instant) {
        let Some(mut publishing) = self.publishing else {
            return;
        };
        if self.books.in_flight() > publishing.in_flight_max {
            publishing.overloaded = true;
            publishing.end = publishing.end.min(now);
        }
        if now < publishing.end {
            match publishing.pace {
                Pace::InFlightEach(_) => self.send_to_freed(sockets, &mut publishing, now),
                Pace::InFlight(_) | Pace::Rate(_) => {
                    self.send_in_turns(sockets, &mut publishing, now);
                }
            }
            sockets.flush();
        }
        self.freed.clear();
        self.publishing = Some(publishing);
    }

    fn send_in_turns(&mut self, sockets: &mut Sockets, publishing: &mut Publishing, now: Instant) {
        let topics = self.shape.topics.max(1) as u64;
        while publishing.pace.room(self.books.in_flight(), 0) {
            let due = publishing.pace.due(publishing.started, publishing.sent);
            let topic = usize::try_from(publishing.sent % topics).unwrap_or(0);
            if due.is_some_and(|due| due > now) || !self.send(sockets, topic, due, now) {
                return;
            }
            publishing.sent += 1;
        }
    }

    fn send_to_freed(&mut self, sockets: &mut Sockets, publishing: &mut Publishing, now: Instant) {
        let mut freed = std::mem::take(&mut self.freed);
        for topic in freed.drain(..) {
            while publishing.pace.room(0, self.books.in_flight_of(topic))
                && self.send(sockets, topic, None, now)
            {
                publishing.sent += 1;
            }
        }
        // Its capacity is of use again.
        self.freed = freed;
    }

    /// Sends a topic's next message; whether its publisher's socket takes any.
    fn send(
        &mut self,
        sockets: &mut Sockets,
        topic: usize,
        due: Option<Instant>,
        now: Instant,
    ) -> bool {
        let publisher = self.shape.publisher_of(topic);
        let Some(messages) = self.messages.get(topic) else {
            return false;
        };
        if sockets.backlog(publisher) >= BACKLOG_MAX {
            return false;
        }
        let Some(number) = self.books.send(topic, counted_from(due, now)) else {
            return false;
        };
        messages.write(number, &mut self.pushed);
        sockets.send(publisher, &self.pushed);
        true
    }

    /// The topic of a frame that a socket got, if it has joined that.
    fn topic_of(&self, socket: usize, frame: &[u8]) -> Option<usize> {
        if self.shape.topics_each_socket <= 1 {
            return self.shape.topics_of(socket).next();
        }
        let topic = self.topics.number(frame)?;
        let joined =
            topic < self.shape.topics && topic % self.shape.groups() == self.shape.group_of(socket);
        joined.then_some(topic)
    }

    fn is_excused(&self, id: usize) -> bool {
        id >= self.excused_from && id < self.shape.subscribers()
    }

    /// Seconds that it has published.
    fn seconds_published(&self) -> u64 {
        self.publishing.map_or(0, |publishing| publishing.started.elapsed().as_secs())
    }

    /// Fails if the run cannot go on.
    pub(in super::super) fn failed(&self) -> Result<(), Failure> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Fails if a socket ended before anything was measured.
    fn intact(&self) -> Result<(), Failure> {
        self.failed()?;
        match &self.first_loss {
            Some(why) => Err(Failure::failed(format_args!(
                "{} of {} sockets did not last: {why}",
                self.disconnected,
                self.shape.sockets()
            ))),
            None => Ok(()),
        }
    }

    /// Whatever is no delivery: replies, copies for a publisher that is no subscriber, presence.
    fn other(&mut self, frame: &[u8]) {
        if let Some(reason) = message::refusal(frame) {
            let url = &self.url;
            self.failure.get_or_insert_with(|| {
                Failure::failed(format_args!("{url} refused a message: {reason}"))
            });
        }
        self.others += 1;
    }
}

impl Handler for Crowd {
    /// They are, when they come here.
    fn upgraded(&mut self, _sockets: &mut Sockets, _id: usize, _now: Instant) {}

    fn frame(&mut self, _sockets: &mut Sockets, id: usize, frame: &[u8], now: Instant) {
        if self.is_excused(id) {
            self.excused_frames += 1;
            return;
        }
        let topic = self.topic_of(id, frame);
        let scanner = topic.and_then(|topic| self.scanners.get(topic));
        let number = match (self.shape.counts, scanner) {
            (Counts::Broadcasts, Some(scanner)) if id < self.shape.subscribers() => {
                scanner.number(frame)
            }
            (Counts::Replies, _) => message::ok_reply_number(frame),
            _ => None,
        };
        match topic.zip(number) {
            Some((topic, number)) => {
                if self.books.receive(self.shape.subscription(id, topic), number, now) {
                    self.freed.push(topic);
                    if let Some(publishing) = &mut self.publishing {
                        publishing.moved = now;
                    }
                }
            }
            None => self.other(frame),
        }
    }

    fn drained(&mut self, sockets: &mut Sockets) {
        if !self.freed.is_empty() {
            self.send_due(sockets, Instant::now());
        }
    }

    fn ended(&mut self, _sockets: &mut Sockets, id: usize, why: OpenError, _now: Instant) {
        if self.is_excused(id) {
            self.excused_ends.note(&why);
            return;
        }
        self.disconnected += 1;
        let why = why.to_string();
        let shape = self.shape;
        if shape.topics_of(id).next().is_some_and(|topic| id == shape.publisher_of(topic)) {
            let url = &self.url;
            self.failure.get_or_insert_with(|| {
                Failure::failed(format_args!("{url} cut a publisher off: {why}"))
            });
        }
        self.first_loss.get_or_insert(why);
        for topic in shape.topics_of(id).filter(|_| id < shape.subscribers()) {
            if self.books.lose(shape.subscription(id, topic)) {
                self.freed.push(topic);
            }
        }
        if self.books.live() == 0 {
            let why = self.first_loss.clone().unwrap_or_default();
            self.failure.get_or_insert_with(|| {
                Failure::failed(format_args!("no subscriber is left: {why}"))
            });
        }
    }
}

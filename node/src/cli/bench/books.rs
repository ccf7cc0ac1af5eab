//! The books of a run: which message reached whom, how late, and what went wrong.

use std::{collections::VecDeque, ops::Range, time::Instant};

use super::{measure::Histogram, message::FIRST_NUMBER};

/// Gaps that are remembered for one subscriber; of older ones nothing is expected any more.
const GAPS_MAX: usize = 1_024;

/// All topics, their messages and their subscribers. Each topic numbers its own messages; topic `t`
/// has the subscribers `t * each` to `(t + 1) * each - 1`.
#[derive(Debug)]
pub(super) struct Books {
    topics: Vec<Topic>,
    subscribers: Vec<Tally>,
    /// Subscribers of each topic; at least 1.
    each: usize,
    /// Messages of all topics that are waited for.
    in_flight: usize,
    live: usize,
    latency: Histogram,
    messages: u64,
    delivered: u64,
    doubled: u64,
    reordered: u64,
    last: Option<Instant>,
}

#[derive(Debug)]
struct Topic {
    /// The number of the next message.
    next: u64,
    /// Messages that have not reached all, oldest first, and those behind them.
    open: VecDeque<Message>,
    /// How many of the oldest are no longer waited for.
    overdue: usize,
    live: usize,
    /// Messages before this one warmed up.
    measured_from: u64,
}

#[derive(Debug)]
struct Message {
    sent: Instant,
    /// Subscribers that it has not reached.
    missing: usize,
}

/// What one subscriber has got.
#[derive(Debug)]
struct Tally {
    /// The number after the highest that it got.
    next: u64,
    /// What it lacks below that; nearly always empty.
    gaps: Vec<Range<u64>>,
    /// What it lacks and is no longer expected to get.
    forgotten: u64,
    gone: bool,
    /// What it lacks from here on is no loss.
    excused_from: Option<u64>,
}

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    InOrder,
    Late,
    Doubled,
}

impl Books {
    /// Books of so many topics with so many subscribers each.
    pub(super) fn new(topics: usize, each: usize) -> Self {
        let topic = |_| Topic {
            next: FIRST_NUMBER,
            open: VecDeque::new(),
            overdue: 0,
            live: each,
            measured_from: FIRST_NUMBER,
        };
        let tally = |_| Tally {
            next: FIRST_NUMBER,
            gaps: Vec::new(),
            forgotten: 0,
            gone: false,
            excused_from: None,
        };
        Self {
            topics: (0..topics).map(topic).collect(),
            subscribers: (0..topics * each).map(tally).collect(),
            each: each.max(1),
            in_flight: 0,
            live: topics * each,
            latency: Histogram::default(),
            messages: 0,
            delivered: 0,
            doubled: 0,
            reordered: 0,
            last: None,
        }
    }

    /// Counts latency and deliveries from the next messages on. Faults count from the first.
    pub(super) fn measure(&mut self) {
        for topic in &mut self.topics {
            topic.measured_from = topic.next;
        }
        self.latency = Histogram::default();
        self.messages = 0;
        self.delivered = 0;
        self.last = None;
    }

    /// The latencies so far; they start anew.
    pub(super) fn take_latency(&mut self) -> Histogram {
        std::mem::take(&mut self.latency)
    }

    /// Gives the number of a topic's message that is sent now, or was due at that time; `None` if
    /// there is no such topic.
    pub(super) fn send(&mut self, topic: usize, sent: Instant) -> Option<u64> {
        let topic = self.topics.get_mut(topic)?;
        topic.open.push_back(Message { sent, missing: topic.live });
        topic.next += 1;
        self.messages += 1;
        self.in_flight += 1;
        Some(topic.next - 1)
    }

    /// Messages that are waited for, of all topics.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Messages of one topic that are waited for.
    pub(super) fn in_flight_of(&self, topic: usize) -> usize {
        self.topics.get(topic).map_or(0, |topic| topic.open.len() - topic.overdue)
    }

    /// Stops waiting for the messages in flight, which may still come.
    pub(super) fn give_up(&mut self) {
        for topic in &mut self.topics {
            topic.overdue = topic.open.len();
        }
        self.in_flight = 0;
    }

    /// A subscriber got a message; whether that leaves fewer in flight.
    pub(super) fn receive(&mut self, subscriber: usize, number: u64, at: Instant) -> bool {
        let Some(topic) = self.topics.get_mut(subscriber / self.each) else {
            return false;
        };
        if !(FIRST_NUMBER..topic.next).contains(&number) {
            return false;
        }
        let Some(tally) = self.subscribers.get_mut(subscriber) else {
            return false;
        };
        match tally.note(number) {
            Arrival::InOrder => {}
            Arrival::Late => self.reordered += 1,
            Arrival::Doubled => {
                self.doubled += 1;
                return false;
            }
        }
        let measured = number >= topic.measured_from;
        if measured {
            self.delivered += 1;
            self.last = Some(at);
        }
        let first = topic.next - topic.open.len() as u64;
        let index = number.checked_sub(first).and_then(|index| usize::try_from(index).ok());
        let Some(message) = index.and_then(|index| topic.open.get_mut(index)) else {
            return false;
        };
        if measured {
            self.latency.record(at.saturating_duration_since(message.sent));
        }
        // One that is gone, and no longer waited for, may still have had it on the way.
        if tally.gone {
            return false;
        }
        message.missing = message.missing.saturating_sub(1);
        message.missing == 0 && topic.complete(&mut self.in_flight)
    }

    /// A subscriber is gone, and nobody waits for it; whether that leaves fewer in flight.
    pub(super) fn lose(&mut self, subscriber: usize) -> bool {
        let Some(topic) = self.topics.get_mut(subscriber / self.each) else {
            return false;
        };
        let Some(tally) = self.subscribers.get_mut(subscriber).filter(|tally| !tally.gone) else {
            return false;
        };
        tally.gone = true;
        self.live -= 1;
        topic.live -= 1;
        let first = topic.next - topic.open.len() as u64;
        for (number, message) in (first..).zip(&mut topic.open) {
            if tally.lacks(number) {
                message.missing = message.missing.saturating_sub(1);
            }
        }
        topic.complete(&mut self.in_flight)
    }

    /// Nobody waits for a subscriber any more, and what it will lack of later messages is no loss.
    pub(super) fn excuse(&mut self, subscriber: usize) {
        self.lose(subscriber);
        let next = self.topics.get(subscriber / self.each).map(|topic| topic.next);
        if let Some(tally) = self.subscribers.get_mut(subscriber) {
            tally.excused_from = next;
        }
    }

    /// Subscribers that are still there.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Messages since the measuring began.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Deliveries of those.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// When the last of those came.
    pub(super) fn last(&self) -> Option<Instant> {
        self.last
    }

    pub(super) fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// Deliveries that came again.
    pub(super) fn doubled(&self) -> u64 {
        self.doubled
    }

    /// Deliveries that came behind a later message.
    pub(super) fn reordered(&self) -> u64 {
        self.reordered
    }

    /// Deliveries that have not come.
    pub(super) fn lost(&self) -> u64 {
        let tallies = self.subscribers.iter().enumerate();
        let lost = tallies.map(|(subscriber, tally)| {
            let next = self.topics.get(subscriber / self.each).map_or(0, |topic| topic.next);
            tally.lost(tally.excused_from.unwrap_or(next))
        });
        lost.sum()
    }
}

impl Topic {
    /// Forgets the oldest messages that have reached all; whether there are any.
    fn complete(&mut self, in_flight: &mut usize) -> bool {
        let before = self.open.len();
        while self.open.front().is_some_and(|message| message.missing == 0) {
            self.open.pop_front();
            if self.overdue > 0 {
                self.overdue -= 1;
            } else {
                *in_flight = in_flight.saturating_sub(1);
            }
        }
        self.open.len() < before
    }
}

impl Tally {
    fn note(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            if number > self.next {
                self.remember(self.next..number);
            }
            self.next = number + 1;
            return Arrival::InOrder;
        }
        let Some(i) = self.gaps.iter().position(|gap| gap.contains(&number)) else {
            return Arrival::Doubled;
        };
        let gap = self.gaps.swap_remove(i);
        for part in [gap.start..number, number + 1..gap.end] {
            if !part.is_empty() {
                self.remember(part);
            }
        }
        Arrival::Late
    }

    fn remember(&mut self, gap: Range<u64>) {
        if self.gaps.len() == GAPS_MAX {
            let old = self.gaps.remove(0);
            self.forgotten += old.end - old.start;
        }
        self.gaps.push(gap);
    }

    fn lacks(&self, number: u64) -> bool {
        number >= self.next || self.gaps.iter().any(|gap| gap.contains(&number))
    }

    /// What it lacks of the messages below `end`.
    fn lost(&self, end: u64) -> u64 {
        let gaps: u64 = self.gaps.iter().map(|gap| gap.end.min(end) - gap.start.min(end)).sum();
        self.forgotten + gaps + end.saturating_sub(self.next)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Books of two subscribers with messages in flight, and when those were sent.
    fn sent(messages: usize) -> (Books, Vec<u64>, Instant) {
        let (mut books, now) = (Books::new(1, 2), Instant::now());
        let numbers = (0..messages).map(|_| books.send(0, now).unwrap()).collect();
        (books, numbers, now)
    }

    #[test]
    fn a_message_is_in_flight_until_all_have_it() {
        let (mut books, numbers, now) = sent(1);
        let later = now + Duration::from_millis(3);
        assert!(!books.receive(0, numbers[0], later));
        assert_eq!(books.in_flight(), 1);
        assert!(books.receive(1, numbers[0], later));
        assert_eq!((books.in_flight(), books.delivered(), books.lost()), (0, 2, 0));
        assert_eq!(books.latency().percentile(1.0), Duration::from_millis(3));
        assert_eq!(books.last(), Some(later));
    }

    #[test]
    fn warming_up_is_not_measured() {
        let (mut books, numbers, now) = sent(1);
        books.receive(0, numbers[0], now);
        books.receive(1, numbers[0], now);
        books.measure();
        let number = books.send(0, now).unwrap();
        books.receive(0, number, now);
        assert_eq!((books.messages(), books.delivered()), (1, 1));
        assert_eq!(books.latency().summary().count, 1);
    }

    #[test]
    fn faults_are_told_apart() {
        let (mut books, numbers, now) = sent(4);
        for &i in &[0, 2, 1, 2] {
            books.receive(0, numbers[i], now);
        }
        assert_eq!((books.reordered(), books.doubled()), (1, 1));
        // The fourth for one, all four for the other.
        assert_eq!(books.lost(), 1 + 4);
        assert!(!books.receive(0, numbers[3] + 1, now), "never sent");
        assert_eq!(books.lost(), 5);
    }

    #[test]
    fn nobody_waits_for_a_subscriber_that_is_gone() {
        let (mut books, numbers, now) = sent(2);
        books.receive(0, numbers[0], now);
        books.receive(0, numbers[1], now);
        assert!(books.lose(1));
        assert!(!books.lose(1));
        assert_eq!((books.in_flight(), books.live(), books.lost()), (0, 1, 2));
        let number = books.send(0, now).unwrap();
        assert!(books.receive(0, number, now));
    }

    #[test]
    fn topics_number_their_messages_apart() {
        let (mut books, now) = (Books::new(2, 2), Instant::now());
        let [first, second] = [books.send(0, now).unwrap(), books.send(1, now).unwrap()];
        assert_eq!((first, books.in_flight(), books.in_flight_of(1)), (second, 2, 1));
        assert!(!books.receive(0, first, now));
        assert!(!books.receive(2, second, now));
        assert!(books.receive(3, second, now));
        assert_eq!((books.in_flight(), books.in_flight_of(0), books.in_flight_of(1)), (1, 1, 0));
        assert!(books.receive(1, first, now));
        assert_eq!((books.in_flight(), books.lost(), books.messages()), (0, 0, 2));
        assert_eq!(books.send(2, now), None, "there is no such topic");
    }

    #[test]
    fn what_the_excused_lack_is_no_loss() {
        let (mut books, numbers, now) = sent(1);
        books.receive(0, numbers[0], now);
        books.excuse(1);
        assert_eq!((books.in_flight(), books.lost()), (0, 1), "sent before");
        let number = books.send(0, now).unwrap();
        assert!(books.receive(0, number, now));
        assert_eq!((books.in_flight(), books.lost()), (0, 1));
        assert!(!books.receive(1, number + 5, now), "never sent");
    }

    #[test]
    fn overdue_messages_are_not_waited_for_and_still_count_when_they_come() {
        let (mut books, numbers, now) = sent(2);
        books.give_up();
        assert_eq!(books.in_flight(), 0);
        let third = books.send(0, now).unwrap();
        assert_eq!(books.in_flight(), 1);
        for &number in numbers.iter().chain([&third]) {
            books.receive(0, number, now);
            books.receive(1, number, now);
        }
        assert_eq!((books.in_flight(), books.lost(), books.delivered()), (0, 0, 6));
    }

    #[test]
    fn what_is_remembered_of_gaps_is_bounded_and_no_loss_is_forgotten() {
        let messages = 2 * GAPS_MAX + 10;
        let (mut books, numbers, now) = sent(messages);
        for number in numbers.iter().skip(1).step_by(2) {
            books.receive(0, *number, now);
        }
        assert_eq!(books.subscribers[0].gaps.len(), GAPS_MAX);
        assert_eq!(books.lost(), (messages / 2 + messages) as u64);
    }
}

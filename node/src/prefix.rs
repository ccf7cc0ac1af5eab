//! Presence of all topics whose names start alike, for one reader.
//!
//! Each topic is watched from its first client on: its state, then its changes, as server-sent events.
//! A topic that has emptied is let go once there are twice as many as before. Those that there is no room
//! for are left out, which the reader is told, until others have emptied.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use bytes::Bytes;
use presence::Topic;

use crate::{
    mailboxes::Listed,
    node::Shared,
    pubsub::{
        CloseReason, Control, Filter, Flush, Format, Mailbox, Outlet, Overflow, Subscriber,
        Subscription,
    },
    tracker::{Hears, Observation, Openings, State, TOPICS_MAX},
    wire_format::{encode_sse, encode_sse_of_prefix},
};

/// Topics below which nothing is let go.
const SWEEP_MIN: usize = 64;

/// Events, once topics are left out, until those that are followed are looked through again: that costs
/// a little for each.
const SWEEP_EVERY: usize = TOPICS_MAX / 8;

/// What comes of the topics of one prefix.
pub(crate) struct PrefixFeed {
    shared: Arc<Shared>,
    prefix: Box<str>,
    openings: Openings,
    topics: Topics,
    mailbox: Arc<Mailbox>,
    _listed: Listed,
}

#[derive(Default)]
struct Topics {
    /// By the mailbox's names for them.
    followed: BTreeMap<u64, Followed>,
    channels: BTreeMap<Topic, u64>,
    last_channel: u64,
    /// With so many, those that have emptied are let go.
    sweep_at: usize,
    /// There was no room for one.
    left_out: bool,
    /// What the reader was told of that.
    told_left_out: bool,
    /// Events since then, or since they were looked through.
    events: usize,
}

struct Followed {
    observation: Observation,
    subscription: Subscription,
}

impl PrefixFeed {
    pub(crate) fn new(shared: &Arc<Shared>, prefix: &str) -> Self {
        let mailbox = Mailbox::new(shared.config.limits.mailbox_bytes.bytes(), Outlet::Owner);
        Self {
            openings: shared.tracker.openings(prefix, &mailbox),
            shared: Arc::clone(shared),
            prefix: prefix.into(),
            topics: Topics { sweep_at: SWEEP_MIN, ..Topics::default() },
            _listed: shared.mailboxes.add(&mailbox),
            mailbox,
        }
    }

    /// The next events, or why there are no more.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, CloseReason>> {
        loop {
            // First this, so that whoever pushes from here on, or opens a topic, wakes us.
            let control = self.mailbox.poll_control(cx);
            match control {
                Poll::Ready(Control::Close(reason)) => return Poll::Ready(Err(reason)),
                Poll::Ready(Control::Resync { channel }) => {
                    self.resync(channel);
                    self.shared.stats.resyncs.fetch_add(1, Ordering::Relaxed);
                }
                Poll::Ready(Control::Joined { .. } | Control::Called { .. }) | Poll::Pending => {}
            }
            // What is not read yet makes further states wait.
            if !self.mailbox.has_unread() {
                if let Some(topic) = self.openings.next() {
                    self.follow(&topic);
                    continue;
                }
                self.tell_left_out();
            }
            if let Some(events) = self.mailbox.pop() {
                self.note_event();
                return Poll::Ready(Ok(events));
            }
            if control.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Whether all topics of the prefix are followed, as far as the reader was told.
    pub(crate) fn is_complete(&self) -> bool {
        !self.topics.told_left_out
    }

    /// Tells the reader whether topics are left out, if that has changed.
    fn tell_left_out(&mut self) {
        let left_out = self.topics.left_out || self.openings.has_more();
        if left_out == self.topics.told_left_out {
            return;
        }
        self.topics.told_left_out = left_out;
        self.topics.events = 0;
        push(&self.mailbox, encode_sse_of_prefix(&self.prefix, !left_out, TOPICS_MAX));
    }

    /// An event more. Who empties tells it by one, so now and then there may be room for what was left out.
    fn note_event(&mut self) {
        self.topics.events += 1;
        if self.topics.told_left_out && self.topics.events >= SWEEP_EVERY {
            self.sweep();
            self.topics.left_out = false;
            self.openings.look_again();
        }
    }

    fn follow(&mut self, topic: &Topic) {
        if self.topics.channels.contains_key(topic) {
            return;
        }
        if self.topics.sweep_is_due() {
            self.sweep();
        }
        if self.topics.channels.len() >= TOPICS_MAX {
            self.topics.left_out = true;
            return;
        }
        self.topics.last_channel += 1;
        let channel = self.topics.last_channel;
        let (registry, mailbox) = (&self.shared.registry, &self.mailbox);
        let begin = |state: &State| {
            let subscriber = Subscriber {
                mailbox: Arc::clone(mailbox),
                channel,
                format: Format::Sse,
                overflow: Overflow::Disconnect,
                filter: Filter::NOTHING,
                presence_after: Some(state.version),
            };
            registry.subscribe_after(topic, subscriber, || tell(mailbox, topic, state))
        };
        // Only listing a client can fail, and nobody is listed here.
        let watched = self.shared.tracker.watch(topic, Hears::Changes, None, begin);
        if let Ok((_, observation, subscription)) = watched {
            let topic = subscription.topic().clone();
            self.topics.followed.insert(channel, Followed { observation, subscription });
            self.topics.channels.insert(topic, channel);
        }
    }

    /// Lets those go that have emptied. Those whose last diff is on its way, or did not fit, stay until the
    /// next time: the reader has yet to be told.
    fn sweep(&mut self) {
        let stale: BTreeSet<u64> = self.mailbox.stale().into_iter().collect();
        let (topics, tracker) = (&mut self.topics, &self.shared.tracker);
        let is_told = |topic: &Topic, channel: &mut u64| {
            !stale.contains(channel) && tracker.is_closed(topic) && tracker.has_published(topic)
        };
        for (_, channel) in topics.channels.extract_if(.., is_told) {
            topics.followed.remove(&channel);
        }
        topics.sweep_at = (topics.channels.len() * 2).clamp(SWEEP_MIN, TOPICS_MAX);
        topics.events = 0;
    }

    fn resync(&self, channel: u64) {
        let Some(Followed { observation, subscription }) = self.topics.followed.get(&channel)
        else {
            return self.mailbox.resynced(channel);
        };
        observation.resume(|state| {
            subscription.set_presence_after(state.version, || {
                self.mailbox.resynced(channel);
                tell(&self.mailbox, subscription.topic(), state);
            });
        });
    }
}

impl Topics {
    /// Whether those that have emptied are to be looked for, to make room for one more. Once topics are left
    /// out that is done now and then.
    fn sweep_is_due(&self) -> bool {
        !self.told_left_out && !self.left_out && self.channels.len() >= self.sweep_at
    }
}

impl Drop for PrefixFeed {
    fn drop(&mut self) {
        self.mailbox.abandon();
    }
}

fn tell(mailbox: &Arc<Mailbox>, topic: &Topic, state: &State) {
    push(mailbox, encode_sse(topic.as_str(), state.event, &state.payload));
}

fn push(mailbox: &Arc<Mailbox>, event: Bytes) {
    // Whoever reads it is woken: there is nothing to flush. One that overflows ends.
    let _ = mailbox.push_reply([event], &mut Flush::new());
}

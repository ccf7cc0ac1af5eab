//! Presence of all topics whose names start alike, for one reader.
//!
//! Each topic is watched from its first client on: its state, then its changes, as server-sent events.
//! A topic that has emptied is let go once there are twice as many as before.

use std::{
    collections::BTreeMap,
    sync::Arc,
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
    wire_format::encode_sse,
};

/// Topics below which nothing is let go.
const SWEEP_MIN: usize = 64;

/// What comes of the topics of one prefix.
pub(crate) struct PrefixFeed {
    shared: Arc<Shared>,
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
    /// Topics that there was no room for since they were looked through.
    refused: usize,
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
                Poll::Ready(Control::Resync { channel }) => self.resync(channel),
                Poll::Ready(Control::Joined { .. } | Control::Called { .. }) | Poll::Pending => {}
            }
            // What is not read yet makes further states wait.
            if !self.mailbox.has_unread()
                && let Some(topic) = self.openings.next()
            {
                self.follow(&topic);
                continue;
            }
            if let Some(events) = self.mailbox.pop() {
                return Poll::Ready(Ok(events));
            }
            if control.is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn follow(&mut self, topic: &Topic) {
        if self.topics.channels.contains_key(topic) || !self.topics.has_room(&self.shared) {
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
    /// Whether one more can be followed, perhaps as others have emptied.
    fn has_room(&mut self, shared: &Shared) -> bool {
        let is_full = self.channels.len() >= TOPICS_MAX;
        if is_full {
            self.refused += 1;
        }
        // Looking through all of them costs a little for each.
        let sweeps = if is_full {
            self.refused % (TOPICS_MAX / 8) == 1
        } else {
            self.channels.len() >= self.sweep_at
        };
        if sweeps {
            let closed = |topic: &Topic| shared.tracker.is_closed(topic);
            for (_, channel) in self.channels.extract_if(.., |topic, _| closed(topic)) {
                self.followed.remove(&channel);
            }
            self.sweep_at = (self.channels.len() * 2).max(SWEEP_MIN);
        }
        self.channels.len() < TOPICS_MAX
    }
}

impl Drop for PrefixFeed {
    fn drop(&mut self) {
        self.mailbox.abandon();
    }
}

fn tell(mailbox: &Arc<Mailbox>, topic: &Topic, state: &State) {
    let frame = encode_sse(topic.as_str(), state.event, &state.payload);
    // Whoever reads it is woken: there is nothing to flush. One that overflows ends.
    let _ = mailbox.push_reply([frame], &mut Flush::new());
}

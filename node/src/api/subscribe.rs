//! `GET /api/subscribe`: topics as server-sent events, without the Phoenix envelope.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{ConnectInfo, RawQuery, State},
    http::{Response, header},
};
use bytes::Bytes;
use futures_util::Stream;
use presence::Topic;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::warn;

use crate::{
    api::{error::ApiError, presence::parse_topic, query::pairs},
    mailboxes::Listed,
    node::Shared,
    pubsub::{CloseReason, Control, Format, Item, Mailbox, Subscriber, Subscription},
    tracker::{Interest, Observation},
    wire_format::encode_sse,
};

/// Topics of one request.
const TOPICS_MAX: usize = 100;

/// Gap between comments that keep the connection, and show when the client has gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Bytes taken from the mailbox at a time.
const DRAIN_BYTES: usize = 64 * 1024;

/// Subscribes for as long as the client reads. When the answer begins, all peers know.
pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, ApiError> {
    let (topics, presence) = parse(&query.unwrap_or_default())?;
    let mut events = Events::new(&shared, peer, &topics, presence);
    std::future::poll_fn(|cx| events.poll_ready(cx)).await;
    let body = Body::from_stream(events);
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")]
    {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    Ok(response)
}

fn parse(query: &str) -> Result<(Vec<Topic>, bool), ApiError> {
    let mut topics = Vec::new();
    let mut presence = false;
    for (name, value) in pairs(query) {
        match name.as_str() {
            "topic" => topics.push(parse_topic(&value)?),
            "presence" => presence = value == "true" || value == "1",
            _ => {}
        }
    }
    topics.sort();
    topics.dedup();
    match topics.len() {
        1..=TOPICS_MAX => Ok((topics, presence)),
        _ => {
            let why = format!("want 1 to {TOPICS_MAX} topics: ?topic=a&topic=b");
            Err(ApiError::bad_request("bad_topics", why))
        }
    }
}

/// The events of some topics, encoded.
struct Events {
    shared: Arc<Shared>,
    peer: SocketAddr,
    topics: Vec<Followed>,
    mailbox: Arc<Mailbox>,
    incoming: VecDeque<Item>,
    outgoing: VecDeque<Bytes>,
    /// Topics that the peers do not know of yet.
    unconfirmed: usize,
    keep_alive: Interval,
    done: bool,
    _listed: Listed,
}

struct Followed {
    observation: Option<Observation>,
    state_version: u64,
    subscription: Subscription,
    _interest: Interest,
}

impl Events {
    fn new(shared: &Arc<Shared>, peer: SocketAddr, topics: &[Topic], presence: bool) -> Self {
        let mailbox = Mailbox::new(shared.config.limits.mailbox_bytes.bytes());
        let mut keep_alive = interval(KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = Self {
            shared: Arc::clone(shared),
            peer,
            topics: Vec::new(),
            incoming: VecDeque::new(),
            outgoing: VecDeque::new(),
            unconfirmed: topics.len(),
            keep_alive,
            done: false,
            _listed: shared.mailboxes.add(&mailbox),
            mailbox,
        };
        for (channel, topic) in (0..).zip(topics) {
            events.follow(channel, topic, presence);
        }
        events
    }

    fn follow(&mut self, channel: u64, topic: &Topic, presence: bool) {
        let shared = &self.shared;
        let interest = shared.tracker.interest(topic);
        let subscriber = Subscriber {
            mailbox: Arc::clone(&self.mailbox),
            channel,
            format: Format::Sse,
            presence_after: None,
        };
        let subscription = shared.registry.subscribe(topic, subscriber);
        let mut followed =
            Followed { observation: None, state_version: 0, subscription, _interest: interest };
        if presence {
            let (observation, state) = shared.tracker.observe(topic, &followed.subscription);
            followed.observation = Some(observation);
            followed.state_version = state.version;
            let frame = encode_sse(topic.as_str(), "presence_state", &state.payload);
            self.outgoing.push_back(frame);
        }
        let mark = followed._interest.mark;
        self.topics.push(followed);
        shared.peers.barrier(mark, &self.mailbox, channel);
    }

    /// Ready when all peers know that the topics are wanted here.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.unconfirmed > 0 && !self.done {
            std::task::ready!(self.poll_take(cx));
        }
        Poll::Ready(())
    }

    /// Takes what is in the mailbox.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        std::task::ready!(self.mailbox.poll_drain(cx, &mut self.incoming, DRAIN_BYTES));
        while let Some(item) = self.incoming.pop_front() {
            self.take(item);
        }
        Poll::Ready(())
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Frame { frame, .. } | Item::Reply { frame } => self.outgoing.push_back(frame),
            Item::Presence { channel, version, frame } => {
                if self.followed(channel).is_some_and(|topic| topic.state_version < version) {
                    self.outgoing.push_back(frame);
                }
            }
            Item::Control(Control::Joined { .. }) => self.unconfirmed -= 1,
            Item::Control(Control::Resync { channel }) => self.resync(channel),
            Item::Control(Control::Close(reason)) => self.close(reason),
        }
    }

    fn close(&mut self, reason: CloseReason) {
        self.done = true;
        if reason == CloseReason::Slow {
            let node = &self.shared.name;
            warn!(%node, peer = %self.peer, "slow subscriber disconnected: it left limits.mailbox_bytes unread");
            self.shared.stats.slow.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn followed(&mut self, channel: u64) -> Option<&mut Followed> {
        self.topics.get_mut(usize::try_from(channel).ok()?)
    }

    fn resync(&mut self, channel: u64) {
        self.mailbox.resynced(channel);
        let shared = Arc::clone(&self.shared);
        let Some(followed) = self.followed(channel) else {
            return;
        };
        let topic = followed.subscription.topic().clone();
        let state = shared.tracker.resume(&topic, &followed.subscription);
        followed.state_version = state.version;
        self.outgoing.push_back(encode_sse(topic.as_str(), "presence_state", &state.payload));
    }
}

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        loop {
            if let Some(frame) = self.outgoing.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.done {
                return Poll::Ready(None);
            }
            if self.keep_alive.poll_tick(cx).is_ready() {
                return Poll::Ready(Some(Ok(Bytes::from_static(b": keep-alive\n\n"))));
            }
            if self.poll_take(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.mailbox.abandon();
    }
}

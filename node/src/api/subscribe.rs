//! `GET /api/subscribe`: topics as server-sent events, without the Phoenix envelope.
//!
//! Events have no `id` yet, so `Last-Event-ID` says nothing: it is left for a later release.

mod prefix;
mod wanted;

use std::{
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

use prefix::PrefixEvents;
use wanted::Wanted;

use crate::{
    api::{error::ApiError, presence::parse_topic, query::pairs},
    mailboxes::Listed,
    node::Shared,
    pubsub::{
        CloseReason, Control, Filter, Flush, Format, Mailbox, Outlet, Overflow, Subscriber,
        Subscription,
    },
    tracker::{self, Interest, Observation},
    wire_format::encode_sse,
};

/// Topics of one request.
const TOPICS_MAX: usize = 100;

/// Gap between comments that keep the connection, and show when the client has gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Subscribes for as long as the client reads. When the answer begins, all peers know.
pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, ApiError> {
    let request = Request::parse(&query.unwrap_or_default())?;
    let body = if let Some(prefix) = &request.prefix {
        Body::from_stream(PrefixEvents::new(&shared, peer, prefix))
    } else {
        let mut events = Events::new(&shared, peer, request);
        std::future::poll_fn(|cx| events.poll_ready(cx)).await;
        Body::from_stream(events)
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")]
    {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    Ok(response)
}

/// What a client asks for.
#[derive(Debug, Default)]
struct Request {
    topics: Vec<Topic>,
    /// Who is there on all topics that start so, instead.
    prefix: Option<String>,
    /// Who is there, too.
    presence: bool,
    wanted: Wanted,
}

impl Request {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut request = Self::default();
        for (name, value) in pairs(query) {
            match name.as_str() {
                "topic" => request.topics.push(parse_topic(&value)?),
                "prefix" if request.prefix.is_some() => {
                    let why = "want one prefix: make a request for each";
                    return Err(ApiError::bad_request("bad_prefix", why));
                }
                "prefix" => request.prefix = Some(value),
                "presence" => request.presence = value == "true" || value == "1",
                "events" => request.wanted.add(&value)?,
                _ => {}
            }
        }
        request.topics.sort();
        request.topics.dedup();
        if request.prefix.is_some() {
            if request.presence && request.topics.is_empty() && request.wanted.is_all() {
                return Ok(request);
            }
            let why =
                "a prefix is for presence alone: ?prefix=a&presence=true, without topics or events";
            return Err(ApiError::bad_request("bad_prefix", why));
        }
        if (1..=TOPICS_MAX).contains(&request.topics.len()) {
            return Ok(request);
        }
        let why = format!("want 1 to {TOPICS_MAX} topics: ?topic=a&topic=b");
        Err(ApiError::bad_request("bad_topics", why))
    }
}

fn keep_alive() -> Interval {
    let mut keep_alive = interval(KEEP_ALIVE);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    keep_alive
}

/// Tells the operator of a reader that was too slow.
fn note_end(shared: &Shared, peer: SocketAddr, reason: CloseReason) {
    if reason == CloseReason::Slow {
        let node = &shared.name;
        warn!(%node, %peer, "slow subscriber disconnected: it left limits.mailbox_bytes unread");
        shared.stats.slow.fetch_add(1, Ordering::Relaxed);
    }
}

/// The events of some topics, encoded.
struct Events {
    shared: Arc<Shared>,
    peer: SocketAddr,
    topics: Vec<Followed>,
    mailbox: Arc<Mailbox>,
    wanted: Wanted,
    /// Topics that the peers do not know of yet.
    unconfirmed: usize,
    keep_alive: Interval,
    done: bool,
    _listed: Listed,
}

struct Followed {
    observation: Option<Observation>,
    subscription: Subscription,
    _interest: Interest,
}

impl Events {
    fn new(shared: &Arc<Shared>, peer: SocketAddr, request: Request) -> Self {
        let Request { topics, presence, wanted, prefix: _ } = request;
        let mailbox = Mailbox::new(shared.config.limits.mailbox_bytes.bytes(), Outlet::Owner);
        let mut events = Self {
            shared: Arc::clone(shared),
            peer,
            topics: Vec::new(),
            wanted,
            unconfirmed: 0,
            keep_alive: keep_alive(),
            done: false,
            _listed: shared.mailboxes.add(&mailbox),
            mailbox,
        };
        for (channel, topic) in (0..).zip(&topics) {
            events.follow(channel, topic, presence);
        }
        events
    }

    fn follow(&mut self, channel: u64, topic: &Topic, presence: bool) {
        let shared = &self.shared;
        let interest = shared.tracker.interest(topic);
        let mark = interest.mark;
        let subscriber = Subscriber {
            mailbox: Arc::clone(&self.mailbox),
            channel,
            format: Format::Sse,
            overflow: Overflow::Disconnect,
            filter: Filter::All,
            presence_after: None,
        };
        let (observation, subscription) = if presence {
            let begin = |state: &tracker::State| {
                let subscriber = Subscriber { presence_after: Some(state.version), ..subscriber };
                shared.registry.subscribe_after(topic, subscriber, || self.tell(topic, state))
            };
            // Only listing a client can fail, and nobody is listed here.
            let Ok((_, observation, subscription)) =
                shared.tracker.watch(topic, tracker::Hears::Changes, None, begin)
            else {
                return;
            };
            (Some(observation), subscription)
        } else {
            (None, shared.registry.subscribe(topic, subscriber))
        };
        self.topics.push(Followed { observation, subscription, _interest: interest });
        if !shared.peers.barrier(mark, &self.mailbox, channel) {
            self.unconfirmed += 1;
        }
    }

    /// Who is there.
    fn tell(&self, topic: &Topic, state: &tracker::State) {
        let frame = encode_sse(topic.as_str(), "presence_state", &state.payload);
        // Its own task is woken: there is nothing to flush.
        self.mailbox.push_reply([frame], &mut Flush::new());
    }

    /// Ready when all peers know that the topics are wanted here.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.unconfirmed > 0 && !self.done {
            std::task::ready!(self.poll_control(cx));
        }
        Poll::Ready(())
    }

    /// Does what others want of the subscriptions.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match std::task::ready!(self.mailbox.poll_control(cx)) {
            Control::Joined { .. } => self.unconfirmed -= 1,
            Control::Called { .. } => {}
            Control::Resync { channel } => {
                self.resync(channel);
                self.shared.stats.resyncs.fetch_add(1, Ordering::Relaxed);
            }
            Control::Close(reason) => self.close(reason),
        }
        Poll::Ready(())
    }

    fn close(&mut self, reason: CloseReason) {
        self.done = true;
        note_end(&self.shared, self.peer, reason);
    }

    fn resync(&self, channel: u64) {
        let followed = usize::try_from(channel).ok().and_then(|at| self.topics.get(at));
        let Some(Followed { observation: Some(observation), subscription, .. }) = followed else {
            return self.mailbox.resynced(channel);
        };
        let topic = subscription.topic();
        observation.resume(|state| {
            subscription.set_presence_after(state.version, || {
                self.mailbox.resynced(channel);
                self.tell(topic, state);
            });
        });
    }
}

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        loop {
            if self.done {
                return Poll::Ready(None);
            }
            // First this, so that whoever pushes from here on wakes us.
            if self.poll_control(cx).is_ready() {
                continue;
            }
            if let Some(events) = self.mailbox.pop() {
                let events = self.wanted.pick(events);
                if events.is_empty() {
                    continue;
                }
                return Poll::Ready(Some(Ok(events)));
            }
            std::task::ready!(self.keep_alive.poll_tick(cx));
            return Poll::Ready(Some(Ok(Bytes::from_static(b": keep-alive\n\n"))));
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.mailbox.abandon();
    }
}

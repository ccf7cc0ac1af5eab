//! One client's socket on this node: carries out what the session decides, whatever carries the
//! frames.

mod hosted;
mod realtime;

use std::{
    net::Shutdown,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use presence::{Topic, TrackError};
use socket2::SockRef;
use tracing::{debug, trace, warn};

use crate::{
    channel::{PresenceRequest, Refusal, Relay, Terms},
    config::{Config, PresenceEvents, PresenceMode},
    endpoint::upgrade::Client,
    framing::Framing,
    mailboxes::Listed,
    node::Shared,
    pubsub::{
        CloseReason, Control, Filter, Flush, Mailbox, Outlet, Overflow, Payload, Subscriber,
        Subscription,
    },
    socket::{Action, ChannelId, Close, Frame, Push, Refused, Socket, Status, user_push_in_utf8},
    sockets::Named,
    tracker::{Hears, Interest, Observation, State, Tracked},
    websocket::{FrameBuf, Rules},
};

use hosted::{Hosted, Hosting};

/// A state up to this long is copied into each client's frame; a longer one is shared by all.
const STATE_COPIED_MAX: usize = 4 * 1024;

/// The close code of a client that reads too slowly: try again later.
pub(super) const SLOW: u16 = 1013;

/// The mailbox of a client that polls is so many times that of others, and holds the largest frame as a
/// JSON string besides. No connection takes anything between two of its polls, nor while an answer is
/// on its way.
const POLLED_MAILBOXES: usize = 16;

const OK: &[u8] = b"{}";

/// One client's socket.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) mailbox: Arc<Mailbox>,
    client: Box<Client>,
    socket: Socket<Membership>,
    /// Once it has channels of the application.
    hosting: Option<Box<Hosting>>,
    _named: Option<Named>,
    _listed: Listed,
}

/// What the node does for one joined topic. Fields are dropped in this order: the client is taken
/// off before the node forgets that the topic is wanted here.
struct Membership {
    tracked: Option<Tracked>,
    observation: Option<Observation>,
    stage: Stage,
    interest: Interest,
}

enum Stage {
    Joined(Subscription),
    Other(Box<Other>),
}

// A third variant would cost each joined topic a word.
const _: () = assert!(size_of::<Stage>() == size_of::<Subscription>());

enum Other {
    /// Peers are being told; the client is not subscribed before they know.
    Joining(Bytes),
    /// A task of the application's does the rest.
    Hosted(Hosted),
    /// A topic of realtime-style clients.
    Realtime(realtime::Joined),
}

impl Connection {
    pub(super) fn new(shared: &Arc<Shared>, client: Client, outlet: Outlet) -> Self {
        let mailbox = Mailbox::new(mailbox_bytes(&shared.config, client.framing), outlet);
        let named = client.socket_id.as_deref().map(|id| shared.sockets.name(id, &mailbox));
        let listed = match client.framing {
            // Whether its client is still there shows in its polls.
            Framing::Poll => shared.mailboxes.add(&mailbox),
            Framing::WebSocket { .. } | Framing::Tcp => shared.mailboxes.add_socket(&mailbox),
        };
        shared.stats.sockets.fetch_add(1, Ordering::Relaxed);
        Self {
            socket: Socket::new(client.version, &shared.limits, shared.clock.now()),
            shared: Arc::clone(shared),
            client: Box::new(client),
            hosting: None,
            _named: named,
            _listed: listed,
            mailbox,
        }
    }

    /// What its client may send.
    pub(super) fn rules(&self) -> Rules {
        let message_max = self.shared.config.http.max_frame_size.bytes();
        let inflate = self.client.framing == Framing::WebSocket { deflate: true };
        Rules { message_max, inflate }
    }

    /// The time, as mailboxes count it.
    pub(super) fn now(&self) -> u32 {
        self.shared.mailboxes.now()
    }

    /// Takes a text frame of the client.
    pub(super) fn handle_text(&mut self, frame: &str, flush: &mut Flush) -> Result<(), Close> {
        flush.lighten();
        let router = &self.shared.router;
        let now = self.shared.clock.now();
        let push = self.socket.handle_text(frame, &|topic| router.find(topic), now)?;
        self.handled(push, flush);
        Ok(())
    }

    /// Takes a binary frame of the client.
    pub(super) fn handle_binary(&mut self, frame: &[u8], flush: &mut Flush) -> Result<(), Close> {
        flush.lighten();
        let router = &self.shared.router;
        let now = self.shared.clock.now();
        let rewritten = router.serves_realtime().then(|| user_push_in_utf8(frame)).flatten();
        let frame = rewritten.as_deref().unwrap_or(frame);
        let push = self.socket.handle_binary(frame, &|topic| router.find(topic), now)?;
        self.handled(push, flush);
        Ok(())
    }

    fn handled(&mut self, push: Option<Push<'_>>, flush: &mut Flush) {
        match push {
            Some(push) => self.push(&push, flush),
            // Joins and leaves take place after the broadcasts before them.
            None => flush.settle(),
        }
        self.carry_out(flush);
        self.count_refused();
    }

    fn count_refused(&mut self) {
        let refused = self.socket.take_refused();
        if refused != Refused::default() {
            let stats = &self.shared.stats;
            stats.joins_refused.fetch_add(refused.joins.into(), Ordering::Relaxed);
            stats.events_over_rate.fetch_add(refused.events.into(), Ordering::Relaxed);
            self.shared.registry.stats().count_formless(refused.formless.into());
        }
    }

    /// Does one thing that others want of the socket; `Some` when that is to close it.
    pub(super) fn poll_control(
        &mut self,
        cx: &mut Context<'_>,
        flush: &mut Flush,
    ) -> Poll<Option<CloseReason>> {
        match std::task::ready!(self.mailbox.poll_control(cx)) {
            Control::Joined { channel, confirmed } => {
                self.joined(ChannelId::from_bits(channel), confirmed, flush);
                self.carry_out(flush);
            }
            Control::Called { channel } => {
                self.called(ChannelId::from_bits(channel), flush);
                self.carry_out(flush);
            }
            Control::Resync { channel } => self.resync(ChannelId::from_bits(channel), flush),
            Control::Close(reason) => return Poll::Ready(Some(reason)),
        }
        Poll::Ready(None)
    }

    /// Nothing more is read: the client leaves all its topics.
    pub(super) fn ended(&mut self) {
        self.socket.abort();
        self.mailbox.close(CloseReason::Gone);
    }

    /// What a client is told whose socket is closed, and the operator of a slow one.
    pub(super) fn close_of(&self, reason: CloseReason) -> Close {
        match reason {
            CloseReason::Slow => self.slow("it left limits.mailbox_bytes unread"),
            CloseReason::Stalled => {
                self.slow("it did not read all that was written within http.idle_timeout")
            }
            CloseReason::Idle => Close { code: 1002, reason: "no frame within the idle timeout" },
            CloseReason::Disconnected => Close { code: 1001, reason: "disconnected" },
            CloseReason::Shutdown | CloseReason::Gone => {
                Close { code: 1012, reason: "the node is stopping" }
            }
        }
    }

    fn slow(&self, why: &str) -> Close {
        let (peer, key) = (self.client.peer, &self.client.key);
        warn!(node = %self.shared.name, %peer, ?key, "slow client disconnected: {why}");
        self.shared.stats.slow.fetch_add(1, Ordering::Relaxed);
        Close { code: SLOW, reason: "too slow" }
    }

    // === what the client asks ===

    fn carry_out(&mut self, flush: &mut Flush) {
        while let Some(action) = self.next_action() {
            match action {
                Action::Send(frame) => self.send(frame, flush),
                Action::Join { id, route, topic, payload } => {
                    self.join(id, route, &topic, payload, flush);
                }
                Action::Leave { topic, data, why } => {
                    trace!(node = %self.shared.name, key = ?self.client.key, %topic, "left");
                    flush.settle();
                    self.left(data, why);
                }
                Action::Push { id, route, event, kind, payload, reference } => {
                    let Some(payload) = Payload::new(kind, &payload) else { continue };
                    let reference = String::from_utf8_lossy(reference.as_bytes());
                    let event = (*event).into();
                    self.push(&Push { id, route, event, payload, reference }, flush);
                }
            }
        }
    }

    /// What waits behind a push that is held back waits on.
    fn next_action(&mut self) -> Option<Action<Membership>> {
        if self.is_held() { self.socket.poll_other_action() } else { self.socket.poll_action() }
    }

    fn send(&self, frame: Frame, flush: &mut Flush) {
        match self.client.framing.frame(frame) {
            Some(frame) => flush.reply(&self.mailbox, frame),
            None => self.shared.registry.stats().count_formless(1),
        }
    }

    fn join(
        &mut self,
        id: ChannelId,
        route: usize,
        topic: &Topic,
        payload: Bytes,
        flush: &mut Flush,
    ) {
        let relay = self.shared.router.relay(route);
        if let Some(Err(refusal)) = relay.map(|relay| relay.join(topic)) {
            return self.refuse_join(id, refusal);
        }
        // The interest is known to be wanted before the first message could come.
        let interest = self.shared.tracker.interest(topic);
        let mark = interest.mark;
        let stage = Stage::Other(Box::new(Other::Joining(payload)));
        if let Some(data) = self.socket.data_mut(id) {
            *data = Some(Membership { tracked: None, observation: None, stage, interest });
        }
        if self.shared.peers.barrier(mark, &self.mailbox, id.to_bits()) {
            if self.mailbox.has_unread() {
                self.mailbox.joined(id.to_bits(), true);
            } else {
                self.joined(id, true, flush);
            }
        }
    }

    fn refuse_join(&mut self, id: ChannelId, refusal: Refusal) {
        self.shared.stats.joins_refused.fetch_add(1, Ordering::Relaxed);
        self.socket.join_error(id, &refusal.response());
    }

    /// The peers know of the channel's topic: the client is listed, answered and told who is there.
    fn joined(&mut self, id: ChannelId, confirmed: bool, flush: &mut Flush) {
        let Some((topic, route, Some(Membership { stage: Stage::Other(other), .. }))) =
            self.socket.channel(id)
        else {
            return;
        };
        let Other::Joining(payload) = &**other else {
            return;
        };
        if !confirmed {
            debug!(node = %self.shared.name, %topic, "joined before all peers confirmed");
        }
        let (topic, payload) = (topic.clone(), payload.clone());
        let done = if let Some(relay) = self.shared.router.relay(route) {
            let terms = relay.terms();
            self.join_relay(id, &topic, &payload, terms, flush)
        } else if self.shared.router.is_realtime(route) {
            self.join_realtime(id, &topic, &payload, flush)
        } else {
            return self.open(id, route, payload);
        };
        match done {
            Ok(()) => {
                self.shared.stats.joins.fetch_add(1, Ordering::Relaxed);
            }
            Err(refusal) => self.refuse_join(id, refusal),
        }
    }

    fn join_relay(
        &mut self,
        id: ChannelId,
        topic: &Topic,
        payload: &[u8],
        terms: Terms,
        flush: &mut Flush,
    ) -> Result<(), Refusal> {
        let subscriber = self.subscriber(id, terms.overflow);
        let meta = match terms.presence {
            PresenceMode::Off => {
                self.subscribe(id, topic, subscriber, None, flush);
                return Ok(());
            }
            PresenceMode::Manual => None,
            PresenceMode::Join => Some(Relay::join_meta(payload, unix_seconds())?),
        };
        let hears = match terms.events {
            PresenceEvents::Full => Hears::Changes,
            PresenceEvents::Count => Hears::Count,
            PresenceEvents::Off => {
                let (tracker, key) = (&self.shared.tracker, &self.client.key);
                let tracked = meta.map(|meta| tracker.track(topic, key, &meta)).transpose();
                let tracked = tracked.map_err(refusal_of)?;
                let tracked = tracked.map(|tracked| tracked.lingering(terms.linger));
                self.subscribe(id, topic, subscriber, tracked, flush);
                return Ok(());
            }
        };
        let listed = meta.as_deref().map(|meta| (meta, terms.linger));
        self.watch(id, topic, subscriber, (hears, listed), flush)
    }

    /// The client, as the registry knows it.
    fn subscriber(&self, id: ChannelId, overflow: Overflow) -> Subscriber {
        Subscriber {
            mailbox: Arc::clone(&self.mailbox),
            channel: id.to_bits(),
            format: self.client.framing.format(self.client.version),
            overflow,
            filter: Filter::All,
            presence_after: None,
        }
    }

    /// Subscribes the client. The reply goes before whatever the subscription brings.
    fn subscribe(
        &mut self,
        id: ChannelId,
        topic: &Topic,
        who: Subscriber,
        tracked: Option<Tracked>,
        flush: &mut Flush,
    ) {
        let (socket, way) = (&mut self.socket, Way::of(&self.client, &self.mailbox));
        let subscription = self.shared.registry.subscribe_after(topic, who, || {
            way.answer_join(socket, id, OK, flush);
        });
        self.settle(id, tracked, None, subscription);
    }

    /// Subscribes the client, after listing it if there is a meta, and tells it who is there, or how many.
    fn watch(
        &mut self,
        id: ChannelId,
        topic: &Topic,
        who: Subscriber,
        (hears, listed): (Hears, Option<(&[u8], Duration)>),
        flush: &mut Flush,
    ) -> Result<(), Refusal> {
        let (socket, way) = (&mut self.socket, Way::of(&self.client, &self.mailbox));
        let own = listed.map(|(meta, _)| (&*self.client.key, meta));
        let begin = |state: &State| {
            let who = Subscriber { presence_after: Some(state.version), ..who };
            self.shared.registry.subscribe_after(topic, who, || {
                way.answer_join(socket, id, OK, flush);
                way.send_state(socket, id, state, flush);
            })
        };
        let watched = self.shared.tracker.watch(topic, hears, own, begin);
        let (tracked, observation, subscription) = watched.map_err(refusal_of)?;
        let linger = listed.map_or(Duration::ZERO, |(_, linger)| linger);
        let tracked = tracked.map(|tracked| tracked.lingering(linger));
        self.settle(id, tracked, Some(observation), subscription);
        Ok(())
    }

    fn settle(
        &mut self,
        id: ChannelId,
        tracked: Option<Tracked>,
        observation: Option<Observation>,
        subscription: Subscription,
    ) {
        if let Some(Some(member)) = self.socket.data_mut(id) {
            member.tracked = tracked;
            member.observation = observation;
            member.stage = Stage::Joined(subscription);
        }
    }

    fn push(&mut self, push: &Push<'_>, flush: &mut Flush) {
        let refused;
        let (status, response) = match self.try_push(push, flush) {
            Ok(false) => return,
            Ok(true) => (Status::Ok, OK),
            Err(refusal) => {
                debug!(node = %self.shared.name, key = ?self.client.key, event = %push.event, ?refusal, "push refused");
                self.shared.stats.events_refused.fetch_add(1, Ordering::Relaxed);
                refused = refusal.response();
                (Status::Error, refused.as_slice())
            }
        };
        let response = Payload::Json(response);
        self.socket.reply(push.id, push.reference.as_bytes(), status, response);
    }

    /// Whether the push is to be acknowledged.
    fn try_push(&mut self, push: &Push<'_>, flush: &mut Flush) -> Result<bool, Refusal> {
        let Some(relay) = self.shared.router.relay(push.route) else {
            if self.shared.router.is_realtime(push.route) {
                return self.push_realtime(push, flush);
            }
            return self.ask(push).map(|()| false);
        };
        if let Payload::User(_) = push.payload {
            return Err(Refusal::NotRealtime);
        }
        if push.event == "presence" && relay.terms().presence == PresenceMode::Manual {
            let request = Relay::presence_request(push.payload, unix_seconds())?;
            flush.settle();
            let (linger, key) = (relay.terms().linger, &self.client.key);
            let shared = &self.shared;
            if let Some(Some(Membership { tracked, stage: Stage::Joined(joined), .. })) =
                self.socket.data_mut(push.id)
            {
                change_presence(tracked, shared, (joined.topic(), key), request, linger)?;
            }
        } else {
            relay.publish(&push.event)?;
            let Some((_, _, Some(Membership { stage: Stage::Joined(sender), .. }))) =
                self.socket.channel(push.id)
            else {
                return Ok(false);
            };
            let except = (!relay.delivers_to_sender()).then(|| sender.id());
            let publisher = &self.shared.publisher;
            publisher.publish(sender.topic(), &push.event, push.payload, except, flush);
        }
        Ok(relay.acknowledges())
    }

    /// Diffs did not fit into the mailbox: a fresh state takes their place.
    fn resync(&self, id: ChannelId, flush: &mut Flush) {
        let (socket, mailbox) = (&self.socket, &self.mailbox);
        let way = Way::of(&self.client, mailbox);
        let joined = socket
            .channel(id)
            .and_then(|(_, _, member)| member)
            .and_then(|member| Some((member.observation.as_ref()?, member.stage.subscription()?)));
        let Some((observation, subscription)) = joined else {
            if self.resync_hosted(id, flush) {
                self.shared.stats.resyncs.fetch_add(1, Ordering::Relaxed);
            } else {
                mailbox.resynced(id.to_bits());
            }
            return;
        };
        observation.resume(|state| {
            subscription.set_presence_after(state.version, || {
                mailbox.resynced(id.to_bits());
                way.send_state(socket, id, state, flush);
            });
        });
        self.shared.stats.resyncs.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.mailbox.abandon();
        if let Some(stream) = self.mailbox.socket() {
            // Others may hold the mailbox a moment longer, and its connection with it. It fails on one
            // that has ended.
            let _ = SockRef::from(stream).shutdown(Shutdown::Both);
        }
        self.shared.stats.sockets.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stage {
    fn is_hosted(&self) -> bool {
        matches!(self, Self::Other(other) if matches!(**other, Other::Hosted(_)))
    }

    /// While the channel is the socket's own.
    fn subscription(&self) -> Option<&Subscription> {
        match self {
            Self::Joined(subscription) => Some(subscription),
            Self::Other(other) => match &**other {
                Other::Realtime(seat) => Some(&seat.subscription),
                Other::Joining(_) | Other::Hosted(_) => None,
            },
        }
    }
}

/// Does what a client asks of its presence.
fn change_presence(
    own: &mut Option<Tracked>,
    shared: &Shared,
    (topic, key): (&Topic, &str),
    request: PresenceRequest,
    linger: Duration,
) -> Result<(), Refusal> {
    match (request, &own) {
        (PresenceRequest::Untrack, _) => {
            if let Some(tracked) = own.take() {
                tracked.leave();
            }
        }
        (PresenceRequest::Track(meta), Some(tracked)) => {
            tracked.update(&meta).map_err(refusal_of)?;
        }
        (PresenceRequest::Track(meta), None) => {
            let tracked = shared.tracker.track(topic, key, &meta).map_err(refusal_of)?;
            *own = Some(tracked.lingering(linger));
        }
    }
    Ok(())
}

/// The way to a client, apart from its session.
struct Way<'a> {
    framing: Framing,
    mailbox: &'a Arc<Mailbox>,
}

impl<'a> Way<'a> {
    fn of(client: &Client, mailbox: &'a Arc<Mailbox>) -> Self {
        Self { framing: client.framing, mailbox }
    }

    /// The reply of a join, then the end of former ones of its topic. What the client pushed meanwhile
    /// is left to do.
    fn answer_join(
        &self,
        socket: &mut Socket<Membership>,
        id: ChannelId,
        response: &[u8],
        flush: &mut Flush,
    ) {
        socket.join_ok(id, response);
        while let Some(frame) = socket.poll_frame() {
            // They are texts, which every way has a form for.
            if let Some(frame) = self.framing.frame(frame) {
                flush.reply(self.mailbox, frame);
            }
        }
    }

    /// Who is there, or how many. What a thousand joiners are told alike is not copied for each.
    fn send_state(
        &self,
        socket: &Socket<Membership>,
        id: ChannelId,
        state: &State,
        flush: &mut Flush,
    ) {
        let Some((before, behind)) = socket.push_around(id, state.event) else {
            return;
        };
        let [head, own, tail] = state.pieces();
        let mut first = FrameBuf::with_capacity(before.len() + own.len() + 1);
        first.extend_from_slice(&before);
        if state.payload.len() <= STATE_COPIED_MAX {
            [head, own, tail, behind].iter().for_each(|piece| first.extend_from_slice(piece));
            return flush.reply(self.mailbox, self.framing.text(first));
        }
        // Mostly the brace alone goes before the client's own entry.
        let pieces = if head.len() <= STATE_COPIED_MAX {
            [head, own].iter().for_each(|piece| first.extend_from_slice(piece));
            self.framing.pieces(first, [tail, behind])
        } else {
            self.framing.pieces(first, [head, own, tail, behind])
        };
        flush.note(pieces.iter().map(Bytes::len).sum());
        // Into a closed mailbox nothing needs to go.
        let _ = self.mailbox.push_state(pieces, flush);
    }
}

/// The limit of what waits for a client.
fn mailbox_bytes(config: &Config, framing: Framing) -> usize {
    let bytes = config.limits.mailbox_bytes.bytes();
    match framing {
        Framing::WebSocket { .. } | Framing::Tcp => bytes,
        Framing::Poll => {
            let quoted = 2 * config.http.max_frame_size.bytes();
            bytes.saturating_mul(POLLED_MAILBOXES).saturating_add(quoted)
        }
    }
}

fn refusal_of(error: TrackError) -> Refusal {
    match error {
        TrackError::Full => Refusal::TooMany,
        TrackError::KeyLength { .. } | TrackError::MetaTooLong { .. } | TrackError::Unknown => {
            Refusal::PayloadTooLarge
        }
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

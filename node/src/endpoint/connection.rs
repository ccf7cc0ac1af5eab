//! The driver of one socket: carries out what the session decides, whatever carries the frames.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use presence::{Topic, TrackError};
use tracing::{debug, trace, warn};

use crate::{
    channel::{PresenceRequest, Refusal, Relay},
    config::PresenceMode,
    endpoint::upgrade::Client,
    mailboxes::Listed,
    node::Shared,
    pubsub::{CloseReason, Control, Format, Item, Mailbox, Pushed, Subscriber, Subscription},
    socket::{Action, ChannelId, Close, Ref, Socket, Status, Version},
    sockets::Named,
    tracker::{Interest, Observation, State, Tracked},
};

/// Bytes taken from the mailbox at a time.
const DRAIN_BYTES: usize = 64 * 1024;

/// Bytes of broadcasts that wait for one join's reply.
const HELD_BYTES_MAX: usize = 256 * 1024;

const OK: &[u8] = b"{}";

/// One client's socket.
pub(super) struct Connection {
    shared: Arc<Shared>,
    client: Client,
    socket: Socket,
    mailbox: Arc<Mailbox>,
    channels: BTreeMap<u64, Channel>,
    /// Taken from the mailbox, not yet looked at.
    incoming: VecDeque<Item>,
    /// To be written, before anything of `incoming`.
    outgoing: VecDeque<Bytes>,
    _named: Option<Named>,
    _listed: Listed,
}

/// One joined topic. Fields are dropped in this order: the client is taken off before the node
/// forgets that the topic is wanted here.
struct Channel {
    tracked: Option<Tracked>,
    observation: Option<Observation>,
    subscription: Subscription,
    /// The version of the last state written: diffs up to it are old.
    state_version: u64,
    stage: Stage,
    route: usize,
    _interest: Interest,
}

enum Stage {
    /// Peers are being told; what is heard meanwhile waits behind the reply.
    Joining {
        payload: Bytes,
        held: Vec<Bytes>,
        held_bytes: usize,
    },
    Joined,
}

/// What the connection has for the client.
pub(super) enum Outgoing {
    Frame(Bytes),
    Close(Close),
}

/// Whether the client's own frame is being handled, or what others sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum During {
    /// Answers queue behind what is in the mailbox: the sender's own copy goes before its reply.
    Request,
    /// Answers go out now, before what follows in the mailbox.
    Delivery,
}

impl Connection {
    pub(super) fn new(shared: &Arc<Shared>, client: Client) -> Self {
        let mailbox = Mailbox::new(shared.config.limits.mailbox_bytes.bytes());
        let named = client.socket_id.as_deref().map(|id| shared.sockets.name(id, &mailbox));
        shared.stats.sockets.fetch_add(1, Ordering::Relaxed);
        Self {
            socket: Socket::new(client.version, shared.limits, shared.clock.now()),
            shared: Arc::clone(shared),
            client,
            channels: BTreeMap::new(),
            incoming: VecDeque::new(),
            outgoing: VecDeque::new(),
            _named: named,
            _listed: shared.mailboxes.add(&mailbox),
            mailbox,
        }
    }

    /// Takes a text frame of the client.
    pub(super) fn handle_text(&mut self, frame: &Bytes) -> Result<(), Close> {
        self.shared.stats.frames_in.fetch_add(1, Ordering::Relaxed);
        let router = &self.shared.router;
        let now = self.shared.clock.now();
        self.socket.handle_text(frame, &|topic| router.find(topic), now)?;
        self.carry_out(During::Request);
        Ok(())
    }

    /// Takes a binary frame of the client.
    pub(super) fn handle_binary(&mut self, frame: &Bytes) -> Result<(), Close> {
        self.socket.handle_binary(frame)
    }

    /// The next frame to write, or the end. Pending when there is neither.
    pub(super) fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<Outgoing> {
        loop {
            if let Some(frame) = self.outgoing.pop_front() {
                if self.outgoing.is_empty() {
                    self.outgoing = VecDeque::new();
                }
                return Poll::Ready(Outgoing::Frame(frame));
            }
            match self.incoming.pop_front() {
                Some(Item::Control(Control::Close(reason))) => {
                    return Poll::Ready(Outgoing::Close(self.close_of(reason)));
                }
                Some(item) => self.deliver(item),
                None => {
                    self.incoming = VecDeque::new();
                    let taken = self.mailbox.poll_drain(cx, &mut self.incoming, DRAIN_BYTES);
                    std::task::ready!(taken);
                }
            }
        }
    }

    /// Ready when the client has been given up, though its frames cannot be written.
    pub(super) fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<Close> {
        self.mailbox.poll_closed(cx).map(|reason| self.close_of(reason))
    }

    /// Nothing more is read or written: the client leaves all its topics.
    pub(super) fn ended(&mut self) {
        self.channels.clear();
        self.mailbox.abandon();
    }

    fn close_of(&self, reason: CloseReason) -> Close {
        match reason {
            CloseReason::Slow => self.slow("it left limits.mailbox_bytes unread"),
            CloseReason::Disconnected => Close { code: 1001, reason: "disconnected" },
            CloseReason::Shutdown | CloseReason::Gone => {
                Close { code: 1012, reason: "the node is stopping" }
            }
        }
    }

    /// What was written to the client has waited for a whole idle timeout.
    pub(super) fn stalled(&self) -> Close {
        self.slow("it did not read all that was written within http.idle_timeout")
    }

    fn slow(&self, why: &str) -> Close {
        let (peer, key) = (self.client.peer, &self.client.key);
        warn!(node = %self.shared.name, %peer, ?key, "slow client disconnected: {why}");
        self.shared.stats.slow.fetch_add(1, Ordering::Relaxed);
        Close { code: 1013, reason: "too slow" }
    }

    // === what the client asks ===

    fn carry_out(&mut self, mut during: During) {
        while let Some(action) = self.socket.poll_action() {
            self.act(action, &mut during);
        }
    }

    fn act(&mut self, action: Action, during: &mut During) {
        match action {
            Action::Send(frame) => self.answer(frame, *during),
            Action::Join { id, route, topic, payload } => self.join(id, route, &topic, payload),
            Action::Leave { id, topic } => {
                trace!(node = %self.shared.name, key = ?self.client.key, %topic, "left");
                self.channels.remove(&id.to_bits());
            }
            Action::Push { id, route, topic, event, payload, reference, join_ref } => {
                // A push that waited for its join: its reply goes behind its own broadcast.
                *during = During::Request;
                if let Err(refusal) = self.push(id, route, &event, &payload, &reference) {
                    debug!(node = %self.shared.name, key = ?self.client.key, %topic, ?event, ?join_ref, ?refusal, "push refused");
                    self.socket.reply(id, &reference, Status::Error, refusal.response());
                }
            }
        }
    }

    fn answer(&mut self, frame: Bytes, during: During) {
        match during {
            During::Delivery => self.outgoing.push_back(frame),
            During::Request => {
                // Overflow closes the mailbox, which the owner sees next.
                let (Pushed::Queued | Pushed::Overflow | Pushed::Skipped | Pushed::Closed) =
                    self.mailbox.push_reply(frame);
            }
        }
    }

    fn join(&mut self, id: ChannelId, route: usize, topic: &Topic, payload: Bytes) {
        let Some(relay) = self.shared.router.get(route) else {
            return;
        };
        if let Err(refusal) = relay.join(topic) {
            self.shared.stats.joins_refused.fetch_add(1, Ordering::Relaxed);
            return self.socket.join_error(id, refusal.response());
        }
        let channel = id.to_bits();
        // The interest is known to be wanted before the first message could come.
        let interest = self.shared.tracker.interest(topic);
        let subscription = self.shared.registry.subscribe(
            topic,
            Subscriber {
                mailbox: Arc::clone(&self.mailbox),
                channel,
                format: match self.client.version {
                    Version::V1 => Format::V1,
                    Version::V2 => Format::V2,
                },
                presence_after: None,
            },
        );
        let mark = interest.mark;
        let joining = Channel {
            tracked: None,
            observation: None,
            subscription,
            state_version: 0,
            stage: Stage::Joining { payload, held: Vec::new(), held_bytes: 0 },
            route,
            _interest: interest,
        };
        self.channels.insert(channel, joining);
        self.shared.stats.joins.fetch_add(1, Ordering::Relaxed);
        self.shared.peers.barrier(mark, &self.mailbox, channel);
    }

    fn push(
        &mut self,
        id: ChannelId,
        route: usize,
        event: &str,
        payload: &Bytes,
        reference: &Ref,
    ) -> Result<(), Refusal> {
        let Some(channel) = self.channels.get(&id.to_bits()) else {
            return Ok(());
        };
        let Some(relay) = self.shared.router.get(route) else {
            return Ok(());
        };
        let acknowledges = relay.acknowledges();
        if event == "presence" && relay.presence() == PresenceMode::Manual {
            self.presence_event(id, payload)?;
        } else {
            self.publish(channel, relay, event, payload)?;
        }
        if acknowledges {
            self.socket.reply(id, reference, Status::Ok, OK);
        }
        Ok(())
    }

    fn publish(
        &self,
        channel: &Channel,
        relay: &Relay,
        event: &str,
        payload: &Bytes,
    ) -> Result<(), Refusal> {
        relay.publish(event)?;
        let sender = &channel.subscription;
        let except = (!relay.delivers_to_sender()).then(|| sender.id());
        self.shared.publisher.publish(sender.topic(), event, payload, except);
        Ok(())
    }

    fn presence_event(&mut self, id: ChannelId, payload: &[u8]) -> Result<(), Refusal> {
        let request = Relay::presence_request(payload, unix_seconds())?;
        let Some(channel) = self.channels.get_mut(&id.to_bits()) else {
            return Ok(());
        };
        let tracked = match (request, &channel.tracked) {
            (PresenceRequest::Untrack, _) => {
                channel.tracked = None;
                return Ok(());
            }
            (PresenceRequest::Track(meta), Some(tracked)) => tracked.update(&meta).map(|()| None),
            (PresenceRequest::Track(meta), None) => {
                let topic = channel.subscription.topic();
                self.shared.tracker.track(topic, &self.client.key, &meta, None).map(Some)
            }
        };
        if let Some(tracked) = tracked.map_err(refusal_of)? {
            channel.tracked = Some(tracked);
        }
        Ok(())
    }

    // === what others send ===

    fn deliver(&mut self, item: Item) {
        match item {
            Item::Reply { frame } => self.outgoing.push_back(frame),
            Item::Frame { channel, frame } => self.deliver_frame(channel, frame),
            Item::Presence { channel, version, frame } => {
                let known = self.channels.get(&channel);
                if known.is_some_and(|channel| channel.state_version < version) {
                    self.outgoing.push_back(frame);
                }
            }
            Item::Control(Control::Joined { channel, confirmed }) => {
                self.joined(channel, confirmed);
            }
            Item::Control(Control::Resync { channel }) => self.resync(channel),
            // Handled where it is taken out.
            Item::Control(Control::Close(_)) => {}
        }
    }

    fn deliver_frame(&mut self, channel: u64, frame: Bytes) {
        // A frame of a topic that was left meanwhile is nobody's.
        let Some(known) = self.channels.get_mut(&channel) else {
            return;
        };
        match &mut known.stage {
            Stage::Joined => self.outgoing.push_back(frame),
            Stage::Joining { held, held_bytes, .. } => {
                *held_bytes += frame.len();
                if *held_bytes > HELD_BYTES_MAX {
                    self.mailbox.close(CloseReason::Slow);
                } else {
                    held.push(frame);
                }
            }
        }
    }

    /// The peers know of the channel's topic: the client is listed, answered and told who is there.
    fn joined(&mut self, bits: u64, confirmed: bool) {
        let Some(channel) = self.channels.get_mut(&bits) else {
            return;
        };
        if !confirmed {
            let topic = channel.subscription.topic();
            debug!(node = %self.shared.name, %topic, "joined before all peers confirmed");
        }
        let Stage::Joining { payload, held, .. } =
            std::mem::replace(&mut channel.stage, Stage::Joined)
        else {
            return;
        };
        let id = ChannelId::from_bits(bits);
        let mode = self.shared.router.get(channel.route).map(Relay::presence);
        let told = match mode {
            None | Some(PresenceMode::Off) => Ok(None),
            Some(PresenceMode::Manual) => Ok(Some(watch(&self.shared, channel))),
            Some(PresenceMode::Join) => list(&self.shared, channel, &self.client.key, &payload),
        };
        match told {
            Ok(state) => {
                let version = state.as_ref().map_or(0, |state| state.version);
                channel.state_version = version;
                self.socket.join_ok(id, OK);
                self.carry_out_join(held, id, state);
            }
            Err(refusal) => {
                self.channels.remove(&bits);
                self.socket.join_error(id, refusal.response());
                self.carry_out(During::Delivery);
            }
        }
    }

    /// The reply first, then the end of a former join, then what was heard meanwhile, then who is there, then what the client pushed
    /// while it waited.
    fn carry_out_join(&mut self, held: Vec<Bytes>, id: ChannelId, state: Option<State>) {
        let mut pushed = None;
        while let Some(action) = self.socket.poll_action() {
            match action {
                Action::Send(frame) => self.outgoing.push_back(frame),
                other @ (Action::Join { .. } | Action::Leave { .. } | Action::Push { .. }) => {
                    pushed = Some(other);
                    break;
                }
            }
        }
        self.outgoing.extend(held);
        if let Some(state) = state {
            self.outgoing.extend(self.socket.push(id, "presence_state", &state.payload));
        }
        if let Some(action) = pushed {
            self.act(action, &mut During::Delivery);
            self.carry_out(During::Request);
        }
    }

    /// Diffs did not fit into the mailbox: a fresh state takes their place.
    fn resync(&mut self, bits: u64) {
        self.mailbox.resynced(bits);
        let Some(channel) = self.channels.get_mut(&bits) else {
            return;
        };
        if channel.observation.is_none() {
            return;
        }
        let topic = channel.subscription.topic();
        let state = self.shared.tracker.resume(topic, &channel.subscription);
        channel.state_version = state.version;
        let id = ChannelId::from_bits(bits);
        self.outgoing.extend(self.socket.push(id, "presence_state", &state.payload));
        self.shared.stats.resyncs.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.mailbox.abandon();
        self.shared.stats.sockets.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Begins to tell the client who is there.
fn watch(shared: &Shared, channel: &mut Channel) -> State {
    let topic = channel.subscription.topic();
    let (observation, state) = shared.tracker.observe(topic, &channel.subscription);
    channel.observation = Some(observation);
    state
}

/// Lists the client, and begins to tell it who is there.
fn list(
    shared: &Shared,
    channel: &mut Channel,
    key: &str,
    payload: &[u8],
) -> Result<Option<State>, Refusal> {
    let meta = Relay::join_meta(payload, unix_seconds())?;
    let mut state = watch(shared, channel);
    let topic = channel.subscription.topic();
    let tracked = shared.tracker.track(topic, key, &meta, Some(&mut state));
    channel.tracked = Some(tracked.map_err(refusal_of)?);
    Ok(Some(state))
}

fn refusal_of(error: TrackError) -> Refusal {
    match error {
        TrackError::Full => Refusal::TooMany,
        TrackError::KeyTooLong { .. } | TrackError::MetaTooLong { .. } | TrackError::Unknown => {
            Refusal::PayloadTooLarge
        }
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

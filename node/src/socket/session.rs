//! The state machine of one client's session: frames in, actions out.

use std::{borrow::Cow, collections::VecDeque, mem, sync::Arc};

use bytes::Bytes;
use presence::{Time, Topic};

use crate::pubsub::Payload;

use super::{
    action::{Action, Close, EMPTY, Ended, Frame, Outbox, Push},
    channels::{Channel, ChannelId, ChannelState, Channels, Joining, QueuedPush},
    letterhead::Letterhead,
    message::{self, Envelope, Name, REF_LEN_MAX, Ref, Status, Version},
    rate::Bucket,
    v2_binary,
};

/// Frames kept alive by pushes behind unanswered joins, in bytes for the whole socket. A single
/// push of any size may wait when no other does.
const QUEUED_BYTES_MAX: usize = 256 * 1024;

/// Former joins of one topic whose `phx_close` waits for the answer of the newest; beyond it the
/// oldest goes out early. A client has one, unless it joins again and again without waiting.
const CLOSES_MAX: usize = 8;

const INVALID_TOPIC: &[u8] = br#"{"reason":"invalid topic"}"#;
const TOO_MANY_CHANNELS: &[u8] = br#"{"reason":"too many channels joined"}"#;
const TOO_MANY_REQUESTS: &[u8] = br#"{"reason":"too many requests"}"#;
const RESERVED_EVENT: &[u8] = br#"{"reason":"reserved event"}"#;
const JOIN_CRASHED: &[u8] = br#"{"reason":"join crashed"}"#;
const CHANNEL_CRASH: &[u8] = br#"{"reason":"channel_crash"}"#;

/// What one client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Channels that are joined or being joined at a time, 100.
    pub(crate) channels_max: usize,
    /// Pushes that wait behind one unanswered join, 64. They share 256 KiB a socket.
    pub(crate) pending_max: usize,
    /// Joins a second, and at once after a second without; no limit unless set.
    pub(crate) joins_per_second: Option<u32>,
    /// Pushes a second to joined topics, and at once after a second without; no limit unless set.
    pub(crate) events_per_second: Option<u32>,
    /// Whether binary frames of realtime-style clients are taken, no.
    pub(crate) user_broadcasts: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channels_max: 100,
            pending_max: 64,
            joins_per_second: None,
            events_per_second: None,
            user_broadcasts: false,
        }
    }
}

/// Which channel of the router serves a topic.
pub(crate) type Route<'a> = &'a dyn Fn(&Topic) -> Option<usize>;

/// One client's session. See the [module](super) for how to drive it. `D` is what the driver keeps
/// with each joined channel.
///
/// It holds at most `channels_max` channels and, for each unanswered join, `pending_max` pushes.
#[derive(Debug)]
pub(crate) struct Socket<D> {
    version: Version,
    limits: Arc<Limits>,
    channels: Channels<D>,
    /// `None` unless a rate is limited.
    rates: Option<Box<Rates>>,
    queued_bytes: usize,
    /// What waited behind joins that are answered by now.
    released: Option<Box<Released>>,
    refused: Refused,
    out: Outbox<D>,
}

/// What a session refused by itself, before any channel saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Joins beyond the rate or the number of channels.
    pub(crate) joins: u32,
    /// Events beyond the rate, or beyond what may wait for a join.
    pub(crate) events: u32,
    /// Binary messages to a client whose format has no form for them.
    pub(crate) formless: u32,
}

/// Pushes whose join is answered, with the channel and its topic. They are handed out one after another:
/// each may end the channel.
type Released = VecDeque<(ChannelId, Topic, QueuedPush)>;

#[derive(Debug)]
struct Rates {
    joins: Option<Bucket>,
    events: Option<Bucket>,
}

/// A frame of the client, with the texts that its topic and event stand for.
struct Request<'a> {
    frame_len: usize,
    envelope: Envelope<'a>,
    topic: Option<Cow<'a, str>>,
    event: Option<Cow<'a, str>>,
    payload: Payload<'a>,
}

impl<D> Socket<D> {
    /// A session in which nothing is joined.
    pub(crate) fn new(version: Version, limits: &Arc<Limits>, now: Time) -> Self {
        Self {
            version,
            limits: Arc::clone(limits),
            channels: Channels::new(),
            rates: Rates::new(limits, now).map(Box::new),
            queued_bytes: 0,
            released: None,
            refused: Refused::default(),
            out: Outbox::new(version),
        }
    }

    /// Takes one text frame in. `route` says which channel of the router serves a topic. What the
    /// frame asks of a joined channel is returned; all else is to be drained.
    ///
    /// # Errors
    /// How to close the socket, when the frame cannot be decoded. Nothing else has changed; what
    /// earlier frames caused is still to be drained.
    pub(crate) fn handle_text<'a>(
        &mut self,
        frame: &'a str,
        route: Route<'_>,
        now: Time,
    ) -> Result<Option<Push<'a>>, Close> {
        if let Some(reference) = self.version.scan_heartbeat(frame.as_bytes()) {
            self.out.heartbeat(reference);
            return Ok(None);
        }
        let envelope = self.version.decode(frame)?;
        let topic = message::text(envelope.topic);
        let event = message::text(envelope.event);
        let payload = Payload::Json(envelope.payload.as_bytes());
        let request = Request { frame_len: frame.len(), envelope, topic, event, payload };
        let Some((id, route)) = self.handle(&request, route, now) else {
            return Ok(None);
        };
        let reference = Cow::Borrowed(envelope.reference);
        Ok(request.event.map(|event| Push { id, route, event, payload, reference }))
    }

    /// Takes one binary frame in, as [`Self::handle_text`] does. Its refs and names are text, never
    /// null. A client of V1 may send its text so.
    ///
    /// # Errors
    /// How to close the socket, when the frame cannot be decoded.
    pub(crate) fn handle_binary<'a>(
        &mut self,
        frame: &'a [u8],
        route: Route<'_>,
        now: Time,
    ) -> Result<Option<Push<'a>>, Close> {
        if self.version == Version::V1 {
            let text = std::str::from_utf8(frame).map_err(|_| Close::BINARY)?;
            return self.handle_text(text, route, now);
        }
        let taken = self.limits.user_broadcasts;
        let decoded = v2_binary::decode(frame, taken).ok_or(Close::UNDECODABLE)?;
        let names = [decoded.join_ref, decoded.reference, decoded.topic];
        let [mut join_ref, mut reference, topic] = names.map(message::quoted);
        if let Payload::User(_) = decoded.payload {
            // Their clients write what they do not have as nothing.
            [&mut join_ref, &mut reference].into_iter().for_each(null_if_empty);
        }
        if join_ref.len().max(reference.len()) > REF_LEN_MAX {
            return Err(Close::REF_TOO_LONG);
        }
        let (event, payload) = (Cow::Borrowed(decoded.event), decoded.payload);
        let request = Request {
            frame_len: frame.len(),
            envelope: Envelope {
                join_ref: &join_ref,
                reference: &reference,
                topic: &topic,
                event: "null",
                payload: "{}",
            },
            topic: Some(Cow::Borrowed(decoded.topic)),
            event: Some(event.clone()),
            payload,
        };
        let joined = self.handle(&request, route, now);
        let reference = Cow::Owned(reference);
        Ok(joined.map(|(id, route)| Push { id, route, event, payload, reference }))
    }

    /// Does what a frame asks; an event for a joined channel is left to the caller.
    fn handle(
        &mut self,
        request: &Request<'_>,
        route: Route<'_>,
        now: Time,
    ) -> Option<(ChannelId, usize)> {
        match (request.topic.as_deref(), request.event.as_deref()) {
            (Some("phoenix"), Some("heartbeat")) => {
                self.out.heartbeat(request.envelope.reference.as_bytes());
            }
            (_, Some("phx_join")) => self.join(request, route, now),
            (_, Some("phx_leave")) => self.leave(request),
            _ => return self.accept(request, now),
        }
        None
    }

    /// What was refused since the last call.
    pub(crate) fn take_refused(&mut self) -> Refused {
        mem::take(&mut self.refused)
    }

    /// The next effect, in the order in which they are to happen.
    pub(crate) fn poll_action(&mut self) -> Option<Action<D>> {
        loop {
            if let Some(action) = self.out.pop() {
                return Some(action);
            }
            let mut released = self.released.take()?;
            let (id, topic, push) = released.pop_front()?;
            self.queued_bytes = self.queued_bytes.saturating_sub(push.frame_len);
            self.deliver(id, &topic, push);
            self.released = Some(released);
        }
    }

    /// As [`Self::poll_action`], but for an [`Action::Push`]: those stay where they are.
    pub(crate) fn poll_other_action(&mut self) -> Option<Action<D>> {
        self.out.pop()
    }

    /// The next effect, if it is a frame to the client.
    pub(crate) fn poll_frame(&mut self) -> Option<Frame> {
        self.out.pop_frame()
    }

    /// Answers a join: the channel takes the client in. `response` is a JSON object.
    ///
    /// The reply is followed by the close of the join's predecessor and by the pushes that waited.
    /// Does nothing when the channel is gone or its join answered.
    pub(crate) fn join_ok(&mut self, id: ChannelId, response: &[u8]) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        let Some(joining) = channel.joining.take() else {
            return;
        };
        let topic = channel.topic.clone();
        self.out.answer_join(channel, &joining.reference, Status::Ok, response);
        self.out.close(&topic, &joining.closes);
        if !joining.pushes.is_empty() {
            let pushes = joining.pushes.into_iter().map(|push| (id, topic.clone(), push));
            self.released.get_or_insert_default().extend(pushes);
        }
    }

    /// What the driver keeps with a channel.
    pub(crate) fn data_mut(&mut self, id: ChannelId) -> Option<&mut Option<D>> {
        self.channels.get_mut(id).map(|channel| &mut channel.data)
    }

    /// The channel's topic, its route and what the driver keeps with it.
    pub(crate) fn channel(&self, id: ChannelId) -> Option<(&Topic, usize, Option<&D>)> {
        let channel = self.channels.get(id)?;
        Some((&channel.topic, channel.route, channel.data.as_ref()))
    }

    /// Ends all channels at once, without a word to the client.
    pub(crate) fn abort(&mut self) {
        self.channels = Channels::new();
    }

    /// Answers a join: the channel refuses the client. `response` is a JSON object.
    ///
    /// The channel is gone, without an [`Action::Leave`]. Pushes that waited are answered as
    /// unmatched. Does nothing when the channel is gone or its join answered.
    pub(crate) fn join_error(&mut self, id: ChannelId, response: &[u8]) {
        if self.state(id) != Some(ChannelState::Joining) {
            return;
        }
        let Some(channel) = self.channels.remove(id) else {
            return;
        };
        self.refuse_join(channel, response);
    }

    /// Answers a push, with a JSON object or bytes. Does nothing when the channel is gone.
    ///
    /// Bytes to a client of V1, or with names of more than 255 bytes, have no form: they are dropped and
    /// counted.
    pub(crate) fn reply(
        &mut self,
        id: ChannelId,
        to: &[u8],
        status: Status,
        response: Payload<'_>,
    ) {
        let sent = self.channels.get(id).map(|it| self.out.reply(it, to, status, response));
        self.count_formless(sent);
    }

    fn count_formless(&mut self, sent: Option<bool>) {
        if sent == Some(false) {
            self.refused.formless = self.refused.formless.saturating_add(1);
        }
    }

    /// Ends a channel that stopped by itself.
    pub(crate) fn close_channel(&mut self, id: ChannelId) {
        let Some(mut channel) = self.end(id, Ended::Stopped) else { return };
        let closes = self.abandon(&channel.topic, channel.joining.take());
        self.out.close(&channel.topic, &closes);
        self.out.close(&channel.topic, &[channel.expected]);
    }

    /// Ends a channel that crashed. While joining, its join is answered as crashed.
    pub(crate) fn crash_channel(&mut self, id: ChannelId) {
        let Some(channel) = self.end(id, Ended::Crashed) else { return };
        if channel.joining.is_some() {
            self.refuse_join(channel, JOIN_CRASHED);
        } else {
            self.out.end(&channel.topic, &channel.expected, "phx_error", CHANNEL_CRASH);
        }
    }

    /// A message to this client alone, `[join_ref, null, topic, event, payload]`, around its payload,
    /// which many clients may get: what goes before and behind it. `None` when the channel is gone.
    pub(crate) fn push_around(&self, id: ChannelId, event: &str) -> Option<(Vec<u8>, Bytes)> {
        let channel = self.channels.get(id)?;
        Some(self.version.encode_around(&channel.message(event, b"")))
    }

    /// For frames about a channel that its own task makes; `None` when the channel is gone.
    pub(crate) fn letterhead(&self, id: ChannelId) -> Option<Letterhead> {
        let channel = self.channels.get(id)?;
        Some(Letterhead::new(self.version, &channel.carried, &channel.topic))
    }

    /// How far a channel is; `None` when it is gone.
    pub(super) fn state(&self, id: ChannelId) -> Option<ChannelState> {
        let channel = self.channels.get(id)?;
        Some(match channel.joining {
            Some(_) => ChannelState::Joining,
            None => ChannelState::Joined,
        })
    }

    /// The topic of a channel; `None` when it is gone.
    #[cfg(test)]
    pub(super) fn topic(&self, id: ChannelId) -> Option<&Topic> {
        self.channels.get(id).map(|channel| &channel.topic)
    }

    /// The `join_ref` of messages to a channel; `None` when it is gone.
    #[cfg(test)]
    pub(super) fn join_ref(&self, id: ChannelId) -> Option<&Ref> {
        self.channels.get(id).map(|channel| &channel.carried)
    }

    /// All channels, joined or being joined.
    #[cfg(test)]
    pub(super) fn channels(&self) -> impl Iterator<Item = ChannelId> {
        self.channels.ids().map(|(id, _)| id)
    }

    /// A join of any topic. One that the router serves ends the former join of that topic,
    /// whatever becomes of it itself.
    fn join(&mut self, request: &Request<'_>, route: Route<'_>, now: Time) {
        let Some(name) = request.topic.as_deref() else {
            return self.unmatched(request);
        };
        let Ok(topic) = name.parse::<Topic>() else {
            return self.out.answer(&request.envelope, Status::Error, INVALID_TOPIC);
        };
        let Some(route) = route(&topic) else {
            return self.unmatched(request);
        };
        let closes = self.supersede(name);
        if let Some(reason) = self.refusal(now) {
            self.refused.joins = self.refused.joins.saturating_add(1);
            self.out.answer(&request.envelope, Status::Error, reason);
            return self.out.close(&topic, &closes);
        }
        let (expected, carried) = self.join_refs(&request.envelope);
        let reference = Ref::copied(request.envelope.reference);
        let joining = Joining { reference, pushes: VecDeque::new(), closes };
        let id = self.channels.insert(Channel {
            topic: topic.clone(),
            route,
            expected,
            carried,
            joining: Some(Box::new(joining)),
            data: None,
        });
        let payload = match request.envelope.payload {
            "{}" => Bytes::from_static(EMPTY),
            object if object.starts_with('{') => Bytes::copy_from_slice(object.as_bytes()),
            _ => Bytes::from_static(EMPTY),
        };
        self.out.push(Action::Join { id, route, topic, payload });
    }

    /// Why one more channel cannot be, if so. It counts as a join.
    fn refusal(&mut self, now: Time) -> Option<&'static [u8]> {
        let joins = self.rates.as_mut().and_then(|rates| rates.joins.as_mut());
        if !joins.is_none_or(|joins| joins.take(now)) {
            Some(TOO_MANY_REQUESTS)
        } else if self.channels.len() >= self.limits.channels_max {
            Some(TOO_MANY_CHANNELS)
        } else {
            None
        }
    }

    /// The `join_ref` that a new channel expects from the client, and the one that it carries.
    fn join_refs(&self, envelope: &Envelope<'_>) -> (Ref, Ref) {
        if envelope.join_ref != "null" {
            let join_ref = Ref::copied(envelope.join_ref);
            return (join_ref.clone(), join_ref);
        }
        let reference = Ref::copied(envelope.reference);
        match self.version {
            Version::V1 => (reference.clone(), reference),
            Version::V2 => (Ref::NULL, reference),
        }
    }

    /// Ends the former join of a topic. What it returns is to be closed after the new join's reply.
    fn supersede(&mut self, topic: &str) -> Vec<Ref> {
        let Some(former) = self.channels.find(topic).and_then(|id| self.end(id, Ended::Replaced))
        else {
            return Vec::new();
        };
        let mut closes = self.abandon(&former.topic, former.joining);
        closes.push(former.expected);
        if closes.len() > CLOSES_MAX {
            let oldest = closes.remove(0);
            self.out.close(&former.topic, &[oldest]);
        }
        closes
    }

    fn leave(&mut self, request: &Request<'_>) {
        let Some(id) = self.find(request) else {
            return self.out.answer(&request.envelope, Status::Ok, EMPTY);
        };
        if self.is_stale(id, &request.envelope) {
            return;
        }
        let Some(mut channel) = self.end(id, Ended::Left) else {
            return;
        };
        let closes = self.abandon(&channel.topic, channel.joining.take());
        let reference = request.envelope.reference.as_bytes();
        self.out.reply(&channel, reference, Status::Ok, Payload::Json(EMPTY));
        self.out.close(&channel.topic, &closes);
        self.out.close(&channel.topic, &[channel.expected]);
    }

    /// Any event but the protocol's: for a joined channel, or to wait behind a join.
    fn accept(&mut self, request: &Request<'_>, now: Time) -> Option<(ChannelId, usize)> {
        let Some(id) = self.find(request) else {
            self.unmatched(request);
            return None;
        };
        if self.is_stale(id, &request.envelope) {
            return None;
        }
        let reference = request.envelope.reference;
        let events = self.rates.as_mut().and_then(|rates| rates.events.as_mut());
        if !events.is_none_or(|events| events.take(now)) {
            self.refuse_event(id, reference.as_bytes());
            return None;
        }
        match self.channels.get(id) {
            Some(Channel { joining: None, route, .. }) => {
                let route = *route;
                let event = request.event.as_deref();
                self.check_event(id, event, reference.as_bytes()).then_some((id, route))
            }
            _ => {
                let push = QueuedPush {
                    event: request.event.as_deref().map(Box::from),
                    kind: request.payload.kind(),
                    payload: request.payload.to_bytes(),
                    reference: Ref::copied(reference),
                    frame_len: request.frame_len,
                };
                self.queue(id, push);
                None
            }
        }
    }

    fn refuse_event(&mut self, id: ChannelId, reference: &[u8]) {
        self.refused.events = self.refused.events.saturating_add(1);
        self.reply(id, reference, Status::Error, Payload::Json(TOO_MANY_REQUESTS));
    }

    /// Keeps a push until its channel's join is answered, or refuses it for want of room.
    fn queue(&mut self, id: ChannelId, push: QueuedPush) {
        let queued_bytes = self.queued_bytes + push.frame_len;
        let fits = self.queued_bytes == 0 || queued_bytes <= QUEUED_BYTES_MAX;
        let pending_max = self.limits.pending_max;
        let joining = self.channels.get_mut(id).and_then(|channel| channel.joining.as_mut());
        match joining.filter(|joining| fits && joining.pushes.len() < pending_max) {
            Some(joining) => {
                joining.pushes.push_back(push);
                self.queued_bytes = queued_bytes;
            }
            None => self.refuse_event(id, push.reference.as_bytes()),
        }
    }

    /// Hands a push that waited to its channel, which may have crashed by a push before it.
    fn deliver(&mut self, id: ChannelId, topic: &Topic, push: QueuedPush) {
        let QueuedPush { event, kind, payload, reference, .. } = push;
        let Some(route) = self.channels.get(id).map(|channel| channel.route) else {
            return self.out.unmatched(Name::Text(topic.as_str()), reference.as_bytes());
        };
        if self.check_event(id, event.as_deref(), reference.as_bytes())
            && let Some(event) = event
        {
            self.out.push(Action::Push { id, route, event, kind, payload, reference });
        }
    }

    /// Whether a channel can handle an event. Any other is answered, or crashes the channel.
    fn check_event(&mut self, id: ChannelId, event: Option<&str>, reference: &[u8]) -> bool {
        match event {
            None => self.crash_channel(id),
            Some(event) if message::protocol_event(event) => {
                self.reply(id, reference, Status::Error, Payload::Json(RESERVED_EVENT));
            }
            Some(_) => return true,
        }
        false
    }

    /// The channel of a request's topic.
    fn find(&self, request: &Request<'_>) -> Option<ChannelId> {
        self.channels.find(request.topic.as_deref()?)
    }

    /// Whether a frame belongs to an earlier join of the topic. A null `join_ref` never does.
    fn is_stale(&self, id: ChannelId, envelope: &Envelope<'_>) -> bool {
        envelope.join_ref != "null"
            && self.channels.get(id).is_some_and(|own| !own.expected.matches(envelope.join_ref))
    }

    /// Takes a channel out and tells the driver.
    fn end(&mut self, id: ChannelId, why: Ended) -> Option<Channel<D>> {
        let mut channel = self.channels.remove(id)?;
        let (topic, data) = (channel.topic.clone(), channel.data.take());
        self.out.push(Action::Leave { topic, data, why });
        Some(channel)
    }

    /// Answers the join of a channel that was taken out.
    fn refuse_join(&mut self, mut channel: Channel<D>, response: &[u8]) {
        let Some(joining) = channel.joining.take() else {
            return;
        };
        self.out.answer_join(&channel, &joining.reference, Status::Error, response);
        self.out.close(&channel.topic, &joining.closes);
        self.release(&channel.topic, joining.pushes);
    }

    /// Gives up a join that was not answered, if it is one; what it had to close is left to do.
    fn abandon(&mut self, topic: &Topic, joining: Option<Box<Joining>>) -> Vec<Ref> {
        let Some(joining) = joining else {
            return Vec::new();
        };
        self.release(topic, joining.pushes);
        joining.closes
    }

    /// Answers pushes whose join came to nothing.
    fn release(&mut self, topic: &Topic, pushes: VecDeque<QueuedPush>) {
        for push in pushes {
            self.queued_bytes = self.queued_bytes.saturating_sub(push.frame_len);
            self.out.unmatched(Name::Text(topic.as_str()), push.reference.as_bytes());
        }
    }

    fn unmatched(&mut self, request: &Request<'_>) {
        let reference = request.envelope.reference.as_bytes();
        self.out.unmatched(Name::Raw(request.envelope.topic), reference);
    }
}

fn null_if_empty(quoted: &mut String) {
    if quoted == "\"\"" {
        *quoted = "null".to_owned();
    }
}

impl Rates {
    fn new(limits: &Limits, now: Time) -> Option<Self> {
        let joins = limits.joins_per_second.map(|rate| Bucket::new(rate, now));
        let events = limits.events_per_second.map(|rate| Bucket::new(rate, now));
        (joins.is_some() || events.is_some()).then_some(Self { joins, events })
    }
}

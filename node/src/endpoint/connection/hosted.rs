//! The application's own channels, as their client's socket sees them: each has a task, which says what
//! to do by verdicts.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use presence::{Topic, TrackError};
use tracing::error;

use super::{Connection, Membership, Other, Stage, Way, refusal_of};
use crate::{
    app::{Asked, Inbox, NodeHandle, Payload, Place, Reason, Seat, Tap, Verdict, Watching},
    channel::Refusal,
    node::Shared,
    pubsub::{Filter, Flush, Format, Mailbox, Overflow, Subscriber, Subscription},
    socket::{ChannelId, Ended, Push, Ref},
    tracker::{Hears, Observation, State, Tracked},
};

/// One channel that runs in a task of its own. Dropping it ends that.
pub(super) struct Hosted {
    seat: Arc<Seat>,
    inbox: Box<dyn Inbox>,
    /// Where broadcasts go that the task sees before the client.
    tap: Option<Arc<Mailbox>>,
    shared: Arc<Shared>,
}

/// What a socket with channels of the application has besides them.
#[derive(Default)]
pub(super) struct Hosting {
    /// Why the client is not listened to.
    held: Option<Hold>,
    /// Bytes of the client that were read and not taken since.
    rest: Vec<u8>,
    /// Channels that have ended for the client, and whose task goes on; gone ones may be among them.
    /// There are no more than the socket may have joined, twice at the worst.
    ending: Vec<Arc<Seat>>,
}

/// What has to be before the client is listened to again.
enum Hold {
    /// The channel has room for this.
    Push(ChannelId, Asked),
    /// Fewer channels are ending.
    Ending,
}

/// What a subscribed client holds.
type Held = (Option<Tracked>, Option<Observation>, Subscription);

impl Connection {
    /// Begins a channel: its join runs.
    pub(super) fn open(&mut self, id: ChannelId, route: usize, payload: Bytes) {
        let shared = &self.shared;
        let (Some(host), Some(letterhead), Some(assigns)) =
            (shared.router.host(route), self.socket.letterhead(id), &self.client.assigns)
        else {
            return self.socket.crash_channel(id);
        };
        let node = NodeHandle::new(shared);
        let socket_id = self.client.socket_id.as_deref();
        let way = (self.client.framing, &self.mailbox);
        let seat = Seat::new((node, host.name()), socket_id, letterhead, way, id.to_bits());
        let tap = (!host.intercepts().is_empty()).then(|| Tap::new(shared));
        let tapped = tap.as_ref().map(|tap| Arc::clone(tap.mailbox()));
        let payload = Payload::raw_json(payload);
        let former = self.hosting.as_deref().and_then(|hosting| hosting.former(seat.topic()));
        match host.open(Arc::clone(&seat), Arc::clone(assigns), payload, tap, former) {
            Ok(inbox) => {
                let hosted = Hosted { seat, inbox, tap: tapped, shared: Arc::clone(shared) };
                if let Some(Some(member)) = self.socket.data_mut(id) {
                    member.stage = Stage::Other(Box::new(Other::Hosted(hosted)));
                }
            }
            Err(why) => {
                error!(node = %shared.name, channel = host.name(), "cannot begin a channel: {why}");
                self.socket.crash_channel(id);
            }
        }
    }

    /// Hands an event to a channel's task, which answers it; while that has no room, the client is not
    /// listened to.
    pub(super) fn ask(&mut self, push: &Push<'_>) -> Result<(), Refusal> {
        let Some(hosted) = self.hosted(push.id) else {
            return Ok(());
        };
        let payload = Payload::of(push.payload).ok_or(Refusal::NotRealtime)?;
        let event = (*push.event).into();
        let asked = Asked { event, payload, reference: Ref::copied(&push.reference) };
        if let Err(asked) = hosted.inbox.offer(asked) {
            self.hosting.get_or_insert_default().held = Some(Hold::Push(push.id, asked));
        }
        Ok(())
    }

    /// Whether the client is not listened to, for a channel has to catch up first.
    pub(in crate::endpoint) fn is_held(&self) -> bool {
        self.hosting.as_ref().is_some_and(|hosting| hosting.held.is_some())
    }

    /// Keeps bytes that were read until the client is listened to again.
    pub(in crate::endpoint) fn keep(&mut self, rest: &[u8]) {
        self.hosting.get_or_insert_default().rest = rest.to_vec();
    }

    /// Listens to the client again, if that can be: what comes first are the bytes that it gives back.
    /// Else whatever makes it possible nudges the mailbox.
    pub(in crate::endpoint) fn go_on(&mut self, flush: &mut Flush) -> Option<Vec<u8>> {
        match self.hosting.as_mut().and_then(|hosting| hosting.held.take()) {
            Some(Hold::Push(id, asked)) => {
                // A channel that has ended meanwhile has told the client.
                if let Some(hosted) = self.hosted(id)
                    && let Err(asked) = hosted.inbox.offer(asked)
                {
                    self.hosting.get_or_insert_default().held = Some(Hold::Push(id, asked));
                }
            }
            Some(Hold::Ending) => self.bound_ending(),
            None => {}
        }
        // Pushes that waited behind a join come before what was read.
        self.carry_out(flush);
        let hosting = self.hosting.as_mut()?;
        hosting.held.is_none().then(|| std::mem::take(&mut hosting.rest))
    }

    /// Remembers a channel whose task has yet to end.
    fn linger(&mut self, seat: Arc<Seat>) {
        self.hosting.get_or_insert_default().ending.push(seat);
        self.bound_ending();
    }

    /// Holds the client back while as many of its channels are ending as it may have joined.
    fn bound_ending(&mut self) {
        let most = self.shared.limits.channels_max;
        if let Some(hosting) = &mut self.hosting {
            hosting.ending.retain(|seat| !seat.is_gone());
            if hosting.ending.len() >= most && hosting.held.is_none() {
                hosting.held = Some(Hold::Ending);
            }
        }
    }

    /// Does what a channel's task has decided.
    pub(super) fn called(&mut self, id: ChannelId, flush: &mut Flush) {
        let verdict = self.hosted(id).and_then(|hosted| hosted.seat.take_verdict());
        match verdict {
            None => {}
            Some(Verdict::Joined { reply, presence, linger }) => {
                if let Err(error) = self.admit(id, &reply, (&presence, linger), flush) {
                    if let Some(hosted) = self.hosted(id) {
                        let seat = Arc::clone(&hosted.seat);
                        seat.end(Reason::Refused);
                        self.linger(seat);
                    }
                    self.refuse_join(id, refusal_of(error));
                }
            }
            Some(Verdict::Refused(response)) => {
                self.shared.stats.joins_refused.fetch_add(1, Ordering::Relaxed);
                self.socket.join_error(id, response.bytes());
            }
            Some(Verdict::Stopped) => self.socket.close_channel(id),
            Some(Verdict::Crashed) => self.socket.crash_channel(id),
        }
    }

    /// A channel ended. One whose client left goes on until all is done that was asked before.
    pub(super) fn left(&mut self, data: Option<Membership>, why: Ended) {
        let Some(mut member) = data else { return };
        // Whose channel goes otherwise may be back soon.
        if let (Ended::Left | Ended::Stopped, Some(tracked)) = (why, member.tracked.take()) {
            tracked.leave();
        }
        // Any other is dropped as a whole, in its order.
        let Some(Membership { stage: Stage::Other(other), interest, .. }) =
            Some(member).filter(|member| member.stage.is_hosted())
        else {
            return;
        };
        let Other::Hosted(hosted) = *other else {
            return;
        };
        match why {
            Ended::Left => {
                let socket = &mut self.socket;
                let farewell = || std::iter::from_fn(|| socket.poll_frame()).collect();
                hosted.seat.leave(interest, farewell);
            }
            Ended::Replaced => hosted.seat.end(Reason::Replaced),
            Ended::Stopped => hosted.seat.end(Reason::Stopped),
            Ended::Crashed => hosted.seat.end(Reason::Crashed),
        }
        self.linger(Arc::clone(&hosted.seat));
    }

    /// Diffs did not fit into the mailbox: false unless the channel is one of the application's.
    pub(super) fn resync_hosted(&self, id: ChannelId, flush: &mut Flush) -> bool {
        let Some(hosted) = self.hosted(id) else {
            return false;
        };
        let (socket, way) = (&self.socket, Way::of(&self.client, &self.mailbox));
        hosted.seat.resync(|state| {
            way.mailbox.resynced(id.to_bits());
            way.send_state(socket, id, state, flush);
        })
    }

    /// Subscribes a client that was taken in: the reply, the state, then what is broadcast.
    fn admit(
        &mut self,
        id: ChannelId,
        reply: &Payload,
        (presence, linger): (&Watching, Duration),
        flush: &mut Flush,
    ) -> Result<(), TrackError> {
        let Some((topic, route, _)) = self.socket.channel(id) else {
            return Ok(());
        };
        let topic = topic.clone();
        let Some(hosted) = self.hosted(id) else {
            return Ok(());
        };
        let (seat, tap) = (Arc::clone(&hosted.seat), hosted.tap.clone());
        let set = u16::try_from(route).unwrap_or(u16::MAX);
        let filter = if tap.is_some() { Filter::Except(set) } else { Filter::All };
        let who = Subscriber { filter, ..self.subscriber(id, Overflow::Disconnect) };
        let (tracked, observation, subscription) =
            self.enter(id, &topic, who, reply, presence, flush)?;
        let intercepted = tap.map(|mailbox| {
            let (format, overflow) = (Format::Tap, Overflow::Disconnect);
            let filter = Filter::Only(set);
            let task =
                Subscriber { mailbox, channel: 0, format, overflow, filter, presence_after: None };
            self.shared.registry.subscribe_beside(&subscription, task)
        });
        let key = match presence {
            Watching::State { own: Some((key, _)) } | Watching::Count { own: Some((key, _)) } => {
                key
            }
            Watching::State { own: None }
            | Watching::Count { own: None }
            | Watching::Diffs
            | Watching::Nothing => "",
        };
        let tracked = tracked.map(|tracked| (key.into(), tracked.lingering(linger)));
        seat.joined(Place {
            tracked: tracked.into_iter().collect(),
            linger,
            observation,
            _intercepted: intercepted,
            subscription,
            interest: None,
        });
        self.shared.stats.joins.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Answers a join and subscribes the client, after listing it and with the state, if that is wanted.
    pub(super) fn enter(
        &mut self,
        id: ChannelId,
        topic: &Topic,
        who: Subscriber,
        reply: &Payload,
        presence: &Watching,
        flush: &mut Flush,
    ) -> Result<Held, TrackError> {
        let (socket, way) = (&mut self.socket, Way::of(&self.client, &self.mailbox));
        let registry = &self.shared.registry;
        let (hears, own, tell) = match presence {
            Watching::Nothing => {
                let subscription = registry.subscribe_after(topic, who, || {
                    way.answer_join(socket, id, reply.bytes(), flush);
                });
                return Ok((None, None, subscription));
            }
            Watching::Diffs => (Hears::Changes, None, false),
            Watching::State { own } => (Hears::Changes, own.as_ref(), true),
            Watching::Count { own } => (Hears::Count, own.as_ref(), true),
        };
        let own = own.map(|(key, meta)| (key.as_str(), meta.as_slice()));
        let begin = |state: &State| {
            let who = Subscriber { presence_after: Some(state.version), ..who };
            registry.subscribe_after(topic, who, || {
                way.answer_join(socket, id, reply.bytes(), flush);
                if tell {
                    way.send_state(socket, id, state, flush);
                }
            })
        };
        let tracker = &self.shared.tracker;
        let (tracked, observation, subscription) = tracker.watch(topic, hears, own, begin)?;
        Ok((tracked, Some(observation), subscription))
    }

    fn hosted(&self, id: ChannelId) -> Option<&Hosted> {
        let (_, _, Some(Membership { stage: Stage::Other(other), .. })) =
            self.socket.channel(id)?
        else {
            return None;
        };
        match &**other {
            Other::Hosted(hosted) => Some(hosted),
            Other::Joining(_) | Other::Realtime(_) => None,
        }
    }
}

impl Hosting {
    /// The last channel of a topic that has not ended altogether.
    fn former(&self, topic: &Topic) -> Option<Arc<Seat>> {
        self.ending.iter().rfind(|seat| seat.topic() == topic).cloned()
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        let stopping = *self.shared.stopping.borrow() || !self.shared.drain.takes_clients();
        self.seat.end(if stopping { Reason::NodeStopping } else { Reason::Closed });
    }
}

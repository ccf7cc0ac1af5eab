//! What a channel's task and its client's socket share: the way to the client, and how far they are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use presence::Topic;
use tokio::sync::Notify;

use super::{
    NodeHandle, Payload, Reason, Reply, SendError, TrackError, channel::Watching, watchdog::Running,
};
use crate::{
    framing::Framing,
    pubsub::{self, Flush, Mailbox, SubscriberId, Subscription},
    socket::{EVENT_LEN_MAX, Frame, Letterhead, Ref, Status},
    tracker::{Hears, Interest, Observation, State, Tracked},
};

/// Keys that one channel may track.
const TRACKED_MAX: usize = 1_000;

/// One channel of one client, from its join to its end.
pub(crate) struct Seat {
    pub(super) node: NodeHandle,
    /// The type of its channel, for people.
    pub(super) name: &'static str,
    /// The socket's id.
    pub(super) socket_id: Option<Box<str>>,
    letterhead: Letterhead,
    framing: Framing,
    mailbox: Arc<Mailbox>,
    /// The socket's name for the channel.
    channel: u64,
    inner: Mutex<Inner>,
    /// The stage has changed, or the task is gone: somebody waits for it, in one place or more.
    changed: Notify,
    /// What the task does now.
    pub(super) running: Running,
}

struct Inner {
    stage: Stage,
    verdict: Option<Verdict>,
    place: Option<Place>,
    /// The task is.
    gone: bool,
}

enum Stage {
    /// The join is not answered.
    Joining,
    Joined,
    /// The client left: what it asked before is done first, then it gets its last frames.
    Leaving(Vec<Frame>),
    Over(Reason),
}

/// What the node does for the channel. Fields are dropped in this order: the client is taken off before
/// the node forgets that the topic is wanted here.
pub(crate) struct Place {
    pub(crate) tracked: BTreeMap<Box<str>, Tracked>,
    /// How long the client stays listed when its socket ends.
    pub(crate) linger: Duration,
    pub(crate) observation: Option<Observation>,
    /// Broadcasts for the task.
    pub(crate) _intercepted: Option<Subscription>,
    pub(crate) subscription: Subscription,
    /// While the client's socket does not hold it any more.
    pub(crate) interest: Option<Interest>,
}

/// What the task has the socket say, which alone knows the client's session.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Answer the join, and subscribe the client.
    Joined { reply: Payload, presence: Watching, linger: Duration },
    /// Refuse the join.
    Refused(Payload),
    /// Close the channel.
    Stopped,
    /// The channel has crashed, in its join or later.
    Crashed,
}

impl Seat {
    pub(crate) fn new(
        (node, name): (NodeHandle, &'static str),
        socket_id: Option<&str>,
        letterhead: Letterhead,
        (framing, mailbox): (Framing, &Arc<Mailbox>),
        channel: u64,
    ) -> Arc<Self> {
        let inner = Inner { stage: Stage::Joining, verdict: None, place: None, gone: false };
        Arc::new(Self {
            node,
            name,
            socket_id: socket_id.map(Box::from),
            letterhead,
            framing,
            mailbox: Arc::clone(mailbox),
            channel,
            inner: Mutex::new(inner),
            changed: Notify::new(),
            running: Running::default(),
        })
    }

    pub(crate) fn topic(&self) -> &Topic {
        self.letterhead.topic()
    }

    pub(super) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    // === the socket's side ===

    /// What the task has decided, once.
    pub(crate) fn take_verdict(&self) -> Option<Verdict> {
        self.lock().verdict.take()
    }

    /// The join is answered: the task goes on.
    pub(crate) fn joined(&self, place: Place) {
        let mut inner = self.lock();
        if let Stage::Joining = inner.stage {
            inner.stage = Stage::Joined;
            inner.place = Some(place);
            drop(inner);
            self.changed.notify_waiters();
        }
    }

    /// The client left. If it has been taken in, it gets the `farewell` of its session once all that it
    /// asked before is done.
    pub(crate) fn leave(&self, interest: Interest, farewell: impl FnOnce() -> Vec<Frame>) {
        let mut inner = self.lock();
        let Stage::Joined = inner.stage else {
            drop(inner);
            return self.end(Reason::Left);
        };
        inner.stage = Stage::Leaving(farewell());
        if let Some(place) = &mut inner.place {
            place.interest = Some(interest);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// The channel is over: nothing more reaches the client. One that the client left goes on until it
    /// has said farewell.
    pub(crate) fn end(&self, reason: Reason) {
        let inner = self.lock();
        if let Stage::Joining | Stage::Joined = inner.stage {
            self.finish(inner, reason);
        }
    }

    fn finish(&self, mut inner: MutexGuard<'_, Inner>, reason: Reason) {
        inner.stage = Stage::Over(reason);
        let mut place = inner.place.take();
        drop(inner);
        if let (Some(place), Reason::Left | Reason::Stopped) = (&mut place, reason) {
            std::mem::take(&mut place.tracked).into_values().for_each(Tracked::leave);
        }
        // Unsubscribing takes locks of its own.
        drop(place);
        self.changed.notify_waiters();
    }

    /// Whether the task has done its last, `terminate` too.
    pub(crate) fn is_gone(&self) -> bool {
        self.lock().gone
    }

    /// Diffs did not fit into the client's mailbox: a fresh state takes their place.
    pub(crate) fn resync(&self, tell: impl FnOnce(&State)) -> bool {
        let inner = self.lock();
        let Some(Place { observation: Some(observation), subscription, .. }) = &inner.place else {
            return false;
        };
        observation.resume(|state| {
            subscription.set_presence_after(state.version, || tell(state));
        });
        true
    }

    // === the task's side ===

    /// The task is gone. If it did not say why, it panicked outside of any callback.
    pub(super) fn abandoned(&self) {
        let mut inner = self.lock();
        inner.gone = true;
        let unsaid = inner.verdict.is_none() && !matches!(inner.stage, Stage::Over(_));
        drop(inner);
        if unsaid {
            self.give(Verdict::Crashed);
        }
        self.changed.notify_waiters();
        // Its socket may wait for that.
        self.mailbox.nudge();
    }

    /// Waits until the task has done its last.
    pub(super) async fn gone(&self) {
        loop {
            // First this: it is told of changes from here on.
            let changed = self.changed.notified();
            if self.is_gone() {
                return;
            }
            changed.await;
        }
    }

    /// Why nothing reaches the client any more, if so.
    pub(super) fn over(&self) -> Option<Reason> {
        match self.lock().stage {
            Stage::Joining | Stage::Joined | Stage::Leaving(_) => None,
            Stage::Over(reason) => Some(reason),
        }
    }

    /// Has the socket say something.
    pub(super) fn give(&self, verdict: Verdict) {
        self.lock().verdict = Some(verdict);
        self.mailbox.call(self.channel);
    }

    /// Waits until the join is answered; why it will not be.
    pub(super) async fn entered(&self) -> Result<(), Reason> {
        loop {
            // First this: it is told of changes from here on.
            let changed = self.changed.notified();
            match self.lock().stage {
                Stage::Joining => {}
                Stage::Joined | Stage::Leaving(_) => return Ok(()),
                Stage::Over(reason) => return Err(reason),
            }
            changed.await;
        }
    }

    /// Waits until the client is gone, or wants to be.
    pub(super) async fn ended(&self) -> Reason {
        loop {
            // First this: it is told of changes from here on.
            let changed = self.changed.notified();
            match self.lock().stage {
                Stage::Joining | Stage::Joined => {}
                Stage::Leaving(_) => return Reason::Left,
                Stage::Over(reason) => return reason,
            }
            changed.await;
        }
    }

    /// The task does no more: a client that left gets its last frames.
    pub(super) fn farewell(&self) {
        let mut flush = Flush::new();
        let mut inner = self.lock();
        if let Stage::Leaving(frames) = &mut inner.stage {
            for frame in std::mem::take(frames) {
                self.put(frame, &mut flush);
            }
        }
        if let Stage::Over(_) = inner.stage {
            return;
        }
        self.finish(inner, Reason::Left);
    }

    // === to the client ===

    pub(super) fn push(&self, event: &str, payload: &Payload) -> Result<(), SendError> {
        check_event(event)?;
        self.send(|| self.letterhead.message(event, payload.as_carried()))
    }

    pub(super) fn reply(&self, to: &Ref, reply: &Reply) {
        let status = if reply.ok { Status::Ok } else { Status::Error };
        // Nobody asks before the join is answered.
        let _ = self.send(|| self.letterhead.reply(to, status, reply.response.as_carried()));
    }

    fn send(&self, frame: impl FnOnce() -> Option<Frame>) -> Result<(), SendError> {
        // Written when it is dropped, which is after the lock.
        let mut flush = Flush::new();
        let inner = self.lock();
        match inner.stage {
            Stage::Joining => return Err(SendError::NotJoined),
            Stage::Joined | Stage::Leaving(_) => {}
            // There is nobody to tell, which is no fault of who does.
            Stage::Over(_) => return Ok(()),
        }
        match frame() {
            Some(frame) => self.put(frame, &mut flush),
            None => self.node.shared().registry.stats().count_formless(1),
        }
        drop(inner);
        Ok(())
    }

    fn put(&self, frame: Frame, flush: &mut Flush) {
        match self.framing.frame(frame) {
            Some(frame) => flush.reply(&self.mailbox, frame),
            None => self.node.shared().registry.stats().count_formless(1),
        }
    }

    /// For broadcasts that leave the client out; `None` unless it is joined.
    pub(super) fn subscriber(&self) -> Option<SubscriberId> {
        self.lock().place.as_ref().map(|place| place.subscription.id())
    }

    // === presence ===

    pub(super) fn track(&self, key: &str, meta: &[u8]) -> Result<(), TrackError> {
        let mut inner = self.lock();
        let Some(place) = &mut inner.place else {
            return inner.stage.without_place(TrackError::NotJoined);
        };
        if place.tracked.contains_key(key) {
            return Err(TrackError::AlreadyTracked(key.to_owned()));
        }
        if place.tracked.len() >= TRACKED_MAX {
            return Err(TrackError::TooMany { limit: TRACKED_MAX });
        }
        let tracked = self.node.shared().tracker.track(self.topic(), key, meta)?;
        place.tracked.insert(key.into(), tracked.lingering(place.linger));
        Ok(())
    }

    pub(super) fn update(&self, key: &str, meta: &[u8]) -> Result<(), TrackError> {
        let inner = self.lock();
        let Some(place) = &inner.place else {
            return inner.stage.without_place(TrackError::NotJoined);
        };
        let tracked = place.tracked.get(key);
        Ok(tracked.ok_or_else(|| TrackError::NotTracked(key.to_owned()))?.update(meta)?)
    }

    pub(super) fn untrack(&self, key: &str) -> bool {
        let tracked = self.lock().place.as_mut().and_then(|place| place.tracked.remove(key));
        tracked.map(Tracked::leave).is_some()
    }

    /// Tells the client who is there, and lets it hear of changes from then on.
    pub(super) fn watch(&self) -> Result<(), SendError> {
        let mut flush = Flush::new();
        let mut inner = self.lock();
        let Some(place) = &mut inner.place else {
            return inner.stage.without_place(SendError::NotJoined);
        };
        let begin = |state: &State| {
            place.subscription.set_presence_after(state.version, || {
                let payload = state.whole();
                let payload = pubsub::Payload::Json(&payload);
                if let Some(frame) = self.letterhead.message(state.event, payload) {
                    self.put(frame, &mut flush);
                }
            });
        };
        // Only listing a client can fail, and nobody is listed here.
        if let Ok((_, observation, ())) =
            self.node.shared().tracker.watch(self.topic(), Hears::Changes, None, begin)
        {
            place.observation = Some(observation);
        }
        drop(inner);
        Ok(())
    }

    /// Nothing panics while this is locked, so a poisoned lock guards nothing broken.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stage {
    /// What is asked of a channel that has no place: too early, or too late, which is no error.
    fn without_place<E>(&self, too_early: E) -> Result<(), E> {
        if let Self::Joining = self { Err(too_early) } else { Ok(()) }
    }
}

/// An event's name that a server may send.
pub(super) fn check_event(event: &str) -> Result<(), SendError> {
    if event.is_empty() || event.len() > EVENT_LEN_MAX || event.starts_with("phx_") {
        return Err(SendError::InvalidEvent(event.to_owned()));
    }
    Ok(())
}

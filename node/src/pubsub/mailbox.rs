//! What waits for one socket, and the way out of it.

mod queue;
mod write;

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::net::TcpStream;

use super::Flush;
pub use queue::{ITEM_OVERHEAD, Offer, Overflow};
use queue::{Item, LIMIT_MAX, Queue, Queued, take_off_written};
use write::{WRITE_FRAMES, Written, write, write_one};

/// Writes by whoever pushed before the owner has to go on: a mailbox that others fill as fast as it
/// is written must not keep anybody.
const WRITES_MAX: usize = 8;

/// The queue of one socket: everything on its way to one client.
///
/// Anyone may push. A push says through [`Flush`] who writes: with an [`Outlet::Socket`] that is
/// whoever pushed into it while it was empty, so that a broadcast costs no hop through a task;
/// the owner writes only when the client did not take all. With an [`Outlet::Owner`] the owner is
/// woken and drains.
///
/// What waits is bounded in bytes, broadcasts apart from replies; where nothing waits there is room for
/// one frame of any size. What is being written does not count: see [`Mailbox::new`]. Empty it owns no
/// memory but its own.
pub struct Mailbox {
    inner: Mutex<Inner>,
    outlet: Outlet,
    limit: u32,
    /// When its client was last heard; the unit is the caller's.
    heard: AtomicU32,
}

/// How frames leave a mailbox.
#[derive(Debug)]
pub enum Outlet {
    /// They are written as they are, by any thread.
    Socket(TcpStream),
    /// The owner takes them out: [`Mailbox::pop`].
    Owner,
}

/// Something the mailbox's owner has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The peers know that the channel's topic has a subscriber here: answer its join.
    Joined {
        /// The channel.
        channel: u64,
        /// False when a peer did not say so in time.
        confirmed: bool,
    },
    /// The channel's task has something for its client's session.
    Called {
        /// The channel.
        channel: u64,
    },
    /// Presence diffs of the channel did not fit, and all that did fit is written: write a fresh
    /// state and call [`Mailbox::resynced`]. Also when the channel is gone: else it is remembered for
    /// ever, and said again.
    Resync {
        /// The channel.
        channel: u64,
    },
    /// Nothing comes after this: close the socket.
    Close(CloseReason),
}

/// Why a socket is closed from within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client reads slower than it is written to: WebSocket code 1013.
    Slow,
    /// Nothing could be written to the client for a whole idle timeout: 1013.
    Stalled,
    /// The client said nothing for a whole idle timeout: 1002.
    Idle,
    /// Somebody disconnected the socket's id: 1001.
    Disconnected,
    /// The node stops: 1012.
    Shutdown,
    /// The client has gone; its mailbox is closed so that nothing is queued for nobody.
    Gone,
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits, or is written once the [`Flush`] is.
    Queued,
    /// It waits, and so many older ones of its channel were dropped for it.
    Displaced(usize),
    /// It was dropped, and maybe older ones with it: so many in all.
    Dropped(usize),
    /// It did not fit: this push has closed the mailbox with [`CloseReason::Slow`] and dropped
    /// what was queued.
    Overflow,
    /// A presence diff that did not fit, or that came after one: its channel gets a fresh state.
    Skipped,
    /// The mailbox was closed before.
    Closed,
}

/// The part of the limit that may wait without anybody having tried to write it.
const UNTRIED: u32 = 4;

/// In place of the time at which a client was heard.
const NOT_LISTENING: u32 = u32::MAX;

/// Bytes of answers that a client may leave unread before it gets no further ones.
pub const UNREAD_MAX: usize = 128 * 1024;

/// Kept small: there is one for each idle socket.
struct Inner {
    queue: Queue,
    /// Set while the owner waits; whoever has something for it takes it.
    waker: Option<Waker>,
    /// Joins and channels that the owner may go on with. Boxed because there are almost never any.
    #[expect(clippy::box_collection, reason = "one word in every idle socket instead of three")]
    joined: Option<Box<Vec<Control>>>,
    closed: Option<CloseReason>,
    /// The last words are queued.
    last: bool,
    phase: Phase,
    /// Since when nothing could be written, in the unit of `heard`; 0 when all could be.
    blocked: u32,
}

/// Who writes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody: nothing waits.
    Idle,
    /// A [`Flush`] has the mailbox.
    Flush,
    /// Somebody is writing, and looks again afterwards.
    Writing,
    /// Somebody is writing what was given up meanwhile, but for the rest of a frame.
    Cleared,
    /// The owner.
    Owner,
}

impl Mailbox {
    /// An empty mailbox where `limit` bytes of broadcasts may wait, each counted with
    /// [`ITEM_OVERHEAD`].
    ///
    /// For a client that does not read it holds at most the frame that is half written, and behind it
    /// `limit` bytes or one broadcast, and four times `limit` and one reply. Only while somebody is
    /// writing, twice the limit may wait behind what is being written.
    pub fn new(limit: usize, outlet: Outlet) -> Arc<Self> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX).min(LIMIT_MAX);
        Arc::new(Self {
            inner: Mutex::new(Inner {
                queue: Queue::default(),
                waker: None,
                joined: None,
                closed: None,
                last: false,
                phase: Phase::Idle,
                blocked: 0,
            }),
            outlet,
            limit,
            heard: AtomicU32::new(0),
        })
    }

    /// The client's connection, if frames are written to it directly.
    pub fn socket(&self) -> Option<&TcpStream> {
        match &self.outlet {
            Outlet::Socket(stream) => Some(stream),
            Outlet::Owner => None,
        }
    }

    // === filling ===

    /// Queues a broadcast for one of the socket's channels.
    pub fn push(self: &Arc<Self>, offer: Offer, frame: Bytes, flush: &mut Flush) -> Pushed {
        self.queue(frame.len(), flush, |queue, limit| queue.push(offer, frame, limit))
    }

    /// Queues several broadcasts for one of the socket's channels as one. False, and nothing is done,
    /// unless there is room for all and the client reads: else each has to find its own.
    pub(super) fn push_joined(
        self: &Arc<Self>,
        channel: u64,
        frames: &Bytes,
        count: usize,
        flush: &mut Flush,
    ) -> bool {
        let mut inner = self.relieve(frames.len());
        let limit = self.limit_in(inner.phase);
        let fits = inner.closed.is_none()
            && inner.phase != Phase::Owner
            && inner.queue.push_joined(channel, frames, count, limit);
        if fits {
            self.appended(inner, flush);
        }
        fits
    }

    /// Queues a presence diff for one of the socket's channels.
    pub fn push_presence(
        self: &Arc<Self>,
        channel: u64,
        frame: Bytes,
        flush: &mut Flush,
    ) -> Pushed {
        let pushed = self
            .queue(frame.len(), flush, |queue, limit| queue.push_presence(channel, frame, limit));
        if let Pushed::Dropped(_) = pushed { Pushed::Skipped } else { pushed }
    }

    /// Queues what the client itself asked for, in one piece or several.
    pub fn push_reply(
        self: &Arc<Self>,
        pieces: impl IntoIterator<Item = Bytes>,
        flush: &mut Flush,
    ) -> Pushed {
        self.queue(0, flush, |queue, limit| queue.push_reply(pieces, limit))
    }

    /// Queues the pieces of a presence state, which others share.
    pub fn push_state(
        self: &Arc<Self>,
        pieces: impl IntoIterator<Item = Bytes>,
        flush: &mut Flush,
    ) -> Pushed {
        self.queue(0, flush, |queue, _| queue.push_state(pieces))
    }

    /// Queues the last words after the mailbox was closed.
    pub fn push_last(self: &Arc<Self>, frame: Bytes, flush: &mut Flush) {
        let mut inner = self.lock();
        inner.last = true;
        inner.queue.push_reply([frame], LIMIT_MAX);
        self.appended(inner, flush);
    }

    /// Tells the owner that a join may go on.
    pub fn joined(&self, channel: u64, confirmed: bool) {
        let mut inner = self.lock();
        if inner.closed.is_none() {
            // At most as many as the socket has joins under way.
            inner.joined.get_or_insert_default().push(Control::Joined { channel, confirmed });
            wake(inner);
        }
    }

    /// Tells the owner that a channel's task wants something of it. For each channel twice at most: its
    /// join is answered, and it ends.
    pub fn call(&self, channel: u64) {
        let mut inner = self.lock();
        if inner.closed.is_none() {
            inner.joined.get_or_insert_default().push(Control::Called { channel });
            wake(inner);
        }
    }

    /// Has the owner look again at what it waits for outside of the mailbox.
    pub fn nudge(&self) {
        wake(self.lock());
    }

    /// Channels whose diffs are skipped: see [`Control::Resync`].
    pub fn stale(&self) -> Vec<u64> {
        self.lock().queue.all_stale().to_vec()
    }

    /// Diffs of the channel are queued again; call it under the lock that publishes them.
    pub fn resynced(&self, channel: u64) {
        self.lock().queue.resynced(channel);
    }

    /// Locks it. What nobody has had the time to write is written first if it becomes much with a
    /// broadcast of that length: it says nothing about the client.
    fn relieve(&self, len: usize) -> MutexGuard<'_, Inner> {
        let inner = self.lock();
        if inner.phase == Phase::Flush && !inner.queue.has_room_for(len, self.limit / UNTRIED) {
            drop(inner);
            self.flush();
            return self.lock();
        }
        inner
    }

    /// What may wait: twice the limit while somebody is about to find out whether the client takes it.
    const fn limit_in(&self, phase: Phase) -> u32 {
        match phase {
            Phase::Writing | Phase::Cleared => self.limit * 2,
            Phase::Idle | Phase::Flush | Phase::Owner => self.limit,
        }
    }

    fn queue(
        self: &Arc<Self>,
        len: usize,
        flush: &mut Flush,
        push: impl FnOnce(&mut Queue, u32) -> Queued,
    ) -> Pushed {
        let mut inner = self.relieve(len);
        if inner.closed.is_some() {
            return Pushed::Closed;
        }
        let limit = self.limit_in(inner.phase);
        let pushed = match push(&mut inner.queue, limit) {
            Queued::After(0) => Pushed::Queued,
            Queued::After(older) => Pushed::Displaced(older),
            Queued::Dropped(frames) => return Pushed::Dropped(frames),
            Queued::Full => {
                // A silent gap would be worse: a rejoin resynchronises.
                let dropped = inner.shut(CloseReason::Slow);
                wake(inner);
                drop(dropped);
                return Pushed::Overflow;
            }
        };
        self.appended(inner, flush);
        pushed
    }

    /// Sees to it that somebody writes what was appended.
    fn appended(self: &Arc<Self>, mut inner: MutexGuard<'_, Inner>, flush: &mut Flush) {
        match (&self.outlet, inner.phase) {
            (Outlet::Socket(_), Phase::Idle) => {
                inner.phase = Phase::Flush;
                drop(inner);
                flush.add(self);
            }
            (Outlet::Owner, _) => wake(inner),
            (Outlet::Socket(_), Phase::Flush | Phase::Writing | Phase::Cleared | Phase::Owner) => {}
        }
    }

    // === closing ===

    /// Closes the mailbox. The owner is told when it has written what waits; true unless it was
    /// closed before.
    pub fn close(&self, reason: CloseReason) -> bool {
        let mut inner = self.lock();
        if inner.closed.is_some() {
            return false;
        }
        inner.closed = Some(reason);
        wake(inner);
        true
    }

    /// Closes the mailbox of a client that is gone, and drops what waits.
    pub fn abandon(&self) {
        let mut inner = self.lock();
        let dropped = inner.shut(CloseReason::Gone);
        wake(inner);
        drop(dropped);
    }

    /// Why it was closed, if it was.
    pub fn closed(&self) -> Option<CloseReason> {
        self.lock().closed
    }

    // === writing ===

    /// Writes what waits, if a [`Flush`] is to: several may have the mailbox, and the first one writes.
    pub(super) fn flush(&self) {
        self.write_in(Phase::Flush);
    }

    /// Writes what waits, if it is the turn of those of that phase.
    fn write_in(&self, turn: Phase) {
        let Outlet::Socket(stream) = &self.outlet else {
            return;
        };
        let mut inner = self.lock();
        if inner.phase != turn {
            return;
        }
        for _ in 0..WRITES_MAX {
            if inner.queue.is_empty() {
                return self.flushed(inner);
            }
            inner.phase = Phase::Writing;
            let written;
            (inner, written) = match inner.queue.take_only() {
                Some(only) => self.write_only(stream, inner, only),
                None => self.write_many(stream, inner),
            };
            match written {
                Written::All => {}
                Written::Part => break,
                Written::Failed => {
                    drop(inner.shut(CloseReason::Gone));
                    // Not even the rest of a frame can be written.
                    inner.queue = Queue::default();
                    inner.phase = Phase::Idle;
                    return wake(inner);
                }
            }
        }
        inner.phase = Phase::Owner;
        wake(inner);
    }

    /// Writes the one item of a queue, without the lock.
    fn write_only<'a>(
        &'a self,
        stream: &TcpStream,
        inner: MutexGuard<'a, Inner>,
        only: Item,
    ) -> (MutexGuard<'a, Inner>, Written) {
        drop(inner);
        let (bytes, written) = write_one(stream, &only.frame);
        let mut inner = self.lock();
        if let Written::All = written {
            inner.blocked = 0;
        } else {
            inner.wrote(VecDeque::from([only]), bytes);
        }
        (inner, written)
    }

    /// Writes the oldest items of a queue, without the lock.
    fn write_many<'a>(
        &'a self,
        stream: &TcpStream,
        mut inner: MutexGuard<'a, Inner>,
    ) -> (MutexGuard<'a, Inner>, Written) {
        let taken = inner.queue.take(WRITE_FRAMES);
        drop(inner);
        let (bytes, written) = write(stream, &taken);
        let mut inner = self.lock();
        inner.wrote(taken, bytes);
        (inner, written)
    }

    /// All is written: those who wait for that are told.
    fn flushed(&self, mut inner: MutexGuard<'_, Inner>) {
        inner.phase = Phase::Idle;
        if inner.queue.stale().is_some() || inner.closed.is_some() || inner.joined.is_some() {
            wake(inner);
        }
    }

    /// Goes on writing for the owner: ready when all is written, or when somebody else writes.
    /// `now` is in the unit of [`Self::hear`], and never 0.
    pub fn poll_write(&self, cx: &mut Context<'_>, now: u32) -> Poll<()> {
        let Outlet::Socket(stream) = &self.outlet else {
            return Poll::Ready(());
        };
        loop {
            if self.lock().phase != Phase::Owner {
                return Poll::Ready(());
            }
            match stream.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => self.write_in(Phase::Owner),
                Poll::Ready(Err(_)) => {
                    self.abandon();
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    self.note_blocked(now);
                    return Poll::Pending;
                }
            }
        }
    }

    // === the owner ===

    /// What the owner has to do next. Pending, and the waker kept, when there is nothing.
    /// A closed mailbox says so at once, and again at every later call; one whose owner takes the frames
    /// out says so once they are taken, unless its client is slow.
    pub fn poll_control(&self, cx: &mut Context<'_>) -> Poll<Control> {
        let mut inner = self.lock();
        let is_behind = self.is_behind(&inner);
        if let Some(joined) = inner.joined.as_mut().filter(|_| !is_behind) {
            let control = joined.remove(0);
            if joined.is_empty() {
                inner.joined = None;
            }
            return Poll::Ready(control);
        }
        if let Some(reason) = inner.closed
            && (inner.queue.is_empty() || reason.cuts_short() || self.socket().is_some())
        {
            return Poll::Ready(Control::Close(reason));
        }
        if let Some(channel) = inner.queue.stale()
            && inner.queue.is_empty()
        {
            return Poll::Ready(Control::Resync { channel });
        }
        wait(inner, cx);
        Poll::Pending
    }

    /// Takes the oldest frame out of a mailbox with [`Outlet::Owner`]. Whether there is more to do
    /// says [`Self::poll_control`].
    pub fn pop(&self) -> Option<Bytes> {
        self.pop_up_to(usize::MAX)
    }

    /// Takes it if it has at most so many bytes.
    pub fn pop_up_to(&self, bytes_max: usize) -> Option<Bytes> {
        let mut inner = self.lock();
        if inner.queue.first()?.frame.len() > bytes_max {
            return None;
        }
        let frame = inner.queue.take(1).pop_front()?.frame;
        if inner.queue.is_empty() {
            self.flushed(inner);
        }
        Some(frame)
    }

    /// Ready when all that was pushed is written.
    pub fn poll_flushed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let inner = self.lock();
        if inner.queue.is_empty() && inner.phase == Phase::Idle {
            return Poll::Ready(());
        }
        wait(inner, cx);
        Poll::Pending
    }

    /// Frames waiting.
    pub fn len(&self) -> usize {
        self.lock().queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes waiting or half written, each item counted with [`ITEM_OVERHEAD`].
    pub fn bytes(&self) -> usize {
        self.lock().queue.bytes()
    }

    /// Whether the client leaves so many answers unread that it should be asked and answered no more
    /// until it has read them.
    pub fn has_unread(&self) -> bool {
        self.is_behind(&self.lock())
    }

    fn is_behind(&self, inner: &Inner) -> bool {
        let owners = self.socket().is_none() || inner.phase == Phase::Owner;
        owners && inner.queue.answer_bytes() > UNREAD_MAX
    }

    // === time ===

    /// The client was heard; `now` in any unit, never 0.
    pub fn hear(&self, now: u32) {
        self.heard.store(now, Relaxed);
    }

    /// The client is not listened to for now: until it is [heard](Self::hear), its silence is no fault.
    pub fn stop_listening(&self) {
        self.heard.store(NOT_LISTENING, Relaxed);
    }

    /// The client took something.
    pub fn note_progress(&self) {
        self.lock().blocked = 0;
    }

    /// The client takes nothing more for now; `now` is in the unit of [`Self::hear`], and never 0.
    pub fn note_blocked(&self, now: u32) {
        let mut inner = self.lock();
        if inner.blocked == 0 {
            inner.blocked = now;
        }
    }

    /// Closes the mailbox of a client that was not heard, or took nothing, for `timeout`; else when
    /// to ask again.
    pub fn expire(&self, now: u32, timeout: u32) -> Option<u32> {
        let Inner { blocked, last, .. } = *self.lock();
        let heard = match self.heard.load(Relaxed) {
            NOT_LISTENING => now,
            heard => heard,
        };
        if last {
            // Its owner has a timeout of its own.
            return None;
        }
        if blocked != 0 && now.saturating_sub(blocked) >= timeout {
            self.close_now(CloseReason::Stalled);
            return None;
        }
        if now.saturating_sub(heard) >= timeout {
            self.close_now(CloseReason::Idle);
            return None;
        }
        let first = if blocked == 0 { heard } else { heard.min(blocked) };
        Some(first.saturating_add(timeout))
    }

    /// Closes without waiting for what is queued.
    fn close_now(&self, reason: CloseReason) {
        let mut inner = self.lock();
        let dropped = inner.shut(reason);
        wake(inner);
        drop(dropped);
    }

    /// Nothing panics while this is locked, so a poisoned lock guards nothing broken.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CloseReason {
    /// Whether what is queued is not worth waiting for.
    const fn cuts_short(self) -> bool {
        match self {
            Self::Slow | Self::Stalled | Self::Idle | Self::Gone => true,
            Self::Disconnected | Self::Shutdown => false,
        }
    }
}

impl Inner {
    /// So many bytes of what was taken are written.
    fn wrote(&mut self, mut taken: VecDeque<Item>, bytes: usize) {
        take_off_written(&mut taken, bytes);
        if self.phase == Phase::Cleared {
            self.queue.put_back_begun(taken);
        } else {
            self.queue.put_back(taken);
        }
        if bytes > 0 {
            self.blocked = 0;
        }
    }

    /// Closes without waiting for what is queued, and gives that back, to be dropped without the lock.
    fn shut(&mut self, reason: CloseReason) -> VecDeque<Item> {
        if reason.cuts_short() {
            self.closed = Some(reason);
        }
        if self.phase == Phase::Writing {
            self.phase = Phase::Cleared;
        }
        self.queue.clear()
    }
}

/// Keeps the owner's waker.
fn wait(mut inner: MutexGuard<'_, Inner>, cx: &Context<'_>) {
    let former = match &inner.waker {
        Some(waker) if waker.will_wake(cx.waker()) => None,
        _ => inner.waker.replace(cx.waker().clone()),
    };
    drop(inner);
    // Outside the lock: the last waker of a task may drop it, and it may own this mailbox.
    drop(former);
}

/// Wakes the owner, if it waits, after the lock is released: it may run at once.
fn wake(mut inner: MutexGuard<'_, Inner>) {
    let waker = inner.waker.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl fmt::Debug for Mailbox {
    /// Leaves the frames out: they are the clients' own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("Mailbox")
            .field("len", &inner.queue.len())
            .field("bytes", &inner.queue.bytes())
            .field("limit", &self.limit)
            .field("phase", &inner.phase)
            .field("closed", &inner.closed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! What waits for one socket.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

/// Bytes that a queued item counts besides its frame's: a flood of tiny frames, or of frames that
/// many mailboxes share, is bounded by what it costs here.
pub const ITEM_OVERHEAD: usize = 64;

/// Replies may fill this many times the limit: the client asked for each, so they are never
/// dropped, but one that asks without reading is slow as well.
const REPLY_LIMITS: u32 = 4;

/// The highest limit, 512 MiB; sums of bytes then fit into 32 bits.
const LIMIT_MAX: u32 = u32::MAX / 8;

/// The queue of one socket: everything on its way to one client.
///
/// Anyone may push; one owner drains, and is woken. It is bounded in bytes, broadcasts apart from
/// replies, and takes one frame of any size when it holds none. Empty it owns no memory but its
/// own 80 bytes.
pub struct Mailbox(Mutex<Inner>);

/// What waits in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A broadcast to one of the socket's channels.
    Frame {
        /// The subscription's [`channel`](super::Subscriber::channel).
        channel: u64,
        /// The encoded broadcast.
        frame: Bytes,
    },
    /// A presence diff to one of the socket's channels.
    Presence {
        /// The subscription's [`channel`](super::Subscriber::channel).
        channel: u64,
        /// The topic's presence version after it: not for a client whose state is as new.
        version: u64,
        /// The encoded diff.
        frame: Bytes,
    },
    /// Asked for by the client itself.
    Reply {
        /// The encoded reply.
        frame: Bytes,
    },
    /// For the owner, not for the wire.
    Control(Control),
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
    /// Presence diffs of the channel did not fit: call [`Mailbox::resynced`], then write a fresh
    /// state. Also when the channel is gone: else it is remembered for ever.
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
    /// It waits for the owner.
    Queued,
    /// It did not fit: this push has closed the mailbox with [`CloseReason::Slow`] and dropped
    /// what was queued.
    Overflow,
    /// A presence diff that did not fit, or that came after one: its channel gets a fresh state.
    Skipped,
    /// The mailbox was closed before.
    Closed,
}

/// Kept small: there is one for each idle socket.
struct Inner {
    queue: VecDeque<Item>,
    /// Set while the owner waits; whoever gives it something takes it.
    waker: Option<Waker>,
    /// Channels whose diffs are skipped. Boxed because it is almost always absent.
    stale: Option<Box<Stale>>,
    /// Bytes of queued broadcasts and diffs.
    data: u32,
    /// Bytes of queued replies and controls.
    replies: u32,
    limit: u32,
    closed: Option<CloseReason>,
}

/// Channels, at most as many as the socket has: a handful, so they are scanned.
struct Stale(Vec<u64>);

impl Mailbox {
    /// An empty mailbox for `limit` bytes of broadcasts, each counted with [`ITEM_OVERHEAD`].
    pub fn new(limit: usize) -> Arc<Self> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX).min(LIMIT_MAX);
        Arc::new(Self(Mutex::new(Inner {
            queue: VecDeque::new(),
            waker: None,
            stale: None,
            data: 0,
            replies: 0,
            limit,
            closed: None,
        })))
    }

    /// Queues a broadcast for one of the socket's channels.
    pub fn push(&self, channel: u64, frame: Bytes) -> Pushed {
        let inner = self.lock();
        if inner.closed.is_some() {
            Pushed::Closed
        } else if inner.has_room_for_data(&frame) {
            queue(inner, Item::Frame { channel, frame })
        } else {
            overflow(inner)
        }
    }

    /// Queues an answer. Only a client that lets four times the limit of answers wait is slow.
    pub fn push_reply(&self, frame: Bytes) -> Pushed {
        self.push_answer(Item::Reply { frame })
    }

    /// Queues a presence diff for one of the socket's channels, unless it does not fit: then this
    /// and all later diffs of the channel are skipped until [`resynced`](Self::resynced), and the
    /// owner gets one [`Control::Resync`].
    pub fn push_presence(&self, channel: u64, version: u64, frame: Bytes) -> Pushed {
        let mut inner = self.lock();
        if inner.closed.is_some() {
            Pushed::Closed
        } else if inner.stale.as_ref().is_some_and(|stale| stale.0.contains(&channel)) {
            Pushed::Skipped
        } else if inner.has_room_for_data(&frame) {
            queue(inner, Item::Presence { channel, version, frame })
        } else {
            inner.stale.get_or_insert_with(|| Box::new(Stale(Vec::new()))).0.push(channel);
            // Bounded without a look at the limit: one for each channel.
            queue(inner, Item::Control(Control::Resync { channel }));
            Pushed::Skipped
        }
    }

    /// Accepts the channel's diffs again. Take the fresh state after this, not before: a diff
    /// between the two would be lost, while one that comes twice is told by its version.
    pub fn resynced(&self, channel: u64) {
        let mut inner = self.lock();
        if let Some(stale) = &mut inner.stale {
            stale.0.retain(|known| *known != channel);
            if stale.0.is_empty() {
                inner.stale = None;
            }
        }
    }

    /// Tells the owner something, in line with the frames; it counts as a reply.
    pub fn control(&self, control: Control) -> Pushed {
        match control {
            Control::Close(reason) if self.close(reason) => Pushed::Queued,
            Control::Close(_) => Pushed::Closed,
            Control::Joined { .. } | Control::Resync { .. } => {
                self.push_answer(Item::Control(control))
            }
        }
    }

    /// Closes the mailbox: the owner gets what is queued and then [`Control::Close`]. The first
    /// reason stays; returns whether it is this one.
    pub fn close(&self, reason: CloseReason) -> bool {
        let mut inner = self.lock();
        let first = inner.closed.is_none();
        if first {
            inner.closed = Some(reason);
            wake(inner);
        }
        first
    }

    /// Closes the mailbox and drops what is queued: for an owner that reads no more.
    pub fn abandon(&self) {
        let mut inner = self.lock();
        let dropped = inner.shut(CloseReason::Gone);
        wake(inner);
        drop(dropped);
    }

    /// Why it is closed, if it is.
    pub fn closed(&self) -> Option<CloseReason> {
        self.lock().closed
    }

    /// Ready when it is closed, whatever is still queued; for an owner that cannot write.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let mut inner = self.lock();
        if let Some(reason) = inner.closed {
            return Poll::Ready(reason);
        }
        let former = inner.waker.replace(cx.waker().clone());
        drop(inner);
        drop(former);
        Poll::Pending
    }

    /// Moves items to the end of `into`, oldest first, until they count `budget` bytes or none is
    /// left; at least one. Pending, and the waker kept, when there is none. What is taken no longer
    /// counts here. A closed mailbox ends with [`Control::Close`], which every later call repeats.
    pub fn poll_drain(
        &self,
        cx: &mut Context<'_>,
        into: &mut VecDeque<Item>,
        budget: usize,
    ) -> Poll<()> {
        let mut inner = self.lock();
        if inner.queue.is_empty() && inner.closed.is_none() {
            let former = inner.waker.replace(cx.waker().clone());
            drop(inner);
            // Outside the lock: the last waker of a task may drop it, and it may own this mailbox.
            drop(former);
            return Poll::Pending;
        }
        inner.take(into, budget);
        if let (true, Some(reason)) = (inner.queue.is_empty(), inner.closed) {
            into.push_back(Item::Control(Control::Close(reason)));
        }
        Poll::Ready(())
    }

    /// Items waiting.
    pub fn len(&self) -> usize {
        self.lock().queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes waiting, each item counted with [`ITEM_OVERHEAD`].
    pub fn bytes(&self) -> usize {
        let inner = self.lock();
        inner.data as usize + inner.replies as usize
    }

    fn push_answer(&self, item: Item) -> Pushed {
        let inner = self.lock();
        if inner.closed.is_some() {
            Pushed::Closed
        } else if inner.has_room_for_answer(&item) {
            queue(inner, item)
        } else {
            overflow(inner)
        }
    }

    /// Nothing panics while this is locked, so a poisoned lock guards nothing broken.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Mailbox {
    /// Leaves the frames out: they are the clients' own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("Mailbox")
            .field("len", &inner.queue.len())
            .field("data", &inner.data)
            .field("replies", &inner.replies)
            .field("limit", &inner.limit)
            .field("closed", &inner.closed)
            .finish_non_exhaustive()
    }
}

/// Appends the item, then wakes the owner.
fn queue(mut inner: MutexGuard<'_, Inner>, item: Item) -> Pushed {
    let cost = cost(&item);
    let sum = inner.sum_of(&item);
    *sum = sum.saturating_add(cost);
    inner.queue.push_back(item);
    wake(inner);
    Pushed::Queued
}

/// Closes the mailbox of a slow client. A silent gap would be worse: a rejoin resynchronises.
fn overflow(mut inner: MutexGuard<'_, Inner>) -> Pushed {
    let dropped = inner.shut(CloseReason::Slow);
    wake(inner);
    drop(dropped);
    Pushed::Overflow
}

/// Wakes the owner, if it waits, after the lock is released: it may run at once.
fn wake(mut inner: MutexGuard<'_, Inner>) {
    let waker = inner.waker.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn cost_of_frame(frame: &Bytes) -> u32 {
    u32::try_from(frame.len() + ITEM_OVERHEAD).unwrap_or(u32::MAX)
}

fn cost(item: &Item) -> u32 {
    match item {
        Item::Frame { frame, .. } | Item::Presence { frame, .. } | Item::Reply { frame } => {
            cost_of_frame(frame)
        }
        Item::Control(_) => cost_of_frame(&Bytes::new()),
    }
}

impl Inner {
    fn has_room_for_data(&self, frame: &Bytes) -> bool {
        self.data == 0 || self.data.saturating_add(cost_of_frame(frame)) <= self.limit
    }

    fn has_room_for_answer(&self, item: &Item) -> bool {
        self.replies == 0 || self.replies.saturating_add(cost(item)) <= self.limit * REPLY_LIMITS
    }

    /// The sum that an item counts in.
    fn sum_of(&mut self, item: &Item) -> &mut u32 {
        match item {
            Item::Frame { .. } | Item::Presence { .. } => &mut self.data,
            Item::Reply { .. } | Item::Control(_) => &mut self.replies,
        }
    }

    /// Moves items out; the queue's memory goes with the last.
    fn take(&mut self, into: &mut VecDeque<Item>, budget: usize) {
        if self.data as usize + self.replies as usize <= budget {
            let mut all = mem::take(&mut self.queue);
            (self.data, self.replies) = (0, 0);
            if into.is_empty() {
                *into = all;
            } else {
                into.append(&mut all);
            }
            return;
        }
        let mut taken = 0;
        while taken < budget.max(1) {
            let Some(item) = self.queue.pop_front() else {
                break;
            };
            let cost = cost(&item);
            let sum = self.sum_of(&item);
            *sum = sum.saturating_sub(cost);
            taken += cost as usize;
            into.push_back(item);
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    /// Closes, and gives back what was queued, to be dropped without the lock.
    fn shut(&mut self, reason: CloseReason) -> (VecDeque<Item>, Option<Box<Stale>>) {
        self.closed.get_or_insert(reason);
        (self.data, self.replies) = (0, 0);
        (mem::take(&mut self.queue), self.stale.take())
    }
}

#[cfg(test)]
mod tests;

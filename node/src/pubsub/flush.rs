//! Mailboxes that were pushed into, on their way to be written.

use std::{
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    task::{Context, Poll},
    thread,
    time::Instant,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::runtime::Handle;

use super::{Broadcast, Latency, Mailbox, Pushed, Registry, SubscriberId, run::Run};

/// Mailboxes that are written at once, by whoever has pushed into them; more are written in slices.
const AT_ONCE: usize = 96;

/// Mailboxes that a writer writes before others get a turn: a fraction of a millisecond. Clients on
/// this machine want their turn as well, or what they have to read piles up until all is written.
const SLICE: usize = 32;

/// Bytes that one input may queue before they are written: a quarter of a mailbox by default.
const UNWRITTEN_MAX: usize = 64 * 1024;

/// Mailboxes that somebody has to write.
///
/// Whoever handles one input (a read of a client, a batch of a peer) collects here, and writes when
/// all of the input is handled: what several broadcasts give one socket goes out in one write.
/// Dropping it writes as well.
#[derive(Debug, Default)]
#[must_use = "what it holds is to be written"]
pub struct Flush {
    dirty: Vec<Arc<Mailbox>>,
    begun: Option<Begun>,
    /// Broadcasts that more may follow.
    run: Option<Run>,
    /// What is to be said after the run.
    replies: Vec<(Arc<Mailbox>, Bytes)>,
    /// Bytes taken since something was written.
    unwritten: usize,
}

/// The writing of a [`Flush`]. Await it before more input is taken: so a publisher is as fast as its
/// subscribers are written, and their mailboxes do not fill.
#[derive(Debug)]
#[must_use = "input should wait for it"]
pub struct Writing(Option<Arc<Shared>>);

/// What the writers of one flush share.
#[derive(Debug)]
struct Shared {
    dirty: Vec<Arc<Mailbox>>,
    /// The first mailbox that nobody writes yet.
    next: AtomicUsize,
    /// Writers at work.
    left: AtomicUsize,
    waker: AtomicWaker,
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    at: Instant,
    latency: Arc<Latency>,
}

/// One of the tasks that write; the last one that ends tells the waiting.
struct Writer(Arc<Shared>);

impl Flush {
    /// Nothing to write yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// For input that was read just now: counts how long it takes until all of it is written.
    pub fn of_input(latency: &Arc<Latency>) -> Self {
        let begun = Begun { at: Instant::now(), latency: Arc::clone(latency) };
        Self { dirty: Vec::new(), begun: Some(begun), run: None, replies: Vec::new(), unwritten: 0 }
    }

    /// Takes a broadcast. Those that follow each other on one topic reach its subscribers together.
    pub(super) fn broadcast(
        &mut self,
        registry: &Arc<Registry>,
        broadcast: &Broadcast<'_>,
        except: Option<SubscriberId>,
    ) {
        let len = broadcast.event().len() + broadcast.payload().len();
        if self.unwritten > 0 && self.unwritten + len > UNWRITTEN_MAX {
            self.write_now();
        }
        self.unwritten += len;
        if !self.run.as_ref().is_some_and(|run| run.takes(broadcast, except)) {
            self.settle();
        }
        self.run.get_or_insert_with(|| Run::new(registry, broadcast, except)).push(broadcast);
    }

    /// Queues an answer behind the broadcasts that were taken before it: a sender's own copy goes
    /// before its acknowledgement.
    pub fn reply(&mut self, mailbox: &Arc<Mailbox>, frame: Bytes) {
        self.note(frame.len());
        if self.run.is_some() {
            self.replies.push((Arc::clone(mailbox), frame));
        } else {
            push_reply(mailbox, frame, self);
        }
    }

    /// Counts bytes that were queued past it.
    pub const fn note(&mut self, bytes: usize) {
        self.unwritten += bytes;
    }

    /// Writes what is there if it is much: input that causes more than a mailbox holds must not fill
    /// those of clients that read. Never under a lock.
    pub fn lighten(&mut self) {
        if self.is_heavy() {
            self.write_now();
        }
    }

    /// Whether it should be written before more is taken.
    pub const fn is_heavy(&self) -> bool {
        self.unwritten > UNWRITTEN_MAX
    }

    fn write_now(&mut self) {
        self.settle();
        write_all(&mem::take(&mut self.dirty));
        self.unwritten = 0;
    }

    /// Hands on the broadcasts that were taken. Before anything else is done to subscriptions.
    pub fn settle(&mut self) {
        if let Some(run) = self.run.take() {
            run.deliver(self);
            for (mailbox, frame) in mem::take(&mut self.replies) {
                push_reply(&mailbox, frame, self);
            }
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.dirty.is_empty() && self.run.is_none()
    }

    /// Room for the subscribers of a large topic.
    pub(super) fn reserve(&mut self, mailboxes: usize) {
        self.dirty.reserve(mailboxes);
    }

    pub(super) fn add(&mut self, mailbox: &Arc<Mailbox>) {
        self.dirty.push(Arc::clone(mailbox));
    }

    /// Writes: a few mailboxes at once, many in slices by a task for each worker thread, between which
    /// others get their turn.
    pub fn write(mut self) -> Writing {
        self.settle();
        let dirty = mem::take(&mut self.dirty);
        let begun = self.begun.take();
        let runtime = (dirty.len() > AT_ONCE).then(Handle::try_current).and_then(Result::ok);
        match runtime {
            Some(runtime) => spread(&runtime, dirty, begun),
            None => {
                write_all(&dirty);
                if !dirty.is_empty()
                    && let Some(begun) = begun
                {
                    begun.ended();
                }
                Writing(None)
            }
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.settle();
        write_all(&self.dirty);
    }
}

fn push_reply(mailbox: &Arc<Mailbox>, frame: Bytes, flush: &mut Flush) {
    // Overflow closes the mailbox, which its owner sees next.
    let (Pushed::Queued
    | Pushed::Displaced(_)
    | Pushed::Dropped(_)
    | Pushed::Overflow
    | Pushed::Skipped
    | Pushed::Closed) = mailbox.push_reply([frame], flush);
}

fn write_all(dirty: &[Arc<Mailbox>]) {
    for mailbox in dirty {
        mailbox.flush();
    }
}

fn spread(runtime: &Handle, dirty: Vec<Arc<Mailbox>>, begun: Option<Begun>) -> Writing {
    let writers = runtime.metrics().num_workers().max(1);
    let shared = Arc::new(Shared {
        dirty,
        next: AtomicUsize::new(0),
        left: AtomicUsize::new(writers),
        waker: AtomicWaker::new(),
        begun,
    });
    for _ in 0..writers {
        let writer = Writer(Arc::clone(&shared));
        // Its end is noticed by the writer itself, whatever becomes of the task.
        drop(runtime.spawn(writer.run()));
    }
    Writing(Some(shared))
}

impl Writer {
    async fn run(self) {
        let dirty = &self.0.dirty;
        loop {
            let start = self.0.next.fetch_add(SLICE, Relaxed);
            let Some(rest) = dirty.get(start..).filter(|rest| !rest.is_empty()) else {
                return;
            };
            write_all(&rest[..rest.len().min(SLICE)]);
            thread::yield_now();
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.0.left.fetch_sub(1, AcqRel) == 1 {
            if let Some(begun) = &self.0.begun {
                begun.ended();
            }
            self.0.waker.wake();
        }
    }
}

impl Begun {
    fn ended(&self) {
        self.latency.record(self.at.elapsed());
    }
}

impl Writing {
    /// Whether there is nothing to wait for.
    pub const fn is_done(&self) -> bool {
        self.0.is_none()
    }
}

impl Future for Writing {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(shared) = &self.0 {
            shared.waker.register(cx.waker());
            if shared.left.load(Acquire) > 0 {
                return Poll::Pending;
            }
            self.0 = None;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests;

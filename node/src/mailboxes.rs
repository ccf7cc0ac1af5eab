//! All mailboxes of a node: a stopping node closes them, and those of silent clients end.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use slab::Slab;

use crate::pubsub::{CloseReason, Mailbox};

/// Slots of the wheel; a mailbox is looked at again within less than that many ticks.
const SLOTS: u32 = 64;

/// Ticks of an idle timeout: so exactly it is kept.
const TIMEOUT_TICKS: u32 = 50;

/// Mailboxes that a stopping node closes at a time, and the gap between: others are served meanwhile.
const CLOSED_AT_ONCE: usize = 128;
const CLOSE_GAP: Duration = Duration::from_millis(5);

/// As few are closed at a time, and so long is the gap, where there is no hurry.
const GENTLE_MIN: usize = 4;
const GENTLE_GAP: Duration = Duration::from_millis(20);

/// No mailbox, and no slot.
const NONE: u32 = u32::MAX;

/// The mailboxes of all sockets and subscriptions.
///
/// Those of sockets are on a wheel of time: one timer for all instead of one for each. A mailbox is
/// looked at once in an idle timeout, however often its client is heard.
#[derive(Debug)]
pub(crate) struct Mailboxes {
    inner: Mutex<Inner>,
    /// Ticks since the start, beginning with 1.
    now: AtomicU32,
    tick: Duration,
}

#[derive(Debug)]
struct Inner {
    entries: Slab<Entry>,
    /// The first entry of each slot's list.
    slots: [u32; SLOTS as usize],
    /// All are closed for this; so is whatever comes later.
    closed: Option<CloseReason>,
}

#[derive(Debug)]
struct Entry {
    mailbox: Arc<Mailbox>,
    slot: u32,
    before: u32,
    after: u32,
}

/// Keeps a mailbox among them. Dropping it ends that.
#[derive(Debug)]
#[must_use = "dropping it takes the mailbox out"]
pub(crate) struct Listed {
    mailboxes: Arc<Mailboxes>,
    key: u32,
}

impl Mailboxes {
    /// None yet. The clients of sockets have to be heard within `idle_timeout`.
    pub(crate) fn new(idle_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                entries: Slab::new(),
                slots: [NONE; SLOTS as usize],
                closed: None,
            }),
            now: AtomicU32::new(1),
            tick: (idle_timeout / TIMEOUT_TICKS).max(Duration::from_millis(1)),
        })
    }

    /// The time, for [`Mailbox::hear`].
    pub(crate) fn now(&self) -> u32 {
        self.now.load(Relaxed)
    }

    /// Adds the mailbox of a subscription that nobody has to be heard on.
    pub(crate) fn add(self: &Arc<Self>, mailbox: &Arc<Mailbox>) -> Listed {
        self.insert(mailbox, NONE)
    }

    /// Adds the mailbox of a socket.
    pub(crate) fn add_socket(self: &Arc<Self>, mailbox: &Arc<Mailbox>) -> Listed {
        let now = self.now();
        mailbox.hear(now);
        self.insert(mailbox, (now + TIMEOUT_TICKS) % SLOTS)
    }

    fn insert(self: &Arc<Self>, mailbox: &Arc<Mailbox>, slot: u32) -> Listed {
        let mut inner = self.lock();
        let entry = Entry { mailbox: Arc::clone(mailbox), slot: NONE, before: NONE, after: NONE };
        // Far fewer than 2^32 fit into a machine.
        let key = u32::try_from(inner.entries.insert(entry)).unwrap_or(NONE);
        inner.link(key, slot);
        let closed = inner.closed;
        drop(inner);
        if let Some(reason) = closed {
            mailbox.close(reason);
        }
        Listed { mailboxes: Arc::clone(self), key }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// As [`close`](Self::close), those that are there a few at a time, over about that long.
    pub(crate) async fn close_over(&self, reason: CloseReason, span: Duration) {
        let steps = span.as_nanos() / GENTLE_GAP.as_nanos();
        let steps = usize::try_from(steps).unwrap_or(usize::MAX).max(1);
        let mut mailboxes = self.close_late(reason);
        let at_once = mailboxes.len().div_ceil(steps).max(GENTLE_MIN);
        while !mailboxes.is_empty() {
            let rest = mailboxes.len().saturating_sub(at_once);
            for mailbox in mailboxes.drain(rest..) {
                mailbox.close(reason);
            }
            if rest > 0 {
                tokio::time::sleep(GENTLE_GAP).await;
            }
        }
    }

    /// Closes whatever comes from now on; those that are there.
    fn close_late(&self, reason: CloseReason) -> Vec<Arc<Mailbox>> {
        let mut inner = self.lock();
        inner.closed = Some(reason);
        inner.entries.iter().map(|(_, entry)| Arc::clone(&entry.mailbox)).collect()
    }

    /// Closes all that are there, some at a time, and all that come later at once.
    pub(crate) async fn close(&self, reason: CloseReason) {
        let mut mailboxes = self.close_late(reason);
        while !mailboxes.is_empty() {
            let rest = mailboxes.len().saturating_sub(CLOSED_AT_ONCE);
            for mailbox in mailboxes.drain(rest..) {
                mailbox.close(reason);
            }
            if rest > 0 {
                tokio::time::sleep(CLOSE_GAP).await;
            }
        }
    }

    /// Closes the mailboxes of clients that are silent, for as long as the node lives.
    pub(crate) async fn run(&self) {
        let started = Instant::now();
        loop {
            tokio::time::sleep(self.tick).await;
            // Ticks that were slept through, as on a paused machine, are made up for.
            let ticks = started.elapsed().as_nanos() / self.tick.as_nanos();
            let until = u32::try_from(ticks).unwrap_or(NONE - SLOTS).saturating_add(1);
            for now in self.now()..until {
                self.turn(now + 1);
            }
        }
    }

    /// One tick: asks the mailboxes of its slot.
    fn turn(&self, now: u32) {
        self.now.store(now, Relaxed);
        let due = self.lock().take(now % SLOTS);
        for (key, mailbox) in due {
            // Asked without the lock: it may wake the socket's task.
            if let Some(then) = mailbox.expire(now, TIMEOUT_TICKS) {
                let then = then.clamp(now + 1, now + SLOTS - 1);
                self.lock().link_again(key, &mailbox, then % SLOTS);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn entry(&mut self, key: u32) -> Option<&mut Entry> {
        self.entries.get_mut(key as usize)
    }

    fn link(&mut self, key: u32, slot: u32) {
        if slot == NONE {
            return;
        }
        let first = std::mem::replace(&mut self.slots[slot as usize], key);
        if let Some(first) = self.entry(first) {
            first.before = key;
        }
        if let Some(entry) = self.entry(key) {
            (entry.slot, entry.before, entry.after) = (slot, NONE, first);
        }
    }

    /// Unless the key has gone to another mailbox meanwhile.
    fn link_again(&mut self, key: u32, mailbox: &Arc<Mailbox>, slot: u32) {
        let known = self.entry(key);
        if known.is_some_and(|entry| entry.slot == NONE && Arc::ptr_eq(&entry.mailbox, mailbox)) {
            self.link(key, slot);
        }
    }

    fn remove(&mut self, key: u32) -> Option<Entry> {
        let entry = self.entries.try_remove(key as usize)?;
        if entry.slot != NONE {
            match self.entry(entry.before) {
                Some(before) => before.after = entry.after,
                None => self.slots[entry.slot as usize] = entry.after,
            }
            if let Some(after) = self.entry(entry.after) {
                after.before = entry.before;
            }
        }
        Some(entry)
    }

    /// Takes all out of a slot.
    fn take(&mut self, slot: u32) -> Vec<(u32, Arc<Mailbox>)> {
        let mut due = Vec::new();
        let mut next = std::mem::replace(&mut self.slots[slot as usize], NONE);
        while let Some(entry) = self.entry(next) {
            due.push((next, Arc::clone(&entry.mailbox)));
            (entry.slot, entry.before) = (NONE, NONE);
            next = std::mem::replace(&mut entry.after, NONE);
        }
        due
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        // The last handle may go with it: it is dropped after the lock.
        let _entry = self.mailboxes.lock().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pubsub::Outlet;

    const TIMEOUT: Duration = Duration::from_secs(50);

    fn mailbox() -> Arc<Mailbox> {
        Mailbox::new(1024, Outlet::Owner)
    }

    #[tokio::test]
    async fn a_stopping_node_closes_those_that_come_late_as_well() {
        let mailboxes = Mailboxes::new(TIMEOUT);
        let [early, gone, late] = [(); 3].map(|()| mailbox());
        let _early = mailboxes.add(&early);
        drop(mailboxes.add(&gone));
        mailboxes.close(CloseReason::Shutdown).await;
        let _late = mailboxes.add(&late);
        assert_eq!(early.closed(), Some(CloseReason::Shutdown));
        assert_eq!(gone.closed(), None);
        assert_eq!(late.closed(), Some(CloseReason::Shutdown));
    }

    #[tokio::test]
    async fn clients_are_sent_away_a_few_at_a_time() {
        let mailboxes = Mailboxes::new(TIMEOUT);
        let all: Vec<_> = (0..30).map(|_| mailbox()).collect();
        let _listed: Vec<_> = all.iter().map(|one| mailboxes.add(one)).collect();
        let is_closed = |one: &Arc<Mailbox>| one.closed() == Some(CloseReason::Shutdown);
        let closing = mailboxes.close_over(CloseReason::Shutdown, GENTLE_GAP * 3);
        let mut closing = std::pin::pin!(closing);
        assert!(futures_util::poll!(&mut closing).is_pending());
        assert_eq!(all.iter().filter(|one| is_closed(one)).count(), 10);
        let late = mailbox();
        let _late = mailboxes.add(&late);
        assert!(is_closed(&late));
        closing.await;
        assert!(all.iter().all(is_closed));
    }

    #[test]
    fn a_silent_client_ends_after_the_timeout_and_one_that_is_heard_does_not() {
        let mailboxes = Mailboxes::new(TIMEOUT);
        let [silent, heard, watched] = [(); 3].map(|()| mailbox());
        let _listed = [mailboxes.add_socket(&silent), mailboxes.add_socket(&heard)];
        let _watched = mailboxes.add(&watched);
        let start = mailboxes.now();
        for now in start + 1..start + 500 {
            mailboxes.turn(now);
            if now % 30 == 0 {
                heard.hear(now);
            }
            let expected = (now - start >= TIMEOUT_TICKS).then_some(CloseReason::Idle);
            assert_eq!(silent.closed(), expected, "at tick {now}");
        }
        assert_eq!((heard.closed(), watched.closed()), (None, None));
    }

    #[test]
    fn mailboxes_come_and_go_in_any_order() {
        let mailboxes = Mailboxes::new(TIMEOUT);
        let all: Vec<_> = (0..10).map(|_| mailbox()).collect();
        let mut listed: Vec<_> = all.iter().map(|one| mailboxes.add_socket(one)).collect();
        for at in [9, 4, 0, 3] {
            drop(listed.remove(at));
        }
        let later = mailbox();
        listed.push(mailboxes.add_socket(&later));
        for now in 2..=TIMEOUT_TICKS + 1 {
            mailboxes.turn(now);
        }
        let closed = all.iter().filter(|one| one.closed().is_some()).count();
        assert_eq!((closed, later.closed()), (6, Some(CloseReason::Idle)));
        drop(listed);
        assert_eq!(mailboxes.len(), 0);
    }
}

//! What waits for a channel's callbacks. It is bounded, and whoever fills it waits: the client's socket
//! is not read, tasks of the application's are told or wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, mpsc};

use super::{ChannelGone, socket::Asked};
use crate::pubsub::Mailbox;

/// Events of the client that wait for one channel, and messages of the application's tasks.
const EVENTS_MAX: usize = 1_000;
const INFOS_MAX: usize = 1_000;

/// Bytes of the payloads of those events. A single one of any size may wait when no other does.
const BYTES_MAX: usize = 256 * 1024;

/// Something for a channel's callbacks.
pub(super) enum Message<I> {
    Asked(Asked),
    Info(I),
}

/// A channel's inbox, whatever its type.
pub(crate) trait Inbox: Send + Sync {
    /// Takes a client's event, and gives it back when there is no room: then the socket's mailbox is
    /// [nudged](Mailbox::nudge) as soon as there is, or the channel takes nothing more.
    fn offer(&self, asked: Asked) -> Result<(), Asked>;
}

/// The way into an inbox.
pub(super) struct Sender<I> {
    queue: mpsc::Sender<Message<I>>,
    room: Arc<Room>,
}

/// The way out.
pub(super) struct Receiver<I> {
    queue: mpsc::Receiver<Message<I>>,
    room: Arc<Room>,
}

/// Bounds the queue.
struct Room {
    taken: Mutex<Taken>,
    infos: Semaphore,
    /// The socket's.
    mailbox: Arc<Mailbox>,
}

/// What events take up.
#[derive(Default)]
struct Taken {
    events: usize,
    bytes: usize,
    /// The socket waits for room.
    wanted: bool,
}

/// The inbox of a channel on a socket with this mailbox.
pub(super) fn inbox<I>(mailbox: &Arc<Mailbox>) -> (Sender<I>, Receiver<I>) {
    // Both have their own room, so that neither keeps the other out: the channel itself is never full.
    let (sender, receiver) = mpsc::channel(EVENTS_MAX + INFOS_MAX);
    let room = Arc::new(Room {
        taken: Mutex::default(),
        infos: Semaphore::new(INFOS_MAX),
        mailbox: Arc::clone(mailbox),
    });
    (Sender { queue: sender, room: Arc::clone(&room) }, Receiver { queue: receiver, room })
}

impl<I: Send> Inbox for Sender<I> {
    fn offer(&self, asked: Asked) -> Result<(), Asked> {
        let mut taken = self.room.lock();
        if self.queue.is_closed() {
            // One that has ended by itself answers nothing any more, and its end is on its way.
            return Ok(());
        }
        let bytes = taken.bytes + asked.payload.bytes().len();
        if taken.events >= EVENTS_MAX || taken.events > 0 && bytes > BYTES_MAX {
            taken.wanted = true;
            return Err(asked);
        }
        taken.events += 1;
        taken.bytes = bytes;
        // Under the lock, so that nothing is taken out before it is counted. It fails on a closed one.
        let _ = self.queue.try_send(Message::Asked(asked));
        Ok(())
    }
}

impl<I> Sender<I> {
    pub(super) fn try_send(&self, info: I) -> Result<(), ChannelGone> {
        if self.queue.is_closed() {
            return Err(ChannelGone::Ended);
        }
        let room = self.room.infos.try_acquire().map_err(|_| ChannelGone::Full)?;
        room.forget();
        self.queue.try_send(Message::Info(info)).map_err(|_| ChannelGone::Ended)
    }

    pub(super) async fn send(&self, info: I) -> Result<(), ChannelGone> {
        let room = tokio::select! {
            biased;
            () = self.queue.closed() => return Err(ChannelGone::Ended),
            room = self.room.infos.acquire() => room.map_err(|_| ChannelGone::Ended)?,
        };
        room.forget();
        self.queue.try_send(Message::Info(info)).map_err(|_| ChannelGone::Ended)
    }

    /// Waits until nothing more is taken.
    pub(super) async fn closed(&self) {
        self.queue.closed().await;
    }

    /// Messages of tasks that find room.
    pub(super) fn room(&self) -> usize {
        self.room.infos.available_permits()
    }
}

impl<I> Clone for Sender<I> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), room: Arc::clone(&self.room) }
    }
}

impl<I> Receiver<I> {
    /// The next message; `None` once all are taken that came before it was closed. Nothing is lost when
    /// it is given up.
    pub(super) async fn recv(&mut self) -> Option<Message<I>> {
        let message = self.queue.recv().await?;
        match &message {
            Message::Asked(asked) => self.room.give_back(asked.payload.bytes().len()),
            Message::Info(_) => self.room.infos.add_permits(1),
        }
        Some(message)
    }

    /// Messages that wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Takes nothing more.
    pub(super) fn close(&mut self) {
        self.queue.close();
        self.room.tell(self.room.lock());
    }
}

impl<I> Drop for Receiver<I> {
    fn drop(&mut self) {
        self.close();
    }
}

impl Room {
    fn give_back(&self, bytes: usize) {
        let mut taken = self.lock();
        taken.events -= 1;
        taken.bytes -= bytes;
        self.tell(taken);
    }

    /// Has the socket offer again what found no room.
    fn tell(&self, mut taken: MutexGuard<'_, Taken>) {
        let wanted = std::mem::take(&mut taken.wanted);
        drop(taken);
        if wanted {
            self.mailbox.nudge();
        }
    }

    /// Nothing panics while this is locked, so a poisoned lock guards nothing broken.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        task::{Context, Poll, Wake},
    };

    use super::*;
    use crate::{app::Payload, pubsub::Outlet, socket::Ref};

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A socket that waits, and its channel.
    fn waiting() -> (Arc<Wakes>, Sender<u8>, Receiver<u8>) {
        let (mailbox, wakes) = (Mailbox::new(1024, Outlet::Owner), Arc::<Wakes>::default());
        let waker = Arc::clone(&wakes).into();
        assert_eq!(mailbox.poll_control(&mut Context::from_waker(&waker)), Poll::Pending);
        let (sender, receiver) = inbox(&mailbox);
        (wakes, sender, receiver)
    }

    fn event(len: usize) -> Asked {
        Asked { event: "new".into(), payload: Payload::binary(vec![0; len]), reference: Ref::NULL }
    }

    /// How many of these events are taken.
    fn fill(sender: &Sender<u8>, len: usize) -> usize {
        (0..=EVENTS_MAX).take_while(|_| sender.offer(event(len)).is_ok()).count()
    }

    #[tokio::test]
    async fn events_are_bounded_in_number_and_in_bytes_and_one_of_any_size_is_taken() {
        for (len, fits) in [(0, EVENTS_MAX), (BYTES_MAX / 4, 4), (BYTES_MAX * 9, 1)] {
            let (_, sender, mut receiver) = waiting();
            assert_eq!(fill(&sender, len), fits);
            assert!(receiver.recv().await.is_some());
            assert_eq!(fill(&sender, len), 1, "of {len} bytes");
        }
    }

    #[tokio::test]
    async fn a_socket_that_found_no_room_is_woken_once_there_is() {
        let (wakes, sender, mut receiver) = waiting();
        assert_eq!(fill(&sender, BYTES_MAX), 1);
        assert_eq!(wakes.0.load(Relaxed), 0);
        assert!(receiver.recv().await.is_some());
        assert_eq!(wakes.0.load(Relaxed), 1);
        assert!(sender.offer(event(0)).is_ok());
        assert!(receiver.recv().await.is_some());
        assert_eq!(wakes.0.load(Relaxed), 1, "nobody waits");
    }

    #[tokio::test]
    async fn a_socket_that_found_no_room_is_woken_when_the_channel_ends() {
        for drop_it in [true, false] {
            let (wakes, sender, mut receiver) = waiting();
            assert_eq!(fill(&sender, BYTES_MAX), 1);
            let kept = if drop_it {
                drop(receiver);
                None
            } else {
                receiver.close();
                Some(receiver)
            };
            assert_eq!(wakes.0.load(Relaxed), 1);
            assert!(sender.offer(event(BYTES_MAX)).is_ok(), "nobody takes it");
            drop(kept);
        }
    }

    #[tokio::test]
    async fn messages_of_tasks_have_room_of_their_own_and_wait_for_it() {
        let (_, sender, mut receiver) = waiting();
        assert_eq!(fill(&sender, 0), EVENTS_MAX);
        for _ in 0..INFOS_MAX {
            assert_eq!(sender.try_send(7), Ok(()));
        }
        assert_eq!(sender.try_send(0), Err(ChannelGone::Full));
        let waits = tokio::spawn({
            let sender = sender.clone();
            async move { sender.send(7).await }
        });
        for _ in 0..=EVENTS_MAX {
            assert!(receiver.recv().await.is_some());
        }
        assert_eq!(waits.await.expect("no panic"), Ok(()));
        let late = tokio::spawn({
            let sender = sender.clone();
            async move { sender.send(8).await }
        });
        receiver.close();
        assert_eq!(late.await.expect("no panic"), Err(ChannelGone::Ended));
        assert_eq!(sender.try_send(9), Err(ChannelGone::Ended));
    }
}

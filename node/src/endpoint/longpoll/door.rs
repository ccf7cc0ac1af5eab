//! The way into one session: its requests come from any task, and one task serves them.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use cluster::wire::ClientFrame;
use futures_util::task::AtomicWaker;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// What a poll brings.
#[derive(Debug)]
pub(crate) enum Polled {
    /// The session has ended.
    Gone,
    /// Nothing in time, or a later poll takes over.
    Nothing,
    Messages(Batch),
}

/// What became of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    /// The session has ended.
    Gone,
    /// The session has taken them.
    Taken,
    /// One could not be decoded, which has ended the session.
    Undecodable,
}

/// Messages on their way to the client. Unless they are [taken](Self::take), the next poll gets them.
#[derive(Debug)]
#[must_use = "dropping it puts the messages back"]
pub(crate) struct Batch {
    messages: Bytes,
    /// `None` once they are taken.
    door: Option<Arc<Door>>,
}

/// Frames of the client that wait for the session.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) frames: Vec<ClientFrame>,
    pub(super) done: oneshot::Sender<Posted>,
    /// The next ones wait until these are done.
    _turn: OwnedSemaphorePermit,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Door {
    asked: Mutex<Asked>,
    /// Of the session's task.
    waker: AtomicWaker,
    /// One POST at a time, in the order of arrival.
    turns: Arc<Semaphore>,
}

/// What is asked of the session, or was.
#[derive(Debug, Default)]
struct Asked {
    /// The poll that waits.
    poll: Option<oneshot::Sender<Polled>>,
    /// The session knows of that poll.
    noticed: bool,
    frames: Option<Frames>,
    unread: Unread,
    ended: bool,
}

/// Messages that left the mailbox and may not have reached the client.
#[derive(Debug, Default)]
enum Unread {
    #[default]
    None,
    /// They are being written: what comes after them waits.
    Writing,
    /// They were not taken.
    Returned(Bytes),
    /// Nobody can say whether they were taken: giving them again might double them.
    Unknown,
}

/// What the session has to do for its polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polling {
    /// A poll has come, whose window begins.
    Begun,
    /// A poll waits.
    Waiting,
    /// None does, but messages are being written.
    Writing,
    /// Nobody polls.
    Idle,
    /// Nobody can say what the client has heard: the session has to end.
    Lost,
}

impl Door {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            asked: Mutex::default(),
            waker: AtomicWaker::new(),
            turns: Arc::new(Semaphore::new(1)),
        })
    }

    // === for requests ===

    /// Waits for messages. A poll that is waiting gets none any more. Dropping the future takes the
    /// poll back.
    pub(super) async fn poll(&self) -> Polled {
        let (answer, answered) = oneshot::channel();
        let former = {
            let mut asked = self.lock();
            if asked.ended {
                return Polled::Gone;
            }
            asked.noticed = false;
            asked.poll.replace(answer)
        };
        if let Some(former) = former {
            // Its client may have gone.
            let _ = former.send(Polled::Nothing);
        }
        self.waker.wake();
        // Whoever gives the answer up without one has ended.
        answered.await.unwrap_or(Polled::Gone)
    }

    /// Hands frames to the session, after those of earlier calls, and waits until it has taken them.
    pub(super) async fn post(&self, frames: Vec<ClientFrame>) -> Posted {
        let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else {
            return Posted::Gone;
        };
        let (done, taken) = oneshot::channel();
        {
            let mut asked = self.lock();
            if asked.ended {
                return Posted::Gone;
            }
            asked.frames = Some(Frames { frames, done, _turn: turn });
        }
        self.waker.wake();
        taken.await.unwrap_or(Posted::Gone)
    }

    // === for the session ===

    /// Has the session's task woken when something is asked.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// What there is to do for polls. A poll whose client has gone is none.
    pub(super) fn polling(&self, cx: &mut Context<'_>) -> Polling {
        let mut asked = self.lock();
        if asked.poll.as_mut().is_some_and(|poll| poll.poll_closed(cx) == Poll::Ready(())) {
            asked.poll = None;
        }
        let noticed = mem::replace(&mut asked.noticed, true);
        match (&asked.poll, &asked.unread) {
            (_, Unread::Unknown) => Polling::Lost,
            (Some(_), _) if noticed => Polling::Waiting,
            (Some(_), _) => Polling::Begun,
            (None, Unread::Writing) => Polling::Writing,
            (None, Unread::None | Unread::Returned(_)) => Polling::Idle,
        }
    }

    /// Answers the waiting poll, if there is one, with what it was not given before or else with
    /// `messages`. False when nothing was given.
    pub(super) fn answer(self: &Arc<Self>, messages: impl FnOnce() -> Option<Bytes>) -> bool {
        let mut asked = self.lock();
        if asked.poll.is_none() {
            return false;
        }
        let messages = match mem::take(&mut asked.unread) {
            Unread::Returned(messages) => Some(messages),
            Unread::None => messages(),
            unread @ (Unread::Writing | Unread::Unknown) => {
                asked.unread = unread;
                None
            }
        };
        let Some(messages) = messages else {
            return false;
        };
        asked.unread = Unread::Writing;
        let poll = asked.poll.take();
        drop(asked);
        if let Some(poll) = poll {
            // Without a client any more they come back, now that the lock is free.
            drop(poll.send(Polled::Messages(Batch { messages, door: Some(Arc::clone(self)) })));
        }
        true
    }

    /// The window of the waiting poll is over.
    pub(super) fn answer_nothing(&self) {
        let poll = self.lock().poll.take();
        if let Some(poll) = poll {
            // Its client may have gone.
            let _ = poll.send(Polled::Nothing);
        }
    }

    /// The frames that wait.
    pub(super) fn take_frames(&self) -> Option<Frames> {
        self.lock().frames.take()
    }

    /// Nothing is served any more; whoever waits is told.
    pub(super) fn end(&self) {
        let ended = Asked { ended: true, ..Asked::default() };
        let asked = mem::replace(&mut *self.lock(), ended);
        // Whoever waits hears it now, with the lock free.
        drop(asked);
    }

    fn settle(&self, unread: Unread) {
        let mut asked = self.lock();
        if !asked.ended {
            asked.unread = unread;
        }
        drop(asked);
        self.waker.wake();
    }

    /// Nothing panics while this is locked, so a poisoned lock guards nothing broken.
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    /// The messages: elements of a JSON array, with commas between.
    pub(crate) fn messages(&self) -> &Bytes {
        &self.messages
    }

    /// The client has them, as far as can be told.
    pub(crate) fn take(mut self) {
        if let Some(door) = self.door.take() {
            door.settle(Unread::None);
        }
    }

    /// Whoever was handed them cannot be asked whether the client has them.
    pub(crate) fn lose(mut self) {
        if let Some(door) = self.door.take() {
            door.settle(Unread::Unknown);
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(door) = self.door.take() {
            door.settle(Unread::Returned(mem::take(&mut self.messages)));
        }
    }
}

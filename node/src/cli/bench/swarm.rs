//! Many sockets: opened some at a time, and watched until they are quiet.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    time::Duration,
};

use futures_util::{TryStreamExt as _, stream};
use tokio::time::{Instant, sleep};

use super::{
    super::Failure,
    client::{Endpoint, Lost, OpenError},
};

/// How often a swarm is asked whether it is quiet.
const LOOK: Duration = Duration::from_millis(100);

/// What all sockets of a run share.
#[derive(Debug, Default)]
pub(super) struct Swarm {
    opened: Cell<u64>,
    frames: Cell<u64>,
    lost: Cell<u64>,
    first_loss: RefCell<Option<String>>,
}

impl Swarm {
    /// Opens sockets 0 to `count`, so many at a time. The first that fails ends it.
    pub(super) async fn open<F>(
        &self,
        count: u64,
        concurrency: usize,
        open: impl Fn(u64) -> F,
    ) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let opening = stream::iter((0..count).map(Ok::<_, Failure>)).try_for_each_concurrent(
            concurrency,
            async |number| {
                open(number).await?;
                self.opened.set(self.opened.get() + 1);
                Ok(())
            },
        );
        match (opening.await, self.opened.get()) {
            (Err(failure), opened) => Err(explained(failure, opened)),
            (Ok(()), _) => self.intact(),
        }
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// Notes that a frame came.
    pub(super) fn note_frame(&self) {
        self.frames.set(self.frames.get() + 1);
    }

    /// Notes that a socket ended.
    pub(super) fn note_loss(&self, why: &Lost) {
        self.lost.set(self.lost.get() + 1);
        self.first_loss.borrow_mut().get_or_insert_with(|| why.to_string());
    }

    /// How many sockets ended.
    pub(super) fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// Why the first of them did.
    pub(super) fn first_loss(&self) -> Option<String> {
        self.first_loss.borrow().clone()
    }

    /// Fails if a socket ended before anything was measured.
    pub(super) fn intact(&self) -> Result<(), Failure> {
        match &*self.first_loss.borrow() {
            Some(why) => Err(Failure::failed(format_args!(
                "{} of {} sockets did not last: {why}",
                self.lost.get(),
                self.opened.get()
            ))),
            None => Ok(()),
        }
    }

    /// Waits until no frame has come for `quiet`, at most for `limit`.
    pub(super) async fn settle(&self, quiet: Duration, limit: Duration) -> Result<(), Failure> {
        let started = Instant::now();
        let mut seen = (self.frames.get(), started);
        while seen.1.elapsed() < quiet && started.elapsed() < limit {
            sleep(LOOK).await;
            if self.frames.get() != seen.0 {
                seen = (self.frames.get(), Instant::now());
            }
        }
        self.intact()
    }
}

/// A failure of a socket when so many others were open: limits may be why.
pub(super) fn explained(failure: Failure, opened: u64) -> Failure {
    if opened > 0
        && let Failure::Unreachable(why) = failure
    {
        return Failure::Unreachable(format!(
            "{why} ({opened} sockets were open: are http.max_connections and the node's own limit \
             of file descriptors high enough?)"
        ));
    }
    failure
}

/// How a socket that does not open ends a run.
pub(super) fn not_opened(endpoint: &Endpoint, error: &OpenError) -> Failure {
    match error {
        OpenError::Connect(_) | OpenError::Late(_) | OpenError::Lost(_) => {
            Failure::Unreachable(format!("{endpoint}: {error}"))
        }
        OpenError::Upgrade(_) | OpenError::Refused { .. } => {
            Failure::failed(format_args!("{endpoint}: {error}"))
        }
    }
}

/// A name that no other run has, fit for URLs, topics and JSON.
pub(super) fn run_name() -> String {
    format!("{:08x}", rand::random::<u32>())
}

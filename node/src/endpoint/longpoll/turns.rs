//! Whose POST is read next: of one session's, one at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cluster::wire::SessionId;
use foldhash::fast::RandomState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// POSTs of one session that may be under way on one node.
///
/// Former releases of the official client send each message in a POST of its own, without waiting for the
/// one before it.
const POSTS_MAX: usize = 128;

/// The POSTs that this node reads or has still to read, for whatever node's sessions. Bodies are large, and
/// a client can send them faster than its session takes them: they are read only when it is their turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    lines: Arc<Mutex<Lines>>,
}

type Lines = HashMap<SessionId, Line, RandomState>;

#[derive(Debug)]
struct Line {
    /// For one at a time, in the order of arrival.
    next: Arc<Semaphore>,
    /// How many there are, the one that is read among them.
    posts: usize,
}

/// Allows one POST to be read. Dropping it lets the next one go on.
#[derive(Debug)]
#[must_use = "dropping it ends the turn"]
pub(super) struct Turn {
    _next: OwnedSemaphorePermit,
    _place: Place,
}

/// A place in a session's line.
#[derive(Debug)]
struct Place {
    lines: Arc<Mutex<Lines>>,
    session: SessionId,
}

impl Turns {
    /// Waits until the session's former POSTs are done; `None` at once when too many wait.
    pub(super) async fn wait(&self, session: SessionId) -> Option<Turn> {
        let (place, next) = {
            let mut lines = lock(&self.lines);
            let line = lines
                .entry(session)
                .or_insert_with(|| Line { next: Arc::new(Semaphore::new(1)), posts: 0 });
            if line.posts >= POSTS_MAX {
                return None;
            }
            line.posts += 1;
            let next = Arc::clone(&line.next);
            (Place { lines: Arc::clone(&self.lines), session }, next)
        };
        // It is never closed.
        let next = next.acquire_owned().await.ok()?;
        Some(Turn { _next: next, _place: place })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = lock(&self.lines);
        if let Some(line) = lines.get_mut(&self.session) {
            line.posts -= 1;
            if line.posts == 0 {
                lines.remove(&self.session);
            }
        }
    }
}

/// Nothing panics while this is locked, so a poisoned lock guards nothing broken.
fn lock(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    const ANN: SessionId = [1; 16];
    const BOB: SessionId = [2; 16];

    #[tokio::test]
    async fn one_post_of_a_session_is_read_at_a_time_in_the_order_of_their_coming() {
        let turns = Turns::default();
        let first = turns.wait(ANN).await;
        let mut second = pin!(turns.wait(ANN));
        let mut third = pin!(turns.wait(ANN));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(turns.wait(BOB).now_or_never().flatten().is_some(), "others do not wait for it");
        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        drop(second.await);
        assert!(third.await.is_some());
        assert!(lock(&turns.lines).is_empty(), "nothing is left of them");
    }

    #[tokio::test]
    async fn a_session_has_so_many_posts_and_no_more() {
        let turns = Turns::default();
        let reading = turns.wait(ANN).await;
        let mut waiting: Vec<_> = (1..POSTS_MAX).map(|_| Box::pin(turns.wait(ANN))).collect();
        for post in &mut waiting {
            assert!(post.now_or_never().is_none());
        }
        assert!(turns.wait(ANN).await.is_none());
        waiting.pop();
        assert!(
            turns.wait(ANN).now_or_never().is_none(),
            "one that was given up has left the line"
        );
        drop((reading, waiting));
        assert!(lock(&turns.lines).is_empty());
    }
}

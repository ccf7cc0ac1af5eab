//! All long-poll sessions of a node.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cluster::wire::{ClientFrame, SessionId};
use foldhash::fast::RandomState;

use crate::{
    endpoint::{
        connection::Connection,
        longpoll::{
            door::{Door, Polled, Posted},
            session::Session,
        },
        upgrade::Client,
    },
    node::Shared,
    pubsub::Outlet,
};

/// The sessions whose requests this node serves, for itself and for its peers.
#[derive(Debug)]
pub(crate) struct Sessions {
    doors: Mutex<HashMap<SessionId, Arc<Door>, RandomState>>,
    /// As many as there may be connections.
    max: usize,
    window: Duration,
    stats: Stats,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Sessions refused as there were too many.
    pub(crate) refused: AtomicU64,
    /// Requests handed to the node of their session.
    pub(crate) forwarded: AtomicU64,
}

/// Keeps a session findable, and its door open. Dropping it ends that.
#[derive(Debug)]
#[must_use = "dropping it closes the session's door"]
pub(super) struct Entry {
    sessions: Arc<Sessions>,
    id: SessionId,
    door: Arc<Door>,
}

impl Sessions {
    /// None yet. A poll waits for at most `window`.
    pub(crate) fn new(max: usize, window: Duration) -> Arc<Self> {
        Arc::new(Self { doors: Mutex::default(), max, window, stats: Stats::default() })
    }

    /// Opens a session for a client; `None` when there are too many.
    pub(super) fn open(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        client: Client,
    ) -> Option<SessionId> {
        // 128 random bits: who knows a session's id is its client.
        let id = rand::random();
        let entry = self.enter(id)?;
        let connection = Connection::new(shared, client, Outlet::Owner);
        shared.tasks.spawn(Session::new(connection, entry));
        Some(id)
    }

    pub(super) fn enter(self: &Arc<Self>, id: SessionId) -> Option<Entry> {
        let mut doors = self.lock();
        if doors.len() >= self.max {
            self.stats.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let door = Door::new();
        doors.insert(id, Arc::clone(&door));
        Some(Entry { sessions: Arc::clone(self), id, door })
    }

    /// See [`Door::poll`].
    pub(super) async fn poll(&self, id: SessionId) -> Polled {
        match self.find(id) {
            Some(door) => door.poll().await,
            None => Polled::Gone,
        }
    }

    /// See [`Door::post`].
    pub(super) async fn post(&self, id: SessionId, frames: Vec<ClientFrame>) -> Posted {
        match self.find(id) {
            Some(door) => door.post(frames).await,
            None => Posted::Gone,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    fn find(&self, id: SessionId) -> Option<Arc<Door>> {
        self.lock().get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Door>, RandomState>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    pub(super) fn door(&self) -> &Arc<Door> {
        &self.door
    }

    pub(super) fn window(&self) -> Duration {
        self.sessions.window
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.id);
        self.door.end();
    }
}

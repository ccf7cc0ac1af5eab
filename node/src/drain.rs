//! Takes a node out of its cluster: clients move to others, and nobody sees them absent.
//!
//! The node says that it is not ready, and tells its peers that it drains. It sends its clients away a few
//! at a time, with a code that makes them connect again; each stays listed for its lease. Then the node
//! waits until the peers have them all, or the leases are over, and ends. [`crate::Node::drain`] and
//! `POST /api/drain` begin it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep_until};
use tracing::info;

use crate::{node::Shared, pubsub::CloseReason};

/// The time over which clients are sent away, at most; a part of the time that there is.
const SPREAD_MAX: Duration = Duration::from_secs(5);

/// How often the node looks whether all are gone.
const LOOK: Duration = Duration::from_millis(50);

/// Where a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody asked for it.
    Serving,
    /// Not ready, and serving: load balancers look elsewhere.
    Unready,
    /// Clients are sent away, and none taken.
    Closing,
    /// All are gone from here, and not all are back elsewhere.
    Waiting,
    /// The peers are told goodbye.
    Leaving,
}

impl Stage {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Unready => "unready",
            Self::Closing => "closing",
            Self::Waiting => "waiting",
            Self::Leaving => "leaving",
        }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    /// When it began, and has to be over.
    pub(crate) times: Option<(Instant, Instant)>,
    /// When the last lease is over.
    lease_until: Option<Instant>,
}

/// The drain of one node, asked for or not.
#[derive(Debug)]
pub(crate) struct Drain {
    asked: watch::Sender<bool>,
    progress: Mutex<Progress>,
}

impl Drain {
    pub(crate) fn new() -> Self {
        let progress = Progress { stage: Stage::Serving, times: None, lease_until: None };
        Self { asked: watch::Sender::new(false), progress: Mutex::new(progress) }
    }

    /// Asks for it; once is enough.
    pub(crate) fn ask(&self) {
        let mut progress = self.lock();
        if progress.stage == Stage::Serving {
            progress.stage = Stage::Unready;
        }
        drop(progress);
        self.asked.send_replace(true);
    }

    /// Whether it was asked for: then the node is not ready.
    pub(crate) fn is_asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Whether clients are taken.
    pub(crate) fn takes_clients(&self) -> bool {
        matches!(self.progress().stage, Stage::Serving | Stage::Unready)
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.lock()
    }

    /// What is left of the leases of clients that are not back yet.
    pub(crate) fn lease_left(&self) -> Duration {
        let until = self.lock().lease_until;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    fn enter(&self, stage: Stage) {
        self.lock().stage = stage;
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until somebody asks, then drains. When it returns, the node can stop.
pub(crate) async fn run(shared: &Shared) {
    let drain = &shared.drain;
    // Fails only when nobody can ask any more.
    if drain.asked.subscribe().wait_for(|asked| *asked).await.is_err() {
        return;
    }
    let settings = shared.config.drain;
    let began = Instant::now();
    let end = began + settings.timeout;
    drain.lock().times = Some((began, end));
    let peers = shared.peers.linked();
    info!(node = %shared.name, sockets = shared.mailboxes.len(), peers, "draining");
    shared.peers.drain().await;
    // Without peers that take clients there is nowhere to come back to.
    let lease = || if shared.peers.takers() > 0 { settings.lease } else { Duration::ZERO };
    // A load balancer may cut the clients of a node that is not ready.
    shared.tracker.lend(lease());
    sleep_until((began + settings.delay).min(end).into()).await;
    drain.enter(Stage::Closing);
    let lease = lease();
    shared.tracker.lend(lease);
    let spread = SPREAD_MAX.min(lease / 3).min(end.saturating_duration_since(Instant::now()) / 3);
    shared.mailboxes.close_over(CloseReason::Shutdown, spread).await;
    while shared.stats.sockets.load(Ordering::Relaxed) > 0 && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
    drain.enter(Stage::Waiting);
    let lease_until = Instant::now() + lease;
    drain.lock().lease_until = Some(lease_until);
    while shared.tracker.detached() > 0
        && shared.peers.takers() > 0
        && Instant::now() < lease_until.min(end)
    {
        tokio::time::sleep(LOOK).await;
    }
    shared.peers.known().await;
    let left = shared.tracker.detached();
    let now = Instant::now();
    drain.lock().lease_until = match left {
        0 => None,
        _ if now < lease_until => Some(lease_until),
        // Those of channels that linger longer.
        _ => Some(now + shared.tracker.lease_left().min(cluster::LEASE_MAX)),
    };
    drain.enter(Stage::Leaving);
    let took = began.elapsed();
    info!(node = %shared.name, ?took, left, "drained: {left} clients are not back elsewhere");
}

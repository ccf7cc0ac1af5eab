//! How long it took until those who watch had read who came.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use wingbeat::{NodeHandle, PresenceEvent, Topic};

use crate::{Failure, RUNS, table::Row};

/// What the keys of clients start with; seven digits follow.
const PREFIX: &str = "user-";

/// How long the last joins of a run may take to show.
const PATIENCE: Duration = Duration::from_secs(10);

/// The key of a client: 12 bytes.
pub(crate) fn key(client: usize) -> String {
    format!("{PREFIX}{client:07}")
}

/// 32 bytes.
pub(crate) const META: &[u8; 32] = b"{\"phase\":\"idle\",\"at\":1735689600}";

/// When clients joined, and how long they took to show.
pub(crate) struct Meter {
    began: Instant,
    /// By client: microseconds since `began`, when it joined.
    joined: Box<[AtomicU64]>,
    /// What watchers saw: the moment the client joined, and how long that took.
    seen: Mutex<Vec<(Duration, Duration)>>,
    missing: AtomicU64,
    complete: Notify,
}

impl Meter {
    /// Of so many clients, each of which so many watchers will see.
    pub(crate) fn new(clients: usize, watchers: usize) -> Self {
        Self {
            began: Instant::now(),
            joined: (0..clients).map(|_| AtomicU64::new(0)).collect(),
            seen: Mutex::new(Vec::with_capacity(clients * watchers)),
            missing: AtomicU64::new((clients * watchers) as u64),
            complete: Notify::new(),
        }
    }

    /// When the meter was made, which is when its times begin.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// A client joins now.
    pub(crate) fn join(&self, client: usize) {
        let now = self.began.elapsed().as_micros();
        self.joined[client].store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// A watcher has read a diff. Each watcher reads each join once.
    pub(crate) fn read(&self, diff: &[u8]) {
        let now = self.began.elapsed();
        let joins = joins(diff);
        let mut count = 0;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for client in keys(joins).filter(|client| *client < self.joined.len()) {
            let joined = Duration::from_micros(self.joined[client].load(Ordering::Acquire));
            seen.push((joined, now.saturating_sub(joined)));
            count += 1;
        }
        drop(seen);
        if count > 0 && self.missing.fetch_sub(count, Ordering::AcqRel) == count {
            self.complete.notify_one();
        }
    }

    /// Waits until all have been seen by all.
    pub(crate) async fn complete(&self) -> Result<(), Failure> {
        let complete = async {
            while self.missing.load(Ordering::Acquire) > 0 {
                self.complete.notified().await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, complete).await;
        let missing = self.missing.load(Ordering::Acquire);
        done.map_err(|_| format!("{missing} joins were not seen in {PATIENCE:?}").into())
    }

    /// The longest time of those who joined within a stretch of time.
    pub(crate) fn longest(&self, from: Duration, to: Duration) -> Duration {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let within = seen.iter().filter(|(joined, _)| (from..to).contains(joined));
        within.map(|(_, took)| *took).max().unwrap_or_default()
    }

    /// The times of the slowest tenth, hundredth and so on: `share` of all are not above it.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut times: Vec<Duration> = seen.iter().map(|(_, took)| *took).collect();
        times.sort_unstable();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let at = (times.len() as f64 * share) as usize;
        let time = times.get(at.min(times.len().saturating_sub(1)));
        time.copied().unwrap_or_default().as_secs_f64() * 1000.0
    }
}

/// Reads the diffs of a topic until the node ends.
pub(crate) async fn watch(node: NodeHandle, topic: Topic, meter: Arc<Meter>) {
    let mut watch = node.presence().watch(&topic);
    while let Some(event) = watch.next().await {
        if let PresenceEvent::Diff(diff) = event {
            meter.read(diff.bytes());
        }
    }
}

/// The median and the 99th percentile of runs, in milliseconds.
pub(crate) fn rows(
    what: &str,
    targets: (Option<f64>, Option<f64>),
    mut run: impl FnMut() -> Result<Meter, Failure>,
) -> Result<Vec<Row>, Failure> {
    let (mut median, mut slow) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let meter = run()?;
        median.push(meter.quantile(0.5));
        slow.push(meter.quantile(0.99));
    }
    Ok(vec![
        Row::new(format!("{what}, p50"), "ms", targets.0, median),
        Row::new(format!("{what}, p99"), "ms", targets.1, slow),
    ])
}

/// The joins of `{"joins": …, "leaves": …}`, or of a frame with it.
fn joins(diff: &[u8]) -> &[u8] {
    let end = memchr::memmem::find(diff, b"\"leaves\":").unwrap_or(diff.len());
    &diff[..end]
}

/// How many leave in it.
pub(crate) fn leaves(diff: &[u8]) -> usize {
    keys(&diff[joins(diff).len()..]).count()
}

/// The numbers of the clients whose keys are in it, each as `"user-0000007":`.
fn keys(json: &[u8]) -> impl Iterator<Item = usize> {
    let starts = memchr::memmem::find_iter(json, "\"user-");
    starts.filter_map(|start| {
        let number = json.get(start + 1 + PREFIX.len()..start + 8 + PREFIX.len())?;
        str::from_utf8(number).ok()?.parse().ok()
    })
}

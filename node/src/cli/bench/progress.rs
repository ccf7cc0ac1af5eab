//! How far a run is, for whoever waits at a terminal.

use std::{
    future::Future,
    pin::pin,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

/// Often enough to look alive, too seldom to disturb what is measured.
const TICK: Duration = Duration::from_millis(250);

const STYLE: &str = "{msg:<19} {wide_bar} {pos}/{len}  {elapsed}";

/// Shows a bar on standard error, if that is a terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    shown: bool,
}

impl Progress {
    pub(super) const fn new(shown: bool) -> Self {
        Self { shown }
    }

    /// A bar for work that does not wait.
    pub(super) fn bar(self, label: impl Into<String>, total: u64) -> Bar {
        let bar = self.shown.then(|| drawn(label.into(), total));
        Bar { bar, total, next: Instant::now() }
    }

    /// Does `work`, and shows how much of `total` is done.
    pub(super) async fn during<T>(
        self,
        label: &'static str,
        total: u64,
        done: impl Fn() -> u64,
        work: impl Future<Output = T>,
    ) -> T {
        if !self.shown {
            return work.await;
        }
        let bar = drawn(label.to_owned(), total);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut work = pin!(work);
        loop {
            tokio::select! {
                result = &mut work => {
                    bar.finish_and_clear();
                    return result;
                }
                _ = ticks.tick() => bar.set_position(done().min(total)),
            }
        }
    }
}

/// A bar that is gone when dropped.
#[derive(Debug)]
pub(super) struct Bar {
    bar: Option<ProgressBar>,
    total: u64,
    next: Instant,
}

impl Bar {
    /// Shows how much is done, if it is time to.
    pub(super) fn show(&mut self, done: u64, now: Instant) {
        if let Some(bar) = self.bar.as_ref().filter(|_| now >= self.next) {
            bar.set_position(done.min(self.total));
            self.next = now + TICK;
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn drawn(label: String, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    // The style is a constant; were it wrong, the bar would have the default one.
    if let Ok(style) = ProgressStyle::with_template(STYLE) {
        bar.set_style(style);
    }
    bar.set_message(label);
    bar
}

//! How far a run is, for whoever waits at a terminal.

use std::{future::Future, pin::pin, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

/// Often enough to look alive, too seldom to disturb what is measured.
const TICK: Duration = Duration::from_millis(250);

const STYLE: &str = "{msg:<12} {wide_bar} {pos}/{len}  {elapsed}";

/// Shows a bar on standard error, if that is a terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    shown: bool,
}

impl Progress {
    pub(super) const fn new(shown: bool) -> Self {
        Self { shown }
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
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        // The style is a constant; were it wrong, the bar would have the default one.
        if let Ok(style) = ProgressStyle::with_template(STYLE) {
            bar.set_style(style);
        }
        bar.set_message(label);
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

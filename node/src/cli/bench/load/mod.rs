//! One run of a scenario that publishes: topics, their subscribers, and who publishes to them.

mod args;
mod crowd;
mod pace;
mod report;
mod run;
mod search;

pub(super) use args::{LoadArgs, seconds};
pub(super) use crowd::{Counts, Crowd, Shape};
pub(super) use pace::Pace;
pub(super) use report::{LoadReport, help};
pub(super) use run::{Plan, run};

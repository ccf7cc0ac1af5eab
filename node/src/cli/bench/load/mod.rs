//! One run of a scenario that publishes: topics, their subscribers, and who publishes to them.

mod args;
mod crowd;
mod pace;
mod report;
mod run;
mod search;
mod shape;

pub(super) use args::{LoadArgs, PublishArgs, seconds};
pub(super) use crowd::Crowd;
pub(super) use pace::Pace;
pub(super) use report::{LoadReport, help};
pub(super) use run::Plan;
pub(super) use shape::{Counts, Shape};

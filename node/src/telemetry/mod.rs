//! What an operator sees: log lines and metrics.

pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod process;
mod tally;

pub(crate) use tally::Tally;

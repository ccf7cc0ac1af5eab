//! Log lines, on standard error.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal as _},
    panic::{self, PanicHookInfo},
};

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::config::{Log, LogFormat};

/// Filters finer than the configuration, for example `info,wingbeat=debug`.
const FILTER_VARIABLE: &str = "WINGBEAT_LOG";

/// Starts to write log lines; the only state of the process that all its nodes share.
pub(crate) fn start(log: Log) {
    let asked = std::env::var(FILTER_VARIABLE).ok();
    let parsed = asked.as_ref().map(EnvFilter::try_new);
    let (filter, wrong) = match parsed {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(log.level.as_str()), Some(error)),
        None => (EnvFilter::new(log.level.as_str()), None),
    };
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = if json {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    } else {
        lines.with_target(false).with_ansi(io::stderr().is_terminal()).boxed()
    };
    // A second start in one process keeps the first.
    drop(tracing_subscriber::registry().with(filter).with(lines).try_init());
    panic::set_hook(Box::new(tell_of_panic));
    if let Some(error) = wrong {
        tracing::warn!("{FILTER_VARIABLE} is no filter and is not used: {error}");
    }
}

/// A panic is a log line like any other; with `RUST_BACKTRACE` set, it has a backtrace.
fn tell_of_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let why = panic.payload_as_str().unwrap_or("for no stated reason");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(%place, %backtrace, "panicked: {why}");
    } else {
        tracing::error!(%place, "panicked: {why}");
    }
}

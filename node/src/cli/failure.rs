//! How a command fails, and what it leaves to the shell.

use std::{
    fmt,
    io::{self, Write},
};

use super::text::printable;
use crate::config::ConfigError;

/// Exit code of a command that failed.
const FAILED: u8 = 1;
/// Exit code of a wrong command line, environment or configuration.
pub(super) const USAGE: u8 = 2;
/// Exit code of a node that cannot be reached.
const UNREACHABLE: u8 = 3;

/// Why a command did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was tried, and failed.
    #[error("{0}")]
    Failed(String),
    /// The command line or the environment is wrong.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong; a line for each mistake.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node cannot be reached, or went away.
    #[error("{0}")]
    Unreachable(String),
    /// The node answered with an error.
    #[error("{url}: {message} ({status} {code}){}", remedy(*.status))]
    Refused {
        /// The node.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The error's code, for programs.
        code: String,
        /// The error's message, for people.
        message: String,
    },
    /// Whoever read the output has gone: nothing is wrong and nothing is said.
    #[error("the reader of the output has gone")]
    ReaderGone,
}

impl Failure {
    pub(super) fn failed(what: impl fmt::Display) -> Self {
        Self::Failed(what.to_string())
    }

    pub(super) fn usage(what: impl fmt::Display) -> Self {
        Self::Usage(what.to_string())
    }

    /// 1 failed, 2 wrong usage or configuration, 3 node unreachable; 0 when only the reader of the
    /// output has gone.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Refused { .. } => FAILED,
            Self::Usage(_) | Self::Config(_) => USAGE,
            Self::Unreachable(_) => UNREACHABLE,
            Self::ReaderGone => 0,
        }
    }

    /// Writes `program: …`, a line for each mistake.
    pub(super) fn tell(&self, program: &str, err: &mut dyn Write) {
        if *self == Self::ReaderGone {
            return;
        }
        for line in self.to_string().lines() {
            // When standard error is closed, there is nobody to tell.
            drop(writeln!(err, "{program}: {}", printable(line)));
        }
    }
}

impl From<io::Error> for Failure {
    /// From writing the output.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::failed(format_args!("cannot write the output: {error}"))
        }
    }
}

fn remedy(status: u16) -> &'static str {
    match status {
        401 | 403 => ": pass the node's API token with --token or WINGBEAT_TOKEN",
        _ => "",
    }
}

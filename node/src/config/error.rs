//! What is wrong with a configuration, and where it was written.

use std::{fmt, path::PathBuf};

/// Everything found wrong, at least one problem. Displayed as one line a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

/// One mistake and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub origin: Origin,
    /// What is wrong.
    pub fault: Fault,
}

/// Where a part of the configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of the file, counted from 1; no line where the file as a whole is meant.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: Option<usize>,
    },
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// No single place: parts that do not fit together.
    Whole,
}

/// What is wrong. Values of secrets never appear.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The file is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// No such section, key or variable.
    #[error("unknown {what}{}", Hint(.hint.as_deref()))]
    Unknown {
        /// What was written, and where it stands.
        what: String,
        /// What was probably meant.
        hint: Option<String>,
    },
    /// A value that the key does not take.
    #[error("{}{why}", Key(.key.as_deref()))]
    Value {
        /// The key, where its place does not name it.
        key: Option<String>,
        /// What the key takes.
        why: String,
    },
    /// The set-up is insecure or cannot work.
    #[error("{0}")]
    Setup(String),
}

/// Displays as `, did you mean …?`.
struct Hint<'a>(Option<&'a str>);

/// Displays as `KEY: `.
struct Key<'a>(Option<&'a str>);

impl ConfigError {
    /// `None` when there is nothing wrong.
    pub(super) fn new(problems: Vec<Problem>) -> Option<Self> {
        (!problems.is_empty()).then_some(Self { problems })
    }

    /// The problems, in the order of their sources.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { path, line: Some(line) } => write!(f, "{}:{line}: ", path.display())?,
            Origin::File { path, line: None } => write!(f, "{}: ", path.display())?,
            Origin::Variable(name) => write!(f, "{name}: ")?,
            Origin::Flag(name) => write!(f, "{name}: ")?,
            Origin::Whole => {}
        }
        self.fault.fmt(f)
    }
}

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, ", did you mean {hint}?"))
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |key| write!(f, "{key}: "))
    }
}

//! `wingbeat check`.

use std::{ffi::OsString, path::PathBuf};

use super::{Failure, Terminal};
use crate::config::Config;

/// Check a configuration as serve would, without starting anything
///
/// Reads the file and the WINGBEAT_ variables, tells every mistake with its line, and what serve
/// would refuse as insecure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wingbeat check /etc/wingbeat.toml
  wingbeat check --show /etc/wingbeat.toml    with every key and its value in effect

Exit codes: 0 fine (warnings too), 1 serve would refuse it")]
pub struct CheckArgs {
    /// The file
    file: PathBuf,
    /// Print every key and its value in effect; secrets are no part of it
    #[arg(long)]
    show: bool,
}

impl CheckArgs {
    pub(super) fn run(
        &self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        let config = Config::load(Some(&self.file), environment, &[]).map_err(Failure::failed)?;
        for warning in config.check().map_err(Failure::failed)? {
            writeln!(terminal.err, "warning: {warning}")?;
        }
        if self.show {
            write!(terminal.out, "{}", config.to_toml())?;
        } else {
            writeln!(terminal.out, "{}: fine", self.file.display())?;
        }
        Ok(())
    }
}

//! `wingbeat dev`: the arguments.

use std::path::PathBuf;

/// Run a whole cluster in this process, on loopback, with open rules
///
/// Each node has a port of its own for HTTP: PORT, PORT + 1, and so on. The secret that joins them
/// is made for the run. Nothing is written to disk.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(after_help = "\
Examples:
  wingbeat                          the same as wingbeat dev
  wingbeat dev --nodes 5
  wingbeat dev --port 0             free ports, printed at the start
  wingbeat dev --config rules.toml  with the channel rules and limits of a file")]
pub struct DevArgs {
    /// How many nodes
    #[arg(
        long,
        default_value_t = Self::default().nodes,
        value_parser = clap::value_parser!(u8).range(1..=16)
    )]
    pub nodes: u8,
    /// HTTP port of the first node; 0 takes a free one for each
    #[arg(long, default_value_t = Self::default().port)]
    pub port: u16,
    /// A configuration file; what it says of addresses and secrets is not used
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Default for DevArgs {
    /// What `wingbeat` alone runs.
    fn default() -> Self {
        Self { nodes: 3, port: 4000, config: None }
    }
}

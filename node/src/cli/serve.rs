//! `wingbeat serve`: the arguments, and how they go before file and environment.

use std::{env, path::PathBuf};

use crate::config::{Config, ConfigError, Override};

/// Run one node
///
/// Flags go before variables (WINGBEAT_HTTP__LISTEN=0.0.0.0:4000), variables before the file. The
/// cluster secret comes from WINGBEAT_CLUSTER_SECRET or a file that the configuration names, never
/// from a flag. Ends at SIGTERM or SIGINT.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(after_help = "\
Examples:
  wingbeat serve
  wingbeat serve --config /etc/wingbeat.toml
  wingbeat serve --listen 127.0.0.1:4000 --cluster-listen 127.0.0.1:4400
  wingbeat serve --listen 127.0.0.1:4001 --cluster-listen 127.0.0.1:4401 --join 127.0.0.1:4400
  wingbeat serve --cluster-listen 10.0.0.7:4400 --join dns:nodes.example.com:4400

Exit codes: 0 stopped as asked, 1 failed, 2 wrong flags or configuration")]
pub struct ServeArgs {
    /// A configuration file; deploy/wingbeat.toml lists every key
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The node's name, unique in its cluster
    #[arg(long)]
    pub name: Option<String>,
    /// Where to serve HTTP
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Where clients over plain TCP connect
    #[arg(long, value_name = "IP:PORT")]
    pub tcp_listen: Option<String>,
    /// Where the other nodes connect
    #[arg(long, value_name = "IP:PORT")]
    pub cluster_listen: Option<String>,
    /// The address that the other nodes are told
    #[arg(long, value_name = "IP:PORT")]
    pub advertise: Option<String>,
    /// A node to look for: HOST:PORT, or dns:HOST:PORT for all addresses of a name; may be repeated
    #[arg(long, value_name = "SEED")]
    pub join: Vec<String>,
}

impl ServeArgs {
    /// The configuration: file, then environment, then these flags.
    ///
    /// # Errors
    ///
    /// All mistakes found.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.config.as_deref(), env::vars_os(), &self.overrides())
    }

    /// The keys that the flags set.
    pub fn overrides(&self) -> Vec<Override> {
        let joined = (!self.join.is_empty()).then(|| self.join.join(","));
        let flags = [
            ("--name", "node", "name", &self.name),
            ("--listen", "http", "listen", &self.listen),
            ("--tcp-listen", "tcp", "listen", &self.tcp_listen),
            ("--cluster-listen", "cluster", "listen", &self.cluster_listen),
            ("--advertise", "cluster", "advertise", &self.advertise),
            ("--join", "cluster", "join", &joined),
        ];
        let given = |(flag, section, key, value): (_, _, _, &Option<String>)| {
            value.clone().map(|value| Override { flag, section, key, value })
        };
        flags.into_iter().filter_map(given).collect()
    }
}

//! What a node is told before it starts: a TOML file, the environment over it, flags over both.
//!
//! [`Config`] nests the configuration of each part; [`Config::load`] reads it, and reports every
//! mistake at once, each with its file and line, variable or flag. [`Config::check`] then refuses
//! set-ups that would be insecure or could not work, with a line that says what to set.
//! `deploy/wingbeat.toml` lists every key with its default; a test holds it to this code.
//!
//! Variables are named `WINGBEAT_SECTION__KEY`. Lists are written `a,b` or `["a", "b"]`. An empty
//! text unsets a key that may be unset. Channel rules come from the file alone.

mod check;
mod error;
mod field;
mod keys;
mod layers;
mod parts;
mod secrets;
mod values;
mod words;

#[cfg(test)]
mod tests;

use std::{ffi::OsString, net::SocketAddr, path::Path};

use presence::{InvalidNodeName, NodeName};

pub use check::Warning;
pub use error::{ConfigError, Fault, Origin, Problem};
pub use layers::Override;
pub use parts::{Auth, ChannelRule, Cluster, Drain, Http, Limits, Log, Node, Realtime, Tcp};
pub use secrets::{API_TOKEN_LEN_MIN, CLUSTER_SECRET_LEN_MIN, Secret, SecretError};
pub use values::{InvalidValue, OriginRule, Pattern, Rate, Seed, Size};
pub use words::{
    Deliver, JoinRule, Level, LogFormat, Overflow, PresenceEvents, PresenceMode, Profile,
    PublishRule,
};

/// All that a node is told. [`Config::default`] is an open node on loopback, in no cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who this node is.
    pub node: Node,
    /// The listener for clients, the API and the pages.
    pub http: Http,
    /// The listener for clients over plain TCP.
    pub tcp: Tcp,
    /// Topics of realtime-style clients.
    pub realtime: Realtime,
    /// The other nodes.
    pub cluster: Cluster,
    /// How the node goes when it is drained.
    pub drain: Drain,
    /// Who may connect, and who may use the API.
    pub auth: Auth,
    /// What one client may use.
    pub limits: Limits,
    /// Log lines.
    pub log: Log,
    /// Rules of the built-in channel, in the order of the file: the first whose pattern matches a
    /// topic governs it. One open rule for every topic when the file has none.
    pub channels: Vec<ChannelRule>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: Node::default(),
            http: Http::default(),
            tcp: Tcp::default(),
            realtime: Realtime::default(),
            cluster: Cluster::default(),
            drain: Drain::default(),
            auth: Auth::default(),
            limits: Limits::default(),
            log: Log::default(),
            channels: vec![ChannelRule::default()],
        }
    }
}

impl Config {
    /// Reads `file`, then the variables of `environment` over it, then `flags` over both.
    ///
    /// Variables whose name does not start with `WINGBEAT_` are left alone. A relative path in the
    /// file starts at the file's own folder.
    ///
    /// # Errors
    ///
    /// All mistakes found, in the order of the sources.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Override],
    ) -> Result<Self, ConfigError> {
        layers::load(file, environment, flags)
    }

    /// Refuses a set-up that is insecure or cannot work. Reads the files of secrets.
    ///
    /// # Errors
    ///
    /// All that has to change before the node may start.
    pub fn check(&self) -> Result<Vec<Warning>, ConfigError> {
        check::check(self)
    }

    /// Every key and its value, as a file that reads back to the same configuration. Secrets are
    /// no part of it, only the names of their files.
    pub fn to_toml(&self) -> String {
        keys::to_toml(self)
    }

    /// The node's name: as configured, else made of the machine's name and `http_port`, the port
    /// that the HTTP listener was given.
    ///
    /// # Errors
    ///
    /// None that is known: the machine's name is cut and cleaned first.
    pub fn node_name(&self, http_port: u16) -> Result<NodeName, InvalidNodeName> {
        match &self.node.name {
            Some(name) => Ok(name.clone()),
            None => parts::default_node_name(http_port).parse(),
        }
    }

    /// Whether a client may connect without proof of who it is. Undecided means yes:
    /// [`check`](Self::check) lets that pass on loopback only.
    pub fn anonymous_allowed(&self) -> bool {
        self.auth.anonymous.unwrap_or(true)
    }

    /// An application decides who connects, whatever `auth.anonymous` says.
    pub(crate) fn leave_clients_to_application(&mut self) {
        self.auth.anonymous = Some(true);
    }

    /// Whether it says more of the built-in channels than the default does.
    pub(crate) fn asks_for_relay(&self) -> bool {
        self.realtime.enabled || self.channels != Self::default().channels
    }

    /// Whether HTTP answers this machine alone.
    pub fn http_on_loopback(&self) -> bool {
        self.http.listen.ip().is_loopback()
    }

    /// The listeners for clients that others than this machine's reach, with their keys.
    pub(crate) fn exposed(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let listeners = [("http.listen", Some(self.http.listen)), ("tcp.listen", self.tcp.listen)];
        let listeners = listeners.into_iter().filter_map(|(key, address)| Some((key, address?)));
        listeners.filter(|(_, address)| !address.ip().is_loopback())
    }

    /// Where the cluster listens: `cluster.listen`; the default address when only `cluster.join`
    /// is set; `None` for a node in no cluster.
    pub fn cluster_listener(&self) -> Option<SocketAddr> {
        let lonely = self.cluster.join.is_empty();
        self.cluster.listen.or_else(|| (!lonely).then_some(parts::CLUSTER_LISTEN))
    }

    /// The address that peers are told, when the cluster listener is bound to `bound`.
    pub fn advertised(&self, bound: SocketAddr) -> SocketAddr {
        self.cluster.advertise.unwrap_or(bound)
    }

    /// What proves that a node belongs to the cluster: the one to present first, then one more
    /// that is accepted during a rotation.
    ///
    /// `WINGBEAT_CLUSTER_SECRET` (two separated by a comma) goes before `cluster.secret_file` (two
    /// on two lines). Without either, a listener on loopback uses a key that anyone can derive
    /// from the cluster's name, so that processes of one machine find each other.
    ///
    /// # Errors
    ///
    /// The file cannot be read, a secret is short or not printable, or there is none and the
    /// listener is not on loopback.
    pub fn cluster_secrets(&self) -> Result<Vec<Vec<u8>>, SecretError> {
        secrets::cluster_secrets(&self.cluster, self.cluster_listener())
    }

    /// Uses this secret, as if `WINGBEAT_CLUSTER_SECRET` held it: one made for the run, or a test's.
    pub fn set_cluster_secret(&mut self, secret: &str) {
        self.cluster.secret = Some(Secret::new(secret));
    }

    /// The bearer token that the API asks for, from `auth.api_token_file`; `None` without one.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or the token is short or does not fit into a header.
    pub fn api_token(&self) -> Result<Option<Secret>, SecretError> {
        self.auth.api_token_file.as_deref().map(secrets::read_api_token).transpose()
    }
}

//! The configuration of each part of a node, and its default.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use presence::{NODE_NAME_LEN_MAX, NodeName};

use super::{
    secrets::Secret,
    values::{OriginRule, Pattern, Rate, Seed, Size},
    words::{
        Deliver, JoinRule, Level, LogFormat, Overflow, PresenceEvents, PresenceMode, Profile,
        PublishRule,
    },
};

/// Where the cluster listens when `cluster.join` is set and `cluster.listen` is not.
pub(super) const CLUSTER_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4400);

/// Who this node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The node's name, unique in its cluster and the same after a restart. Unset: the machine's
    /// name and the HTTP port, see [`Config::node_name`](super::Config::node_name).
    pub name: Option<NodeName>,
    /// Where the node stands, shown in the member list. Unset: nowhere.
    pub region: Option<String>,
}

/// The listener for clients, the API and the pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where to listen, 127.0.0.1:4000. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Pages that may connect from a browser. Empty: the host of the `Origin` header must be the
    /// one of the `Host` header, on any port.
    pub origins: Vec<OriginRule>,
    /// Connections open at a time, 100,000, those of [`Tcp`] among them; more are turned away.
    pub max_connections: usize,
    /// The longest frame a client may send, 1 MiB; a longer one ends its socket with code 1009.
    pub max_frame_size: Size,
    /// Silence of a client after which its socket is closed, 60 s. Twice a client's heartbeat.
    pub idle_timeout: Duration,
    /// How long a poll of a long-poll client waits for messages, 10 s. A client that does not come
    /// back within that time and 10 s more is gone.
    pub longpoll_window: Duration,
    /// Whether frames are compressed (permessage-deflate) for clients that ask for it, off.
    pub compression: bool,
}

/// The listener for clients that speak over plain TCP. They share `max_connections`, `max_frame_size`
/// and `idle_timeout` of [`Http`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Where to listen. Port 0 takes a free one. Unset: nowhere.
    pub listen: Option<SocketAddr>,
}

/// Topics `realtime:*` for clients of `@supabase/realtime-js` and their like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Realtime {
    /// Whether they are served as those clients expect, off. Else they are topics as all others.
    pub enabled: bool,
}

/// The other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Where peers connect (UDP). Unset: 127.0.0.1:4400 if `join` is set, else nowhere.
    pub listen: Option<SocketAddr>,
    /// The address that peers are told. Unset: the address that `listen` was bound to.
    pub advertise: Option<SocketAddr>,
    /// Nodes to look for. One that answers is enough.
    pub join: Vec<Seed>,
    /// The cluster's name: nodes of another name are refused.
    pub name: String,
    /// A file with the cluster secret; a second line holds one that is accepted in a rotation.
    pub secret_file: Option<PathBuf>,
    /// The network between the nodes.
    pub profile: Profile,
    /// How long a starting node waits for a seed before it is ready alone, 10 s.
    pub join_timeout: Duration,
    /// Topics of one node that its peers are told exactly, 1,000,000; a node with more subscribed
    /// topics is sent every message. A topic costs each peer about 16 bytes.
    pub interest_topics: usize,
    /// `WINGBEAT_CLUSTER_SECRET`, if it is set. No key of the file.
    pub(super) secret: Option<Secret>,
}

/// How the node goes when it is drained: at SIGTERM, or when the API asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long the clients that are sent away stay listed, 15 s: by then they should be back on another
    /// node.
    pub lease: Duration,
    /// How long the node is not ready before it sends the first client away, 0 s: time for a load balancer
    /// to notice.
    pub delay: Duration,
    /// How long it may take in all, 25 s. Then the node goes, and the others keep what is left of the
    /// lease.
    pub timeout: Duration,
}

/// Who may connect, and who may use the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// Whether clients connect without proof of who they are. Unset: on loopback alone.
    pub anonymous: Option<bool>,
    /// A file with the bearer token that the API asks for. Unset: the API answers on loopback only.
    pub api_token_file: Option<PathBuf>,
}

/// What one client may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Topics joined by one socket at a time, 100.
    pub channels_per_socket: usize,
    /// Joins a second of one socket, off.
    pub joins_per_second: Rate,
    /// Events a second pushed by one socket, off.
    pub events_per_second: Rate,
    /// Bytes that wait for one slow client, 256 KiB; then its socket is closed with code 1013. The frame
    /// that is half written does not count. For a client that polls, 16 times as many wait and two
    /// longest frames.
    pub mailbox_bytes: Size,
}

/// Log lines, on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Their shape.
    pub format: LogFormat,
    /// The least important ones that are written. `WINGBEAT_LOG` filters finer.
    pub level: Level,
}

/// What clients may do on the topics of one pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRule {
    /// The topics.
    pub topic: Pattern,
    /// Who may join.
    pub join: JoinRule,
    /// Who may publish.
    pub publish: PublishRule,
    /// Whether a sender hears its own broadcast.
    pub deliver: Deliver,
    /// Whether a push is answered with an ok reply.
    pub ack: bool,
    /// When a client is listed as present.
    pub presence: PresenceMode,
    /// What a client is told of who is present.
    pub presence_events: PresenceEvents,
    /// How long a client stays listed whose socket ended without a leave, 0 s.
    pub linger: Duration,
    /// What happens to a broadcast that a slow client has no room for.
    pub overflow: Overflow,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4000),
            origins: Vec::new(),
            max_connections: 100_000,
            max_frame_size: Size::new(1 << 20),
            idle_timeout: Duration::from_secs(60),
            longpoll_window: Duration::from_secs(10),
            compression: false,
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            listen: None,
            advertise: None,
            join: Vec::new(),
            name: "wingbeat".to_owned(),
            secret_file: None,
            profile: Profile::Lan,
            join_timeout: Duration::from_secs(10),
            interest_topics: 1_000_000,
            secret: None,
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            delay: Duration::ZERO,
            timeout: Duration::from_secs(25),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channels_per_socket: 100,
            joins_per_second: Rate::OFF,
            events_per_second: Rate::OFF,
            mailbox_bytes: Size::new(256 << 10),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: Level::Info }
    }
}

impl Default for ChannelRule {
    fn default() -> Self {
        Self {
            topic: Pattern::any(),
            join: JoinRule::Anyone,
            publish: PublishRule::Anyone,
            deliver: Deliver::All,
            ack: true,
            presence: PresenceMode::Join,
            presence_events: PresenceEvents::Full,
            linger: Duration::ZERO,
            overflow: Overflow::Disconnect,
        }
    }
}

/// The machine's name and the port, cut and cleaned to what a node name takes.
pub(super) fn default_node_name(http_port: u16) -> String {
    let port = format!("-{http_port}");
    let host = fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| fs::read_to_string("/etc/hostname"))
        .ok()
        .or_else(|| env::var("HOSTNAME").or_else(|_| env::var("COMPUTERNAME")).ok())
        .unwrap_or_default();
    let visible = host.chars().filter(char::is_ascii_graphic).take(NODE_NAME_LEN_MAX - port.len());
    let mut name: String = visible.collect();
    if name.is_empty() {
        name.push_str("node");
    }
    name.push_str(&port);
    name
}

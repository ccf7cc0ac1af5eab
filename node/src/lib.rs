//! A clustered pub/sub node that knows who is online.
//!
//! Clients speak the Phoenix Channels protocol over WebSocket; nodes find each other by SWIM and talk
//! over QUIC; presence is a delta-state CRDT. [`Node::start`] runs one node that passes messages on:
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let node = wingbeat::Node::start(wingbeat::Config::default()).await?;
//! println!("clients connect to {}", node.http_address());
//! node.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! An application writes its own channels: see [`Channel`] and [`App`], and for the whole of a small one
//! the examples `chat` and `rooms`. docs/GUIDE.md goes from `cargo new` to a cluster.
//!
//! docs/ARCHITECTURE.md in the repository shows the way of a message, file by file.

pub mod cli;
pub mod config;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
#[doc(hidden)]
pub mod pubsub;

mod api;
mod app;
mod channel;
mod commands;
mod dashboard;
mod discovery;
mod drain;
mod endpoint;
mod framing;
mod mailboxes;
mod node;
mod peers;
mod prefix;
mod publisher;
mod socket;
mod sockets;
mod telemetry;
mod tracker;
mod websocket;
mod wire_format;

pub use app::{
    Accepted, App, Channel, ChannelGone, ChannelHandle, Connect, Error, Joined, NodeHandle,
    Outcome, Payload, PrefixWatch, Presence, PresenceEvent, PresencePage, PresenceWatch, Reason,
    Refused, Reply, ReplyRef, SendError, Socket, TrackError,
};
pub use commands::{run_app, runners};
pub use config::Config;
pub use node::{Node, NodeEnd, StartError};
pub use presence::{
    Count, InvalidNodeName, InvalidTopic, NodeName, Topic, Total, TrackError as NotListed,
};
pub use tracker::PresenceTotals;
pub use transport::BindError;

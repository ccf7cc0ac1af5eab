//! Bytes between nodes, well and safely. This crate knows addresses and lanes; never a message, a
//! topic or a member.
//!
//! A [`Transport`] is one UDP socket that speaks QUIC in both directions. Its user names addresses
//! to [`keep`](Transport::keep); it dials them, proves that both ends belong to the same cluster, and
//! tells by [`Events`] which [`Link`]s are up. There is at most one link per peer, whoever dialled.
//! A link has a fixed set of *lanes* (ordered streams of frames, each with its own bounded queue,
//! so that none delays another), datagrams, and requests with answers.
//!
//! The way of a frame: [`Link::send`] puts it into its lane's queue (`lane`), a writer task packs
//! what is there into few buffers (`frame`) and hands them to QUIC; at the other end a reader task
//! cuts frames out again and either calls [`Handlers::direct`] or puts an [`Event::Frame`] into the
//! queue of `events`. Nothing waits without a bound: a full lane drops or cuts, as it is
//! configured; a full event queue stops the reading, and so, by QUIC's windows, the sender.
//!
//! The way of a link: `dial` and `accept` make TLS connections (`tls`); `handshake` has both sides
//! prove the cluster secret (`proof`) before anything else is read, exchanges the `hello`s, and
//! lets one side choose among simultaneous connections (`registry`); `session` then owns every task
//! of the link until it ends; `goodbye` lets a closing node's last frames arrive. `node` holds it all
//! together.
//!
//! What is promised to the user, whatever the network does:
//! - `Up` of a link comes before anything else of it, and `Down` after everything of it;
//! - the `Down` of a link comes before the `Up` of the next link of the same peer, and no direct
//!   call of the old one happens after that;
//! - frames of one lane come in order and without holes, up to the end of the link; what was queued
//!   or unacknowledged at its end is lost, and never sent again on another link.

mod accept;
mod close;
mod config;
mod dial;
mod error;
mod events;
mod frame;
mod goodbye;
mod handlers;
mod handshake;
mod hello;
mod ids;
mod lane;
mod link;
mod node;
mod proof;
mod registry;
mod reports;
mod request;
mod session;
mod stats;
mod tls;

#[cfg(test)]
mod tests;

pub use config::{
    Config, Delivery, HELLO_LEN_MAX, Identity, IdentityError, LANES_MAX, Lane, LaneConfig,
    NAME_LEN_MAX, REQUEST_LEN_MAX, REQUESTS_MAX, WhenFull,
};
pub use error::{
    BindError, DatagramError, DialError, DownReason, Refusal, RefusalCause, RequestError, SendError,
};
pub use events::{Event, Events};
pub use handlers::{Admission, Admit, Direct, Handlers, Unfinished};
pub use link::{Link, Peer};
pub use node::Transport;
pub use proof::{SECRET_LEN_MIN, Secret, SecretError};
pub use request::{Answer, Fate, Responder, Sent};
pub use stats::{LaneStats, LinkStats, Stats};

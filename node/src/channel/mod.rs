//! What happens on topics.
//!
//! - `router`: which channel serves a topic.
//! - `relay`: the built-in channel, set by configuration alone. It decides; the socket's driver acts.
//! - `realtime`: likewise the channel of realtime-style clients.

pub(crate) mod realtime;
mod relay;
mod router;

pub(crate) use relay::{PresenceRequest, Refusal, Relay, Terms, socket_id};
pub(crate) use router::Router;

//! Channels of your own: what an application is made of.
//!
//! - `channel`: the trait, and what its callbacks return; `payload` and `error` are what they take.
//! - `socket`: what callbacks do; `handle`: what the rest of the application does.
//! - `connect`: who may connect. `builder`: the application as it is put together.
//! - `task`: the task that runs the callbacks of one channel. `seat`: what it shares with its client's
//!   socket. `inbox`: what waits for it. `tap`: broadcasts that go through callbacks.
//! - `watchdog`: names callbacks that take too long.

mod builder;
mod channel;
mod connect;
mod error;
mod handle;
mod inbox;
mod payload;
mod prefix;
mod queries;
mod seat;
mod socket;
mod tap;
mod task;
mod watchdog;

use serde::Serialize;

pub use builder::App;
pub use channel::{Channel, Joined, Outcome, Reason, Reply};
pub use connect::{Accepted, Connect};
pub use error::{ChannelGone, Error, Refused, SendError, TrackError};
pub use handle::{NodeHandle, Presence, PresenceEvent, PresenceWatch};
pub use payload::Payload;
pub use prefix::PrefixWatch;
pub use queries::PresencePage;
pub use socket::{ChannelHandle, ReplyRef, Socket};

pub(crate) use builder::{Decision, Door, Erased, Host, run_beside};
pub(crate) use channel::Watching;
pub(crate) use connect::{Admitted, Assigns};
pub(crate) use error::Unquoted;
pub(crate) use inbox::Inbox;
pub(crate) use seat::{Place, Seat, Verdict};
pub(crate) use socket::Asked;
pub(crate) use tap::{Tap, encode as encode_tapped};

/// A meta as it is listed.
fn object<T: Serialize + ?Sized>(meta: &T) -> Result<Vec<u8>, TrackError> {
    let json = serde_json::to_vec(meta).map_err(|_| TrackError::InvalidMeta)?;
    if json.starts_with(b"{") { Ok(json) } else { Err(TrackError::InvalidMeta) }
}

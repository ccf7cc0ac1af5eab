//! What one client says and hears: the Phoenix Channels protocol, pure.
//!
//! [`Socket`] is one client's session. Three kinds of methods drive it:
//!
//! - `handle_*` takes a frame of the client in, with the time, and gives back what it asks of a joined
//!   channel: the hot path, without a copy;
//! - verbs take a channel's answers in: [`Socket::join_ok`], [`Socket::reply`],
//!   [`Socket::push_around`] and their like;
//! - [`Socket::poll_action`] gives the effects out. Drain it after every call of the other two.
//!
//! Nothing here awaits, reads a clock or parses a payload. Files, from the bytes inwards: [`v1`]
//! and [`v2`] are the two wire formats of a [`message`], [`v2_binary`] is that of bytes; [`session`]
//! is the state machine, with its table of [`channels`], its [`rate`] limits and its queue of
//! [`action`]s; [`letterhead`] makes frames without it, for channels with a task; [`params`] reads
//! the query of the connect.

mod action;
mod channels;
mod letterhead;
mod message;
mod params;
mod rate;
mod session;
mod v1;
mod v2;
mod v2_binary;

#[cfg(test)]
mod tests;

pub(crate) use action::{Action, Close, Ended, Frame, Push};
pub(crate) use channels::ChannelId;
pub(crate) use letterhead::Letterhead;
pub(crate) use message::{
    DISCONNECT, EVENT_LEN_MAX, Ref, Status, Version, encode_broadcast, has_lone_surrogate,
    reserved_event,
};
pub(crate) use params::{InvalidQuery, Param, Params};
pub(crate) use session::{Limits, Refused, Socket};
pub(crate) use v2_binary::{
    USER_EVENT, encode_broadcast as encode_binary_broadcast, encode_user_broadcast,
    user_push_in_utf8,
};

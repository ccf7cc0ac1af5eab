//! From one broadcast to everyone who wants it: the hot path of a message on this node.
//!
//! - A [`Broadcast`] is a message to a topic. It encodes itself at most once per wire [`Format`].
//! - The [`Registry`] knows which mailboxes want a topic and hands each the same [`Bytes`]. A
//!   [`Subscription`] is one entry of it; dropping that ends it, so nothing has to be undone by hand.
//! - A [`Mailbox`] is what waits for one socket: bounded in bytes, freed when empty. Whoever pushed
//!   into an empty one writes it to the socket, with a [`Flush`] at the end of its input; the socket's
//!   own task only goes on where the client did not take all.
//! - [`Routes`] says which peers want a topic. It is read next to the registry and fed by the
//!   cluster core.
//!
//! Locks are held for one look-up or one list of subscribers, never across an await, and in one
//! order: registry shard, then mailbox. No waker runs and nothing is written under a mailbox's lock.
//!
//! One publisher's messages on a topic stay in order because it calls [`Registry::broadcast`] once
//! after another and a mailbox is first in, first out.
//!
//! [`Bytes`]: bytes::Bytes

mod broadcast;
mod filter;
mod flush;
mod latency;
mod mailbox;
mod payload;
mod peer_set;
mod registry;
mod routes;
mod run;
mod stats;
mod subscribers;
mod subscription;

#[cfg(test)]
mod tests;

pub use broadcast::{Broadcast, Encode, Format};
pub use filter::{Filter, Intercepts};
pub use flush::{Flush, Writing};
pub use latency::Latency;
pub use mailbox::{
    CloseReason, Control, ITEM_OVERHEAD, Mailbox, Offer, Outlet, Overflow, Pushed, UNREAD_MAX,
};
pub use payload::{Payload, UserBroadcast};
pub use registry::{Delivered, Registry, Size};
pub use routes::Routes;
pub use stats::Stats;
pub use subscribers::count_version;
pub use subscription::{Subscriber, SubscriberId, Subscription};

//! What a channel's callbacks do with.

use std::{fmt, sync::Arc};

use presence::Topic;
use serde::Serialize;

use super::{
    Channel, ChannelGone, NodeHandle, Payload, SendError, TrackError,
    channel::Reply,
    inbox::Sender,
    object,
    seat::{Seat, check_event},
};
use crate::socket::Ref;

/// A channel's way to its client, to the others on its topic, and to the node.
///
/// What is pushed, replied and broadcast by one callback arrives in that order. Once the client is gone,
/// which a callback that runs may not know, what is done for it alone is done for nobody, and is no error.
pub struct Socket<C: Channel> {
    pub(super) seat: Arc<Seat>,
    pub(super) assigns: Arc<C::Assigns>,
    pub(super) inbox: Sender<C::Info>,
    /// What the client's event is to be answered with, unless somebody took it.
    pub(super) asked: Option<Ref>,
}

impl<C: Channel> Socket<C> {
    /// The channel's topic.
    pub fn topic(&self) -> &Topic {
        self.seat.topic()
    }

    /// What the connect callback found out about the client.
    pub fn assigns(&self) -> &C::Assigns {
        &self.assigns
    }

    /// The socket's id, if the connect callback gave it one.
    pub fn id(&self) -> Option<&str> {
        self.seat.socket_id.as_deref()
    }

    /// The node, for what concerns other topics.
    pub fn node(&self) -> &NodeHandle {
        &self.seat.node
    }

    /// The way for the application's own tasks to the channel.
    pub fn handle(&self) -> ChannelHandle<C::Info> {
        ChannelHandle(self.inbox.clone())
    }

    // === messages ===

    /// Sends an event to this client alone.
    ///
    /// # Errors
    ///
    /// The join is not answered yet, or the event's name is not valid. A client that does not read is no error:
    /// once `limits.mailbox_bytes` wait for it several times over, its socket is closed.
    pub fn push(&self, event: &str, payload: impl Into<Payload>) -> Result<(), SendError> {
        self.seat.push(event, &payload.into())
    }

    /// Sends an event to everybody on the topic, on all nodes, this client too. When it returns, this
    /// node's subscribers have been written to: what publishes faster waits here.
    ///
    /// The event `disconnect` closes the sockets whose id is the topic, and is never delivered.
    ///
    /// # Errors
    ///
    /// The event's name is not 1 to 255 bytes, or begins with `phx_`.
    pub async fn broadcast(
        &self,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<(), SendError> {
        check_event(event)?;
        self.node().publish(self.topic(), event, &payload.into(), None).await;
        Ok(())
    }

    /// As [`broadcast`](Self::broadcast), to everybody but this channel. Another channel of the same
    /// user does get it.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn broadcast_from(
        &self,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<(), SendError> {
        check_event(event)?;
        let except = self.seat.subscriber();
        self.node().publish(self.topic(), event, &payload.into(), except).await;
        Ok(())
    }

    /// Takes the answer of the event that is being handled out of the callback's hands, to be given later, or
    /// now by a callback that goes on (`socket_ref` and `reply` of Phoenix). `None` when there is nothing
    /// to answer, or it was taken before. What the callback returns is no reply then.
    pub fn reply_later(&mut self) -> Option<ReplyRef> {
        let reference = self.asked.take()?;
        Some(ReplyRef { seat: Arc::clone(&self.seat), reference })
    }

    // === presence ===

    /// Lists a key of 1 to 256 bytes on the topic, with a meta that is a JSON object of at most 16 KiB, until
    /// it is untracked or the channel ends. A channel tracks at most 1,000 keys. The client itself
    /// is told of presence only once it [watches](Self::watch).
    ///
    /// # Errors
    ///
    /// See [`TrackError`].
    pub fn track<M: Serialize + ?Sized>(&self, key: &str, meta: &M) -> Result<(), TrackError> {
        self.seat.track(key, &object(meta)?)
    }

    /// Replaces the meta of a key that this channel tracks: keep it in the channel's state to change it in
    /// parts.
    ///
    /// # Errors
    ///
    /// See [`TrackError`].
    pub fn update<M: Serialize + ?Sized>(&self, key: &str, meta: &M) -> Result<(), TrackError> {
        self.seat.update(key, &object(meta)?)
    }

    /// Takes a key off that this channel tracks; false when it tracks none such.
    pub fn untrack(&self, key: &str) -> bool {
        self.seat.untrack(key)
    }

    /// Pushes `presence_state` to the client, and lets it hear of changes from then on. A join can do
    /// so at once: [`Joined::watch`](super::Joined::watch).
    ///
    /// # Errors
    ///
    /// The join is not answered yet.
    pub fn watch(&self) -> Result<(), SendError> {
        self.seat.watch()
    }

    /// Who is on the topic, on any node: `{key: {"metas": [meta, …]}}`. At most the first 10,000 keys, in
    /// their order.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use wingbeat::{Channel, Error, Socket};
    /// #[derive(serde::Deserialize)]
    /// struct Entry { metas: Vec<Meta> }
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Meta { name: String }
    ///
    /// fn names<C: Channel>(socket: &Socket<C>) -> Result<Vec<String>, Error> {
    ///     let all: BTreeMap<String, Entry> = socket.presences().parse()?;
    ///     Ok(all.into_values().flat_map(|entry| entry.metas).map(|meta| meta.name).collect())
    /// }
    /// ```
    pub fn presences(&self) -> Payload {
        self.node().presence().list(self.topic())
    }
}

impl<C: Channel> fmt::Debug for Socket<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("topic", self.topic())
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

/// The answer that a client waits for, to be given later, by any task. Dropping it leaves the client
/// without one.
///
/// ```
/// # use serde_json::json;
/// # use wingbeat::{Channel, Outcome, Socket};
/// fn handle<C: Channel>(socket: &mut Socket<C>) -> Outcome {
///     if let Some(reply) = socket.reply_later() {
///         tokio::spawn(async move {
///             let answer = json!({ "slow": "work" });
///             reply.ok(answer);
///         });
///     }
///     Outcome::NoReply
/// }
/// ```
#[must_use = "dropping it leaves the client without an answer"]
pub struct ReplyRef {
    seat: Arc<Seat>,
    reference: Ref,
}

impl ReplyRef {
    /// Answers, if the client is still there.
    pub fn reply(self, reply: &Reply) {
        self.seat.reply(&self.reference, reply);
    }

    /// Answers ok, if the client is still there.
    pub fn ok(self, response: impl Into<Payload>) {
        self.reply(&Reply::ok(response));
    }

    /// Answers with an error, if the client is still there.
    pub fn error(self, response: impl Into<Payload>) {
        self.reply(&Reply::error(response));
    }
}

impl fmt::Debug for ReplyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyRef").field("topic", self.seat.topic()).finish_non_exhaustive()
    }
}

/// Sends messages to one channel, from any task: they reach its
/// [`handle_info`](Channel::handle_info), in order. At most 1,000 wait.
///
/// ```
/// # use std::time::Duration;
/// # use wingbeat::{Channel, Socket};
/// enum Info { Tick }
///
/// fn tick<C: Channel<Info = Info>>(socket: &Socket<C>) {
///     let channel = socket.handle();
///     tokio::spawn(async move {
///         loop {
///             tokio::time::sleep(Duration::from_secs(1)).await;
///             if channel.send(Info::Tick).await.is_err() {
///                 break; // the channel has ended
///             }
///         }
///     });
/// }
/// ```
pub struct ChannelHandle<I>(pub(super) Sender<I>);

impl<I> ChannelHandle<I> {
    /// Sends a message, if there is room.
    ///
    /// # Errors
    ///
    /// The channel has ended, or as many messages wait for it as may.
    pub fn try_send(&self, info: I) -> Result<(), ChannelGone> {
        self.0.try_send(info)
    }

    /// Sends a message once there is room. For other tasks: a callback of the channel's own would wait
    /// for itself.
    ///
    /// # Errors
    ///
    /// [`ChannelGone::Ended`].
    pub async fn send(&self, info: I) -> Result<(), ChannelGone> {
        self.0.send(info).await
    }

    /// Waits until the channel has ended.
    pub async fn ended(&self) {
        self.0.closed().await;
    }
}

impl<I> Clone for ChannelHandle<I> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I> fmt::Debug for ChannelHandle<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelHandle").field("room", &self.0.room()).finish()
    }
}

/// A client's event on its way to a channel's task.
pub(crate) struct Asked {
    pub(crate) event: Box<str>,
    pub(crate) payload: Payload,
    pub(crate) reference: Ref,
}

//! A channel as its author writes it.

use std::time::Duration;

use presence::Topic;
use serde::Serialize;

use super::{Error, Payload, Refused, Socket, error::TrackError};

/// One topic joined by one client: what the server does about it.
///
/// A value of the implementing type lives as long as the join, and is the channel's state. Its callbacks
/// run one after another, in a task of the channel's own: one that waits holds up nobody else, and one that
/// fails or panics ends this channel alone. One that computes for long, or waits without an await, holds
/// up a thread that serves others too, in the worst case all others: that is for
/// [`tokio::task::spawn_blocking`]. What takes longer than [`App::slow_after`](super::App::slow_after) is
/// named in the log.
///
/// A client that pushes faster than its channel handles is read no faster: beyond 1,000 pushes or 256 KiB
/// that wait, its socket is not read until there is room, and its other channels wait with it.
///
/// ```
/// use serde_json::json;
/// use wingbeat::{Channel, Error, Joined, Outcome, Payload, Refused, Socket, Topic};
///
/// struct Counter { count: u64 }
///
/// impl Channel for Counter {
///     type Assigns = ();
///     type Info = ();
///
///     async fn join(topic: &Topic, _: Payload, _: &mut Socket<Self>) -> Result<Joined<Self>, Refused> {
///         match topic.as_str() {
///             "counter:secret" => Err(Refused::reason("unauthorized")),
///             _ => Ok(Joined::new(Self { count: 0 })),
///         }
///     }
///
///     async fn handle_in(
///         &mut self,
///         event: &str,
///         payload: Payload,
///         socket: &mut Socket<Self>,
///     ) -> Result<Outcome, Error> {
///         match event {
///             "increment" => {
///                 self.count += 1;
///                 socket.broadcast("count", json!({ "count": self.count })).await?;
///                 Ok(Outcome::ok(()))
///             }
///             "echo" => Ok(Outcome::ok(payload)),
///             _ => Err(Error::unhandled(event)),
///         }
///     }
/// }
/// ```
pub trait Channel: Send + Sized + 'static {
    /// What the connect callback found out about the client; all channels of a socket share it.
    type Assigns: Send + Sync + 'static;

    /// What the application's own tasks tell the channel, through a
    /// [`ChannelHandle`](super::ChannelHandle). `()` when they tell nothing.
    type Info: Send + 'static;

    /// Broadcasts of these events go through [`handle_out`](Self::handle_out) instead of straight to the
    /// client. Presence is no broadcast: a node does not start with `presence_diff` here, nor with any
    /// other event of the protocol's own.
    const INTERCEPT: &'static [&'static str] = &[];

    /// Takes a client in, or refuses it. `payload` is a JSON object.
    ///
    /// The client hears what is broadcast from its reply on, not what is while this runs. So what it has to
    /// know without a gap, such as the last messages, is best read later: send the channel a message
    /// through [`Socket::handle`], and push from [`handle_info`](Self::handle_info), which runs after the
    /// reply.
    ///
    /// Nothing can be pushed and nobody tracked yet: see [`Joined`]. It is given up, at an await, when the
    /// client leaves meanwhile, and after 10 seconds. It begins once the client's former channel of the topic
    /// has ended with its [`terminate`](Self::terminate), or 5 seconds later.
    fn join(
        topic: &Topic,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> impl Future<Output = Result<Joined<Self>, Refused>> + Send;

    /// Does what the client asks. An error, or a panic, ends the channel with `phx_error`.
    ///
    /// Events that begin with `phx_` never come here. Once the client is gone, or wants to leave, this may go
    /// on for 5 seconds; then it is given up where it awaits. A client that leaves is answered
    /// after that.
    fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> impl Future<Output = Result<Outcome, Error>> + Send;

    /// Decides what the client gets of a broadcast whose event [`INTERCEPT`](Self::INTERCEPT) names.
    /// Unless it is written, the client gets it as it is. A reply as the outcome answers nothing.
    ///
    /// What goes through here may arrive after later broadcasts that do not, and after the reply to its
    /// own push. A channel that does not keep up, so that `limits.mailbox_bytes` of them wait, crashes.
    ///
    /// ```
    /// # use wingbeat::{Channel, Error, Joined, Outcome, Payload, Refused, Socket, Topic};
    /// # struct User { name: String }
    /// # struct Room;
    /// impl Channel for Room {
    /// #   type Assigns = User;
    /// #   type Info = ();
    /// #   async fn join(_: &Topic, _: Payload, _: &mut Socket<Self>) -> Result<Joined<Self>, Refused> {
    /// #       Ok(Joined::new(Self))
    /// #   }
    /// #   async fn handle_in(&mut self, event: &str, _: Payload, _: &mut Socket<Self>) -> Result<Outcome, Error> {
    /// #       Err(Error::unhandled(event))
    /// #   }
    ///     const INTERCEPT: &'static [&'static str] = &["whisper"];
    ///
    ///     async fn handle_out(
    ///         &mut self,
    ///         event: &str,
    ///         payload: Payload,
    ///         socket: &mut Socket<Self>,
    ///     ) -> Result<Outcome, Error> {
    ///         #[derive(serde::Deserialize)]
    ///         struct Whisper { to: String }
    ///         let Whisper { to } = payload.parse()?;
    ///         if to == socket.assigns().name {
    ///             socket.push(event, payload)?;
    ///         }
    ///         Ok(Outcome::NoReply)
    ///     }
    /// }
    /// ```
    fn handle_out(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> impl Future<Output = Result<Outcome, Error>> + Send {
        async move {
            socket.push(event, payload)?;
            Ok(Outcome::NoReply)
        }
    }

    /// Takes a message of the application's own tasks. A reply as the outcome answers nothing.
    fn handle_info(
        &mut self,
        info: Self::Info,
        socket: &mut Socket<Self>,
    ) -> impl Future<Output = Result<Outcome, Error>> + Send {
        let _ = (info, socket);
        async { Ok(Outcome::NoReply) }
    }

    /// The channel has ended: the client hears nothing more of it, and its presences are gone, or about
    /// to go. Others can still be told.
    ///
    /// Unless the client joined anew, what it pushed before has been done, if that took no more than 5
    /// seconds. Runs once for every [`join`](Self::join) that returned [`Joined`], also where the node had
    /// to refuse the client all the same ([`Reason::Refused`]). It is given up after 5 seconds.
    fn terminate(
        self,
        reason: &Reason,
        socket: &mut Socket<Self>,
    ) -> impl Future<Output = ()> + Send {
        let _ = (self, reason, socket);
        async {}
    }
}

/// A client is taken in: the channel's state, what the client is answered, and what it sees of the
/// topic's presence.
///
/// ```
/// # use serde_json::json;
/// # use wingbeat::{Channel, Error, Joined};
/// fn joined<C: Channel>(channel: C) -> Result<Joined<C>, Error> {
///     Ok(Joined::new(channel)
///         .reply(json!({ "hello": "you" }))
///         .track("u1", &json!({ "name": "N" }))?)
/// }
/// ```
#[derive(Debug)]
#[must_use = "return it from join"]
pub struct Joined<C> {
    pub(super) channel: C,
    pub(super) reply: Payload,
    pub(super) presence: Watching,
    pub(super) linger: Duration,
}

/// What a client sees of a topic's presence from its join on.
#[derive(Debug)]
pub(crate) enum Watching {
    /// Nothing.
    Nothing,
    /// Who comes and goes.
    Diffs,
    /// Who is there, then who comes and goes; itself too, if it is listed under a key with a meta.
    State { own: Option<(String, Vec<u8>)> },
    /// How many are there; itself too, if it is listed likewise.
    Count { own: Option<(String, Vec<u8>)> },
}

impl<C> Joined<C> {
    /// Takes the client in: it is answered `{}` and sees nothing of presence.
    pub const fn new(channel: C) -> Self {
        Self { channel, reply: Payload::EMPTY, presence: Watching::Nothing, linger: Duration::ZERO }
    }

    /// Answers the join with this instead of `{}`.
    pub fn reply(mut self, response: impl Into<Payload>) -> Self {
        self.reply = response.into();
        self
    }

    /// Keeps the client listed for that long when its socket ends without a leave. Back within it, on
    /// whatever node, it was never absent: others see its meta change.
    pub const fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Pushes `presence_state` after the reply, and lets the client hear of changes.
    pub fn watch(mut self) -> Self {
        self.presence = Watching::State { own: None };
        self
    }

    /// Lets the client hear of changes of presence, without telling it who is there.
    pub fn watch_changes(mut self) -> Self {
        self.presence = Watching::Diffs;
        self
    }

    /// Pushes `presence_count` after the reply, `{"count": keys, "entries": n}`, and then whenever it has
    /// changed, at most once a second. For rooms of thousands, where who comes and goes would be more than
    /// their clients want to read. A client that is to be [tracked](Self::track) is.
    pub fn watch_count(mut self) -> Self {
        let own = match self.presence {
            Watching::State { own } | Watching::Count { own } => own,
            Watching::Nothing | Watching::Diffs => None,
        };
        self.presence = Watching::Count { own };
        self
    }

    /// Lists the client under a key of 1 to 256 bytes, with a meta that is a JSON object of at most 16 KiB, and
    /// watches: its `presence_state` has the client itself. With [`watch_count`](Self::watch_count) its
    /// `presence_count` has. To list it without, see [`Socket::track`].
    ///
    /// # Errors
    ///
    /// The meta is no JSON object. A key or meta of another length refuses the join: the client is told so,
    /// and the channel ends with [`Reason::Refused`].
    pub fn track<M: Serialize + ?Sized>(
        mut self,
        key: impl Into<String>,
        meta: &M,
    ) -> Result<Self, TrackError> {
        let own = Some((key.into(), super::object(meta)?));
        self.presence = match self.presence {
            Watching::Count { .. } => Watching::Count { own },
            Watching::Nothing | Watching::Diffs | Watching::State { .. } => Watching::State { own },
        };
        Ok(self)
    }
}

/// What became of an event.
///
/// A reply that comes later is no outcome: take a
/// [`ReplyRef`](super::ReplyRef) by [`Socket::reply_later`] and answer nothing for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; the client is not answered.
    NoReply,
    /// Done; the client is answered.
    Reply(Reply),
    /// The channel ends, with `phx_close`, after a reply if there is one.
    Stop(Option<Reply>),
}

impl Outcome {
    /// Answers ok. The response of `()` is `{}`.
    pub fn ok(response: impl Into<Payload>) -> Self {
        Self::Reply(Reply::ok(response))
    }

    /// Answers with an error.
    pub fn error(response: impl Into<Payload>) -> Self {
        Self::Reply(Reply::error(response))
    }

    /// Ends the channel after this.
    #[must_use = "return it from the handler"]
    pub fn and_stop(self) -> Self {
        match self {
            Self::NoReply => Self::Stop(None),
            Self::Reply(reply) => Self::Stop(Some(reply)),
            Self::Stop(reply) => Self::Stop(reply),
        }
    }
}

/// An answer to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub(super) ok: bool,
    pub(super) response: Payload,
}

impl Reply {
    /// Status `ok`.
    pub fn ok(response: impl Into<Payload>) -> Self {
        Self { ok: true, response: response.into() }
    }

    /// Status `error`.
    pub fn error(response: impl Into<Payload>) -> Self {
        Self { ok: false, response: response.into() }
    }
}

/// Why a channel has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The client left the topic.
    Left,
    /// The client joined the topic anew.
    Replaced,
    /// A handler said [`Outcome::Stop`].
    Stopped,
    /// The client was not taken in after all, and was told so: the key or the meta that the join gave is too
    /// long, or the node lists as many as it may.
    Refused,
    /// A handler failed or panicked. After a panic the channel's state may be half changed.
    Crashed,
    /// The client's socket has ended.
    Closed,
    /// The node stops, or sends its clients away before it does.
    NodeStopping,
}

//! An application: who may connect, and which channel serves which topics.

use std::{fmt, marker::PhantomData, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::time::timeout;
use tracing::error;

use super::{
    Accepted, Assigns, Channel, Connect, Error, Inbox, NodeHandle, Payload, Refused, Seat, Tap,
    connect::Admitted,
    error::Why,
    seat::check_event,
    task::{self, panic_message},
    watchdog::Watchdog,
};
use crate::{
    config::Pattern,
    node::{Shared, StartError},
    socket::reserved_event,
};

/// A callback that runs longer is named in the log.
const SLOW_AFTER: Duration = Duration::from_secs(5);

/// How long the connect callback may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An application: who may connect, and which channel serves which topics. Run it with
/// [`Node::start_app`](crate::Node::start_app), or as a program of its own with
/// [`run_app`](crate::run_app).
///
/// `A` is what is known of a connected client; all channels of a socket share one.
///
/// ```no_run
/// # use wingbeat::{Channel, Error, Joined, Outcome, Payload, Refused, Socket, Topic};
/// use wingbeat::{Accepted, App, Config, Connect, Node};
///
/// struct User { id: String }
/// # struct Room;
/// # impl Channel for Room {
/// #     type Assigns = User;
/// #     type Info = ();
/// #     async fn join(_: &Topic, _: Payload, _: &mut Socket<Self>) -> Result<Joined<Self>, Refused> {
/// #         Ok(Joined::new(Self))
/// #     }
/// #     async fn handle_in(&mut self, event: &str, _: Payload, _: &mut Socket<Self>) -> Result<Outcome, Error> {
/// #         Err(Error::unhandled(event))
/// #     }
/// # }
///
/// async fn connect(connect: Connect) -> Result<Accepted<User>, Refused> {
///     let id = connect.param("user_id").ok_or_else(|| Refused::reason("who?"))?;
///     Ok(Accepted::new(User { id: id.to_owned() }).id(format!("users_socket:{id}")))
/// }
///
/// # async fn run() -> Result<(), wingbeat::StartError> {
/// let app = App::new(connect).channel::<Room>("room:*");
/// let node = Node::start_app(Config::default(), app).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "an application does nothing until a node runs it"]
pub struct App<A> {
    connect: ConnectFn,
    channels: Vec<(String, Arc<dyn Host>)>,
    tasks: Vec<Beside>,
    relay: bool,
    slow_after: Duration,
    assigns: PhantomData<fn() -> A>,
}

/// A task of the application's own.
pub(crate) type Beside = Box<dyn FnOnce(NodeHandle) -> BoxFuture<'static, ()> + Send>;

type ConnectFn =
    Box<dyn Fn(Connect) -> BoxFuture<'static, Result<Admitted, Refused>> + Send + Sync>;

impl<A: Send + Sync + 'static> App<A> {
    /// An application without channels. `connect` decides who may connect, in place of
    /// `auth.anonymous`; the origin has been checked before. It has 10 seconds.
    pub fn new<F, D>(connect: F) -> Self
    where
        F: Fn(Connect) -> D + Send + Sync + 'static,
        D: Future<Output = Result<Accepted<A>, Refused>> + Send + 'static,
    {
        Self {
            connect: Box::new(move |client| {
                let decision = connect(client);
                Box::pin(async move { decision.await.map(Accepted::erase) })
            }),
            channels: Vec::new(),
            tasks: Vec::new(),
            relay: false,
            slow_after: SLOW_AFTER,
            assigns: PhantomData,
        }
    }

    /// Serves the topics of a pattern by a channel: `room:*` all that begin so, `lobby` that one. The
    /// first channel whose pattern matches serves a topic.
    pub fn channel<C: Channel<Assigns = A>>(mut self, pattern: &str) -> Self {
        self.channels.push((pattern.to_owned(), Arc::new(Typed::<C>(PhantomData))));
        self
    }

    /// Runs a task beside the node, once it listens: for what an application does by itself, on a timer or
    /// on messages from elsewhere. When the node stops, it is given up where it waits. One that panics
    /// is logged, and not begun again.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use serde_json::json;
    /// # let app = wingbeat::App::new(|_| async { Ok(wingbeat::Accepted::new(())) });
    /// let app = app.task(async |node| {
    ///     let lobby = "room:lobby".parse().expect("a topic");
    ///     loop {
    ///         tokio::time::sleep(Duration::from_secs(60)).await;
    ///         let online = json!({ "online": node.presence().count(&lobby) });
    ///         // It fails for names that are none, which these are not.
    ///         let _ = node.broadcast("room:lobby", "count", online).await;
    ///     }
    /// });
    /// ```
    pub fn task<F, D>(mut self, task: F) -> Self
    where
        F: FnOnce(NodeHandle) -> D + Send + 'static,
        D: Future<Output = ()> + Send + 'static,
    {
        self.tasks.push(Box::new(|node| Box::pin(async { task(node).await })));
        self
    }

    /// Serves the topics of no channel as the node's configuration says (`[[channel]]`). Without it,
    /// they are unmatched.
    pub fn with_relay(mut self) -> Self {
        self.relay = true;
        self
    }

    /// Names callbacks in the log, and counts them, that run longer than this; 5 seconds unless said. Each
    /// is named once, while it runs.
    pub fn slow_after(mut self, limit: Duration) -> Self {
        self.slow_after = limit;
        self
    }

    pub(crate) fn erase(self) -> Result<Erased, StartError> {
        let parsed = self.channels.into_iter().map(|(pattern, host)| {
            let pattern: Pattern = pattern.parse().map_err(StartError::Pattern)?;
            let broadcast = |event: &str| check_event(event).is_ok() && !reserved_event(event);
            match host.intercepts().iter().find(|event| !broadcast(event)) {
                None => Ok((pattern, host)),
                Some(event) => Err(StartError::Intercept { channel: host.name(), event }),
            }
        });
        let door = Door { connect: self.connect, watchdog: Watchdog::new(self.slow_after) };
        let channels = parsed.collect::<Result<_, StartError>>()?;
        Ok(Erased { door, channels, tasks: self.tasks, relay: self.relay })
    }
}

impl<A> fmt::Debug for App<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("channels", &self.channels)
            .field("relay", &self.relay)
            .finish_non_exhaustive()
    }
}

/// An application whatever its types.
pub(crate) struct Erased {
    pub(crate) door: Door,
    pub(crate) channels: Vec<(Pattern, Arc<dyn Host>)>,
    pub(crate) tasks: Vec<Beside>,
    pub(crate) relay: bool,
}

/// Who may connect, and who looks after what their channels do.
pub(crate) struct Door {
    connect: ConnectFn,
    pub(crate) watchdog: Arc<Watchdog>,
}

/// Begins a task of the application's own.
pub(crate) fn run_beside(shared: &Arc<Shared>, task: Beside) {
    let (node, mut stopping) = (NodeHandle::new(shared), shared.stopping.clone());
    shared.tasks.spawn(async move {
        let name = node.name().clone();
        // The call itself may panic, not only what it returns.
        let ended = AssertUnwindSafe(async { task(node).await }).catch_unwind();
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => {}
            ended = ended => if let Err(panic) = ended {
                error!(node = %name, "a task of the application panicked: {}", panic_message(&*panic));
            }
        }
    });
}

/// What the connect callback decided.
pub(crate) enum Decision {
    Admitted(Admitted),
    Refused(String),
    /// It failed, or panicked.
    Failed(String),
}

impl Door {
    pub(crate) async fn ask(&self, client: Connect) -> Decision {
        // The callback itself may panic, not only what it returns.
        let decision = AssertUnwindSafe(async { (self.connect)(client).await }).catch_unwind();
        match timeout(CONNECT_TIMEOUT, decision).await {
            Ok(Ok(Ok(admitted))) => Decision::Admitted(admitted),
            Ok(Ok(Err(Refused(Why::Decided(response))))) => Decision::Refused(reason_of(&response)),
            Ok(Ok(Err(Refused(Why::Failed(error))))) => Decision::Failed(error.to_string()),
            Ok(Err(panic)) => Decision::Failed(format!("panicked: {}", panic_message(&*panic))),
            Err(_) => Decision::Failed(format!("no decision within {CONNECT_TIMEOUT:?}")),
        }
    }
}

/// What a refusal says: its `reason`, if it has one.
fn reason_of(response: &Payload) -> String {
    let parsed = response.parse::<serde_json::Value>().ok();
    let reason = parsed.as_ref().and_then(|response| response.get("reason")?.as_str());
    let whole = || String::from_utf8_lossy(response.bytes()).into_owned();
    reason.map_or_else(whole, ToOwned::to_owned)
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("watchdog", &self.watchdog).finish_non_exhaustive()
    }
}

/// A kind of channel whatever its types.
pub(crate) trait Host: Send + Sync {
    /// Begins a channel of it, once the former one of its client and topic has ended.
    fn open(
        &self,
        seat: Arc<Seat>,
        assigns: Assigns,
        payload: Payload,
        tap: Option<Tap>,
        former: Option<Arc<Seat>>,
    ) -> Result<Box<dyn Inbox>, Error>;

    /// Events that go through its callbacks.
    fn intercepts(&self) -> &'static [&'static str];

    /// Its name, for people.
    fn name(&self) -> &'static str;
}

impl fmt::Debug for dyn Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

struct Typed<C>(PhantomData<fn() -> C>);

impl<C: Channel> Host for Typed<C> {
    fn open(
        &self,
        seat: Arc<Seat>,
        assigns: Assigns,
        payload: Payload,
        tap: Option<Tap>,
        former: Option<Arc<Seat>>,
    ) -> Result<Box<dyn Inbox>, Error> {
        // `App::channel` takes only channels of its own assigns.
        let assigns = assigns.downcast().map_err(|_| Error::new("assigns of another type"))?;
        Ok(task::spawn::<C>(seat, assigns, (payload, tap), former))
    }

    fn intercepts(&self) -> &'static [&'static str] {
        C::INTERCEPT
    }

    fn name(&self) -> &'static str {
        std::any::type_name::<C>()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::{Config, Joined, Node, Outcome, Socket, Topic};

    fn app() -> App<()> {
        App::new(|_| async { Ok(Accepted::new(())) })
    }

    fn config() -> Config {
        let mut config = Config::default();
        config.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config
    }

    #[tokio::test]
    async fn a_task_runs_beside_the_node_until_it_stops_and_a_panic_harms_nobody() {
        let (names, mut heard) = mpsc::channel(1);
        let (alive, dropped) = oneshot::channel::<()>();
        let app = app().task(async |_| panic!("asked to")).task(async move |node| {
            let _alive = alive;
            let _ = names.send(node.name().clone()).await;
            std::future::pending().await
        });
        let node = Node::start_app(config(), app).await.expect("a node");
        assert_eq!(heard.recv().await.as_ref(), Some(node.name()));
        node.stop().await;
        assert!(dropped.await.is_err(), "given up");
    }

    /// Intercepts what never comes.
    struct Deaf;

    impl Channel for Deaf {
        type Assigns = ();
        type Info = ();
        const INTERCEPT: &'static [&'static str] = &["new", "presence_diff"];

        async fn join(
            _: &Topic,
            _: Payload,
            _: &mut Socket<Self>,
        ) -> Result<Joined<Self>, Refused> {
            Ok(Joined::new(Self))
        }

        async fn handle_in(
            &mut self,
            event: &str,
            _: Payload,
            _: &mut Socket<Self>,
        ) -> Result<Outcome, Error> {
            Err(Error::unhandled(event))
        }
    }

    #[tokio::test]
    async fn a_channel_that_intercepts_what_is_no_broadcast_does_not_start() {
        let refused = Node::start_app(config(), app().channel::<Deaf>("room:*")).await;
        let why = refused.expect_err("presence is no broadcast").to_string();
        assert!(why.contains("Deaf") && why.contains(r#""presence_diff""#), "{why}");
    }

    #[tokio::test]
    async fn an_application_decides_who_connects_whatever_the_configuration_says() {
        let mut config = config();
        config.http.listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        assert!(Node::start(config.clone()).await.is_err(), "anonymous is not decided");
        let node = Node::start_app(config, app()).await.expect("a node");
        node.stop().await;
    }
}

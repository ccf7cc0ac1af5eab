//! Starts the parts in order, owns every task, and ends them. No logic.

mod parts;

use std::{
    io,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use presence::{InvalidNodeName, NodeName};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};
use transport::Transport;

use crate::{
    api::ApiToken,
    app::{App, Door, Erased, NodeHandle, run_beside},
    channel::Router,
    config::{Config, ConfigError, InvalidValue, SecretError},
    drain::{self, Drain},
    endpoint::{Listener, ListenerStats, LongPoll, Origins, serve_tcp},
    mailboxes::Mailboxes,
    peers::Peers,
    publisher::{Links, Publisher},
    pubsub::{CloseReason, Registry, Routes},
    socket::Limits,
    sockets::Sockets,
    telemetry::Tally,
    tracker::{Clock, Tracker},
};

use parts::{Parts, Vital};

/// How long sockets and requests may take to end when the node stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is insecure or cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The node's name is none.
    #[error(transparent)]
    Name(#[from] InvalidNodeName),
    /// The address for clients is taken or not this machine's.
    #[error("cannot listen for HTTP on {address}: {source} ({})", advice(.source, "http.listen or --listen"))]
    Http {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The address for clients over plain TCP is taken or not this machine's.
    #[error("cannot listen for TCP on {address}: {source} ({})", advice(.source, "tcp.listen or --tcp-listen"))]
    Tcp {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// An application's channel has a pattern that is none.
    #[error("a channel's pattern: {0}")]
    Pattern(InvalidValue),
    /// An application's channel intercepts an event that never comes as a broadcast.
    #[error(
        "{channel} intercepts {event:?}, which is not broadcast: it is the protocol's own, or no name"
    )]
    Intercept {
        /// The channel's type.
        channel: &'static str,
        /// The event.
        event: &'static str,
    },
    /// The cluster listener did not start.
    #[error(
        "cannot start the cluster listener: {0} (change cluster.listen or --cluster-listen, or end what uses the address)"
    )]
    Cluster(#[from] transport::BindError),
}

fn advice(error: &io::Error, key: &str) -> String {
    if error.kind() == io::ErrorKind::AddrInUse {
        format!("another program, maybe another node, uses it: end that, or change {key}")
    } else {
        format!("change {key}")
    }
}

/// Why a running node ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeEnd {
    /// Another process runs under this node's name.
    #[error("{0}")]
    Replaced(String),
    /// It was asked to, by the API or [`Node::drain`], and its clients have moved.
    #[error("drained, as asked")]
    Drained,
    /// A task ended that the node cannot do without.
    #[error("task {0} of the node ended: this is a bug")]
    Task(&'static str),
    /// A task panicked that the node cannot do without.
    #[error("a task of the node panicked: this is a bug, and the panic's own message says where")]
    Panicked,
}

/// Counts of sockets since the start, or now.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Sockets that are open.
    pub(crate) sockets: AtomicUsize,
    pub(crate) frames_in: AtomicU64,
    pub(crate) joins: AtomicU64,
    pub(crate) joins_refused: AtomicU64,
    /// Events over a socket's rate.
    pub(crate) events_over_rate: AtomicU64,
    /// Events that a channel's rule refuses.
    pub(crate) events_refused: AtomicU64,
    /// Sockets closed as their client did not read.
    pub(crate) slow: AtomicU64,
    /// Fresh presence states in place of diffs that did not fit.
    pub(crate) resyncs: AtomicU64,
    /// Callbacks of the application that failed or panicked.
    pub(crate) channel_crashes: AtomicU64,
    /// Callbacks of the application that took too long.
    pub(crate) slow_handlers: Tally,
}

/// All that the parts of one node share. Two nodes of one process share nothing.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: NodeName,
    pub(crate) config: Config,
    pub(crate) started: Instant,
    pub(crate) clock: Clock,
    pub(crate) registry: Arc<Registry>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) links: Arc<Links>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) tracker: Arc<Tracker>,
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) mailboxes: Arc<Mailboxes>,
    pub(crate) peers: Peers,
    pub(crate) drain: Drain,
    /// `None` for a node in no cluster.
    pub(crate) transport: Option<Transport>,
    pub(crate) router: Router,
    /// Who may connect; `None` without an application.
    pub(crate) door: Option<Door>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) origins: Origins,
    pub(crate) api_token: Option<ApiToken>,
    pub(crate) listener: Arc<ListenerStats>,
    pub(crate) longpoll: LongPoll,
    pub(crate) stats: Stats,
    /// The sockets' tasks.
    pub(crate) tasks: TaskTracker,
    pub(crate) http: SocketAddr,
    pub(crate) tcp: Option<SocketAddr>,
    pub(crate) cluster: Option<SocketAddr>,
    pub(crate) stopping: watch::Receiver<bool>,
    /// After this the node is ready even if it is alone.
    pub(crate) lonely_at: Instant,
}

impl Shared {
    /// Closes the sockets with an id here, and asks the peers to.
    pub(crate) async fn disconnect(&self, socket_id: &str) {
        self.sockets.disconnect(socket_id);
        self.peers.disconnect(socket_id.to_owned()).await;
    }
}

/// A running node. Dropping it ends it at once: clients are sent away, peers find it gone.
/// [`stop`](Self::stop) does it in order.
#[derive(Debug)]
#[must_use = "a node ends when it is dropped"]
pub struct Node {
    shared: Arc<Shared>,
    tasks: JoinSet<NodeEnd>,
    stop: watch::Sender<bool>,
}

impl Node {
    /// Starts a node. When it returns, the node listens; it may not have found its peers yet.
    ///
    /// # Errors
    ///
    /// See [`StartError`]. Nothing is left running.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, Role::default()).await
    }

    /// Starts a node that runs an application: its own channels, and those of the configuration where
    /// it asks for them.
    ///
    /// Log lines go to `tracing`: without a subscriber of it, there are none.
    ///
    /// # Errors
    ///
    /// See [`StartError`]. Nothing is left running.
    pub async fn start_app<A: Send + Sync + 'static>(
        config: Config,
        app: App<A>,
    ) -> Result<Self, StartError> {
        let app = app.erase()?;
        Self::start_with(config, Role { app: Some(app), ..Role::default() }).await
    }

    /// As [`start_app`](Self::start_app), within a server of your own: the node does not listen for
    /// HTTP, and your server serves its [`router`](Self::router). `http.listen` is to be the address
    /// that your server listens on: peers are told it, and it decides which pages may connect.
    ///
    /// The example `embed` is a whole program. Log lines go to `tracing`: without a subscriber of it, there
    /// are none.
    ///
    /// # Errors
    ///
    /// See [`StartError`]. Nothing is left running.
    pub async fn embed<A: Send + Sync + 'static>(
        config: Config,
        app: App<A>,
    ) -> Result<Self, StartError> {
        let app = app.erase()?;
        Self::start_with(config, Role { app: Some(app), embedded: true, ..Role::default() }).await
    }

    pub(crate) async fn start_with(mut config: Config, mut role: Role) -> Result<Self, StartError> {
        let beside = role.app.as_mut().map(|app| std::mem::take(&mut app.tasks));
        if beside.is_some() {
            config.leave_clients_to_application();
        }
        let warnings = config.check()?;
        let (socket, http) = if role.embedded {
            (None, config.http.listen)
        } else {
            let address = config.http.listen;
            let bound = listen(address).await;
            let (socket, http) = bound.map_err(|source| StartError::Http { address, source })?;
            (Some(socket), http)
        };
        let tcp = match config.tcp.listen {
            Some(address) => {
                let bound = listen(address).await;
                Some(bound.map_err(|source| StartError::Tcp { address, source })?)
            }
            None => None,
        };
        let name = config.node_name(http.port())?;
        for warning in warnings {
            warn!(node = %name, "{warning}");
        }
        if role.app.as_ref().is_some_and(|app| !app.relay) && config.asks_for_relay() {
            warn!(node = %name, "[[channel]] and realtime.enabled say nothing here: the application \
                serves its own channels alone, which App::with_relay changes");
        }
        let longpoll = LongPoll::new(&config)?;
        let parts =
            Parts::new(&config, name, (http, tcp.as_ref().map(|(_, address)| *address)), longpoll);
        let (peers, transport, mut vital) = parts.join_cluster(&config).await?;
        let (stop, stopping) = watch::channel(false);
        let api_token = config.api_token()?.map(|token| ApiToken::new(token.expose()));
        let shared = Arc::new(parts.shared(config, (peers, transport), stopping, api_token, role));
        shared.registry.set_intercepts(shared.router.intercepts());
        vital.extend(clocks(&shared));
        vital.push(drain(&shared));
        vital.extend(listeners(&shared, socket, tcp.map(|(socket, _)| socket)));
        let mut tasks = JoinSet::new();
        for task in vital {
            tasks.spawn(until_it_ends(task, Arc::clone(&shared), stop.clone()));
        }
        if let Some(door) = &shared.door
            && let Err(error) = door.watchdog.start()
        {
            warn!(node = %shared.name, "slow handlers are named only when they return: {error}");
        }
        beside.into_iter().flatten().for_each(|task| run_beside(&shared, task));
        Ok(Self { shared, tasks, stop })
    }

    /// The node, for the application's own tasks.
    pub fn handle(&self) -> NodeHandle {
        NodeHandle::new(&self.shared)
    }

    /// All that the node serves over HTTP, for a server of your own: `/socket`, `/api`, `/metrics`, health,
    /// and a page at `/`; what it does not know is answered 404. That server has to give each
    /// request its [`ConnectInfo`](axum::extract::ConnectInfo).
    ///
    /// ```no_run
    /// # use std::net::SocketAddr;
    /// # async fn run(node: wingbeat::Node) -> std::io::Result<()> {
    /// let app = axum::Router::new()
    ///     .route("/", axum::routing::get(async || "a page of your own"))
    ///     .fallback_service(node.router());
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:4000").await?;
    /// axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
    /// # }
    /// ```
    pub fn router(&self) -> axum::Router {
        crate::api::router(Arc::clone(&self.shared))
    }

    /// Of [`router`](Self::router) only what clients connect to: `/socket/websocket` and
    /// `/socket/longpoll`.
    pub fn socket_router(&self) -> axum::Router {
        crate::api::socket_router(Arc::clone(&self.shared))
    }

    /// The node's name.
    pub fn name(&self) -> &NodeName {
        &self.shared.name
    }

    /// Where clients connect.
    pub fn http_address(&self) -> SocketAddr {
        self.shared.http
    }

    /// Where clients over plain TCP connect; `None` where the configuration says nothing of it.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.shared.tcp
    }

    /// Where peers connect; `None` for a node in no cluster.
    pub fn cluster_address(&self) -> Option<SocketAddr> {
        self.shared.cluster
    }

    /// How many peers it has a link with.
    pub fn peers_linked(&self) -> usize {
        self.shared.peers.linked()
    }

    /// Waits until the node ends by itself: another one took its name, or a task of it is gone, which is a
    /// bug. Its clients have been sent away then. Whoever runs a node waits for this beside the end of
    /// the program.
    pub async fn ended(&mut self) -> NodeEnd {
        match self.tasks.join_next().await {
            Some(Ok(end)) => end,
            // There is no node without tasks, so none left means the same.
            Some(Err(_)) | None => NodeEnd::Panicked,
        }
    }

    /// Takes the node out of its cluster, then stops it: it is not ready any more, sends its clients away a
    /// few at a time, and keeps them listed until they are back on other nodes, or their lease is over.
    /// That takes `drain.timeout` at most. A node without peers only stops.
    pub async fn drain(mut self) {
        self.shared.drain.ask();
        self.ended().await;
        self.stop().await;
    }

    /// Stops the node: it accepts nobody new, closes its sockets (1012), says goodbye to its peers and
    /// returns, after a few seconds at most.
    pub async fn stop(mut self) {
        info!(node = %self.shared.name, sockets = self.shared.mailboxes.len(), "stopping");
        self.stop.send_replace(true);
        self.shared.mailboxes.close(CloseReason::Shutdown).await;
        self.shared.tasks.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.shared.tasks.wait()).await.is_err() {
            warn!(node = %self.shared.name, "some clients did not close in {STOP_TIMEOUT:?}");
        }
        self.shared.peers.leave(self.shared.drain.lease_left()).await;
        if let Some(transport) = &self.shared.transport {
            transport.close("the node is stopping", Duration::from_secs(1)).await;
        }
        self.tasks.shutdown().await;
        info!(node = %self.shared.name, "stopped");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.stop.send_replace(true) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Without a runtime there are no tasks either that sockets could live in.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { shared.mailboxes.close(CloseReason::Shutdown).await });
        }
    }
}

async fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpListener::bind(address).await?;
    let bound = socket.local_addr()?;
    Ok((socket, bound))
}

/// What goes by the clock.
fn clocks(shared: &Arc<Shared>) -> [Vital; 2] {
    let (tracker, mailboxes) = (Arc::clone(&shared.tracker), Arc::clone(&shared.mailboxes));
    let diffs: Vital = Box::pin(async move {
        tracker.run().await;
        NodeEnd::Task("tracker")
    });
    let silence: Vital = Box::pin(async move {
        mailboxes.run().await;
        NodeEnd::Task("idle timeouts")
    });
    [diffs, silence]
}

/// What takes the node out of its cluster, once it is asked to.
fn drain(shared: &Arc<Shared>) -> Vital {
    let shared = Arc::clone(shared);
    Box::pin(async move {
        drain::run(&shared).await;
        NodeEnd::Drained
    })
}

/// What takes clients in.
fn listeners(
    shared: &Arc<Shared>,
    http: Option<TcpListener>,
    tcp: Option<TcpListener>,
) -> Vec<Vital> {
    let listener = |socket| Listener {
        node: shared.name.clone(),
        socket,
        connections_max: shared.config.http.max_connections,
        stats: Arc::clone(&shared.listener),
    };
    let mut serving: Vec<Vital> = Vec::new();
    if let Some(http) = http {
        let router = crate::api::router(Arc::clone(shared));
        let http = listener(http).serve_http(router, shared.stopping.clone());
        serving.push(Box::pin(async move {
            http.await;
            NodeEnd::Task("listener")
        }));
    }
    if let Some(tcp) = tcp {
        let tcp = serve_tcp(listener(tcp), Arc::clone(shared), shared.stopping.clone());
        serving.push(Box::pin(async move {
            tcp.await;
            NodeEnd::Task("TCP listener")
        }));
    }
    serving
}

/// Runs a task that the node cannot do without. If it ends while the node is not stopping, clients are
/// sent away, whether or not somebody looks at [`Node::ended`].
async fn until_it_ends(task: Vital, shared: Arc<Shared>, stop: watch::Sender<bool>) -> NodeEnd {
    let end = AssertUnwindSafe(task).catch_unwind().await.unwrap_or(NodeEnd::Panicked);
    if matches!(end, NodeEnd::Drained) {
        return end;
    }
    if stop.send_replace(true) {
        // It ends as the node does: why that is, another task says.
        return std::future::pending().await;
    }
    error!(node = %shared.name, "the node ends: {end}");
    shared.mailboxes.close(CloseReason::Shutdown).await;
    end
}

/// What a node is beside its configuration.
#[derive(Default)]
pub(crate) struct Role {
    /// Pages of any port of this machine may connect.
    pub(crate) development: bool,
    pub(crate) app: Option<Erased>,
    /// Another server listens for HTTP.
    pub(crate) embedded: bool,
}

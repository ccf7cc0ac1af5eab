//! Starts the parts in order, owns every task, and ends them. No logic.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cluster::{Cluster, Profile, wire::WIRE_VERSIONS};
use presence::{InvalidNodeName, NodeName, Replica};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};
use transport::{Events, Handlers, Identity, Secret, Transport, Unfinished};

use crate::{
    api::ApiToken,
    app::{App, Door, Erased, NodeHandle, run_beside},
    channel::Router,
    config::{Config, ConfigError, InvalidValue, SecretError},
    discovery::{self, Seeds},
    endpoint::{Listener, ListenerStats, LongPoll, Origins, serve_tcp},
    mailboxes::Mailboxes,
    peers::{self, Driver, DriverEnd, Peers, Seen, lanes},
    publisher::{Links, Publisher},
    pubsub::{CloseReason, Registry, Routes},
    socket::Limits,
    sockets::Sockets,
    tracker::{Clock, Tracker},
};

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
    pub(crate) slow_handlers: AtomicU64,
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

/// A running node.
#[derive(Debug)]
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
    /// # Errors
    ///
    /// See [`StartError`]. Nothing is left running.
    pub async fn start_app<A: Send + Sync + 'static>(
        config: Config,
        app: App<A>,
    ) -> Result<Self, StartError> {
        let app = app.erase().map_err(StartError::Pattern)?;
        Self::start_with(config, Role { app: Some(app), ..Role::default() }).await
    }

    /// As [`start_app`](Self::start_app), within a server of your own: the node does not listen for
    /// HTTP, and your server serves its [`router`](Self::router). `http.listen` is what peers are told
    /// of where clients connect.
    ///
    /// # Errors
    ///
    /// See [`StartError`]. Nothing is left running.
    pub async fn embed<A: Send + Sync + 'static>(
        config: Config,
        app: App<A>,
    ) -> Result<Self, StartError> {
        let app = app.erase().map_err(StartError::Pattern)?;
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
        let longpoll = LongPoll::new(&config)?;
        let parts =
            Parts::new(&config, name, (http, tcp.as_ref().map(|(_, address)| *address)), longpoll);
        let mut tasks = JoinSet::new();
        let (peers, transport) = parts.join_cluster(&config, &mut tasks).await?;
        let (stop, stopping) = watch::channel(false);
        let api_token = config.api_token()?.map(|token| ApiToken::new(token.expose()));
        let shared = Arc::new(parts.shared(config, (peers, transport), stopping, api_token, role));
        shared.registry.set_intercepts(shared.router.intercepts());
        let tracker = Arc::clone(&shared.tracker);
        tasks.spawn(async move {
            tracker.run().await;
            NodeEnd::Task("tracker")
        });
        let mailboxes = Arc::clone(&shared.mailboxes);
        tasks.spawn(async move {
            mailboxes.run().await;
            NodeEnd::Task("idle timeouts")
        });
        serve(&shared, &mut tasks, socket, tcp.map(|(socket, _)| socket));
        beside.into_iter().flatten().for_each(|task| run_beside(&shared, task));
        Ok(Self { shared, tasks, stop })
    }

    /// The node, for the application's own tasks.
    pub fn handle(&self) -> NodeHandle {
        NodeHandle::new(&self.shared)
    }

    /// All that the node serves over HTTP, for a server of your own: `/socket`, `/api`, `/metrics`, the
    /// page at `/`. That server has to give each request its
    /// [`ConnectInfo`](axum::extract::ConnectInfo).
    ///
    /// ```no_run
    /// # use std::net::SocketAddr;
    /// # async fn run(node: wingbeat::Node) -> std::io::Result<()> {
    /// let app = axum::Router::new()
    ///     .route("/hello", axum::routing::get(async || "hello"))
    ///     .merge(node.router());
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:4000").await?;
    /// axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
    /// # }
    /// ```
    pub fn router(&self) -> axum::Router {
        crate::api::router(Arc::clone(&self.shared))
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

    /// Waits until the node ends by itself, which it should not.
    pub async fn ended(&mut self) -> NodeEnd {
        match self.tasks.join_next().await {
            Some(Ok(end)) => end,
            // There is no node without tasks, so none left means the same.
            Some(Err(_)) | None => NodeEnd::Panicked,
        }
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
        self.shared.peers.leave().await;
        if let Some(transport) = &self.shared.transport {
            transport.close("the node is stopping", Duration::from_secs(1)).await;
        }
        self.tasks.shutdown().await;
        info!(node = %self.shared.name, "stopped");
    }
}

async fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpListener::bind(address).await?;
    let bound = socket.local_addr()?;
    Ok((socket, bound))
}

/// Takes clients in.
fn serve(
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<NodeEnd>,
    http: Option<TcpListener>,
    tcp: Option<TcpListener>,
) {
    let listener = |socket| Listener {
        node: shared.name.clone(),
        socket,
        connections_max: shared.config.http.max_connections,
        stats: Arc::clone(&shared.listener),
    };
    if let Some(http) = http {
        let router = crate::api::router(Arc::clone(shared));
        let serving = listener(http).serve_http(router, shared.stopping.clone());
        tasks.spawn(async move {
            serving.await;
            NodeEnd::Task("listener")
        });
    }
    if let Some(tcp) = tcp {
        let serving = serve_tcp(listener(tcp), Arc::clone(shared), shared.stopping.clone());
        tasks.spawn(async move {
            serving.await;
            NodeEnd::Task("TCP listener")
        });
    }
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

/// The parts before they know each other.
struct Parts {
    name: NodeName,
    incarnation: u64,
    clock: Clock,
    registry: Arc<Registry>,
    routes: Arc<Routes>,
    links: Arc<Links>,
    publisher: Arc<Publisher>,
    tracker: Arc<Tracker>,
    sockets: Arc<Sockets>,
    longpoll: LongPoll,
    tasks: TaskTracker,
    http: SocketAddr,
    tcp: Option<SocketAddr>,
}

impl Parts {
    fn new(
        config: &Config,
        name: NodeName,
        (http, tcp): (SocketAddr, Option<SocketAddr>),
        longpoll: LongPoll,
    ) -> Self {
        let incarnation = new_incarnation();
        let clock = Clock::start();
        let shards = cluster::Config::default().shards;
        let registry = Registry::new();
        let routes = Arc::new(Routes::new(shards));
        let links = Arc::new(Links::default());
        let publisher =
            Publisher::new(Arc::clone(&registry), Arc::clone(&routes), Arc::clone(&links), shards);
        let presence = presence::Config {
            interests_max: config.cluster.interest_topics.div_ceil(usize::from(shards)),
            ..presence::Config::default()
        };
        let me = Replica { name: name.clone(), incarnation };
        let tracker =
            Tracker::new(&presence, shards, &me, clock, Arc::clone(&registry), Arc::clone(&routes));
        Self {
            name,
            incarnation,
            clock,
            registry,
            routes,
            links,
            publisher: Arc::new(publisher),
            tracker,
            sockets: Arc::default(),
            longpoll,
            tasks: TaskTracker::new(),
            http,
            tcp,
        }
    }

    /// Listens for peers and looks for them, if the node is to be in a cluster.
    async fn join_cluster(
        &self,
        config: &Config,
        tasks: &mut JoinSet<NodeEnd>,
    ) -> Result<(Peers, Option<Transport>), StartError> {
        let Some(listen) = config.cluster_listener() else {
            return Ok((peers::alone(self.tracker.shards(), self.incarnation), None));
        };
        let seen = Arc::new(Seen::default());
        let (transport, events) = self.bind(config, listen, &seen).await?;
        let seeds = Arc::new(Seeds::new(&config.cluster.join));
        let driver = self.driver(config, transport.clone(), events, seen, Arc::clone(&seeds));
        let (peers, running) = peers::start(driver);
        let name = self.name.clone();
        tasks.spawn(async move {
            match running.await {
                DriverEnd::TransportEnded => NodeEnd::Task("transport"),
                end @ DriverEnd::Replaced { .. } => {
                    error!(node = %name, "{end}");
                    NodeEnd::Replaced(end.to_string())
                }
            }
        });
        let looking = discovery::run(
            self.name.clone(),
            config.cluster.join.clone(),
            seeds,
            transport.clone(),
        );
        tasks.spawn(async move {
            looking.await;
            NodeEnd::Task("discovery")
        });
        Ok((peers, Some(transport)))
    }

    async fn bind(
        &self,
        config: &Config,
        listen: SocketAddr,
        seen: &Arc<Seen>,
    ) -> Result<(Transport, Events), StartError> {
        let secrets = config.cluster_secrets()?;
        let secrets = secrets.iter().filter_map(|secret| Secret::new(secret).ok());
        let transport = transport::Config {
            listen,
            advertise: config.cluster.advertise,
            cluster: config.cluster.name.clone(),
            secrets: secrets.collect(),
            wire: WIRE_VERSIONS,
            lanes: lanes::all(),
            ..transport::Config::default()
        };
        let publisher = Arc::clone(&self.publisher);
        let seen = Arc::clone(seen);
        let handlers = Handlers {
            direct: Arc::new(move |link, _, frames| {
                let writing = publisher.receive(link, frames);
                (!writing.is_done()).then(|| Box::pin(writing) as Unfinished)
            }),
            admit: Arc::new(move |name, incarnation| seen.admit(name, incarnation)),
        };
        let identity = identity(&self.name, self.incarnation, self.http);
        Ok(Transport::bind(transport, identity, handlers).await?)
    }

    fn driver(
        &self,
        config: &Config,
        transport: Transport,
        events: Events,
        seen: Arc<Seen>,
        seeds: Arc<Seeds>,
    ) -> Driver {
        let settings = cluster::Config {
            profile: match config.cluster.profile {
                crate::config::Profile::Lan => Profile::Lan,
                crate::config::Profile::Wan => Profile::Wan,
            },
            region: config.node.region.clone().unwrap_or_default(),
            ..cluster::Config::default()
        };
        let me = Replica { name: self.name.clone(), incarnation: self.incarnation };
        let address = config.advertised(transport.local_addr());
        let seed = rand::random();
        let (name, http) = (self.name.clone(), self.http);
        Driver {
            cluster: Cluster::new(settings, me, address, seed, self.clock.now()),
            name: self.name.clone(),
            clock: self.clock,
            transport,
            events,
            tracker: Arc::clone(&self.tracker),
            routes: Arc::clone(&self.routes),
            links: Arc::clone(&self.links),
            sockets: Arc::clone(&self.sockets),
            seen,
            registry: Arc::clone(&self.registry),
            sessions: Arc::clone(&self.longpoll.sessions),
            tasks: self.tasks.clone(),
            seeds,
            identity: Box::new(move |incarnation| identity(&name, incarnation, http)),
        }
    }

    fn shared(
        self,
        mut config: Config,
        (peers, transport): (Peers, Option<Transport>),
        stopping: watch::Receiver<bool>,
        api_token: Option<ApiToken>,
        role: Role,
    ) -> Shared {
        let rules = std::mem::take(&mut config.channels);
        let (router, door) = match role.app {
            None => (Router::new(Vec::new(), rules, config.realtime.enabled), None),
            Some(Erased { door, channels, relay, .. }) => {
                let rules = if relay { rules } else { Vec::new() };
                (Router::new(channels, rules, relay && config.realtime.enabled), Some(door))
            }
        };
        let rate = |rate: crate::config::Rate| rate.per_second().map(std::num::NonZeroU32::get);
        let limits = Limits {
            channels_max: config.limits.channels_per_socket,
            joins_per_second: rate(config.limits.joins_per_second),
            events_per_second: rate(config.limits.events_per_second),
            user_broadcasts: router.serves_realtime(),
            ..Limits::default()
        };
        Shared {
            name: self.name,
            started: Instant::now(),
            clock: self.clock,
            registry: self.registry,
            routes: self.routes,
            links: self.links,
            publisher: self.publisher,
            tracker: self.tracker,
            sockets: self.sockets,
            mailboxes: Mailboxes::new(config.http.idle_timeout),
            peers,
            router,
            door,
            limits: Arc::new(limits),
            origins: Origins::new(
                std::mem::take(&mut config.http.origins),
                role.development,
                self.http.ip().is_loopback(),
            ),
            api_token,
            listener: Arc::default(),
            longpoll: self.longpoll,
            stats: Stats::default(),
            tasks: self.tasks,
            http: self.http,
            tcp: self.tcp,
            cluster: transport.as_ref().map(Transport::local_addr),
            transport,
            stopping,
            lonely_at: Instant::now() + config.cluster.join_timeout,
            config,
        }
    }
}

/// Peers are told where clients connect, for `/api/cluster`.
fn identity(name: &NodeName, incarnation: u64, http: SocketAddr) -> Identity {
    Identity { name: name.as_str().to_owned(), incarnation, hello: http.to_string().into() }
}

/// Unique per process start: the wall clock's milliseconds, then 12 random bits. Below 2^53 until the
/// year 2039, so that readers of JSON whose numbers are doubles keep it whole.
fn new_incarnation() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(0);
    millis << 12 | u64::from(rand::random::<u16>() >> 4)
}

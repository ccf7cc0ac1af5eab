//! The parts of a node before they know each other.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use cluster::{Cluster, Profile, wire::WIRE_VERSIONS};
use futures_util::future::BoxFuture;
use presence::{NodeName, Replica};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use transport::{Events, Handlers, Identity, Secret, Transport, Unfinished};

use super::{NodeEnd, Role, Shared, StartError, Stats};
use crate::{
    api::ApiToken,
    app::Erased,
    channel::Router,
    config::Config,
    discovery::{self, Seeds},
    drain::Drain,
    endpoint::{LongPoll, Origins},
    mailboxes::Mailboxes,
    peers::{self, Driver, DriverEnd, Peers, Seen, lanes},
    publisher::{Links, Publisher},
    pubsub::{Registry, Routes},
    socket::Limits,
    sockets::Sockets,
    tracker::{Clock, Tracker},
};

/// A task that a node cannot do without.
pub(super) type Vital = BoxFuture<'static, NodeEnd>;

/// What a node belongs to, and the tasks that keep it there.
pub(super) type Joined = (Peers, Option<Transport>, Vec<Vital>);

/// The parts before they know each other.
pub(super) struct Parts {
    name: NodeName,
    incarnation: u64,
    clock: Clock,
    registry: Arc<Registry>,
    routes: Arc<Routes>,
    links: Arc<Links>,
    publisher: Arc<Publisher>,
    pub(super) tracker: Arc<Tracker>,
    sockets: Arc<Sockets>,
    longpoll: LongPoll,
    tasks: TaskTracker,
    http: SocketAddr,
    tcp: Option<SocketAddr>,
}

impl Parts {
    pub(super) fn new(
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
    pub(super) async fn join_cluster(&self, config: &Config) -> Result<Joined, StartError> {
        let Some(listen) = config.cluster_listener() else {
            let alone = peers::alone(self.tracker.shards(), self.incarnation);
            return Ok((alone, None, Vec::new()));
        };
        let seen = Arc::new(Seen::default());
        let (transport, events) = self.bind(config, listen, &seen).await?;
        let seeds = Arc::new(Seeds::new(&config.cluster.join));
        let driver = self.driver(config, transport.clone(), events, seen, Arc::clone(&seeds));
        let (peers, running) = peers::start(driver);
        let driving: Vital = Box::pin(async move {
            match running.await {
                DriverEnd::TransportEnded => NodeEnd::Task("transport"),
                end @ DriverEnd::Replaced { .. } => NodeEnd::Replaced(end.to_string()),
            }
        });
        let looking = discovery::run(
            self.name.clone(),
            config.cluster.join.clone(),
            seeds,
            transport.clone(),
        );
        let looking: Vital = Box::pin(async move {
            looking.await;
            NodeEnd::Task("discovery")
        });
        Ok((peers, Some(transport), vec![driving, looking]))
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
                crate::config::Profile::Fast => Profile::Fast,
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

    pub(super) fn shared(
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
            drain: Drain::new(),
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

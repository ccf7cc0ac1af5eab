//! The transport itself: one UDP socket, the addresses it keeps, and the task that owns all others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quinn::{Endpoint, EndpointConfig, TokioRuntime, udp::UdpSocketState};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{AbortHandle, JoinHandle, JoinSet},
    time::{Instant, timeout, timeout_at},
};
use tracing::{error, warn};

use crate::{
    accept::{self, Door},
    close,
    config::{Config, Identity, IdentityError},
    dial,
    error::{BindError, Refusal},
    events::{self, Event, EventSender, Events, Rooms, Unheard},
    handlers::Handlers,
    handshake::Handshaker,
    ids::ShortIds,
    link::Link,
    registry::{Ourselves, Registry},
    reports::Reports,
    session::{Context, Session},
    stats::Stats,
    tls,
};

/// How many agreed links may wait for the hub to run them.
const SESSIONS_WAITING: usize = 64;

/// A node's transport. Clones are the same transport; when the last one is dropped, it ends at
/// once. Use [`close`](Self::close) to let peers know.
#[derive(Clone)]
pub struct Transport(Arc<Owner>);

/// What all tasks share.
pub(crate) struct Inner {
    pub(crate) config: Arc<Config>,
    pub(crate) endpoint: Endpoint,
    pub(crate) client: quinn::ClientConfig,
    pub(crate) registry: Arc<Registry>,
    pub(crate) handshaker: Handshaker,
    pub(crate) door: Arc<Door>,
    reports: Reports,
    kept: Mutex<BTreeSet<SocketAddr>>,
    /// Wakes the hub: `kept` has changed.
    kept_changed: Notify,
    sessions: mpsc::Sender<Session>,
}

/// Ends the transport when it is dropped.
struct Owner {
    inner: Arc<Inner>,
    local_addr: SocketAddr,
    hub: Mutex<Option<JoinHandle<()>>>,
    hub_abort: AbortHandle,
    /// When the hub has to be done, once it has to.
    stop: watch::Sender<Option<Instant>>,
}

impl Transport {
    /// Binds the socket and starts to listen.
    ///
    /// # Errors
    /// When the configuration or the identity is not sound, or the socket cannot be had.
    #[expect(clippy::unused_async, reason = "needs a runtime, which async makes plain")]
    pub async fn bind(
        config: Config,
        identity: Identity,
        handlers: Handlers,
    ) -> Result<(Self, Events), BindError> {
        config.validate()?;
        identity.validate()?;
        let config = Arc::new(config);
        let (server, client) = tls::quic(&config)?;
        let (endpoint, local_addr) = listen(&config, server)
            .map_err(|source| BindError::Socket { address: config.listen, source })?;
        let rooms = Arc::new(Rooms::default());
        let registry = Arc::new(Registry::new(config.clone(), identity, rooms.clone()));
        let (events, receiver) = events::channel(config.events_max, config.events_bytes_max, rooms);
        let (sessions, new_sessions) = mpsc::channel(SESSIONS_WAITING);
        let context = Context {
            events,
            direct: handlers.direct.clone(),
            frame_len_max: config.frame_len_max,
            answer_timeout: config.answer_timeout,
        };
        let handshaker =
            Handshaker { config: config.clone(), registry: registry.clone(), handlers };
        let inner = Arc::new(Inner {
            door: Arc::new(Door::new(config.incoming_max)),
            config,
            endpoint,
            client,
            registry,
            handshaker,
            reports: Reports::default(),
            kept: Mutex::default(),
            kept_changed: Notify::new(),
            sessions,
        });
        let (stop, stopped) = watch::channel(None);
        let hub = Hub {
            inner: inner.clone(),
            context,
            new_sessions,
            stopped,
            sessions: JoinSet::new(),
            tasks: JoinSet::new(),
            keepers: BTreeMap::new(),
        };
        let hub = tokio::spawn(hub.run());
        let hub_abort = hub.abort_handle();
        let hub = Mutex::new(Some(hub));
        Ok((Self(Arc::new(Owner { inner, local_addr, hub, hub_abort, stop })), receiver))
    }

    /// Where it listens; the port is the real one.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr
    }

    /// Dials an address now and again until there is a link to whom answers there, and again when
    /// that is gone, until [`forget`](Self::forget). Twice `links_max` addresses are kept; more are
    /// refused with a warning in the log.
    pub fn keep(&self, address: SocketAddr) {
        self.0.inner.keep(address);
    }

    /// Dials an address no longer. A link that is there stays.
    pub fn forget(&self, address: SocketAddr) {
        self.0.inner.forget(address);
    }

    /// Takes another identity: all links are closed, the kept addresses dialled anew.
    ///
    /// # Errors
    /// When the identity is not sound; nothing has changed then.
    pub fn set_identity(&self, identity: Identity) -> Result<(), IdentityError> {
        identity.validate()?;
        self.0.inner.registry.renew(identity);
        Ok(())
    }

    /// The links that are up or about to be.
    pub fn links(&self) -> Vec<Link> {
        self.0.inner.registry.links()
    }

    /// What was counted since birth.
    pub fn stats(&self) -> Stats {
        let inner = &self.0.inner;
        Stats {
            kept: inner.kept().len(),
            handshakes: inner.door.inside(),
            ..inner.registry.stats()
        }
    }

    /// Closes the transport: no more links, dials or frames. Peers get what is queued, for up to
    /// half of `within`, and the reason. Returns when they have it all, after `within` at the latest;
    /// [`Events`] ends when the rest is taken from it.
    pub async fn close(&self, reason: &str, within: Duration) {
        let (inner, begun) = (&self.0.inner, Instant::now());
        let deadline = begun + within;
        let links = inner.registry.close();
        links.iter().for_each(|link| link.drain(reason));
        let drained = async {
            for mut ending in links.iter().filter_map(|link| inner.registry.ending(link)) {
                // Nothing is ever sent: this returns when the link is gone.
                let _ = ending.changed().await;
            }
        };
        // Not in time: the rest is cut off.
        let _ = timeout_at(begun + within / 2, drained).await;
        inner.endpoint.close(close::CLOSED, reason.as_bytes());
        self.0.stop.send_replace(Some(deadline));
        let _ = timeout_at(deadline, inner.endpoint.wait_idle()).await;
        let hub = self.0.hub().take();
        if let Some(hub) = hub {
            // The hub keeps the deadline itself; the rest is its last step.
            let _ = timeout_at(deadline + Duration::from_millis(100), hub).await;
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("local_addr", &self.0.local_addr).finish_non_exhaustive()
    }
}

impl Owner {
    fn hub(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.inner.endpoint.close(close::CLOSED, b"the node ended");
        // Every other task is the hub's and ends with it.
        self.hub_abort.abort();
    }
}

impl Inner {
    fn keep(&self, address: SocketAddr) {
        let mut kept = self.kept();
        if kept.len() >= self.config.links_max * 2 && !kept.contains(&address) {
            drop(kept);
            warn!(%address, "not dialled: too many addresses are kept");
            return;
        }
        kept.insert(address);
        drop(kept);
        self.kept_changed.notify_one();
    }

    pub(crate) fn forget(&self, address: SocketAddr) {
        self.kept().remove(&address);
        self.kept_changed.notify_one();
    }

    /// Hands an agreed link to the hub.
    pub(crate) async fn start(&self, session: Session) {
        // Without a hub the session is dropped, which closes the link.
        let _ = self.sessions.send(session).await;
    }

    pub(crate) async fn report_refusal(
        &self,
        events: &EventSender,
        reason: Refusal,
    ) -> Result<(), Unheard> {
        self.registry.counters.refusals.add(1);
        if !self.reports.tells(&reason, Instant::now()) {
            return Ok(());
        }
        let (address, inbound) = (reason.address, reason.inbound);
        events.send(Event::Refused { address, reason, inbound }).await
    }

    pub(crate) async fn report_stale(
        &self,
        events: &EventSender,
        ourselves: &Ourselves,
        seen: u64,
        by: String,
    ) -> Result<(), Unheard> {
        match self.registry.stale(ourselves, seen) {
            Some(fresh) => events.send(Event::Stale { seen, by, fresh }).await,
            None => Ok(()),
        }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeSet<SocketAddr>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen(config: &Config, server: quinn::ServerConfig) -> std::io::Result<(Endpoint, SocketAddr)> {
    let socket = UdpSocket::bind(config.listen)?;
    let state = UdpSocketState::new((&socket).into())?;
    // The system caps what it grants; less is slower under bursts, not wrong.
    let _ = state.set_send_buffer_size((&socket).into(), config.socket_buffer);
    let _ = state.set_recv_buffer_size((&socket).into(), config.socket_buffer);
    let runtime = Arc::new(TokioRuntime);
    let mut endpoint = EndpointConfig::default();
    endpoint.cid_generator(|| Box::new(ShortIds));
    let endpoint = Endpoint::new(endpoint, Some(server), socket, runtime)?;
    let local_addr = endpoint.local_addr()?;
    Ok((endpoint, local_addr))
}

/// The task that owns every other task of the transport.
struct Hub {
    inner: Arc<Inner>,
    context: Context,
    new_sessions: mpsc::Receiver<Session>,
    stopped: watch::Receiver<Option<Instant>>,
    /// One per link.
    sessions: JoinSet<()>,
    /// Inbound handshakes, and the keepers of addresses.
    tasks: JoinSet<()>,
    keepers: BTreeMap<SocketAddr, AbortHandle>,
}

impl Hub {
    async fn run(mut self) {
        let inner = self.inner.clone();
        loop {
            tokio::select! {
                _ = self.stopped.changed() => break,
                () = inner.kept_changed.notified() => self.reconcile(),
                Some(session) = self.new_sessions.recv() => {
                    self.sessions.spawn(session.run(self.context.clone()));
                }
                Some(ended) = self.sessions.join_next() => report_panic(ended, "a link's task"),
                Some(ended) = self.tasks.join_next() => report_panic(ended, "a handshake or a keeper"),
                incoming = inner.endpoint.accept() => match incoming {
                    Some(incoming) => {
                        let events = self.context.events.clone();
                        if let Some(task) = accept::receive(inner.clone(), events, incoming) {
                            self.tasks.spawn(task);
                        }
                    }
                    None => break,
                },
            }
        }
        self.tasks.abort_all();
        let deadline = *self.stopped.borrow();
        let left = deadline.map_or(Duration::ZERO, |at| at.duration_since(Instant::now()));
        // Every link is closed by now; each has to tell its end.
        let _ = timeout(left, async { while self.sessions.join_next().await.is_some() {} }).await;
    }

    /// Starts and ends keepers so that there is one for each kept address.
    fn reconcile(&mut self) {
        let kept = self.inner.kept().clone();
        self.keepers.retain(|address, keeper| {
            let stays = kept.contains(address) && !keeper.is_finished();
            if !stays {
                keeper.abort();
            }
            stays
        });
        for address in kept {
            let (inner, events) = (&self.inner, &self.context.events);
            self.keepers.entry(address).or_insert_with(|| {
                self.tasks.spawn(dial::keep(inner.clone(), events.clone(), address))
            });
        }
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>, what: &str) {
    if let Err(failure) = ended
        && failure.is_panic()
    {
        error!(%failure, "{what} failed: this is a bug");
    }
}

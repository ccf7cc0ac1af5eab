//! Accepts connections, and serves HTTP on those of its listener, until it is told to stop.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tower_service::Service as _;
use tracing::{debug, warn};

use crate::endpoint::patient::Patient;

/// A request's headers must have come by then.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after an accept that failed for want of something, such as descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What an HTTP connection hears when there are too many.
const TURNED_AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n\
                             content-length: 0\r\nconnection: close\r\n\r\n";

/// Counts of a node's listeners together.
#[derive(Debug, Default)]
pub(crate) struct ListenerStats {
    /// Connections that are open.
    pub(crate) open: AtomicUsize,
    /// Connections accepted since the start.
    pub(crate) accepted: AtomicU64,
    /// Connections turned away as there were too many.
    pub(crate) turned_away: AtomicU64,
    /// Accepts that failed.
    pub(crate) failed: AtomicU64,
}

impl ListenerStats {
    /// Whether so many connections are open.
    pub(super) fn is_full(&self, connections_max: usize) -> bool {
        self.open.load(Ordering::Relaxed) >= connections_max
    }
}

/// A bound listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) node: presence::NodeName,
    pub(crate) socket: TcpListener,
    pub(crate) connections_max: usize,
    pub(crate) stats: Arc<ListenerStats>,
}

impl Listener {
    /// Serves HTTP until `stop` turns true, then lets requests under way end.
    pub(crate) async fn serve_http(self, router: Router, stop: watch::Receiver<bool>) {
        let until = stop.clone();
        let serve = |stream, peer, open| serve(stream, peer, router.clone(), until.clone(), open);
        self.run(serve, TURNED_AWAY, stop).await;
    }

    /// Serves with `serve` until `stop` turns true, then lets what is under way end. Who is one too many
    /// hears `turned_away`.
    pub(super) async fn run<F>(
        self,
        serve: impl Fn(TcpStream, SocketAddr, Open) -> F,
        turned_away: &[u8],
        stop: watch::Receiver<bool>,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut connections = JoinSet::new();
        let mut stopped = std::pin::pin!(stopped(stop));
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => {
                        if let Some(open) = self.take(&stream, peer, turned_away) {
                            connections.spawn(serve(stream, peer, open));
                        }
                    }
                    Err(error) => self.accept_failed(&error).await,
                },
                Some(_) = connections.join_next() => {}
                () = &mut stopped => break,
            }
        }
        drop(self.socket);
        while connections.join_next().await.is_some() {}
    }

    /// Counts a connection, if there is room for it.
    fn take(&self, stream: &TcpStream, peer: SocketAddr, turned_away: &[u8]) -> Option<Open> {
        self.stats.accepted.fetch_add(1, Ordering::Relaxed);
        let open = Open::new(&self.stats);
        if self.stats.open.load(Ordering::Relaxed) > self.connections_max {
            if (self.stats.turned_away.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two() {
                warn!(node = %self.node, %peer, "connections are turned away: http.max_connections is reached");
            }
            // Best effort: an empty send buffer takes these few bytes at once.
            let _ = stream.try_write(turned_away);
            return None;
        }
        // Small frames must not wait for acknowledgements of those before.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(node = %self.node, %peer, "cannot set TCP_NODELAY: {error}");
        }
        Some(open)
    }

    async fn accept_failed(&self, error: &io::Error) {
        if (self.stats.failed.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two() {
            warn!(node = %self.node, "cannot accept a connection: {error} (is the limit of open files too low?)");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Counts a connection for as long as it lives, also after it has become a WebSocket.
#[derive(Clone, Debug)]
pub(crate) struct Open(#[expect(dead_code, reason = "dropped with its last clone")] Arc<Counted>);

#[derive(Debug)]
struct Counted(Arc<ListenerStats>);

impl Open {
    pub(super) fn new(stats: &Arc<ListenerStats>) -> Self {
        stats.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Counted(Arc::clone(stats))))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    stop: watch::Receiver<bool>,
    open: Open,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(open.clone());
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(Patient::new(stream)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // An error is the client's own: it went away, or what it sent was no HTTP and was answered 400.
    tokio::select! {
        ended = &mut connection => drop(ended),
        () = stopped(stop) => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

/// Waits until the node stops.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the node is gone, which is the same to a connection.
    drop(stop.wait_for(|stop| *stop).await);
}

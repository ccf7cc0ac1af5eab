//! A node without listeners, and clients on it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use presence::{Replica, Topic};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use tokio_util::task::TaskTracker;

use super::super::{Connection, Driver, Open};
use crate::{
    channel::Router,
    config::{Config, PresenceMode},
    drain::Drain,
    endpoint::{
        ListenerStats, LongPoll, Origins,
        codec::WebSocket,
        stream::{Direct, Streamed},
        upgrade::Client,
    },
    framing::Framing,
    mailboxes::Mailboxes,
    node::{Shared, Stats},
    peers,
    publisher::{Links, Publisher},
    pubsub::{Flush, Mailbox, Outlet, Payload, Registry, Routes},
    socket::{Limits, Version},
    sockets::Sockets,
    tracker::{Clock, Tracker},
};

const SHARDS: u16 = 4;

/// A node that nobody can reach but by [`plain`](World::plain) and [`wrapped`](World::wrapped).
pub(in crate::endpoint) struct World {
    pub(in crate::endpoint) shared: Arc<Shared>,
    listener: Arc<ListenerStats>,
}

/// One client, and the task that serves it.
pub(super) struct Guest<S> {
    pub(super) client: WebSocketStream<S>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) driver: JoinHandle<()>,
}

/// A test that waits longer than this has failed.
pub(in crate::endpoint) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it comes in time")
}

/// A text frame of a client, with a mask that changes nothing.
pub(super) fn masked(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).ok().filter(|len| *len < 126).expect("a short text");
    [&[0x81, 0x80 | len, 0, 0, 0, 0], text.as_bytes()].concat()
}

impl World {
    /// Its channels serve every topic, and list nobody.
    pub(super) fn new() -> Self {
        Self::with(PresenceMode::Off)
    }

    /// Its channels serve every topic.
    pub(super) fn with(presence: PresenceMode) -> Self {
        Self::configured(|config| config.channels[0].presence = presence)
    }

    /// The same with another configuration; nobody is listed unless it says so.
    pub(in crate::endpoint) fn configured(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.channels[0].presence = PresenceMode::Off;
        change(&mut config);
        let (registry, routes, links) =
            (Registry::new(), Arc::new(Routes::new(SHARDS)), Arc::default());
        let shared = Arc::new(shared(config, registry, routes, links));
        Self { shared, listener: Arc::default() }
    }

    fn connection(&self, outlet: Outlet) -> Connection {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let client = Client {
            key: "guest".into(),
            socket_id: Some("user_socket:guest".into()),
            assigns: None,
            version: Version::V2,
            framing: Framing::WebSocket { deflate: false },
            peer,
        };
        Connection::new(&self.shared, client, outlet)
    }

    /// A client over TCP whose buffers are small.
    pub(super) async fn plain(&self) -> Guest<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        socket2::SockRef::from(&stream).set_send_buffer_size(64 << 10).unwrap();
        socket2::SockRef::from(&client).set_recv_buffer_size(64 << 10).unwrap();
        let connection = self.connection(Outlet::Socket(stream));
        let mailbox = Arc::clone(&connection.mailbox);
        let open = Open::new(&self.listener);
        let driver = Driver::<_, WebSocket>::new(connection, Direct, &[], open);
        let client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        Guest { client, mailbox, driver: tokio::spawn(driver) }
    }

    /// A client over a pipe.
    pub(super) fn wrapped(&self) -> Guest<DuplexStream> {
        self.wrapped_after(&[])
    }

    /// A client over a pipe, of which `read` is read already.
    pub(super) fn wrapped_after(&self, read: &[u8]) -> Guest<DuplexStream> {
        let (client, stream) = tokio::io::duplex(64 << 10);
        let guest = self.served(stream, read);
        let client = WebSocketStream::from_raw_socket(client, Role::Client, None);
        let client = futures_util::FutureExt::now_or_never(client).expect("it waits for nothing");
        Guest { client, mailbox: guest.0, driver: guest.1 }
    }

    /// The task of a client over any stream.
    pub(super) fn served<S>(&self, stream: S, read: &[u8]) -> (Arc<Mailbox>, JoinHandle<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = self.connection(Outlet::Owner);
        let mailbox = Arc::clone(&connection.mailbox);
        let open = Open::new(&self.listener);
        let driver = Driver::<_, WebSocket>::new(connection, Streamed::new(stream), read, open);
        (mailbox, tokio::spawn(driver))
    }

    /// Says something to all who have joined the topic.
    pub(in crate::endpoint) fn publish(&self, topic: &str, payload: &str) {
        let topic: Topic = topic.parse().unwrap();
        let mut flush = Flush::new();
        self.shared.publisher.publish(
            &topic,
            "new",
            Payload::Json(payload.as_bytes()),
            None,
            &mut flush,
        );
    }

    /// Nothing of any client is left.
    pub(in crate::endpoint) fn assert_empty(&self) {
        use std::sync::atomic::Ordering::Relaxed;
        assert_eq!(self.shared.registry.size(), crate::pubsub::Size::default());
        assert_eq!(self.shared.mailboxes.len(), 0);
        assert_eq!(self.shared.stats.sockets.load(Relaxed), 0);
        assert_eq!(self.shared.sockets.disconnect("user_socket:guest"), 0);
        assert_eq!(self.listener.open.load(Relaxed), 0);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guest<S> {
    pub(super) async fn say(&mut self, text: &str) {
        self.client.send(Message::text(text)).await.expect("it can be sent");
    }

    /// The next text.
    pub(super) async fn hear(&mut self) -> String {
        match self.client.next().await {
            Some(Ok(Message::Text(text))) => text.to_string(),
            other => panic!("a text is expected, not {other:?}"),
        }
    }

    /// The code and reason that the node closes with.
    pub(super) async fn closed(&mut self) -> (u16, String) {
        match self.client.next().await {
            Some(Ok(Message::Close(Some(frame)))) => (frame.code.into(), frame.reason.to_string()),
            other => panic!("a close is expected, not {other:?}"),
        }
    }
}

fn shared(
    config: Config,
    registry: Arc<Registry>,
    routes: Arc<Routes>,
    links: Arc<Links>,
) -> Shared {
    let (clock, name): (_, presence::NodeName) = (Clock::start(), "test".parse().unwrap());
    let me = Replica { name: name.clone(), incarnation: 1 };
    let presence = presence::Config::default();
    let tracker =
        Tracker::new(&presence, SHARDS, &me, clock, Arc::clone(&registry), Arc::clone(&routes));
    let publisher =
        Publisher::new(Arc::clone(&registry), Arc::clone(&routes), Arc::clone(&links), SHARDS);
    Shared {
        name,
        started: Instant::now(),
        clock,
        registry,
        routes,
        links,
        publisher: Arc::new(publisher),
        tracker,
        sockets: Arc::<Sockets>::default(),
        mailboxes: Mailboxes::new(config.http.idle_timeout),
        peers: peers::alone(SHARDS, 1),
        drain: Drain::new(),
        transport: None,
        router: Router::new(Vec::new(), config.channels.clone(), false),
        door: None,
        limits: Arc::new(Limits::default()),
        origins: Origins::new(Vec::new(), false, true),
        api_token: None,
        listener: Arc::default(),
        longpoll: LongPoll::new(&config).expect("no secrets to read"),
        stats: Stats::default(),
        tasks: TaskTracker::new(),
        http: config.http.listen,
        tcp: None,
        cluster: None,
        stopping: watch::channel(false).1,
        lonely_at: Instant::now(),
        config,
    }
}

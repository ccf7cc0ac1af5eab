//! Whole transports on loopback. Nothing sleeps: each test awaits the events it wants, and fails
//! when they do not come for long.

#![expect(
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    reason = "a test names the events it wants and makes its bytes from counters"
)]

mod lanes;
mod links;
mod refusals;
mod strangers;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};

use crate::*;

/// Ordered, through the events; cuts the link when full.
const CONTROL: Lane = Lane(0);
/// By direct calls; drops.
const DATA: Lane = Lane(1);
/// Ordered, through the events; drops, and is small.
const BULK: Lane = Lane(2);

const SMALL: usize = 64 * 1024;
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    transport: Transport,
    events: Events,
    direct: mpsc::UnboundedReceiver<(u64, Bytes)>,
}

fn secret(byte: u8) -> Secret {
    Secret::new([byte; 32]).expect("long enough")
}

fn identity(name: &str, incarnation: u64) -> Identity {
    Identity { name: name.into(), incarnation, hello: Bytes::from(format!("hello of {name}")) }
}

fn config() -> Config {
    let lane = |name, bound, when_full, delivery| LaneConfig {
        name,
        bound,
        when_full,
        delivery,
        priority: 0,
    };
    Config {
        cluster: "test".into(),
        secrets: vec![secret(1)],
        lanes: vec![
            lane("control", 8 << 20, WhenFull::Cut, Delivery::Queue),
            lane("data", 8 << 20, WhenFull::Drop, Delivery::Direct),
            lane("bulk", SMALL, WhenFull::Drop, Delivery::Queue),
        ],
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(200),
        ..Config::default()
    }
}

impl Node {
    async fn start(name: &str, incarnation: u64) -> Self {
        Self::with(name, incarnation, |_| {}, |_, _| Admit::Yes).await
    }

    async fn configured(name: &str, change: impl FnOnce(&mut Config)) -> Self {
        Self::with(name, 1, change, |_, _| Admit::Yes).await
    }

    async fn with(
        name: &str,
        incarnation: u64,
        change: impl FnOnce(&mut Config),
        admit: impl Fn(&str, u64) -> Admit + Send + Sync + 'static,
    ) -> Self {
        let mut config = config();
        change(&mut config);
        let (sender, direct) = mpsc::unbounded_channel();
        let handlers = Handlers {
            direct: Arc::new(move |link, _, frames| {
                for frame in frames {
                    assert!(frame != "poison", "poisoned");
                    // The receiver is gone when the test has ended.
                    let _ = sender.send((link.id(), frame.clone()));
                }
                None
            }),
            admit: Arc::new(admit),
        };
        // A port that was given up a moment ago may still be taken.
        let bind = async {
            loop {
                match Transport::bind(config.clone(), identity(name, incarnation), handlers.clone())
                    .await
                {
                    Err(BindError::Socket { .. }) => tokio::task::yield_now().await,
                    other => return other.expect("the configuration is sound"),
                }
            }
        };
        let (transport, events) = timeout(PATIENCE, bind).await.expect("the port becomes free");
        Self { transport, events, direct }
    }

    fn address(&self) -> SocketAddr {
        self.transport.local_addr()
    }

    fn keep(&self, other: &Self) {
        self.transport.keep(other.address());
    }

    async fn next(&mut self) -> Event {
        let next = timeout(PATIENCE, self.events.next()).await;
        next.expect("an event comes").expect("the transport is open")
    }

    /// The first event that is wanted; others are passed over.
    async fn wait<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await) {
                return found;
            }
        }
    }

    async fn up(&mut self) -> Link {
        self.wait(|event| if let Event::Up(link) = event { Some(link) } else { None }).await
    }

    async fn down(&mut self) -> DownReason {
        self.wait(|event| if let Event::Down { reason, .. } = event { Some(reason) } else { None })
            .await
    }

    async fn refused(&mut self) -> Refusal {
        self.wait(
            |event| {
                if let Event::Refused { reason, .. } = event { Some(reason) } else { None }
            },
        )
        .await
    }

    async fn frame(&mut self) -> (Lane, Bytes) {
        self.wait(|event| {
            if let Event::Frame { lane, frame, .. } = event { Some((lane, frame)) } else { None }
        })
        .await
    }

    async fn direct(&mut self) -> Bytes {
        let frame = timeout(PATIENCE, self.direct.recv()).await.expect("a frame comes");
        frame.expect("the transport lives").1
    }
}

/// Two linked nodes, a and b, of which a dialled.
async fn pair() -> (Node, Link, Node, Link) {
    let (a, b) = (Node::start("a", 1).await, Node::start("b", 1).await);
    linked(a, b).await
}

async fn linked(mut a: Node, mut b: Node) -> (Node, Link, Node, Link) {
    a.keep(&b);
    let (to_b, to_a) = (a.up().await, b.up().await);
    (a, to_b, b, to_a)
}

//! From the join of a WebSocket client on one node to the `presence_diff` that a client on another
//! reads. Three nodes, each a process; the clients are one thread of this one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::{
    Failure,
    cluster::{self, Process},
    meter::{self, Meter, key},
    table::Row,
};

const TOPICS: usize = 50;

const NODES: usize = 3;

/// Each on a new socket.
const JOINS_PER_SECOND: u32 = 500;

const SECONDS: u32 = 6;

/// How long a client stays.
const STAY: Duration = Duration::from_secs(2);

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let what = "the same at 500 joins and 500 leaves a second over sockets, 3 processes";
    meter::rows(what, (None, Some(25.0)), run)
}

fn run() -> Result<Meter, Failure> {
    let mut nodes: Vec<Process> = Vec::new();
    for number in 0..NODES {
        let seeds: Vec<SocketAddr> = nodes.iter().map(|node| node.cluster).collect();
        nodes.push(Process::start(&format!("n{number}"), &seeds, (0, 1))?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let meter = Arc::new(Meter::new((JOINS_PER_SECOND * SECONDS) as usize, 1));
    runtime.block_on(load(&nodes, &meter))?;
    drop(runtime);
    Arc::into_inner(meter).ok_or_else(|| "a socket goes on".into())
}

async fn load(nodes: &[Process], meter: &Arc<Meter>) -> Result<(), Failure> {
    for number in 0..TOPICS {
        // The watcher of a topic is on the node after that of the clients.
        let (node, meter) = (nodes[(number + 1) % NODES].http, Arc::clone(meter));
        let mut socket = connect(node, &format!("watcher-{number}")).await?;
        join(&mut socket, number).await?;
        tokio::spawn(async move {
            while let Some(Ok(Message::Text(text))) = socket.next().await {
                if text.contains("\"presence_diff\"") {
                    meter.read(text.as_bytes());
                }
            }
        });
    }
    sleep(Duration::from_secs(1)).await;
    let (started, gap) = (Instant::now(), Duration::from_secs(1) / JOINS_PER_SECOND);
    for client in 0..JOINS_PER_SECOND * SECONDS {
        sleep_until(started + gap * client).await;
        let node = nodes[client as usize % TOPICS % NODES].http;
        // One that fails is missing at the end.
        tokio::spawn(visit(node, client as usize, Arc::clone(meter)));
    }
    meter.complete().await
}

/// Comes, reads what everybody is told, and goes.
async fn visit(node: SocketAddr, client: usize, meter: Arc<Meter>) -> Result<(), Failure> {
    let mut socket = connect(node, &key(client)).await?;
    meter.join(client);
    join(&mut socket, client % TOPICS).await?;
    let until = Instant::now() + STAY;
    while let Ok(Some(frame)) = timeout_at(until, socket.next()).await {
        frame?;
    }
    Ok(())
}

async fn connect(node: SocketAddr, user: &str) -> Result<WebSocketStream<TcpStream>, Failure> {
    let stream = TcpStream::connect(node).await?;
    stream.set_nodelay(true)?;
    let url = format!("ws://{node}/socket/websocket?vsn=2.0.0&user_id={user}");
    Ok(client_async(url, stream).await?.0)
}

async fn join(socket: &mut WebSocketStream<TcpStream>, number: usize) -> Result<(), Failure> {
    let topic = cluster::topic(number)?;
    let join = format!(r#"["1","1","{topic}","phx_join",{{}}]"#);
    Ok(socket.send(Message::text(join)).await?)
}

//! Takes in clients over plain TCP: a connect with its answer, then the messages of a WebSocket, each
//! behind its length.

use std::{borrow::Cow, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::http::HeaderMap;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tracing::{debug, info};

use crate::{
    app,
    endpoint::{
        connection::Connection,
        driver::Driver,
        listener::{Listener, Open, stopped},
        prefixed::{PREFIX, Prefixed, message_of},
        stream::Direct,
        upgrade::{Client, Denied},
    },
    framing::Framing,
    node::Shared,
    pubsub::{Flush, Outlet},
    socket::{InvalidQuery, Params, Version},
};

/// By then the connect must have come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the longest connect.
const CONNECT_MAX: usize = 64 * 1024;

/// How long a refused client may take to read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Where sockets are mounted.
const PATH: &str = "/socket";

const ACCEPTED: &str = r#"{"status":"ok"}"#;

/// The first message of a client. Other members, such as a token, are left alone.
#[derive(Deserialize)]
struct Connect<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(borrow)]
    vsn: Cow<'a, str>,
    #[serde(default)]
    params: serde_json::Map<String, serde_json::Value>,
}

/// Why a client is not let in; it is told so.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("no connect within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    #[error("the connect is over {CONNECT_MAX} bytes")]
    TooLong,
    #[error(r#"the connect is not JSON {{"path":"/socket","vsn":"2.0.0","params":{{…}}}}: {}"#, app::Unquoted(.0))]
    Malformed(#[from] serde_json::Error),
    #[error("there is no socket at this path: connect to {PATH}")]
    Path,
    #[error("vsn is not 2.0.x")]
    Version,
    #[error("params: {0}")]
    Params(#[from] InvalidQuery),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("the node is stopping")]
    Stopping,
    /// There is nobody to tell.
    #[error("the client went away: {0}")]
    Gone(#[from] io::Error),
}

/// Serves until `stop` turns true. Sockets are tasks of the node's own from their connect on.
pub(crate) async fn serve_tcp(
    listener: Listener,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
) {
    let turned_away = answer("too many connections: http.max_connections is reached");
    let until = stop.clone();
    let serve = |stream, peer, open| {
        // A stopping node waits for those whom it turns away.
        let taken = take_in(Arc::clone(&shared), stream, peer, open, until.clone());
        shared.tasks.track_future(taken)
    };
    listener.run(serve, &message_of(&turned_away), stop).await;
}

async fn take_in(
    shared: Arc<Shared>,
    mut stream: TcpStream,
    peer: SocketAddr,
    open: Open,
    stop: watch::Receiver<bool>,
) {
    let read = tokio::select! {
        read = timeout(CONNECT_TIMEOUT, read_connect(&mut stream)) => {
            read.unwrap_or(Err(ConnectError::Timeout))
        }
        () = stopped(stop) => Err(ConnectError::Stopping),
    };
    let admitted = match read {
        Ok(connect) => admit(&shared, &connect, peer).await,
        Err(error) => Err(error),
    };
    match admitted {
        Ok(client) => {
            let connection = Connection::new(&shared, client, Outlet::Socket(stream));
            Flush::new().reply(&connection.mailbox, message_of(ACCEPTED));
            shared.tasks.spawn(Driver::<_, Prefixed>::new(connection, Direct, &[], open));
        }
        Err(ConnectError::Gone(error)) => debug!(node = %shared.name, %peer, "no connect: {error}"),
        Err(why) => {
            info!(node = %shared.name, %peer, "connect over TCP refused: {why}");
            // It is told in vain if it does not read.
            let _ = timeout(REFUSAL_TIMEOUT, refuse(stream, &why)).await;
        }
    }
}

/// Reads the first message, and nothing behind it.
async fn read_connect(stream: &mut TcpStream) -> Result<Vec<u8>, ConnectError> {
    let mut prefix = [0; PREFIX];
    stream.read_exact(&mut prefix).await?;
    let len = u32::from_be_bytes(prefix);
    if usize::try_from(len).is_ok_and(|len| len > CONNECT_MAX) {
        return Err(ConnectError::TooLong);
    }
    let mut connect = Vec::new();
    stream.take(len.into()).read_to_end(&mut connect).await?;
    if connect.len() < usize::try_from(len).unwrap_or(usize::MAX) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(connect)
}

async fn admit(shared: &Shared, connect: &[u8], peer: SocketAddr) -> Result<Client, ConnectError> {
    let Connect { path, vsn, params } = serde_json::from_slice(connect)?;
    if path != PATH {
        return Err(ConnectError::Path);
    }
    if Version::parse(Some(&vsn)) != Some(Version::V2) {
        return Err(ConnectError::Version);
    }
    let params = Params::from_json(params)?;
    let (headers, auth_token) = (HeaderMap::new(), None);
    let connect = app::Connect { params, headers, peer, auth_token };
    Ok(Client::admit(shared, connect, Version::V2, Framing::Tcp).await?)
}

async fn refuse(mut stream: TcpStream, why: &ConnectError) -> io::Result<()> {
    stream.write_all(&message_of(&answer(&why.to_string()))).await?;
    stream.shutdown().await?;
    // Bytes left unread when the connection ends would reset it, and the client would not see why.
    let mut scratch = [0; 1024];
    while stream.read(&mut scratch).await? > 0 {}
    Ok(())
}

fn answer(reason: &str) -> String {
    serde_json::json!({ "status": "error", "reason": reason }).to_string()
}

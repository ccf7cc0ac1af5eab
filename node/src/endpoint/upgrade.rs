//! Turns a request at `/socket/websocket` into a WebSocket, or refuses it.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
};
use hyper_util::rt::TokioIo;
use tracing::{debug, info};

use crate::{
    endpoint::{
        codec::WebSocket,
        connection::Connection,
        driver::Driver,
        listener::Open,
        patient::Patient,
        stream::{Direct, Streamed},
    },
    framing::Framing,
    node::Shared,
    pubsub::Outlet,
    socket::{Params, Version},
    websocket::{accept_deflate, accept_key},
};

/// Bytes of the longest user id.
const KEY_LEN_MAX: usize = 256;

/// The subprotocol that the official client offers when it sends a token.
const SUBPROTOCOL: &str = "phoenix";

/// Who connects, as far as it says.
#[derive(Debug)]
pub(crate) struct Client {
    /// What it is listed under.
    pub(crate) key: String,
    /// All sockets of a user have the same id; a client that does not say who it is has none.
    pub(crate) socket_id: Option<String>,
    pub(crate) version: Version,
    pub(crate) framing: Framing,
    pub(crate) peer: SocketAddr,
}

/// Answers a request to connect.
pub(crate) async fn websocket(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(open): Extension<Open>,
    mut request: Request,
) -> Response<Body> {
    let extension;
    let accept = match (handshake(&request), connect(&shared, &request, peer)) {
        (Err(why), _) | (Ok(_), Err(ConnectError::BadRequest(why))) => {
            return refuse(&shared, peer, StatusCode::BAD_REQUEST, why);
        }
        (Ok(_), Err(ConnectError::Forbidden(why))) => {
            return refuse(&shared, peer, StatusCode::FORBIDDEN, why);
        }
        (Ok(accept), Ok(mut client)) => {
            extension = accept_extension(&shared, request.headers());
            client.framing = Framing::WebSocket { deflate: extension.is_some() };
            let upgrade = hyper::upgrade::on(&mut request);
            shared.tasks.spawn(run(Arc::clone(&shared), upgrade, client, peer, open));
            accept
        }
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(extension) = extension {
        let extension = HeaderValue::from_static(extension);
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, extension);
    }
    if offers_phoenix(request.headers()) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    response
}

async fn run(
    shared: Arc<Shared>,
    upgrade: hyper::upgrade::OnUpgrade,
    client: Client,
    peer: SocketAddr,
    open: Open,
) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        // The client went away between request and answer.
        Err(error) => return debug!(node = %shared.name, %peer, "no upgrade: {error}"),
    };
    // A task of its own: this one is too large to be kept by every idle socket.
    match upgraded.downcast::<TokioIo<Patient>>() {
        Ok(parts) => {
            let outlet = Outlet::Socket(parts.io.into_inner().into_inner());
            let connection = Connection::new(&shared, client, outlet);
            let driver = Driver::<_, WebSocket>::new(connection, Direct, &parts.read_buf, open);
            shared.tasks.spawn(driver);
        }
        Err(upgraded) => {
            let connection = Connection::new(&shared, client, Outlet::Owner);
            let stream = Streamed::new(TokioIo::new(upgraded));
            shared.tasks.spawn(Driver::<_, WebSocket>::new(connection, stream, &[], open));
        }
    }
}

fn refuse(shared: &Shared, peer: SocketAddr, status: StatusCode, why: &str) -> Response<Body> {
    info!(node = %shared.name, %peer, status = status.as_u16(), "connect refused: {why}");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Why a connect is refused, for the log.
pub(super) enum ConnectError {
    BadRequest(&'static str),
    Forbidden(&'static str),
}

/// Checks the WebSocket handshake (RFC 6455, section 4.2.1) and gives the key's answer.
fn handshake(request: &Request) -> Result<HeaderValue, &'static str> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err("the method is not GET");
    }
    if !has_token(headers, header::CONNECTION, "upgrade") {
        return Err("no `Connection: upgrade`");
    }
    if !has_token(headers, header::UPGRADE, "websocket") {
        return Err("no `Upgrade: websocket`");
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err("no `Sec-WebSocket-Version: 13`");
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or("no `Sec-WebSocket-Key`")?;
    let accept = accept_key(key.as_bytes());
    HeaderValue::from_str(&accept).map_err(|_| "a bad `Sec-WebSocket-Key`")
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    let texts = values.iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

fn offers_phoenix(headers: &HeaderMap) -> bool {
    has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
}

/// The answer to an offer of compression, where it is allowed.
fn accept_extension(shared: &Shared, headers: &HeaderMap) -> Option<&'static str> {
    let offers = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS);
    shared
        .config
        .http
        .compression
        .then(|| accept_deflate(offers.iter().map(HeaderValue::as_bytes)))?
}

/// Checks from what page a request comes.
pub(super) fn check_origin(shared: &Shared, headers: &HeaderMap) -> Result<(), ConnectError> {
    use ConnectError::{BadRequest, Forbidden};
    let header = |name| headers.get(name).map(HeaderValue::to_str);
    let origin = header(header::ORIGIN).transpose().map_err(|_| Forbidden("a bad Origin"))?;
    let host = header(header::HOST).transpose().map_err(|_| BadRequest("a bad Host"))?;
    if !shared.origins.allow(origin, host) {
        return Err(Forbidden("pages of this origin may not connect: see http.origins"));
    }
    Ok(())
}

/// Checks who connects, and from what page.
pub(super) fn connect<B>(
    shared: &Shared,
    request: &Request<B>,
    peer: SocketAddr,
) -> Result<Client, ConnectError> {
    use ConnectError::{BadRequest, Forbidden};
    check_origin(shared, request.headers())?;
    let params = Params::parse(request.uri().query().unwrap_or_default())
        .map_err(|_| BadRequest("the query is not UTF-8, or nested too deep"))?;
    let version = params.version().ok_or(Forbidden("vsn is none of 1.0.x and 2.0.x"))?;
    let framing = Framing::WebSocket { deflate: false };
    Client::admit(shared, &params, version, framing, peer).map_err(Forbidden)
}

impl Client {
    /// Lets a client in by what it says of itself, or says why not.
    pub(super) fn admit(
        shared: &Shared,
        params: &Params,
        version: Version,
        framing: Framing,
        peer: SocketAddr,
    ) -> Result<Self, &'static str> {
        if !shared.config.anonymous_allowed() {
            return Err("auth.anonymous is false");
        }
        let user = params.text("user_id").filter(|id| (1..=KEY_LEN_MAX).contains(&id.len()));
        let (key, socket_id) = match user {
            Some(id) => (id.to_owned(), Some(crate::channel::socket_id(id))),
            None => (random_key(), None),
        };
        Ok(Self { key, socket_id, version, framing, peer })
    }
}

/// 128 random bits.
fn random_key() -> String {
    use base64::Engine as _;
    let bits: [u8; 16] = rand::random();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bits)
}

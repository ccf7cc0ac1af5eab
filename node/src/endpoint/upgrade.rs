//! Turns a request at `/socket/websocket` into a WebSocket, or refuses it.

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use axum::{
    Extension,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
};
use base64::Engine as _;
use hyper_util::rt::TokioIo;
use tracing::{debug, error, info};

use crate::{
    app::{Admitted, Assigns, Connect, Decision},
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

/// Before the token that it sends.
const TOKEN_SUBPROTOCOL: &str = "base64url.bearer.phx.";

/// Who connects, as far as it says.
#[derive(Debug)]
pub(crate) struct Client {
    /// What it is listed under.
    pub(crate) key: Box<str>,
    /// All sockets of a user have the same id; a client that does not say who it is has none.
    pub(crate) socket_id: Option<Box<str>>,
    /// What the application's connect callback found out; `None` without an application.
    pub(crate) assigns: Option<Assigns>,
    pub(crate) version: Version,
    pub(crate) framing: Framing,
    pub(crate) peer: SocketAddr,
}

/// Answers a request to connect.
pub(crate) async fn websocket(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    open: Option<Extension<Open>>,
    mut request: Request,
) -> Response<Body> {
    if !shared.drain.takes_clients() {
        return draining(&shared, peer);
    }
    // The connections of another server are counted from here on.
    if open.is_none() && shared.listener.is_full(shared.config.http.max_connections) {
        return full(&shared, peer);
    }
    let accept = match handshake(&request) {
        Ok(accept) => accept,
        Err(why) => return refuse(&shared, peer, &ConnectError::BadRequest(why)),
    };
    let query = request.uri().query().unwrap_or_default();
    let mut client = match connect(&shared, request.headers(), query, peer).await {
        Ok(client) => client,
        Err(error) => return refuse(&shared, peer, &error),
    };
    let extension = accept_extension(&shared, request.headers());
    client.framing = Framing::WebSocket { deflate: extension.is_some() };
    let upgrade = hyper::upgrade::on(&mut request);
    let open = open.map_or_else(|| Open::new(&shared.listener), |Extension(open)| open);
    shared.tasks.spawn(run(Arc::clone(&shared), upgrade, client, peer, open));
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

fn full(shared: &Shared, peer: SocketAddr) -> Response<Body> {
    let max = shared.config.http.max_connections;
    info!(node = %shared.name, %peer, "connect refused: http.max_connections is {max}");
    unavailable("5")
}

/// The client's next try should meet another node.
pub(super) fn draining(shared: &Shared, peer: SocketAddr) -> Response<Body> {
    debug!(node = %shared.name, %peer, "connect refused: the node drains");
    unavailable("1")
}

fn unavailable(retry_after: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(retry_after));
    response
}

fn refuse(shared: &Shared, peer: SocketAddr, why: &ConnectError) -> Response<Body> {
    let status = match why {
        ConnectError::BadRequest(_) => StatusCode::BAD_REQUEST,
        ConnectError::Forbidden(_) => StatusCode::FORBIDDEN,
        ConnectError::Denied(why) => why.status(),
    };
    info!(node = %shared.name, %peer, status = status.as_u16(), "connect refused: {why}");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Why a connect is refused, for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("{0}")]
    Forbidden(&'static str),
    #[error(transparent)]
    Denied(#[from] Denied),
}

/// Why a client that asked as it should is not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error("{0}")]
    Refused(Cow<'static, str>),
    /// The application's own callback failed; the log says how.
    #[error("connect crashed")]
    Failed,
}

impl Denied {
    const ANONYMOUS: Self = Self::Refused(Cow::Borrowed("auth.anonymous is false"));

    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::Refused(_) => StatusCode::FORBIDDEN,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
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

/// Whether the page that a request comes from may connect.
pub(crate) fn allows_origin(shared: &Shared, headers: &HeaderMap) -> bool {
    check_origin(shared, headers).is_ok()
}

/// Checks who connects, and from what page.
pub(super) async fn connect(
    shared: &Shared,
    headers: &HeaderMap,
    query: &str,
    peer: SocketAddr,
) -> Result<Client, ConnectError> {
    use ConnectError::{BadRequest, Forbidden};
    check_origin(shared, headers)?;
    let params = Params::parse(query)
        .map_err(|_| BadRequest("the query is not UTF-8, or nested too deep"))?;
    let version = params.version().ok_or(Forbidden("vsn is none of 1.0.x and 2.0.x"))?;
    let auth_token = auth_token(headers);
    let connect = Connect { params, headers: headers.clone(), peer, auth_token };
    let framing = Framing::WebSocket { deflate: false };
    Ok(Client::admit(shared, connect, version, framing).await?)
}

impl Client {
    /// Lets a client in by what it says of itself, or says why not.
    pub(super) async fn admit(
        shared: &Shared,
        connect: Connect,
        version: Version,
        framing: Framing,
    ) -> Result<Self, Denied> {
        let (params, peer) = (&connect.params, connect.peer);
        let user = params.text("user_id").filter(|id| (1..=KEY_LEN_MAX).contains(&id.len()));
        let socket_id = user.map(|id| crate::channel::socket_id(id).into());
        let key = user.map_or_else(random_key, Into::into);
        let client = Self { key, socket_id, assigns: None, version, framing, peer };
        let Some(door) = &shared.door else {
            let anonymous = shared.config.anonymous_allowed();
            return if anonymous { Ok(client) } else { Err(Denied::ANONYMOUS) };
        };
        match door.ask(connect).await {
            Decision::Admitted(Admitted { assigns, id }) => {
                Ok(Self { socket_id: id.map(Into::into), assigns: Some(assigns), ..client })
            }
            Decision::Refused(why) => Err(Denied::Refused(why.into())),
            Decision::Failed(why) => {
                error!(node = %shared.name, %peer, "the connect callback failed: {why}");
                shared.stats.channel_crashes.fetch_add(1, Ordering::Relaxed);
                Err(Denied::Failed)
            }
        }
    }
}

/// What the official client was given as its `authToken`: a subprotocol of a WebSocket, a header of a
/// long-poll.
fn auth_token(headers: &HeaderMap) -> Option<String> {
    if let Some(token) = headers.get("x-phoenix-authtoken") {
        return token.to_str().ok().map(ToOwned::to_owned);
    }
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    let encoded =
        offered.filter_map(|offer| offer.trim().strip_prefix(TOKEN_SUBPROTOCOL)).next()?;
    // The client says base64url, and writes the other alphabet.
    let encoded = encoded.trim_end_matches('=').replace('+', "-").replace('/', "_");
    let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).ok()?;
    String::from_utf8(token).ok()
}

/// 128 random bits.
fn random_key() -> Box<str> {
    let bits: [u8; 16] = rand::random();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bits).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: header::HeaderName, value: &str) -> Option<String> {
        let value = HeaderValue::from_str(value).expect("a header");
        auth_token(&HeaderMap::from_iter([(name, value)]))
    }

    #[test]
    fn a_token_is_read_in_either_alphabet_padded_or_not() {
        let offered = |value: &str| token(header::SEC_WEBSOCKET_PROTOCOL, value);
        for encoded in ["Pj4+Pz8/", "Pj4-Pz8_"] {
            let offer = format!("phoenix, base64url.bearer.phx.{encoded}");
            assert_eq!(offered(&offer).as_deref(), Some(">>>???"));
        }
        assert_eq!(offered("base64url.bearer.phx.YQ==").as_deref(), Some("a"));
        assert_eq!(offered("base64url.bearer.phx.YQ, phoenix").as_deref(), Some("a"));
        assert_eq!(offered("phoenix"), None);
        assert_eq!(offered("base64url.bearer.phx.***"), None);
        let name = header::HeaderName::from_static("x-phoenix-authtoken");
        assert_eq!(token(name, "as it is").as_deref(), Some("as it is"));
    }
}

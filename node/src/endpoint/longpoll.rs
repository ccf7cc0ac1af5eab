//! Long-polling at `/socket/longpoll`: a socket for clients that have nothing but HTTP requests.
//!
//! - `token`: what names a client's session, on whatever node its next request lands.
//! - `sessions`: the sessions that this node owns.
//! - `session`: the task of one of them.
//! - `door`: how its requests reach that task, and what was not taken comes back.
//! - `answer`: the body of an answer, which knows whether it reached the client.
//! - `frames`: what a POST carries.
//! - `handover`: requests for sessions of other nodes.
//! - `turns`: whose POST is read next.

mod answer;
mod door;
mod frames;
mod handover;
mod session;
mod sessions;
mod token;
mod turns;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header},
};
use cluster::wire::ClientFrame;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tracing::info;

use self::{
    answer::Messages,
    door::Posted,
    handover::Outcome,
    token::{Token, Tokens},
    turns::Turns,
};
pub(crate) use self::{handover::answer, sessions::Sessions};
use crate::{
    config::{Config, SecretError},
    endpoint::upgrade::{ConnectError, check_origin, connect, draining},
    framing::Framing,
    node::Shared,
    socket::Params,
};

/// The header that names a session; the query's `token` does it as well.
const TOKEN_HEADER: &str = "x-phoenix-longpoll-token";

/// The type of a body with one frame in each line.
const LINES: &str = "application/x-ndjson";

/// Bytes of a POST's body, unless one frame may be longer: a client sends what it has.
const BODY_MAX: usize = 8 << 20;

/// A POST's body must have come by then.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Seconds for which a browser may remember the answer to a preflight.
const PREFLIGHT_AGE: &str = "3600";

/// What a node needs to serve long-poll clients.
#[derive(Debug)]
pub(crate) struct LongPoll {
    pub(crate) sessions: Arc<Sessions>,
    tokens: Tokens,
    turns: Turns,
}

impl LongPoll {
    /// Nodes of one cluster take each other's tokens. Of a cluster without a secret too: there anyone
    /// of the machine could make one, but has to guess a session's 128 bits.
    pub(crate) fn new(config: &Config) -> Result<Self, SecretError> {
        let secrets = match config.cluster_listener() {
            Some(_) => config.cluster_secrets()?,
            None => Vec::new(),
        };
        let sessions = Sessions::new(config.http.max_connections, config.http.longpoll_window);
        Ok(Self { sessions, tokens: Tokens::new(&secrets), turns: Turns::default() })
    }
}

/// Answers a request of a long-poll client. What became of it is said by the `status` in the body.
pub(crate) async fn longpoll(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response<Body> {
    let origin = request.headers().get(header::ORIGIN).cloned();
    if let Err(error) = check_origin(&shared, request.headers()) {
        return common(refuse(&shared, peer, &error));
    }
    let response = match *request.method() {
        Method::OPTIONS => preflight(request.headers()),
        Method::GET => get(&shared, peer, &request.map(drop)).await,
        Method::POST => post(&shared, request).await,
        _ => empty(StatusCode::BAD_REQUEST),
    };
    let mut response = common(response);
    if let Some(origin) = origin {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

// === requests ===

/// The next messages of a session, or a new session.
async fn get(shared: &Arc<Shared>, peer: SocketAddr, request: &Request<()>) -> Response<Body> {
    let token = session_of(shared, request);
    if let Some(token) = token {
        let text = shared.longpoll.tokens.sign(&token);
        match poll(shared, &token).await {
            Outcome::Gone => {}
            Outcome::Nothing => {
                let body = format!("{{\"status\":204,\"token\":\"{text}\",\"messages\":[]}}");
                return json(Body::from(body));
            }
            Outcome::Messages(messages, receipt) => {
                // If the client has gone already, the connection notices now and gives this up: the
                // messages go to the next poll.
                tokio::task::yield_now().await;
                let head = format!("{{\"status\":200,\"token\":\"{text}\",\"messages\":[");
                let answered = shared.tasks.token();
                return json(Body::new(Messages::new(head, messages, "]}", receipt, answered)));
            }
        }
    }
    if !shared.drain.takes_clients() {
        return draining(shared, peer);
    }
    let query = request.uri().query().unwrap_or_default();
    let client = match connect(shared, request.headers(), query, peer).await {
        Ok(mut client) => {
            client.framing = Framing::Poll;
            client
        }
        Err(error) => return refuse(shared, peer, &error),
    };
    let Some(session) = shared.longpoll.sessions.open(shared, client) else {
        // No status of the body: clients would take it for a session.
        return unavailable();
    };
    let text = shared.longpoll.tokens.sign(&Token { node: shared.name.to_string(), session });
    json(Body::from(format!("{{\"status\":410,\"token\":\"{text}\",\"messages\":[]}}")))
}

async fn poll(shared: &Shared, token: &Token) -> Outcome {
    // A stopping node waits for the answer.
    let _answered = shared.tasks.token();
    let sessions = &shared.longpoll.sessions;
    if token.node == shared.name.as_str() {
        return sessions.poll(token.session).await.into();
    }
    let Some(link) = shared.links.named(&token.node) else {
        return Outcome::Gone;
    };
    let mut stopping = shared.stopping.clone();
    tokio::select! {
        // The session lives on: the next poll lands on another node. Before the link, which ends too.
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => Outcome::Nothing,
        outcome = handover::poll(sessions, &link, token.session) => outcome,
    }
}

/// Hands the client's frames to its session.
async fn post(shared: &Arc<Shared>, request: Request) -> Response<Body> {
    let Some(token) = session_of(shared, &request) else {
        return status(StatusCode::GONE);
    };
    // Until then its body lies unread in the connection.
    let Some(_turn) = shared.longpoll.turns.wait(token.session).await else {
        return unavailable();
    };
    let Some(frames) = frames_of(shared, request).await else {
        return empty(StatusCode::BAD_REQUEST);
    };
    let _answered = shared.tasks.token();
    let sessions = &shared.longpoll.sessions;
    let posted = if token.node == shared.name.as_str() {
        sessions.post(token.session, frames).await
    } else {
        match shared.links.named(&token.node) {
            Some(link) => handover::post(sessions, &link, token.session, frames).await,
            None => Posted::Gone,
        }
    };
    match posted {
        Posted::Taken => status(StatusCode::OK),
        Posted::Gone | Posted::Undecodable => status(StatusCode::GONE),
    }
}

/// The frames of a body; `None` when the client broke off, or is too slow.
async fn frames_of(shared: &Shared, request: Request) -> Option<Vec<ClientFrame>> {
    let frame_max = shared.config.http.max_frame_size.bytes();
    let kind = request.headers().get(header::CONTENT_TYPE);
    let lines = kind.is_some_and(|kind| kind.as_bytes().starts_with(LINES.as_bytes()));
    // Base64 is a third longer than what it says.
    let body_max = BODY_MAX.max(frame_max.saturating_mul(4) / 3 + 4);
    let body = Limited::new(request.into_body(), body_max).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await.ok()? {
        Ok(body) if lines => Some(frames::lines(&body.to_bytes(), frame_max)),
        Ok(body) => Some(frames::single(body.to_bytes(), frame_max)),
        Err(error) => error.is::<LengthLimitError>().then(|| vec![frames::UNDECODABLE]),
    }
}

/// The session that a request names; `None` when its token is missing, forged or of another cluster.
fn session_of<B>(shared: &Shared, request: &Request<B>) -> Option<Token> {
    if let Some(token) = request.headers().get(TOKEN_HEADER) {
        return shared.longpoll.tokens.check(token.to_str().ok()?);
    }
    let params = Params::parse(request.uri().query()?).ok()?;
    shared.longpoll.tokens.check(params.text("token")?)
}

/// Lets a page of another origin, which has been checked, send what it wants to send.
pub(crate) fn preflight(asked: &HeaderMap) -> Response<Body> {
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    set(headers, header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS");
    set(headers, header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE);
    response
}

// === answers ===

fn refuse(shared: &Shared, peer: SocketAddr, error: &ConnectError) -> Response<Body> {
    let response = match error {
        ConnectError::BadRequest(_) => empty(StatusCode::BAD_REQUEST),
        ConnectError::Forbidden(_) => status(StatusCode::FORBIDDEN),
        ConnectError::Denied(why) => status(why.status()),
    };
    info!(node = %shared.name, %peer, "long-poll connect refused: {error}");
    response
}

/// An answer that is nothing but its status.
fn status(status: StatusCode) -> Response<Body> {
    json(Body::from(format!("{{\"status\":{}}}", status.as_u16())))
}

fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    set(response.headers_mut(), header::CONTENT_TYPE, "application/json; charset=utf-8");
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// There are too many: the client is to try again.
fn unavailable() -> Response<Body> {
    let mut response = empty(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

/// What all answers say.
fn common(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    set(headers, header::CACHE_CONTROL, "no-store");
    set(headers, header::VARY, "origin");
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}

//! Broadcasts that realtime-style clients send by HTTP, to the paths that they derive from their
//! socket's URL.
//!
//! A page that may connect may send these too: where the API asks for more than a client has, its origin
//! and `auth.anonymous` decide, as they do for sockets.

use std::{borrow::Cow, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use presence::Topic;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    api::{
        broadcast::ITEMS_MAX,
        error::{ApiError, FlatError},
        query,
    },
    channel::realtime,
    endpoint::{allows_origin, preflight},
    node::Shared,
    pubsub::{Flush, Payload, UserBroadcast},
    socket::USER_EVENT,
};

/// Where both kinds of requests go, below the API.
const PATH: &str = "/broadcast";

/// In a request's extensions: nothing but realtime broadcasts is allowed, and why.
#[derive(Clone, Debug)]
pub(super) struct Guest(pub(super) ApiError);

/// What pages of any allowed origin may ask.
#[derive(Debug)]
pub(super) struct Pages {
    origin: Option<HeaderValue>,
    /// Errors are told as these clients read them.
    flat: bool,
    /// Whether clients that connect without proof of who they are may send it.
    pub(super) to_guests: bool,
    /// The answer to a browser that asks first.
    pub(super) preflight: Option<Response>,
}

impl Pages {
    /// `None` for any other request.
    pub(super) fn of(shared: &Shared, request: &Request) -> Option<Self> {
        let path = request.uri().path();
        let below =
            path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let headers = request.headers();
        if !below || !shared.router.serves_realtime() || !allows_origin(shared, headers) {
            return None;
        }
        let asks = request.method() == Method::OPTIONS;
        Some(Self {
            origin: headers.get(header::ORIGIN).cloned(),
            flat: path != PATH,
            to_guests: shared.door.is_none() && shared.config.anonymous_allowed(),
            preflight: asks.then(|| preflight(headers)),
        })
    }

    /// A refusal, as this client reads it.
    pub(super) fn refusal(&self, error: ApiError) -> Response {
        if self.flat { FlatError::from(error).into_response() } else { error.into_response() }
    }

    /// Lets the page read the answer.
    pub(super) fn answered(self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        response
    }
}

/// The token that these clients carry in a header of their own.
pub(super) fn api_key(headers: &HeaderMap) -> Option<&str> {
    headers.get("apikey")?.to_str().ok()
}

#[derive(Deserialize)]
struct Messages<'a> {
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
    private: Option<bool>,
}

/// Whether a body of `POST /api/broadcast` is one of these clients'.
pub(super) fn is_messages(shared: &Shared, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Probe<'a> {
        #[serde(borrow)]
        messages: Option<&'a RawValue>,
    }
    let probe = || serde_json::from_slice::<Probe<'_>>(body).ok();
    shared.router.serves_realtime() && probe().is_some_and(|probe| probe.messages.is_some())
}

/// `POST /api/broadcast` with `{"messages":[{"topic","event","payload","private"}]}`: all or none.
pub(super) async fn messages(shared: &Shared, body: &[u8]) -> Result<StatusCode, ApiError> {
    let Messages { messages } = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request("bad_json", error.to_string()))?;
    if messages.len() > ITEMS_MAX {
        let why = format!("{} broadcasts in one request, limit {ITEMS_MAX}", messages.len());
        return Err(ApiError::bad_request("too_many", why));
    }
    let checked = messages.iter().enumerate().map(|(at, message)| {
        let payload = message.payload.get().as_bytes();
        let broadcast = (&*message.topic, &*message.event, payload, true);
        let private = message.private == Some(true);
        check(shared, broadcast, private).map_err(|error| error.at(&format!("message {at}: ")))
    });
    let checked = checked.collect::<Result<Vec<_>, _>>()?;
    let mut flush = Flush::new();
    for (topic, user) in &checked {
        if flush.is_heavy() {
            std::mem::take(&mut flush).write().await;
        }
        publish(shared, topic, user, &mut flush);
    }
    flush.write().await;
    Ok(StatusCode::ACCEPTED)
}

/// `POST /api/broadcast/NAME/events/EVENT` with the payload as body, JSON or bytes.
pub(super) async fn post(
    State(shared): State<Arc<Shared>>,
    Path((name, event)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, FlatError> {
    if !shared.router.serves_realtime() {
        let why = "realtime topics are off: set realtime.enabled";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no_such_path", why).into());
    }
    let kind = request.headers().get(header::CONTENT_TYPE);
    let bytes = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/octet-stream"));
    let query = request.uri().query().unwrap_or_default();
    let private = query::pairs(query).any(|(name, value)| name == "private" && value == "true");
    let body = read(request.into_body(), shared.config.http.max_frame_size.bytes()).await?;
    let (topic, user) = check(&shared, (&name, &event, &body, !bytes), private)?;
    let mut flush = Flush::new();
    publish(&shared, &topic, &user, &mut flush);
    flush.write().await;
    Ok(StatusCode::ACCEPTED)
}

async fn read(body: Body, max: usize) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, max).await.map_err(|_| {
        let why = format!("the payload is over {max} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", why)
    })
}

fn check(
    shared: &Shared,
    (name, event, payload, json): (&str, &str, &[u8], bool),
    private: bool,
) -> Result<(Topic, Vec<u8>), ApiError> {
    let topic = realtime::topic_of(name)
        .map_err(|error| ApiError::bad_request("bad_topic", error.to_string()))?;
    if private {
        return Err(ApiError::bad_request("private", "private topics are not served by this node"));
    }
    let max = shared.config.http.max_frame_size.bytes();
    if payload.len() > max {
        let why = format!("payload of {} bytes, limit {max}", payload.len());
        return Err(ApiError::bad_request("payload_too_large", why));
    }
    let bytes = UserBroadcast::encode(event, payload, json);
    let bytes = bytes
        .filter(|_| !event.is_empty())
        .ok_or_else(|| ApiError::bad_request("bad_event", "event must have 1 to 255 bytes"))?;
    let user = UserBroadcast::read(&bytes);
    if user.is_none_or(|user| realtime::check_user(&user).is_err()) {
        return Err(ApiError::bad_request("bad_json", "the payload is no JSON"));
    }
    Ok((topic, bytes))
}

fn publish(shared: &Shared, topic: &Topic, user: &[u8], flush: &mut Flush) {
    if let Some(user) = UserBroadcast::read(user) {
        shared.publisher.publish(topic, USER_EVENT, Payload::User(user), None, flush);
    }
}

//! Who may use the API.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http_body_util::Limited;
use ring::hmac;
use tokio::time::timeout;

use crate::{
    api::{
        error::ApiError,
        query,
        realtime::{self, Guest, Pages},
    },
    endpoint::{host_name, is_loopback},
    node::Shared,
};

/// The one path that takes its token from the query too, as `EventSource` cannot send a header.
const SUBSCRIBE: &str = "/subscribe";

/// From a request's headers to the answer's: a body that trickles in ends by then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The bearer token that the API asks for; compared in constant time.
#[derive(Debug)]
pub(crate) struct ApiToken {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl ApiToken {
    pub(crate) fn new(token: &str) -> Self {
        let bytes: [u8; 32] = rand::random();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let tag = hmac::sign(&key, token.as_bytes());
        Self { key, tag }
    }

    fn is(&self, token: &str) -> bool {
        hmac::verify(&self.key, token.as_bytes(), self.tag.as_ref()).is_ok()
    }
}

/// Lets a request pass, or answers it.
pub(super) async fn check(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut pages = Pages::of(&shared, &request);
    if let Some(answer) = pages.as_mut().and_then(|pages| pages.preflight.take()) {
        return pages.map_or_else(Response::default, |pages| pages.answered(answer));
    }
    let allowed = match &shared.api_token {
        Some(token) => check_token(token, &request, pages.is_some()),
        None => check_local(peer, request.headers()),
    };
    let response = match allowed {
        Ok(()) => answer(request, next).await,
        Err(error) if pages.as_ref().is_some_and(|pages| pages.to_guests) => {
            request.extensions_mut().insert(Guest(error));
            let max = shared.config.http.max_frame_size.bytes();
            answer(request.map(|body| Body::new(Limited::new(body, max))), next).await
        }
        Err(error) => match &pages {
            Some(pages) => pages.refusal(error),
            None => error.into_response(),
        },
    };
    match pages {
        Some(pages) => pages.answered(response),
        None => response,
    }
}

async fn answer(request: Request, next: Next) -> Response {
    match timeout(ANSWER_TIMEOUT, next.run(request)).await {
        Ok(response) => as_json(response),
        Err(_) => {
            let why = "the request did not come in time";
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", why).into_response()
        }
    }
}

/// Puts refusals of the HTTP library, which are plain text, into the shape of all others.
fn as_json(response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !response.status().is_client_error() || kind.is_some_and(|kind| kind == "application/json") {
        return response;
    }
    let (code, why) = match response.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "the body is over 16 MiB"),
        _ => ("bad_request", "the path or the body cannot be read"),
    };
    ApiError::new(response.status(), code, why).into_response()
}

fn check_token(expected: &ApiToken, request: &Request, pages: bool) -> Result<(), ApiError> {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|h| h.to_str().ok());
    let bearer = header.and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let in_query = || {
        let query = request.uri().query().filter(|_| request.uri().path() == SUBSCRIBE)?;
        query::pairs(query).find(|(name, _)| name == "token").map(|(_, token)| token)
    };
    let api_key = || realtime::api_key(request.headers()).filter(|_| pages).map(ToOwned::to_owned);
    match bearer.or_else(in_query).or_else(api_key) {
        Some(token) if expected.is(&token) => Ok(()),
        Some(_) => Err(unauthorized("the token is not the one of auth.api_token_file")),
        None => Err(unauthorized("the API asks for `Authorization: Bearer TOKEN`")),
    }
}

fn unauthorized(why: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", why)
}

/// Without a token only this machine may use the API, and no web page on behalf of its reader: a page
/// of another origin, a name that resolves to loopback, or a proxy on this machine.
fn check_local(peer: SocketAddr, headers: &HeaderMap) -> Result<(), ApiError> {
    const FORWARDED: [&str; 6] = [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "via",
    ];
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let refuse = |why: &str| {
        let why = format!("{why}: set auth.api_token_file to use the API from elsewhere");
        Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", why))
    };
    let host = text(header::HOST).map(host_name).unwrap_or_default();
    if !peer.ip().is_loopback() {
        return refuse("without a token the API answers on loopback only");
    }
    if !is_loopback(host) {
        return refuse("without a token the Host must be loopback");
    }
    if FORWARDED.iter().any(|name| headers.contains_key(*name)) {
        return refuse("without a token the API takes no forwarded requests");
    }
    match text(header::ORIGIN) {
        None => Ok(()),
        Some(origin) if is_own(origin, text(header::HOST)) => Ok(()),
        Some(_) => refuse("without a token pages of other origins may not use the API"),
    }
}

/// Whether a page of this origin is one of this very listener: same host, same port.
fn is_own(origin: &str, host: Option<&str>) -> bool {
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn local(headers: &[(&'static str, &'static str)]) -> bool {
        let pairs = headers.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), HeaderValue::from_static(value))
        });
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        check_local(peer, &pairs.collect()).is_ok()
    }

    #[test]
    fn without_a_token_only_this_machine_itself_may_use_the_api() {
        assert!(local(&[("host", "127.0.0.1:4000")]));
        assert!(local(&[("host", "localhost:4000"), ("origin", "http://localhost:4000")]));
        assert!(!local(&[("host", "rebound.example:4000")]));
        assert!(!local(&[("host", "localhost:4000"), ("origin", "http://evil.example")]));
        assert!(!local(&[("host", "localhost:4000"), ("origin", "http://localhost:9999")]));
        assert!(!local(&[("host", "localhost:4000"), ("x-forwarded-for", "1.2.3.4")]));
        let stranger = SocketAddr::from(([10, 0, 0, 1], 1));
        assert!(check_local(stranger, &HeaderMap::new()).is_err());
    }

    #[test]
    fn only_the_very_token_passes() {
        let token = ApiToken::new("correct horse battery");
        assert!(token.is("correct horse battery"));
        assert!(!token.is("correct horse") && !token.is(""));
    }
}

//! The client of a node's HTTP API: one connection a request, plain HTTP/1.1.

use std::{future::Future, io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};

use super::{Failure, subscription::Subscription, url::BaseUrl};

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take, all of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer that is read: a page of 10,000 presences of 4 KiB fits.
const ANSWER_LEN_MAX: usize = 64 << 20;

/// A node's API.
#[derive(Debug)]
pub(super) struct Client {
    base: BaseUrl,
    authorization: Option<HeaderValue>,
}

/// The body of an API error.
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    code: String,
    message: String,
}

impl Client {
    pub(super) fn new(url: &str, token: Option<&str>) -> Result<Self, Failure> {
        let header = |token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"));
            if let Ok(value) = &mut value {
                value.set_sensitive(true);
            }
            value
        };
        let authorization = token.map(header).transpose();
        let authorization =
            authorization.map_err(|_| Failure::usage("--token: want visible ASCII in one line"))?;
        Ok(Self { base: BaseUrl::parse(url)?, authorization })
    }

    /// The answer to a GET, as it came.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes, Failure> {
        self.answer(self.request(Method::GET, path, Bytes::new())?).await
    }

    /// The answer to a POST of JSON.
    pub(super) async fn post(&self, path: &str, json: Vec<u8>) -> Result<Bytes, Failure> {
        self.answer(self.request(Method::POST, path, json.into())?).await
    }

    /// A stream of server-sent events.
    pub(super) async fn subscribe(&self, path: &str) -> Result<Subscription, Failure> {
        let request = self.request(Method::GET, path, Bytes::new())?;
        let response = self.in_time(self.send(request)).await?;
        let response = self.accepted(response).await?;
        Ok(Subscription::new(self.base.to_string(), response.into_body()))
    }

    /// Reads an answer; what does not read is not from a node.
    pub(super) fn decode<'a, T: Deserialize<'a>>(&self, answer: &'a [u8]) -> Result<T, Failure> {
        serde_json::from_slice(answer).map_err(|error| {
            Failure::failed(format_args!(
                "{}: the answer is not what a node of this release sends ({error}): \
                 is the URL right?",
                self.base
            ))
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(self.base.path(path))
            .header(HOST, self.base.authority())
            .header(ACCEPT, "application/json, text/event-stream");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body));
        request.map_err(|error| Failure::usage(format_args!("--url: {error}")))
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> Result<Bytes, Failure> {
        self.in_time(async {
            let response = self.send(request).await?;
            self.body(self.accepted(response).await?).await
        })
        .await
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match timeout(ANSWER_TIMEOUT, work).await {
            Ok(result) => result,
            Err(_) => {
                Err(self.unreachable(&format!("no answer in {} s", ANSWER_TIMEOUT.as_secs())))
            }
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let connect = TcpStream::connect(self.base.target());
        let stream = match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(&plain(&error))),
            Err(_) => {
                let waited = format!("no connection in {} s", CONNECT_TIMEOUT.as_secs());
                return Err(self.unreachable(&waited));
            }
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(&error.to_string()))?;
        // Ends with the request's body, or with the runtime; its errors reach the request too.
        drop(tokio::spawn(connection));
        let response = sender.send_request(request).await;
        response.map_err(|error| self.unreachable(&format!("no HTTP answer: {error}")))
    }

    /// Turns an answer that is an error into a failure.
    async fn accepted(&self, response: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let url = self.base.to_string();
        let body = self.body(response).await?;
        Err(match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(ErrorBody { error: ErrorDetail { code, message } }) => {
                Failure::Refused { url, status: status.as_u16(), code, message }
            }
            Err(_) => Failure::failed(format_args!(
                "{url}: answered {status} and no reason: is there a node at that URL?"
            )),
        })
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, Failure> {
        let body = Limited::new(response.into_body(), ANSWER_LEN_MAX).collect().await;
        let broken = |error| self.unreachable(&format!("the answer broke off: {error}"));
        Ok(body.map_err(broken)?.to_bytes())
    }

    /// Whether the machine is there, and nothing listens at the address: what was there has ended.
    pub(super) async fn has_ended(&self) -> bool {
        let connect = timeout(CONNECT_TIMEOUT, TcpStream::connect(self.base.target())).await;
        matches!(connect, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    fn unreachable(&self, why: &str) -> Failure {
        Failure::Unreachable(format!(
            "cannot reach {} ({why}): is a node running there? \
             start one with wingbeat serve, or name another with --url",
            self.base
        ))
    }
}

/// The error in words, without the system's number.
fn plain(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        "connection refused".to_owned()
    } else {
        error.to_string()
    }
}

//! An open stream of events from a node.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    Failure,
    sse::{Decoder, Event},
};

/// Silence after which the node is taken to be gone. It sends comments far more often.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The stream. It ends with a failure only: a node does not end it by itself.
#[derive(Debug)]
pub(super) struct Subscription {
    url: String,
    body: Incoming,
    decoder: Decoder,
}

impl Subscription {
    pub(super) fn new(url: String, body: Incoming) -> Self {
        Self { url, body, decoder: Decoder::default() }
    }

    /// An event that is here already.
    pub(super) fn buffered(&mut self) -> Option<Event> {
        self.decoder.poll_event()
    }

    /// The next event.
    pub(super) async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            if let Some(event) = self.buffered() {
                return Ok(event);
            }
            let frame = match timeout(SILENCE_MAX, self.body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None | Some(Err(_))) => return Err(self.ended("ended the stream")),
                Err(_) => return Err(self.ended("fell silent")),
            };
            if let Ok(bytes) = frame.into_data() {
                let fed = self.decoder.feed(&bytes);
                fed.map_err(|error| {
                    Failure::failed(format_args!("{}: sent {error}: is the URL right?", self.url))
                })?;
            }
        }
    }

    fn ended(&self, how: &str) -> Failure {
        let url = &self.url;
        Failure::Unreachable(format!(
            "{url} {how}: the node has stopped or restarted; run this again"
        ))
    }
}

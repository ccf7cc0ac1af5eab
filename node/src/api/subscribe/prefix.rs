//! Presence of all topics of a prefix, as server-sent events.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::Interval;

use super::{keep_alive, note_end};
use crate::{node::Shared, prefix::PrefixFeed};

/// The events.
pub(super) struct PrefixEvents {
    shared: Arc<Shared>,
    peer: SocketAddr,
    /// Until it ends.
    feed: Option<PrefixFeed>,
    keep_alive: Interval,
}

impl PrefixEvents {
    pub(super) fn new(shared: &Arc<Shared>, peer: SocketAddr, prefix: &str) -> Self {
        let (shared, feed) = (Arc::clone(shared), Some(PrefixFeed::new(shared, prefix)));
        Self { shared, peer, feed, keep_alive: keep_alive() }
    }
}

impl Stream for PrefixEvents {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let Some(feed) = &mut self.feed else {
            return Poll::Ready(None);
        };
        match feed.poll_next(cx) {
            Poll::Ready(Ok(events)) => Poll::Ready(Some(Ok(events))),
            Poll::Ready(Err(reason)) => {
                note_end(&self.shared, self.peer, reason);
                self.feed = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                std::task::ready!(self.keep_alive.poll_tick(cx));
                Poll::Ready(Some(Ok(Bytes::from_static(b": keep-alive\n\n"))))
            }
        }
    }
}

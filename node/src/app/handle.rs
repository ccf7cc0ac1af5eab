//! The node, for whatever is no channel: other tasks, HTTP handlers, timers.

use std::{fmt, sync::Arc};

use presence::{NodeName, Topic};

use super::{
    Payload, SendError,
    seat::check_event,
    tap::{Tap, Tapped, encode},
    watchdog::Watchdog,
};
use crate::{
    node::Shared,
    pubsub::{Filter, Flush, Format, Overflow, Subscriber, SubscriberId, Subscription},
    socket::DISCONNECT,
    tracker::{Hears, Observation, State},
};

/// Keys in one list.
pub(super) const LIST_MAX: usize = 10_000;

/// A running node, for the application's own tasks. Cloning it copies a pointer.
///
/// ```
/// # use serde_json::json;
/// # async fn run(node: wingbeat::NodeHandle) -> Result<(), Box<dyn std::error::Error>> {
/// node.broadcast("room:lobby", "news", json!({ "text": "hello" })).await?;
/// let online = node.presence().count(&"room:lobby".parse()?);
/// node.disconnect("users_socket:42").await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct NodeHandle(Arc<Shared>);

impl NodeHandle {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// The node's name.
    pub fn name(&self) -> &NodeName {
        &self.0.name
    }

    /// Sends an event to everybody on a topic, on all nodes. When it returns, this node's subscribers
    /// have been written to: what publishes faster waits here.
    ///
    /// The event `disconnect` closes the sockets whose id is the topic, and is never delivered.
    ///
    /// # Errors
    ///
    /// The topic's name is not valid, or the event's is not 1 to 255 bytes or begins with `phx_`.
    pub async fn broadcast(
        &self,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<(), SendError> {
        let topic: Topic = topic.parse()?;
        check_event(event)?;
        self.publish(&topic, event, &payload.into(), None).await;
        Ok(())
    }

    pub(super) async fn publish(
        &self,
        topic: &Topic,
        event: &str,
        payload: &Payload,
        except: Option<SubscriberId>,
    ) {
        if event == DISCONNECT {
            return self.disconnect(topic.as_str()).await;
        }
        let mut flush = Flush::new();
        self.0.publisher.publish(topic, event, payload.as_carried(), except, &mut flush);
        flush.write().await;
    }

    /// Closes all sockets with this id, on all nodes, with close code 1001.
    pub async fn disconnect(&self, socket_id: &str) {
        self.0.disconnect(socket_id).await;
    }

    /// Who is online.
    pub const fn presence(&self) -> Presence<'_> {
        Presence(self)
    }

    /// Who names callbacks that take too long; there is one where there are channels.
    pub(super) fn watchdog(&self) -> Option<&Watchdog> {
        self.0.door.as_ref().map(|door| &*door.watchdog)
    }
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").field("name", self.name()).finish_non_exhaustive()
    }
}

/// Who is online on which topic, on any node: what this node knows, without asking another.
///
/// That is what another node knew a moment ago: a round trip while all is well. How far this node is
/// behind each other one, `GET /api/cluster` says: `presence_lag` and `lag_ms` by member, and
/// `agreement`, whether all list the same right now.
#[derive(Clone, Copy, Debug)]
pub struct Presence<'a>(pub(super) &'a NodeHandle);

impl Presence<'_> {
    /// Who is on a topic: `{key: {"metas": [meta, …]}}`, the first 10,000 keys in their order.
    pub fn list(&self, topic: &Topic) -> Payload {
        Payload::raw_json(self.0.0.tracker.list(topic, None, LIST_MAX).presences)
    }

    /// `{"metas": [meta, …]}` of one key; `None` when nobody is there under it.
    pub fn get(&self, topic: &Topic, key: &str) -> Option<Payload> {
        self.0.0.tracker.get(topic, key).map(Payload::raw_json)
    }

    /// How many keys are on a topic.
    pub fn count(&self, topic: &Topic) -> usize {
        self.0.0.tracker.count(topic).keys
    }

    /// The first `limit` topics with presences whose names start with `prefix`, with their keys' count.
    pub fn topics(&self, prefix: &str, limit: usize) -> Vec<(Topic, usize)> {
        let topics = self.0.0.tracker.topics(prefix, limit);
        topics.into_iter().map(|(topic, count)| (topic, count.keys)).collect()
    }

    /// Follows who comes to a topic and goes.
    pub fn watch(&self, topic: &Topic) -> PresenceWatch {
        let shared = &self.0.0;
        let tap = Tap::new(shared);
        let begin = |state: &State| {
            let subscriber = Subscriber {
                mailbox: Arc::clone(tap.mailbox()),
                channel: 0,
                format: Format::Tap,
                overflow: Overflow::Disconnect,
                filter: Filter::NOTHING,
                presence_after: Some(state.version),
            };
            shared.registry.subscribe_after(topic, subscriber, || tell(&tap, state))
        };
        // Only listing a client can fail, and nobody is listed here.
        let watched = shared.tracker.watch(topic, Hears::Changes, None, begin).ok();
        let held = watched.map(|(_, observation, subscription)| (observation, subscription));
        PresenceWatch { topic: topic.clone(), held, tap }
    }
}

/// Puts a whole state before the changes that follow it.
fn tell(tap: &Tap, state: &State) {
    let frame = encode("presence_state", &state.whole(), false);
    // Whoever reads it is woken: there is nothing to flush. One that overflows ends.
    let _ = tap.mailbox().push_reply([frame], &mut Flush::new());
}

/// What [`Presence::watch`] gives: a state, then changes to it.
///
/// ```
/// # use wingbeat::{NodeHandle, PresenceEvent};
/// # async fn run(node: NodeHandle) -> Result<(), Box<dyn std::error::Error>> {
/// let mut watch = node.presence().watch(&"room:lobby".parse()?);
/// while let Some(event) = watch.next().await {
///     match event {
///         PresenceEvent::State(_) => { /* everybody, anew */ }
///         PresenceEvent::Diff(_) => { /* who came and who went */ }
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct PresenceWatch {
    topic: Topic,
    held: Option<(Observation, Subscription)>,
    tap: Tap,
}

/// A change of a topic's presence, as clients are told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceEvent {
    /// Who is there, which is what a watch begins with, and what takes the place of changes that did not
    /// fit: `{key: {"metas": [meta, …]}}`.
    State(Payload),
    /// `{"joins": {key: …}, "leaves": {key: …}}`.
    Diff(Payload),
}

impl PresenceWatch {
    /// The next change; `None` once the node stops. Changes of over `limits.mailbox_bytes` that are not
    /// read are dropped, and a fresh [`PresenceEvent::State`] comes in their place. Nothing is lost
    /// when this is given up.
    pub async fn next(&mut self) -> Option<PresenceEvent> {
        loop {
            match self.tap.tapped().await {
                Tapped::Heard(heard) if &*heard.event == "presence_state" => {
                    return Some(PresenceEvent::State(heard.payload));
                }
                Tapped::Heard(heard) => return Some(PresenceEvent::Diff(heard.payload)),
                Tapped::Resync => self.resync(),
                Tapped::Closed(_) => return None,
            }
        }
    }

    fn resync(&self) {
        let Some((observation, subscription)) = &self.held else {
            return;
        };
        observation.resume(|state| {
            subscription.set_presence_after(state.version, || {
                self.tap.mailbox().resynced(0);
                tell(&self.tap, state);
            });
        });
    }
}

impl fmt::Debug for PresenceWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceWatch").field("topic", &self.topic).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        Config, Node,
        pubsub::{CloseReason, Mailbox, Outlet},
    };

    async fn node() -> Node {
        let mut config = Config::default();
        config.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Node::start(config).await.expect("a node")
    }

    fn keys(payload: &Payload, member: Option<&str>) -> Vec<String> {
        let payload: Value = payload.parse().expect("JSON");
        let keys = member.map_or(&payload, |member| &payload[member]);
        keys.as_object().expect("an object").keys().cloned().collect()
    }

    #[tokio::test]
    async fn a_watch_begins_with_who_is_there_and_ends_with_the_node() {
        let node = node().await;
        let (handle, topic) = (node.handle(), "room:a".parse().expect("a topic"));
        let track = |key| handle.shared().tracker.track(&topic, key, b"{}").expect("room");
        let ann = track("ann");
        let mut watch = handle.presence().watch(&topic);
        let Some(PresenceEvent::State(state)) = watch.next().await else {
            panic!("a watch begins with a state");
        };
        assert_eq!(keys(&state, None), ["ann"]);

        let _bob = track("bob");
        handle.broadcast("room:a", "news", json!({})).await.expect("a broadcast");
        drop(ann);
        let (mut joins, mut leaves) = (Vec::new(), Vec::new());
        while joins.is_empty() || leaves.is_empty() {
            let Some(PresenceEvent::Diff(diff)) = watch.next().await else {
                panic!("nothing but changes follow");
            };
            joins.extend(keys(&diff, Some("joins")));
            leaves.extend(keys(&diff, Some("leaves")));
        }
        assert_eq!((joins, leaves), (vec!["bob".to_owned()], vec!["ann".to_owned()]));
        node.stop().await;
        assert_eq!(watch.next().await, None);
    }

    #[tokio::test]
    async fn presence_is_asked_by_topic_and_by_key() {
        let node = node().await;
        let (handle, topic) = (node.handle(), "room:a".parse().expect("a topic"));
        let _ann = handle.shared().tracker.track(&topic, "ann", b"{\"n\":1}").expect("room");
        let presence = handle.presence();
        assert_eq!(
            (presence.count(&topic), presence.topics("room:", 9)),
            (1, vec![(topic.clone(), 1)])
        );
        assert_eq!(keys(&presence.list(&topic), None), ["ann"]);
        let ann: Value = presence.get(&topic, "ann").and_then(|ann| ann.parse().ok()).expect("ann");
        assert_eq!(ann["metas"][0]["n"], 1);
        assert_eq!(presence.get(&topic, "bob"), None);
        node.stop().await;
    }

    #[tokio::test]
    async fn a_broadcast_of_disconnect_closes_sockets_whoever_it_comes_from() {
        let node = node().await;
        let (handle, topic) = (node.handle(), "users_socket:7".parse().expect("a topic"));
        let sockets = &handle.shared().sockets;
        let named = || {
            let mailbox = Mailbox::new(1024, Outlet::Owner);
            (sockets.name("users_socket:7", &mailbox), mailbox)
        };
        let (_one, of_handle) = named();
        handle.broadcast("users_socket:7", "disconnect", ()).await.expect("a broadcast");
        let (_two, of_channel) = named();
        handle.publish(&topic, "disconnect", &Payload::EMPTY, None).await;
        for mailbox in [of_handle, of_channel] {
            assert_eq!(mailbox.closed(), Some(CloseReason::Disconnected));
        }
        node.stop().await;
    }

    #[tokio::test]
    async fn what_is_no_topic_or_event_is_refused() {
        let node = node().await;
        let handle = node.handle();
        let broadcast = async |topic, event| handle.broadcast(topic, event, ()).await;
        assert!(matches!(broadcast("", "e").await, Err(SendError::InvalidTopic(_))));
        let long = "e".repeat(256);
        for event in ["", "phx_close", &long] {
            let refused = Err(SendError::InvalidEvent(event.to_owned()));
            assert_eq!(broadcast("room:a", event).await, refused);
        }
        assert_eq!(broadcast("room:a", "e").await, Ok(()));
        node.stop().await;
    }
}

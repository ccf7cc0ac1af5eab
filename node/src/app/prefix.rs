//! Who comes to the topics of a prefix and goes.

use std::{borrow::Cow, collections::VecDeque, fmt};

use presence::Topic;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Payload,
    handle::{Presence, PresenceEvent},
};
use crate::prefix::PrefixFeed;

impl Presence<'_> {
    /// Follows who comes to the topics whose names start with `prefix`, and goes.
    ///
    /// Of each topic with clients the state comes first, then its changes. What comes of two topics is in no
    /// order. At most 10,000 topics are followed at a time, see [`PrefixWatch::is_complete`]. Each costs as
    /// much as a watch of its own, so follow what you need.
    ///
    /// ```
    /// # use wingbeat::{NodeHandle, PresenceEvent};
    /// # async fn run(node: NodeHandle) {
    /// let mut watch = node.presence().watch_prefix("room:");
    /// while let Some((topic, event)) = watch.next().await {
    ///     match event {
    ///         PresenceEvent::State(state) => println!("{topic}: {state:?}"),
    ///         PresenceEvent::Diff(diff) => println!("{topic} changes: {diff:?}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn watch_prefix(&self, prefix: &str) -> PrefixWatch {
        let feed = PrefixFeed::new(self.0.shared(), prefix);
        PrefixWatch { prefix: prefix.into(), feed, ready: VecDeque::new() }
    }
}

/// What [`Presence::watch_prefix`] gives.
pub struct PrefixWatch {
    prefix: Box<str>,
    feed: PrefixFeed,
    /// Events that came together with the last one.
    ready: VecDeque<(Topic, PresenceEvent)>,
}

impl PrefixWatch {
    /// The next change and its topic; `None` once the node stops. Changes of over `limits.mailbox_bytes` that
    /// are not read are dropped, and a fresh [`PresenceEvent::State`] of their topic comes in their place.
    /// Nothing is lost when this is given up.
    pub async fn next(&mut self) -> Option<(Topic, PresenceEvent)> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Some(next);
            }
            let events = std::future::poll_fn(|cx| self.feed.poll_next(cx)).await.ok()?;
            let events = std::str::from_utf8(&events).ok()?;
            self.ready.extend(events.split_terminator("\n\n").filter_map(read));
        }
    }

    /// Whether all topics with clients are followed. False while there are over 10,000: further ones are left
    /// out until others have emptied, and 1,250 more events have come. It tells of the time of the last event
    /// that [`next`](Self::next) gave, or of a little later.
    pub fn is_complete(&self) -> bool {
        self.feed.is_complete()
    }
}

impl fmt::Debug for PrefixWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefixWatch").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// One server-sent event of presence.
fn read(event: &str) -> Option<(Topic, PresenceEvent)> {
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        topic: Cow<'a, str>,
        #[serde(borrow)]
        presences: Option<&'a RawValue>,
        #[serde(borrow)]
        joins: Option<&'a RawValue>,
        #[serde(borrow)]
        leaves: Option<&'a RawValue>,
    }
    let (_, data) = event.split_once("\ndata: ")?;
    let data: Data<'_> = serde_json::from_str(data).ok()?;
    let topic = data.topic.parse().ok()?;
    if let Some(state) = data.presences {
        return Some((topic, PresenceEvent::State(Payload::raw_json(state.get().to_owned()))));
    }
    let (joins, leaves) = (data.joins?.get(), data.leaves?.get());
    let diff = format!("{{\"joins\":{joins},\"leaves\":{leaves}}}");
    Some((topic, PresenceEvent::Diff(Payload::raw_json(diff))))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        net::{Ipv4Addr, SocketAddr},
        sync::atomic::Ordering,
    };

    use serde_json::Value;

    use super::*;
    use crate::{Config, Node, config::Size};

    /// "topic =key", or "topic +key -key".
    async fn next(watch: &mut PrefixWatch) -> String {
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), watch.next());
        let (topic, event) = waited.await.expect("in time").expect("the node runs");
        let names = |value: &Value, sign| {
            let keys = value.as_object().expect("an object").keys();
            keys.map(|key| format!(" {sign}{key}")).collect::<String>()
        };
        match event {
            PresenceEvent::State(state) => {
                format!("{topic}{}", names(&state.parse().expect("JSON"), "="))
            }
            PresenceEvent::Diff(diff) => {
                let diff: Value = diff.parse().expect("JSON");
                format!("{topic}{}{}", names(&diff["joins"], "+"), names(&diff["leaves"], "-"))
            }
        }
    }

    #[tokio::test]
    async fn topics_of_a_prefix_are_followed_from_their_first_client_on() {
        let mut config = Config::default();
        config.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let node = Node::start(config).await.expect("a node");
        let handle = node.handle();
        let track = |topic: &str, key| {
            let topic = topic.parse().expect("a topic");
            handle.shared().tracker.track(&topic, key, b"{}").expect("room")
        };
        let _others = (track("lobby", "ann"), track("roof:a", "ann"));
        let ann = track("room:a", "ann");
        let mut watch = handle.presence().watch_prefix("room:");
        assert_eq!(next(&mut watch).await, "room:a =ann");
        let _bob = track("room:b", "bob");
        assert_eq!(next(&mut watch).await, "room:b =bob");
        drop(ann);
        assert_eq!(next(&mut watch).await, "room:a -ann");
        let _ann = track("room:a", "ann");
        assert_eq!(next(&mut watch).await, "room:a +ann");
        node.stop().await;
        assert_eq!(watch.next().await, None);
    }

    #[tokio::test]
    async fn topics_that_are_left_out_are_told_and_come_once_there_is_room() {
        let mut config = Config::default();
        config.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let node = Node::start(config).await.expect("a node");
        let handle = node.handle();
        let track = |n: usize| {
            let topic = format!("room:{n:05}").parse().expect("a topic");
            handle.shared().tracker.track(&topic, "ann", b"{}").expect("room")
        };
        let mut anns: Vec<_> = (0..10_001).map(track).collect();
        let mut watch = handle.presence().watch_prefix("room:");
        for n in 0..10_000 {
            assert_eq!(next(&mut watch).await, format!("room:{n:05} =ann"));
        }
        assert!(!watch.is_complete());
        for n in 0..=1_250 {
            assert!(n < 1_250, "what was left out comes");
            drop(anns.remove(0));
            if next(&mut watch).await == "room:10000 =ann" {
                break;
            }
        }
        for n in [20_000, 20_001] {
            anns.push(track(n));
            while next(&mut watch).await != format!("room:{n} =ann") {}
        }
        assert!(watch.is_complete());
        node.stop().await;
    }

    #[tokio::test]
    async fn topics_that_empty_while_nobody_reads_are_told_so_though_they_are_let_go() {
        let mut config = Config::default();
        config.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.limits.mailbox_bytes = Size::new(64 * 1024);
        let node = Node::start(config).await.expect("a node");
        let handle = node.handle();
        let track = |n: usize| {
            let topic = format!("room:{n:05}").parse().expect("a topic");
            handle.shared().tracker.track(&topic, "ann", b"{}").expect("room")
        };
        let first: Vec<_> = (0..3_000).map(track).collect();
        let mut watch = handle.presence().watch_prefix("room:");
        for n in 0..3_000 {
            assert_eq!(next(&mut watch).await, format!("room:{n:05} =ann"));
        }
        let mut listed: BTreeSet<usize> = (0..3_000).collect();
        drop(first);
        let tracker = &handle.shared().tracker;
        let topics: Vec<Topic> =
            (0..3_000).map(|n| format!("room:{n:05}").parse().expect("a topic")).collect();
        while !topics.iter().all(|topic| tracker.is_closed(topic) && tracker.has_published(topic)) {
            tokio::task::yield_now().await;
        }
        // When there are 4,096, those that have emptied are looked for; most of their diffs did not fit.
        let _later: Vec<_> = (3_000..5_000).map(track).collect();
        while listed != (3_000..5_000).collect() {
            let event = next(&mut watch).await;
            let (topic, change) = event.split_at("room:00000".len());
            let n = topic["room:".len()..].parse().expect("a number");
            let _ = match change {
                " =ann" | " +ann" => listed.insert(n),
                "" | " -ann" => listed.remove(&n),
                other => panic!("{topic}{other}"),
            };
        }
        assert!(handle.shared().stats.resyncs.load(Ordering::Relaxed) > 0);
        node.stop().await;
    }

    #[tokio::test]
    async fn rooms_that_come_and_go_leave_nothing_behind() {
        let mut config = Config::default();
        config.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let node = Node::start(config).await.expect("a node");
        let handle = node.handle();
        let mut watch = handle.presence().watch_prefix("room:");
        for n in 0..300 {
            let topic = format!("room:{n}").parse().expect("a topic");
            let ann = handle.shared().tracker.track(&topic, "ann", b"{}").expect("room");
            assert_eq!(next(&mut watch).await, format!("room:{n} =ann"));
            drop(ann);
            assert_eq!(next(&mut watch).await, format!("room:{n} -ann"));
        }
        assert!(handle.shared().registry.size().topics <= 65);
        drop(watch);
        assert_eq!(handle.shared().registry.size().topics, 0);
        node.stop().await;
    }
}

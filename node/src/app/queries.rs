//! What can be asked of presence beside lists: pages, counts, totals.

use presence::{Count, Topic};

use super::{
    Payload,
    handle::{LIST_MAX, Presence},
};
use crate::tracker::PresenceTotals;

/// A part of the list of a topic, by keys in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresencePage {
    /// `{key: {"metas": [meta, …]}}`.
    pub presences: Payload,
    /// How many are on the topic in all.
    pub count: Count,
    /// The last key of the page, to go on after; `None` when no more follow it.
    pub next: Option<String>,
}

impl Presence<'_> {
    /// Who is on a topic, a page of it: the `limit` (at most 10,000) first keys in their order after the
    /// key `after`. Who comes or goes meanwhile may be in no page, but nobody is in two.
    ///
    /// ```
    /// # fn run(node: &wingbeat::NodeHandle) -> Result<(), Box<dyn std::error::Error>> {
    /// let (topic, mut after) = ("room:lobby".parse()?, None);
    /// loop {
    ///     let page = node.presence().list_after(&topic, after.as_deref(), 1_000);
    ///     println!("{:?}", page.presences);
    ///     after = page.next;
    ///     if after.is_none() {
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list_after(&self, topic: &Topic, after: Option<&str>, limit: usize) -> PresencePage {
        let limit = limit.clamp(1, LIST_MAX);
        let listing = self.0.shared().tracker.list(topic, after, limit);
        let presences = Payload::raw_json(listing.presences);
        PresencePage { presences, count: listing.count, next: listing.next }
    }

    /// How many are on a topic: different keys, and entries, as one key may have several.
    ///
    /// Takes a time proportional to the nodes that have clients there, not to the clients.
    pub fn counts(&self, topic: &Topic) -> Count {
        self.0.shared().tracker.count(topic)
    }

    /// How much is listed, in all and by nodes.
    ///
    /// Takes a time proportional to the nodes, and to topics with clients that have a lease, not to the
    /// entries, but while a node with entries is hidden or has left some for a lease.
    pub fn totals(&self) -> PresenceTotals {
        self.0.shared().tracker.totals()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use presence::Total;

    use super::*;
    use crate::{Config, Node};

    #[tokio::test]
    async fn lists_come_in_pages_and_counts_and_totals_agree_with_them() {
        let mut config = Config::default();
        config.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let node = Node::start(config).await.expect("a node");
        let handle = node.handle();
        let [room, other] = ["room:a", "room:b"].map(|name| name.parse().expect("a topic"));
        let track = |topic, key| handle.shared().tracker.track(topic, key, b"{}").expect("room");
        let _held: Vec<_> = ["ann", "ann", "bob", "cid"].map(|key| track(&room, key)).into();
        let _other = track(&other, "ann");

        let presence = handle.presence();
        let (mut after, mut pages) = (None, Vec::new());
        loop {
            let page = presence.list_after(&room, after.as_deref(), 2);
            assert_eq!(page.count, Count { keys: 3, entries: 4 });
            let keys: serde_json::Value = page.presences.parse().expect("JSON");
            pages.push(keys.as_object().expect("an object").keys().cloned().collect::<Vec<_>>());
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(pages, [vec!["ann", "bob"], vec!["cid"]]);
        assert_eq!(presence.counts(&room), Count { keys: 3, entries: 4 });
        let all = Total { topics: 2, entries: 5 };
        let nodes = [(handle.name().clone(), all)].into();
        assert_eq!(presence.totals(), PresenceTotals { cluster: all, nodes });
        node.stop().await;
    }
}

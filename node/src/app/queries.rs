//! What can be asked of presence beside lists: pages, counts, totals.

use presence::{Count, Topic};
use serde::Serialize;

use super::{
    Payload, TrackError,
    handle::{LIST_MAX, Presence},
    object,
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

    /// Replaces the metas of this node's own clients on a topic, whoever tracks them, for which `change`
    /// gives another, and says how many it were. It gets the key and the meta, without references.
    ///
    /// Clients of other nodes are changed there. What others change in between is asked
    /// about anew, up to 16 times.
    ///
    /// ```
    /// # fn run(node: &wingbeat::NodeHandle) -> Result<(), Box<dyn std::error::Error>> {
    /// use serde_json::{Value, json};
    ///
    /// let topic = "room:lobby".parse()?;
    /// let muted = node.presence().update_where(&topic, |key, meta| {
    ///     let mut meta: Value = meta.parse().ok()?;
    ///     meta["muted"] = json!(true);
    ///     key.starts_with("guest-").then_some(meta)
    /// })?;
    /// println!("{muted} guests are muted");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A meta is no object, or too long: that one and those after it stay as they were.
    pub fn update_where<M: Serialize>(
        &self,
        topic: &Topic,
        mut change: impl FnMut(&str, &Payload) -> Option<M>,
    ) -> Result<usize, TrackError> {
        let mut invalid = None;
        let updated = self.0.shared().tracker.update_where(topic, |key, meta| {
            if invalid.is_some() {
                return None;
            }
            let meta = change(key, &Payload::raw_json(meta.to_vec()))?;
            object(&meta).map_err(|error| invalid = Some(error)).ok()
        })?;
        invalid.map_or(Ok(updated), Err)
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

    #[tokio::test]
    async fn metas_of_own_clients_are_changed_where_wanted() {
        let mut config = Config::default();
        config.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let node = Node::start(config).await.expect("a node");
        let handle = node.handle();
        let topic = "room".parse().expect("a topic");
        let tracker = &handle.shared().tracker;
        let track = |key| tracker.track(&topic, key, b"{\"n\":1}").expect("room");
        let held: Vec<_> = ["ann", "bob", "cid"].map(track).into();
        let meta = |key| {
            let listed: serde_json::Value = handle.presence().list(&topic).parse().expect("JSON");
            listed[key]["metas"][0]["n"].clone()
        };
        let mut asked = 0;
        let change = |key: &str, meta: &Payload| {
            asked += 1;
            if asked == 1 {
                // Its meta changes while it is decided about.
                held.iter().for_each(|held| held.update(b"{\"n\":5}").expect("listed"));
            }
            let meta: serde_json::Value = meta.parse().expect("JSON");
            let n = meta["n"].as_u64().expect("a number");
            (key != "bob").then(|| serde_json::json!({ "n": n + 1 }))
        };
        assert_eq!(handle.presence().update_where(&topic, change).expect("objects"), 2);
        assert_eq!(["ann", "bob", "cid"].map(meta), [6, 5, 6].map(serde_json::Value::from));
        let no_object = handle.presence().update_where(&topic, |_, _| Some(1));
        assert!(matches!(no_object, Err(TrackError::InvalidMeta)));
        node.stop().await;
    }
}

//! What a client that begins to watch a topic is told.

use bytes::Bytes;
use serde::Deserialize as _;

use super::render::{Meta, Place, push_json_string, render_metas};

/// What a client that begins to watch a topic is told.
#[derive(Debug)]
pub(crate) struct State {
    /// The name of the event that tells it.
    pub(crate) event: &'static str,
    /// Diffs, or counts, after this version follow.
    pub(crate) version: u64,
    /// `{key: {"metas": […]}}`, shared by all who are told this version; or the count.
    pub(crate) payload: Bytes,
    /// The client itself, if it is not in the payload yet, as it stands there.
    pub(super) own: Vec<u8>,
    /// Where in the payload.
    at: usize,
}

/// A rendered state that is kept for others.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) version: u64,
    pub(super) payload: Bytes,
    /// Where its keys begin and their metas end, in the order of the keys.
    keys: Box<[(u32, u32)]>,
}

impl State {
    pub(super) fn new(event: &'static str, version: u64, payload: Bytes) -> Self {
        Self { event, version, payload, own: Vec::new(), at: 1 }
    }

    /// Adds a key that is not in the payload.
    pub(super) fn add_key(&mut self, key: &str, meta: Meta<'_>) {
        push_json_string(&mut self.own, key);
        self.own.push(b':');
        render_metas(&mut self.own, std::iter::once(meta));
        if self.payload != "{}" {
            self.own.push(b',');
        }
    }

    /// Adds a meta to a key whose metas end there.
    pub(super) fn add_meta(&mut self, end: usize, meta: Meta<'_>) {
        self.own.push(b',');
        meta.render(&mut self.own);
        self.at = end;
    }

    /// The payload with the client's own entry, in three pieces: what is in the middle is not shared.
    pub(crate) fn pieces(&self) -> [Bytes; 3] {
        let at = self.at.min(self.payload.len());
        [self.payload.slice(..at), Bytes::copy_from_slice(&self.own), self.payload.slice(at..)]
    }

    /// The same in one piece.
    pub(crate) fn whole(&self) -> Vec<u8> {
        self.pieces().concat()
    }
}

impl Rendered {
    pub(super) fn new(version: u64, payload: Bytes, places: &[Place]) -> Self {
        // No state has 4 GiB; a key that is not found would only be rendered again.
        let place = |place: &Place| {
            Some((u32::try_from(place.start).ok()?, u32::try_from(place.end).ok()?))
        };
        Self { version, payload, keys: places.iter().filter_map(place).collect() }
    }

    /// Where the metas of a key end, if it is there.
    pub(super) fn end_of(&self, key: &str) -> Option<usize> {
        let found = self.keys.binary_search_by(|(start, _)| self.key_at(*start).as_str().cmp(key));
        found.ok().and_then(|at| usize::try_from(self.keys[at].1).ok())
    }

    fn key_at(&self, start: u32) -> String {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let rest = self.payload.get(start..).unwrap_or_default();
        let mut key = serde_json::Deserializer::from_slice(rest);
        // It is what the node rendered.
        String::deserialize(&mut key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use serde_json::{Value, json};

    use super::{super::render::render_state, *};
    use crate::{
        Config, Node,
        tracker::{Hears, render::tests::reference},
    };

    fn read(state: &State) -> Value {
        serde_json::from_slice(&state.whole()).expect("JSON")
    }

    #[test]
    fn a_clients_own_entry_stands_before_the_others() {
        let own = || Meta::of(b"{}", reference(1));
        for others in [json!({}), json!({"b": 2})] {
            let payload = Bytes::from(others.to_string());
            let mut state = State::new("presence_state", 1, payload.clone());
            assert_eq!(read(&state), others);
            state.add_key("a\"", own());
            let mut with = others.clone();
            with["a\""] = json!({"metas": [{"phx_ref": reference(1).to_string()}]});
            assert_eq!(read(&state), with);
        }
    }

    #[test]
    fn a_clients_own_meta_stands_behind_those_of_its_key() {
        let keys: Vec<String> = (0..40).map(|n| format!("k\"\u{e9}{n}\\")).collect();
        let mut sorted: Vec<&String> = keys.iter().collect();
        sorted.sort();
        // A meta that looks like a key.
        let meta = br#"{"k1":{"metas":[{}]}}"#;
        let entries = sorted.iter().map(|key| (key.as_str(), &meta[..], reference(2)));
        let (payload, places) = render_state(entries);
        let kept = Rendered::new(3, payload.clone(), &places);
        for key in &keys {
            let mut state = State::new("presence_state", 3, payload.clone());
            state.add_meta(kept.end_of(key).expect("there"), Meta::of(b"{}", reference(1)));
            let mut with: Value = serde_json::from_slice(&payload).expect("JSON");
            let metas = with[key]["metas"].as_array_mut().expect("metas");
            metas.push(json!({"phx_ref": reference(1).to_string()}));
            assert_eq!(read(&state), with);
        }
        assert_eq!((kept.end_of("k"), kept.end_of("")), (None, None));
    }

    #[tokio::test]
    async fn clients_that_come_back_under_listed_keys_share_a_rendering() {
        let mut config = Config::default();
        config.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let node = Node::start(config).await.expect("a node");
        let handle = node.handle();
        let tracker = &handle.shared().tracker;
        let topic = "room".parse().expect("a topic");
        let track = |n| tracker.track(&topic, &format!("k{n}"), b"{}").expect("room");
        let _listed: Vec<_> = (0..40).map(track).collect();
        let watch = |key| {
            let own = Some((key, &b"{}"[..]));
            let begin = |state: &State| (state.payload.clone(), read(state));
            tracker.watch(&topic, Hears::Changes, own, begin).expect("room")
        };
        let (ann, bob) = (watch("k7"), watch("k11"));
        assert_eq!(ann.2.0.as_ptr(), bob.2.0.as_ptr());
        let metas = |state: &Value, key| state[key]["metas"].as_array().map(Vec::len);
        for (state, key) in [(&ann.2.1, "k7"), (&bob.2.1, "k11")] {
            assert_eq!(state.as_object().map(serde_json::Map::len), Some(40));
            assert_eq!((metas(state, key), metas(state, "k1")), (Some(2), Some(1)));
        }
        drop((ann, bob));
        node.stop().await;
    }
}

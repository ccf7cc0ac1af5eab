//! Presence as phoenix.js reads it.

use bytes::Bytes;
use presence::{Change, Diff, Entry, Ref};

/// What stands behind the metas of a key.
const METAS_END: &[u8] = b"]}";

/// A meta as its client wrote it, and what is added to it.
#[derive(Clone, Copy)]
pub(super) struct Meta<'a> {
    meta: &'a [u8],
    reference: Ref,
    previous: Option<Ref>,
}

impl<'a> Meta<'a> {
    pub(super) fn of(meta: &'a [u8], reference: Ref) -> Self {
        Self { meta, reference, previous: None }
    }

    /// The meta is a JSON object; whoever tracked it saw to that.
    pub(super) fn render(&self, json: &mut Vec<u8>) {
        let body = self.meta.trim_ascii_end();
        let body = body.strip_suffix(b"}").unwrap_or(b"{").trim_ascii_end();
        json.extend_from_slice(body);
        let comma: &[u8] = if body.ends_with(b"{") { b"" } else { b"," };
        json.extend_from_slice(comma);
        json.extend_from_slice(b"\"phx_ref\":\"");
        json.extend_from_slice(&self.reference.text());
        if let Some(previous) = self.previous {
            json.extend_from_slice(b"\",\"phx_ref_prev\":\"");
            json.extend_from_slice(&previous.text());
        }
        json.extend_from_slice(b"\"}");
    }
}

/// `{"metas": […]}`.
pub(super) fn render_metas<'a>(json: &mut Vec<u8>, metas: impl Iterator<Item = Meta<'a>>) {
    json.extend_from_slice(b"{\"metas\":[");
    for (at, meta) in metas.enumerate() {
        if at > 0 {
            json.push(b',');
        }
        meta.render(json);
    }
    json.extend_from_slice(METAS_END);
}

/// `{key: {"metas": […]}}` of entries sorted by key, and where in it each key is.
pub(super) fn render_state<'a>(
    entries: impl Iterator<Item = (&'a str, &'a [u8], Ref)>,
) -> (Bytes, Vec<Place>) {
    let (mut json, mut places) = (Vec::new(), Vec::new());
    let entries = entries.map(|(key, meta, reference)| (key, Meta::of(meta, reference)));
    render_keys(&mut json, entries, |place| places.push(place));
    (json.into(), places)
}

/// Entries of a shard, to be rendered without its lock.
pub(super) struct Copied {
    keys: String,
    metas: Vec<u8>,
    /// Of each entry, where its key and its meta end.
    ends: Vec<(usize, usize, Ref)>,
}

impl Copied {
    pub(super) fn of(entries: &[Entry<'_>]) -> Self {
        let keys = entries.iter().map(|entry| entry.key.len()).sum();
        let metas = entries.iter().map(|entry| entry.meta.len()).sum();
        let mut copied = Self {
            keys: String::with_capacity(keys),
            metas: Vec::with_capacity(metas),
            ends: Vec::with_capacity(entries.len()),
        };
        for Entry { key, meta, reference, .. } in entries {
            copied.keys.push_str(key);
            copied.metas.extend_from_slice(meta);
            copied.ends.push((copied.keys.len(), copied.metas.len(), *reference));
        }
        copied
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8], Ref)> {
        let mut from = (0, 0);
        self.ends.iter().map(move |&(key, meta, reference)| {
            let (keys, metas) = std::mem::replace(&mut from, (key, meta));
            (&self.keys[keys..key], &self.metas[metas..meta], reference)
        })
    }
}

/// Where a key is in an object of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its first quote.
    pub(super) start: usize,
    /// Behind its last meta.
    pub(super) end: usize,
}

/// `{key: {"metas": […]}}` of metas sorted by key.
fn render_keys<'a>(
    json: &mut Vec<u8>,
    metas: impl Iterator<Item = (&'a str, Meta<'a>)>,
    mut place: impl FnMut(Place),
) {
    json.push(b'{');
    let mut last = None;
    for (key, meta) in metas {
        if let Some((_, start)) = last.filter(|(last, _)| *last != key) {
            place(Place { start, end: json.len() });
            json.extend_from_slice(METAS_END);
        }
        if last.is_some() {
            json.push(b',');
        }
        if last.is_none_or(|(last, _)| last != key) {
            last = Some((key, json.len()));
            push_json_string(json, key);
            json.extend_from_slice(b":{\"metas\":[");
        }
        meta.render(json);
    }
    if let Some((_, start)) = last {
        place(Place { start, end: json.len() });
        json.extend_from_slice(METAS_END);
    }
    json.push(b'}');
}

/// `{"joins": {…}, "leaves": {…}}`.
pub(super) fn render_diff(diff: &Diff) -> Bytes {
    fn grouped(changes: &[Change]) -> impl Iterator<Item = (&str, Meta<'_>)> {
        let mut changes: Vec<&Change> = changes.iter().collect();
        // Those of one key stay in their order.
        changes.sort_by_key(|change| &*change.key);
        changes.into_iter().map(|change| {
            let Change { key, meta, reference, previous } = change;
            (&**key, Meta { meta, reference: *reference, previous: *previous })
        })
    }
    let mut json = b"{\"joins\":".to_vec();
    render_keys(&mut json, grouped(&diff.joins), |_| {});
    json.extend_from_slice(b",\"leaves\":");
    render_keys(&mut json, grouped(&diff.leaves), |_| {});
    json.push(b'}');
    json.into()
}

/// Appends a text as a JSON string.
pub(crate) fn push_json_string(json: &mut Vec<u8>, text: &str) {
    // Writing a string to a Vec cannot fail.
    let written = serde_json::to_writer(json, text);
    debug_assert!(written.is_ok(), "a string is always valid JSON");
}

#[cfg(test)]
pub(super) mod tests {
    use presence::{Config, Shard, Time};

    use super::*;

    pub(in crate::tracker) fn reference(n: u64) -> Ref {
        let replica = presence::Replica { name: "n".parse().expect("a name"), incarnation: n };
        let mut shard = Shard::new(Config::default(), 0, replica);
        let topic = "t".parse().expect("a topic");
        let entry = shard.track(&topic, "k", b"{}", Time::ZERO).expect("room");
        shard.reference(entry).expect("tracked")
    }

    #[test]
    fn metas_get_their_reference_behind_what_the_client_wrote() {
        let (a, b) = (reference(1), reference(2));
        let render = |meta: &[u8], previous| {
            let mut json = Vec::new();
            Meta { meta, reference: a, previous }.render(&mut json);
            String::from_utf8(json).expect("UTF-8")
        };
        assert_eq!(render(b"{}", None), format!(r#"{{"phx_ref":"{a}"}}"#));
        let with_previous = format!(r#"{{"x":1,"phx_ref":"{a}","phx_ref_prev":"{b}"}}"#);
        assert_eq!(render(b"{\"x\":1 } ", Some(b)), with_previous);
    }

    #[test]
    fn several_metas_of_a_key_stand_under_it_together() {
        let (a, b) = (reference(1), reference(2));
        let entries = [("u\"1", &b"{}"[..], a), ("u\"1", b"{}", b)];
        let (state, places) = render_state(entries.into_iter());
        let value: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
        assert_eq!(value["u\"1"]["metas"].as_array().map(Vec::len), Some(2));
        assert_eq!(places, [Place { start: 1, end: state.len() - 3 }]);
        assert_eq!(render_state(std::iter::empty()), ("{}".into(), vec![]));
    }
}

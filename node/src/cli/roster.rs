//! Who is on a topic, kept up to date by the events of a node. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

/// What is known of one presence.
pub(super) type Meta = Map<String, Value>;

/// The presences of one key: one for each tab, device or node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Metas {
    pub(super) metas: Vec<Meta>,
}

/// Presences by key.
pub(super) type Presences = BTreeMap<String, Metas>;

/// The data of an event `presence_diff`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Diff {
    #[serde(default)]
    pub(super) joins: Presences,
    #[serde(default)]
    pub(super) leaves: Presences,
}

/// How a key changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It was not there before.
    Join,
    /// It has other metas than before.
    Update,
    /// It is there no more.
    Leave,
}

/// Who is on the topic, as the events so far tell it.
#[derive(Debug, Default)]
pub(super) struct Roster {
    present: Presences,
}

impl Roster {
    /// The metas of a key, none if it is not present.
    pub(super) fn metas(&self, key: &str) -> &[Meta] {
        self.present.get(key).map_or(&[], |presence| presence.metas.as_slice())
    }

    /// Takes a whole state, and tells in what it differs.
    pub(super) fn replace(&mut self, state: Presences) -> Vec<(String, Change)> {
        let former = std::mem::replace(&mut self.present, state);
        let keys: BTreeSet<_> = former.keys().chain(self.present.keys()).cloned().collect();
        keys.into_iter().filter_map(|key| self.change(former.get(&key), key)).collect()
    }

    /// Takes a diff, and tells whom it changes. A version that a join replaces goes with the
    /// leave that comes along.
    pub(super) fn apply(&mut self, diff: Diff) -> Vec<(String, Change)> {
        let keys: BTreeSet<_> = diff.joins.keys().chain(diff.leaves.keys()).cloned().collect();
        let former: Presences = keys
            .iter()
            .filter_map(|key| Some((key.clone(), self.present.get(key)?.clone())))
            .collect();
        for (key, mut joined) in diff.joins {
            let presence = self.present.entry(key).or_default();
            presence.metas.retain(|meta| !has_ref_of(&joined.metas, meta));
            presence.metas.append(&mut joined.metas);
        }
        for (key, left) in diff.leaves {
            if let Some(presence) = self.present.get_mut(&key) {
                presence.metas.retain(|meta| !has_ref_of(&left.metas, meta));
            }
        }
        self.present.retain(|_, presence| !presence.metas.is_empty());
        keys.into_iter().filter_map(|key| self.change(former.get(&key), key)).collect()
    }

    fn change(&self, former: Option<&Metas>, key: String) -> Option<(String, Change)> {
        let change = match (former, self.present.get(&key)) {
            (None, Some(_)) => Change::Join,
            (Some(_), None) => Change::Leave,
            (Some(former), Some(present)) if former != present => Change::Update,
            (Some(_), Some(_)) | (None, None) => return None,
        };
        Some((key, change))
    }
}

/// Whether one of `metas` is the version that `meta` is.
fn has_ref_of(metas: &[Meta], meta: &Meta) -> bool {
    let version = meta.get("phx_ref");
    version.is_some() && metas.iter().any(|other| other.get("phx_ref") == version)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn presences(value: Value) -> Presences {
        serde_json::from_value(value).unwrap()
    }

    fn on(refs: &[&str]) -> Value {
        json!({ "metas": refs.iter().map(|r| json!({ "phx_ref": r })).collect::<Vec<_>>() })
    }

    fn changes(changes: &[(String, Change)]) -> Vec<(&str, Change)> {
        changes.iter().map(|(key, change)| (key.as_str(), *change)).collect()
    }

    #[test]
    fn a_key_joins_with_its_first_meta_and_leaves_with_its_last() {
        let mut roster = Roster::default();
        let first = roster.replace(presences(json!({ "ann": on(&["1"]) })));
        assert_eq!(changes(&first), [("ann", Change::Join)]);
        let second = roster.apply(Diff {
            joins: presences(json!({ "ann": on(&["2"]), "bob": on(&["3"]) })),
            ..Diff::default()
        });
        assert_eq!(changes(&second), [("ann", Change::Update), ("bob", Change::Join)]);
        let third = roster.apply(Diff {
            leaves: presences(json!({ "ann": on(&["1"]), "bob": on(&["3"]) })),
            ..Diff::default()
        });
        assert_eq!(changes(&third), [("ann", Change::Update), ("bob", Change::Leave)]);
        assert_eq!(roster.metas("ann").len(), 1);
        assert!(roster.metas("bob").is_empty());
    }

    #[test]
    fn an_update_replaces_the_former_version_without_a_leave() {
        let mut roster = Roster::default();
        roster.replace(presences(json!({ "ann": on(&["1"]) })));
        let told = roster.apply(Diff {
            joins: presences(json!({ "ann": on(&["2"]) })),
            leaves: presences(json!({ "ann": on(&["1"]) })),
        });
        assert_eq!(changes(&told), [("ann", Change::Update)]);
        assert_eq!(roster.metas("ann").len(), 1);
    }

    #[test]
    fn what_is_known_already_is_told_no_more() {
        let mut roster = Roster::default();
        let state = presences(json!({ "ann": on(&["1"]), "bob": on(&["2"]) }));
        roster.replace(state.clone());
        assert_eq!(roster.replace(state), []);
        let told = roster.replace(presences(json!({ "bob": on(&["2"]), "cid": on(&["3"]) })));
        assert_eq!(changes(&told), [("ann", Change::Leave), ("cid", Change::Join)]);
        let stranger = Diff { leaves: presences(json!({ "dan": on(&["9"]) })), ..Diff::default() };
        assert_eq!(roster.apply(stranger), []);
    }
}

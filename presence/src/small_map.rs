//! A sorted map that costs no memory of its own while it has one item, and is a tree once it has many.

use std::collections::BTreeMap;

use smallvec::SmallVec;

/// With more items than this they are in a tree; moving a few along is as fast below.
const FEW_MAX: usize = 8;

/// A sorted map.
#[derive(Debug)]
pub(crate) enum SmallMap<K, V> {
    /// Sorted by keys.
    Few(SmallVec<[(K, V); 1]>),
    Many(BTreeMap<K, V>),
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl<K: Copy + Ord, V> SmallMap<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        match self {
            Self::Few(items) => place(items, key).ok().and_then(|at| items.get(at)).map(|i| &i.1),
            Self::Many(items) => items.get(key),
        }
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self {
            Self::Few(items) => {
                let at = place(items, key).ok()?;
                items.get_mut(at).map(|item| &mut item.1)
            }
            Self::Many(items) => items.get_mut(key),
        }
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Puts a value, in place of the one that the key had.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        match self {
            Self::Few(items) => match place(items, &key) {
                Ok(at) => items[at].1 = value,
                Err(at) if items.len() < FEW_MAX => items.insert(at, (key, value)),
                Err(_) => {
                    let few = std::mem::take(items);
                    let items = few.into_iter().chain(std::iter::once((key, value)));
                    *self = Self::Many(items.collect());
                }
            },
            Self::Many(items) => drop(items.insert(key, value)),
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        match self {
            Self::Few(items) => place(items, key).ok().map(|at| items.remove(at).1),
            Self::Many(items) => items.remove(key),
        }
    }

    /// The first item whose key is not below this one.
    pub(crate) fn first_from(&self, key: &K) -> Option<(K, &V)> {
        match self {
            Self::Few(items) => {
                let at = place(items, key).unwrap_or_else(|at| at);
                items.get(at).map(|item| (item.0, &item.1))
            }
            Self::Many(items) => items.range(*key..).next().map(|(key, value)| (*key, value)),
        }
    }

    /// All values, by their keys.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        let (few, many) = match self {
            Self::Few(items) => (Some(items), None),
            Self::Many(items) => (None, Some(items)),
        };
        let few = few.into_iter().flatten().map(|item| &item.1);
        few.chain(many.into_iter().flat_map(BTreeMap::values))
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Few(items) => items.is_empty(),
            Self::Many(items) => items.is_empty(),
        }
    }
}

fn place<K: Ord, V>(items: &[(K, V)], key: &K) -> Result<usize, usize> {
    items.binary_search_by(|item| item.0.cmp(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_map(steps in prop::collection::vec((any::<bool>(), 0..24_u8), 0..80)) {
            let mut map = SmallMap::default();
            let mut model = BTreeMap::new();
            for (value, (remove, key)) in steps.into_iter().enumerate() {
                if remove {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                } else {
                    map.insert(key, value);
                    model.insert(key, value);
                }
                for key in 0..24 {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                    prop_assert_eq!(map.get_mut(&key), model.get_mut(&key));
                    prop_assert_eq!(map.contains_key(&key), model.contains_key(&key));
                    let first = model.range(key..).next().map(|(key, value)| (*key, value));
                    prop_assert_eq!(map.first_from(&key), first);
                }
                prop_assert!(map.values().eq(model.values()));
                prop_assert_eq!(map.is_empty(), model.is_empty());
            }
        }
    }
}

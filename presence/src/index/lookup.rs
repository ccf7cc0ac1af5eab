//! A hash map that can only be looked into.

#![expect(clippy::disallowed_types, reason = "the one place: its order is never seen")]

use std::{borrow::Borrow, collections::HashMap, fmt, hash::Hash};

use foldhash::{SharedSeed, quality::SeedableRandomState};

/// A hash map without iteration: nothing can depend on the order of its keys, so the same inputs
/// give the same run, whatever the seed is.
pub(crate) struct Lookup<K, V>(HashMap<K, V, SeedableRandomState>);

impl<K: Eq + Hash, V> Lookup<K, V> {
    /// An empty map. Who chooses keys must not know the seed.
    pub(crate) fn new(seed: u64) -> Self {
        let state = SeedableRandomState::with_seed(seed, SharedSeed::global_fixed());
        Self(HashMap::with_hasher(state))
    }

    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)
    }

    pub(crate) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.0.get_mut(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    /// Also gives memory back, once most of it is unused.
    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let value = self.0.remove(key);
        if self.0.capacity() > 64 && self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to(self.0.len() * 2);
        }
        value
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<K, V> fmt::Debug for Lookup<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lookup({} keys)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inserted_is_found_until_removed() {
        let mut lookup = Lookup::new(7);
        for n in 0..1000_u32 {
            assert_eq!(lookup.insert(n, n * 2), None);
        }
        assert_eq!(lookup.len(), 1000);
        for n in 0..1000 {
            assert_eq!(lookup.remove(&n), Some(n * 2));
            assert_eq!(lookup.get(&n), None);
        }
    }
}

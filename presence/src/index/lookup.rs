//! A hash table of small values whose keys are kept elsewhere.

use std::fmt;

use hashbrown::HashTable;

/// A hash table without iteration: nothing can depend on the order of its values, so the same
/// inputs give the same run, whatever the hashes are.
///
/// The caller brings the hash of what it looks for, and says which value it is. Who chooses the
/// keys must not know the hash function's seed.
pub(crate) struct Lookup<T>(HashTable<T>);

impl<T> Lookup<T> {
    /// The value with this hash that is the one.
    pub(crate) fn get(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        self.0.find(hash, is_it)
    }

    pub(crate) fn get_mut(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.0.find_mut(hash, is_it)
    }

    /// Adds a value that is not there. `hash_of` gives the hash of any value again, when the table
    /// grows.
    pub(crate) fn insert(&mut self, hash: u64, value: T, hash_of: impl Fn(&T) -> u64) {
        self.0.insert_unique(hash, value, hash_of);
    }

    /// Also gives memory back, once most of it is unused; `hash_of` as in [`Self::insert`].
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        is_it: impl FnMut(&T) -> bool,
        hash_of: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let (value, _) = self.0.find_entry(hash, is_it).ok()?.remove();
        if self.0.capacity() > 64 && self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to(self.0.len() * 2, hash_of);
        }
        Some(value)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<T> Default for Lookup<T> {
    fn default() -> Self {
        Self(HashTable::new())
    }
}

impl<T> fmt::Debug for Lookup<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lookup({} values)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes that collide in all low bits.
    const fn hash(n: &u64) -> u64 {
        (*n % 7) << 60
    }

    #[test]
    fn what_is_inserted_is_found_until_removed() {
        let mut lookup = Lookup::default();
        for n in 0..500 {
            lookup.insert(hash(&n), n, hash);
        }
        assert_eq!(lookup.len(), 500);
        for n in 0..500 {
            assert_eq!(lookup.get(hash(&n), |other| *other == n), Some(&n));
            assert_eq!(lookup.remove(hash(&n), |other| *other == n, hash), Some(n));
            assert_eq!(lookup.get(hash(&n), |other| *other == n), None);
            assert_eq!(lookup.remove(hash(&n), |other| *other == n, hash), None);
        }
    }
}

//! Counts by name.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Counts by a name of the program's own, of which there are few.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    /// One more of that name.
    pub(crate) fn add(&self, name: &'static str) {
        *self.lock().entry(name).or_default() += 1;
    }

    /// All names so far, in order.
    pub(crate) fn counts(&self) -> Vec<(&'static str, u64)> {
        self.lock().iter().map(|(name, count)| (*name, *count)).collect()
    }

    /// Nothing panics while this is locked, so a poisoned lock guards nothing broken.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

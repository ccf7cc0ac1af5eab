//! When things are due.

use std::collections::{BTreeMap, BTreeSet};

use crate::Time;

/// A time for each of some things, and the next of these times. Each call but [`Self::due`] is O(log n).
#[derive(Debug)]
pub struct Deadlines<K> {
    times: BTreeMap<K, Time>,
    queue: BTreeSet<(Time, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self { times: BTreeMap::new(), queue: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Deadlines<K> {
    /// A thing is due then, or never.
    pub fn set(&mut self, key: K, at: Option<Time>) {
        let before = match at {
            Some(at) => self.times.insert(key, at),
            None => self.times.remove(&key),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.queue.remove(&(before, key));
        }
        if let Some(at) = at {
            self.queue.insert((at, key));
        }
    }

    /// Whether a thing is ever due.
    pub fn contains(&self, key: K) -> bool {
        self.times.contains_key(&key)
    }

    /// When the next is due.
    pub fn next(&self) -> Option<Time> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Those that are due, in the order of their times. O(these).
    pub fn due(&self, now: Time) -> Vec<K> {
        self.queue.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key).collect()
    }

    /// Takes the first that is due.
    pub fn pop_due(&mut self, now: Time) -> Option<K> {
        let (_, key) = *self.queue.first().filter(|(at, _)| *at <= now)?;
        self.set(key, None);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_due_once_its_last_time_is_there() {
        let at = Time::from_micros;
        let mut deadlines = Deadlines::default();
        for (key, micros) in [('a', 5), ('b', 7), ('a', 9)] {
            deadlines.set(key, Some(at(micros)));
        }
        assert_eq!(deadlines.next(), Some(at(7)));
        assert_eq!(deadlines.due(at(6)), []);
        assert_eq!(deadlines.due(at(9)), ['b', 'a']);
        deadlines.set('b', None);
        assert!(deadlines.contains('a') && !deadlines.contains('b'));
        assert_eq!((deadlines.pop_due(at(8)), deadlines.pop_due(at(9))), (None, Some('a')));
        assert_eq!((deadlines.pop_due(at(9)), deadlines.next()), (None, None));
    }
}

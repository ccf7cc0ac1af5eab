//! The last incarnations of forgotten nodes.

use std::collections::BTreeMap;

use crate::NodeName;

/// One incarnation a name, for the names forgotten last.
#[derive(Debug)]
pub(crate) struct Graves {
    max: usize,
    by_name: BTreeMap<NodeName, Grave>,
    by_age: BTreeMap<u64, NodeName>,
    dug: u64,
}

#[derive(Clone, Copy, Debug)]
struct Grave {
    incarnation: u64,
    age: u64,
}

impl Graves {
    /// Remembers `max` names.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, by_name: BTreeMap::new(), by_age: BTreeMap::new(), dug: 0 }
    }

    /// Remembers that this incarnation, and all older ones, are gone.
    pub(crate) fn dig(&mut self, name: &NodeName, incarnation: u64) {
        self.dug += 1;
        let mut grave = Grave { incarnation, age: self.dug };
        if let Some(old) = self.by_name.get(name) {
            grave.incarnation = grave.incarnation.max(old.incarnation);
            self.by_age.remove(&old.age);
        }
        self.by_name.insert(name.clone(), grave);
        self.by_age.insert(grave.age, name.clone());
        while self.by_age.len() > self.max {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                break;
            };
            self.by_name.remove(&oldest);
        }
    }

    /// The highest incarnation that is known to be gone.
    pub(crate) fn incarnation(&self, name: &NodeName) -> Option<u64> {
        self.by_name.get(name).map(|grave| grave.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_graves_are_kept() {
        let name = |n: u32| format!("n{n}").parse::<NodeName>().unwrap();
        let mut graves = Graves::new(2);
        graves.dig(&name(1), 5);
        graves.dig(&name(2), 5);
        graves.dig(&name(1), 3);
        graves.dig(&name(3), 1);
        assert_eq!(graves.incarnation(&name(1)), Some(5));
        assert_eq!(graves.incarnation(&name(2)), None);
        assert_eq!(graves.incarnation(&name(3)), Some(1));
    }
}

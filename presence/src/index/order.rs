//! Topics in the order of their names.
//!
//! The names are the rosters', so a topic has four bytes here. The numbers are in blocks, so that
//! one that comes or goes moves few others.

use std::cmp::Ordering;

use super::TopicId;

/// Topics of a block, at most.
const BLOCK_MAX: usize = 128;

/// The topics that have members, in order.
///
/// `compare` says how the name of a topic in here compares with the one that is meant.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// None is empty.
    blocks: Vec<Vec<TopicId>>,
}

impl Order {
    /// Adds a topic that is not there.
    pub(super) fn insert(&mut self, id: TopicId, compare: impl Fn(TopicId) -> Ordering) {
        let (at, pos) = self.place(&compare);
        let is_last = at + 1 >= self.blocks.len();
        let Some(block) = self.blocks.get_mut(at) else {
            self.blocks.push(vec![id]);
            return;
        };
        if block.len() < BLOCK_MAX {
            block.insert(pos, id);
        } else if is_last && pos == BLOCK_MAX {
            // Names that come in order fill their blocks.
            self.blocks.push(vec![id]);
        } else {
            let mut upper = block.split_off(BLOCK_MAX / 2);
            block.shrink_to_fit();
            if pos <= block.len() {
                block.insert(pos, id);
            } else {
                upper.insert(pos - block.len(), id);
            }
            self.blocks.insert(at + 1, upper);
        }
    }

    /// Removes a topic, whose name is still known.
    pub(super) fn remove(&mut self, id: TopicId, compare: impl Fn(TopicId) -> Ordering) {
        let (at, pos) = self.place(&compare);
        let Some(block) = self.blocks.get_mut(at) else {
            return;
        };
        if block.get(pos) != Some(&id) {
            return;
        }
        block.remove(pos);
        if block.len() < BLOCK_MAX / 4 {
            self.merge(at);
        }
    }

    /// The topics from the first on whose name is not less than the one that is meant.
    pub(super) fn from(
        &self,
        compare: impl Fn(TopicId) -> Ordering,
    ) -> impl Iterator<Item = TopicId> {
        let (at, pos) = self.place(&compare);
        let rest = self.blocks.get(at).and_then(|block| block.get(pos..)).unwrap_or_default();
        let others = self.blocks.get(at + 1..).unwrap_or_default();
        rest.iter().chain(others.iter().flatten()).copied()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum()
    }

    /// The block and the place in it of the name, or where it belongs.
    fn place(&self, compare: &impl Fn(TopicId) -> Ordering) -> (usize, usize) {
        let is_below = |id: &TopicId| compare(*id) == Ordering::Less;
        let starts_below = |block: &Vec<TopicId>| block.first().is_some_and(is_below);
        // A block that starts with the name itself is the one after those.
        let below = self.blocks.partition_point(starts_below);
        let Some(block) = below.checked_sub(1).and_then(|last| self.blocks.get(last)) else {
            return (0, 0);
        };
        let pos = block.partition_point(is_below);
        let is_next = pos == block.len()
            && self
                .blocks
                .get(below)
                .is_some_and(|next| next.first().is_some_and(|id| compare(*id).is_eq()));
        if is_next { (below, 0) } else { (below - 1, pos) }
    }

    /// Joins a block that has become small with a neighbour, if that is not large.
    fn merge(&mut self, at: usize) {
        let len = |at: usize| self.blocks.get(at).map(Vec::len);
        if len(at) == Some(0) {
            self.blocks.remove(at);
            return;
        }
        let lower = if at + 1 < self.blocks.len() { Some(at) } else { at.checked_sub(1) };
        if let Some(lower) = lower
            && len(lower).zip(len(lower + 1)).is_some_and(|(a, b)| a + b <= BLOCK_MAX / 2)
        {
            let upper = self.blocks.remove(lower + 1);
            self.blocks[lower].extend(upper);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The topics' own numbers stand for names.
        #[test]
        fn an_order_is_a_sorted_set(
            steps in prop::collection::vec((0..4_u8, 0..1500_usize, 1..400_usize), 0..30),
        ) {
            let mut order = Order::default();
            let mut model = BTreeSet::new();
            for (kind, start, len) in steps {
                for name in start..start + len {
                    // Runs up, runs down, and holes.
                    let name = if kind == 1 { 2 * start + len - name } else { name };
                    let id = TopicId::at(name);
                    let compare = |other: TopicId| other.cmp(&id);
                    if kind < 2 && model.insert(id) {
                        order.insert(id, compare);
                    } else if kind >= 2 && (kind == 2 || name % 3 > 0) {
                        order.remove(id, compare);
                        model.remove(&id);
                    }
                }
                let probe = TopicId::at(start);
                let found: Vec<_> = order.from(|other| other.cmp(&probe)).collect();
                let expected: Vec<_> = model.range(probe..).copied().collect();
                prop_assert_eq!(found, expected);
                prop_assert!(order.blocks.iter().all(|block| (1..=BLOCK_MAX).contains(&block.len())));
                prop_assert!(order.blocks.len() <= 2 + model.len() / (BLOCK_MAX / 8));
            }
        }
    }
}

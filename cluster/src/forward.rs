//! Which peers a broadcast goes to.

use std::collections::BTreeMap;

use presence::NodeIx;
use smallvec::SmallVec;

/// A set of nodes, one bit each; up to 64 nodes need no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSet(SmallVec<[u64; 1]>);

impl PeerSet {
    /// Adds a node; false when it was there.
    pub fn insert(&mut self, node: NodeIx) -> bool {
        let (word, bit) = Self::place(node);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let fresh = self.0[word] & bit == 0;
        self.0[word] |= bit;
        fresh
    }

    /// Takes a node out; false when it was not there.
    pub fn remove(&mut self, node: NodeIx) -> bool {
        let (word, bit) = Self::place(node);
        let Some(word) = self.0.get_mut(word) else { return false };
        let there = *word & bit != 0;
        *word &= !bit;
        there
    }

    /// Whether the node is in it.
    pub fn contains(&self, node: NodeIx) -> bool {
        let (word, bit) = Self::place(node);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether no node is in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The nodes, ascending.
    pub fn iter(&self) -> impl Iterator<Item = NodeIx> {
        (0_u16..).step_by(64).zip(&self.0).flat_map(|(base, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| NodeIx(base + bit))
        })
    }

    fn place(node: NodeIx) -> (usize, u64) {
        (node.index() / 64, 1 << (node.0 % 64))
    }
}

/// Peers by interest in a topic's hash.
///
/// Plain data: whoever shares it between threads brings the lock, and may split it by hash.
#[derive(Clone, Debug, Default)]
pub struct Forward {
    interested: BTreeMap<u64, PeerSet>,
}

impl Forward {
    /// A peer has, or no longer has, subscribers of topics with this hash.
    pub fn interest(&mut self, hash: u64, peer: NodeIx, present: bool) {
        if present {
            self.interested.entry(hash).or_default().insert(peer);
        } else if let Some(peers) = self.interested.get_mut(&hash) {
            peers.remove(peer);
            if peers.is_empty() {
                self.interested.remove(&hash);
            }
        }
    }

    /// Peers with subscribers of topics with this hash.
    pub fn peers(&self, hash: u64) -> Option<&PeerSet> {
        self.interested.get(&hash)
    }

    /// Hashes that somebody is interested in.
    pub fn len(&self) -> usize {
        self.interested.len()
    }

    /// Whether nobody is interested in anything.
    pub fn is_empty(&self) -> bool {
        self.interested.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_ascending() {
        let mut set = PeerSet::default();
        for node in [130, 3, 64, 0] {
            assert!(set.insert(NodeIx(node)));
        }
        assert!(!set.insert(NodeIx(64)) && set.remove(NodeIx(3)) && !set.remove(NodeIx(3)));
        assert_eq!(set.iter().map(|ix| ix.0).collect::<Vec<_>>(), [0, 64, 130]);
        assert!(set.contains(NodeIx(130)) && !set.contains(NodeIx(1000)));
    }

    #[test]
    fn a_topic_nobody_wants_takes_no_room() {
        let mut forward = Forward::default();
        forward.interest(7, NodeIx(1), true);
        forward.interest(7, NodeIx(2), true);
        forward.interest(7, NodeIx(1), false);
        assert!(forward.peers(7).is_some_and(|peers| peers.contains(NodeIx(2))));
        forward.interest(7, NodeIx(2), false);
        assert!(forward.is_empty() && forward.peers(7).is_none());
    }
}

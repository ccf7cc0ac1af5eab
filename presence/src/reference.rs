//! Names of operations: the dot, and the `phx_ref` that clients see for it.

use std::{fmt, hash::Hasher as _};

use crdts::Dot;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::Replica;

/// The writer of one log: one run of one node, in one shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor {
    /// The run of the node.
    pub replica: Replica,
    /// The shard.
    pub shard: u16,
}

/// What clients know a tracked version by: `phx_ref`, 96 bits, printed as 16 characters of
/// base64url.
///
/// It is derived from the operation's [`Dot`], so it is never stored nor sent between nodes, and
/// all nodes show the same one. It is unique but not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ref([u8; 12]);

impl Ref {
    /// The first 96 bits of SipHash-2-4-128 with a zero key over: the node's name, a byte 0xff
    /// (no name has one), the incarnation (8 bytes, little endian), the shard (2 bytes), the
    /// sequence number (8 bytes).
    pub fn of(dot: &Dot<Actor>) -> Self {
        Refs::new(&dot.actor.replica, dot.actor.shard).at(dot.counter)
    }

    /// As it is printed.
    pub fn text(&self) -> [u8; 16] {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = [0; 16];
        for (bytes, digits) in self.0.chunks_exact(3).zip(text.chunks_exact_mut(4)) {
            let word = bytes.iter().fold(0, |word, byte| word << 8 | usize::from(*byte));
            for (place, digit) in digits.iter_mut().rev().enumerate() {
                *digit = DIGITS[word >> (6 * place) & 63];
            }
        }
        text
    }
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Derives the [`Ref`]s of one writer; the part that they share is hashed once.
#[derive(Clone, Debug)]
pub(crate) struct Refs(SipHasher24);

impl Refs {
    pub(crate) fn new(replica: &Replica, shard: u16) -> Self {
        let mut hasher = SipHasher24::new();
        hasher.write(replica.name.as_str().as_bytes());
        hasher.write(&[0xff]);
        hasher.write(&replica.incarnation.to_le_bytes());
        hasher.write(&shard.to_le_bytes());
        Self(hasher)
    }

    pub(crate) fn at(&self, seq: u64) -> Ref {
        let mut hasher = self.0;
        hasher.write(&seq.to_le_bytes());
        let hash = hasher.finish128().as_bytes();
        let mut first = [0; 12];
        first.copy_from_slice(&hash[..12]);
        Ref(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(name: &str, incarnation: u64, shard: u16) -> Actor {
        Actor { replica: Replica { name: name.parse().unwrap(), incarnation }, shard }
    }

    /// Clients on nodes of neighbouring releases compare them.
    #[test]
    fn refs_are_stable() {
        let reference = Ref::of(&Dot::new(actor("n1", 7, 3), 42));
        assert_eq!(reference.to_string(), "jBSJl1m-unf2ZK_O");
    }

    #[test]
    fn every_part_of_the_dot_counts() {
        let all = [
            Dot::new(actor("a", 1, 0), 1),
            Dot::new(actor("b", 1, 0), 1),
            Dot::new(actor("a", 2, 0), 1),
            Dot::new(actor("a", 1, 1), 1),
            Dot::new(actor("a", 1, 0), 2),
        ];
        let refs: std::collections::BTreeSet<_> = all.iter().map(Ref::of).collect();
        assert_eq!(refs.len(), all.len());
    }

    #[test]
    fn a_ref_prints_as_base64url() {
        let mut bytes = [0; 12];
        bytes[..3].copy_from_slice(&[0xfb, 0xff, 0xbf]);
        assert_eq!(Ref(bytes).to_string(), "-_-_AAAAAAAAAAAA");
    }
}

//! Sets of peers as bitmaps: one that lives in a map, one that is read without a lock.

use std::sync::{
    OnceLock,
    atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{Acquire, Release},
    },
};

use presence::NodeIx;

/// Peers of one word.
const WORD_BITS: usize = u64::BITS as usize;

/// Words that are looked at together: 1,024 peers.
pub(super) const CHUNK_WORDS: usize = 16;

/// Chunks that hold every [`NodeIx`].
const CHUNKS: usize = (u16::MAX as usize + 1) / (CHUNK_WORDS * WORD_BITS);

/// The word of a peer, and its bit therein.
const fn place(peer: NodeIx) -> (usize, u64) {
    (peer.index() / WORD_BITS, 1 << (peer.index() % WORD_BITS))
}

/// Calls `f` for each peer of a word, ascending.
pub(super) fn each_peer(word: usize, mut bits: u64, mut f: impl FnMut(NodeIx)) {
    while bits != 0 {
        let index = word * WORD_BITS + bits.trailing_zeros() as usize;
        bits &= bits - 1;
        if let Ok(index) = u16::try_from(index) {
            f(NodeIx(index));
        }
    }
}

/// A set of peers: 24 bytes for the first 64, more only when a later one is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerSet {
    first: u64,
    more: Box<[u64]>,
}

impl PeerSet {
    pub(super) fn insert(&mut self, peer: NodeIx) {
        let (word, bit) = place(peer);
        if word > self.more.len() {
            let mut more = std::mem::take(&mut self.more).into_vec();
            more.resize(word, 0);
            self.more = more.into_boxed_slice();
        }
        if let Some(bits) = self.word_mut(word) {
            *bits |= bit;
        }
    }

    pub(super) fn remove(&mut self, peer: NodeIx) {
        let (word, bit) = place(peer);
        if let Some(bits) = self.word_mut(word) {
            *bits &= !bit;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first == 0 && self.more.iter().all(|bits| *bits == 0)
    }

    /// The bits of one word.
    pub(super) fn word(&self, word: usize) -> u64 {
        match word.checked_sub(1) {
            None => self.first,
            Some(word) => self.more.get(word).copied().unwrap_or(0),
        }
    }

    fn word_mut(&mut self, word: usize) -> Option<&mut u64> {
        match word.checked_sub(1) {
            None => Some(&mut self.first),
            Some(word) => self.more.get_mut(word),
        }
    }
}

/// A set of peers that every broadcast reads and that seldom changes. It only ever grows: a chunk
/// comes with its first peer, 128 bytes for 1,024 of them.
#[derive(Debug)]
pub(super) struct AtomicPeers {
    chunks: [OnceLock<Box<[AtomicU64; CHUNK_WORDS]>>; CHUNKS],
    /// Chunks from this one on were never used.
    chunks_used: AtomicUsize,
    len: AtomicUsize,
}

impl Default for AtomicPeers {
    fn default() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
            chunks_used: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
        }
    }
}

impl AtomicPeers {
    /// Puts the peer in or takes it out.
    pub(super) fn set(&self, peer: NodeIx, on: bool) {
        let (word, bit) = place(peer);
        let chunk = word / CHUNK_WORDS;
        let words = self.chunks[chunk].get_or_init(Box::default);
        self.chunks_used.fetch_max(chunk + 1, Release);
        let word = &words[word % CHUNK_WORDS];
        // The length follows the bit, in both directions by whoever really changed it.
        if on && word.fetch_or(bit, Release) & bit == 0 {
            self.len.fetch_add(1, Release);
        } else if !on && word.fetch_and(!bit, Release) & bit != 0 {
            self.len.fetch_sub(1, Release);
        }
    }

    /// Whether nobody is in: one load.
    pub(super) fn is_empty(&self) -> bool {
        self.len.load(Acquire) == 0
    }

    pub(super) fn chunks_used(&self) -> usize {
        self.chunks_used.load(Acquire)
    }

    /// The words of one chunk; `None` when no peer of it was ever in.
    pub(super) fn chunk(&self, chunk: usize) -> Option<&[AtomicU64; CHUNK_WORDS]> {
        self.chunks.get(chunk)?.get().map(Box::as_ref)
    }
}

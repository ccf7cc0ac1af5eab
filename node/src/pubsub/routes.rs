//! Which peers a broadcast goes to.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{PoisonError, RwLock, RwLockWriteGuard, atomic::Ordering::Acquire},
};

use foldhash::fast::RandomState;
use presence::NodeIx;

use super::peer_set::{AtomicPeers, CHUNK_WORDS, PeerSet, each_peer};

/// Enough that a burst of joins seldom makes a broadcast wait.
const SHARDS: usize = 256;

/// A shard's map keeps room for this many topics whatever happens.
const TOPICS_KEPT: usize = 64;

/// The peers interested in each topic, the peers that get everything, and the peers with a link.
///
/// The cluster core's events write it; every broadcast reads it, without a hop through a task.
/// It may send a peer too much, never too little: raise the flood before taking interests back,
/// and lower it only after putting them in.
#[derive(Debug)]
pub struct Routes {
    /// By [`Topic::hash64`](presence::Topic::hash64). No empty set is kept.
    interested: Box<[RwLock<Interests>]>,
    /// By feed shard: peers whose interest in that shard's topics is not known for certain.
    flooded: Box<[AtomicPeers]>,
    linked: AtomicPeers,
    /// Peers that had a link and lost it.
    unlinked: AtomicPeers,
}

type Interests = HashMap<u64, PeerSet, RandomState>;

impl Routes {
    /// Routes to nobody; topics are spread over `feed_shards` (at least 1) shards of the feeds.
    pub fn new(feed_shards: u16) -> Self {
        Self {
            interested: (0..SHARDS).map(|_| RwLock::default()).collect(),
            flooded: (0..feed_shards.max(1)).map(|_| AtomicPeers::default()).collect(),
            linked: AtomicPeers::default(),
            unlinked: AtomicPeers::default(),
        }
    }

    /// The peer has subscribers of the topics with this hash, or no longer any.
    ///
    /// Interest in everything (hash 0) is not told here: flood every shard to that peer.
    pub fn interest(&self, hash: u64, peer: NodeIx, present: bool) {
        let mut interests = self.write(hash);
        match interests.entry(hash) {
            Entry::Vacant(new) if present => new.insert(PeerSet::default()).insert(peer),
            Entry::Vacant(_) => {}
            Entry::Occupied(mut known) if present => known.get_mut().insert(peer),
            Entry::Occupied(mut known) => {
                known.get_mut().remove(peer);
                if known.get().is_empty() {
                    known.remove();
                    shrink(&mut interests);
                }
            }
        }
    }

    /// The peer gets every broadcast of a feed shard's topics, or only those it is interested in.
    /// A shard that does not exist is ignored.
    pub fn flood(&self, feed_shard: u16, peer: NodeIx, on: bool) {
        if let Some(flooded) = self.flooded.get(usize::from(feed_shard)) {
            flooded.set(peer, on);
        }
    }

    /// The peer has a link, or has lost it: without one it is never routed to.
    pub fn link(&self, peer: NodeIx, up: bool) {
        self.linked.set(peer, up);
        self.unlinked.set(peer, !up);
    }

    /// Forgets all about a peer, so that its number can be given to another node.
    ///
    /// Looks at every topic, one shard's lock at a time.
    pub fn forget(&self, peer: NodeIx) {
        self.linked.set(peer, false);
        self.unlinked.set(peer, false);
        for flooded in &self.flooded {
            flooded.set(peer, false);
        }
        for shard in &self.interested {
            let mut interests = shard.write().unwrap_or_else(PoisonError::into_inner);
            interests.retain(|_, peers| {
                peers.remove(peer);
                !peers.is_empty()
            });
            shrink(&mut interests);
        }
    }

    /// Calls `f` for each linked peer that a broadcast goes to, once each, ascending; `hash` and
    /// `feed_shard` are its topic's. No lock is held while `f` runs. Returns how many more are
    /// interested and have lost their link.
    pub fn peers(&self, hash: u64, feed_shard: u16, mut f: impl FnMut(NodeIx)) -> u32 {
        let mut unlinked = 0;
        for chunk in 0..self.linked.chunks_used() {
            let (wanting, without) = self.wanting(hash, feed_shard, chunk);
            unlinked += without;
            for (word, bits) in wanting.into_iter().enumerate() {
                each_peer(chunk * CHUNK_WORDS + word, bits, &mut f);
            }
        }
        unlinked
    }

    /// Whether any peer has or had a link: two loads, so that a lone node pays nothing for being
    /// clustered.
    pub fn any_known(&self) -> bool {
        !(self.linked.is_empty() && self.unlinked.is_empty())
    }

    /// Topic hashes that some peer is interested in.
    pub fn topics(&self) -> usize {
        let locked =
            |shard: &RwLock<Interests>| shard.read().unwrap_or_else(PoisonError::into_inner).len();
        self.interested.iter().map(locked).sum()
    }

    /// (interested ∪ flooded) ∩ linked, of one chunk of peers, and the size of interested ∩ unlinked.
    fn wanting(&self, hash: u64, feed_shard: u16, chunk: usize) -> ([u64; CHUNK_WORDS], u32) {
        let (mut wanting, mut without) = ([0; CHUNK_WORDS], 0);
        let Some(linked) = self.linked.chunk(chunk) else {
            return (wanting, without);
        };
        let unlinked = self.unlinked.chunk(chunk).filter(|_| !self.unlinked.is_empty());
        // The flood is read under the interests' lock: a peer that is not interested right now was
        // flooded before its interest went, and stays so at least until its interest is back,
        // which needs this lock. So no peer slips through between the two looks.
        let interests = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        let interested = interests.get(&hash);
        let flooded = self.flooded.get(usize::from(feed_shard)).and_then(|f| f.chunk(chunk));
        for (index, word) in wanting.iter_mut().enumerate() {
            let interested = interested.map_or(0, |set| set.word(chunk * CHUNK_WORDS + index));
            let flooded = flooded.map_or(0, |words| words[index].load(Acquire));
            *word = (interested | flooded) & linked[index].load(Acquire);
            if let Some(unlinked) = unlinked {
                without += (interested & unlinked[index].load(Acquire)).count_ones();
            }
        }
        (wanting, without)
    }

    fn shard(&self, hash: u64) -> &RwLock<Interests> {
        // The hash is stable, known to clients and evenly spread; inside a shard the map hashes it
        // once more with a secret seed.
        let index = (hash >> 32) % SHARDS as u64;
        &self.interested[usize::try_from(index).unwrap_or(0)]
    }

    fn write(&self, hash: u64) -> RwLockWriteGuard<'_, Interests> {
        self.shard(hash).write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives memory back after many interests have gone. Halving at an eighth costs each removal a
/// constant on average.
fn shrink(interests: &mut Interests) {
    let room = interests.capacity();
    if room > TOPICS_KEPT && interests.len() < room / 8 {
        interests.shrink_to((room / 2).max(TOPICS_KEPT));
    }
}

#[cfg(test)]
mod tests;

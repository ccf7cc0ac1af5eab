//! The links that there are, one per peer, and the choice among connections that would be one.
//!
//! Two nodes may dial each other at the same moment, and a node may dial again because it noticed
//! the end of a link before its peer did. Of each pair the lower replica *chooses*: it alone says
//! which connection becomes the link, so there is never a tie. It numbers its choices (`turn`), and
//! the other side says which of them it had and lost. So a second connection is a duplicate, and
//! turned away, unless the peer is known to have lost the first.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quinn::Connection;
use tokio::sync::watch;

use crate::{
    config::{Config, Identity},
    error::DownReason,
    events::Rooms,
    handshake::Replica,
    link::{Link, LinkParts, Peer},
    session::Session,
    stats::{Counters, LaneStats, LinkStats, Stats},
};

/// How many peers are remembered after their link is gone. A forgotten one may have to wait for
/// its silent old link to time out at the other side; nothing worse.
const LOST_MAX: usize = 4096;

/// Every link of one transport, and who this node is.
pub(crate) struct Registry {
    config: Arc<Config>,
    rooms: Arc<Rooms>,
    state: Mutex<State>,
    /// Grows with each new identity.
    renewed: watch::Sender<u64>,
    pub(crate) counters: Counters,
}

struct State {
    identity: Arc<Identity>,
    generation: u64,
    /// No link was up under this identity.
    fresh: bool,
    /// The highest incarnation of our name that was told to the user as seen.
    stale_told: Option<u64>,
    /// Set when the transport is being closed: no more links.
    closing: bool,
    last_id: u64,
    /// By peer name: the link that counts.
    links: BTreeMap<String, Entry>,
    /// By link id: every link whose session has not ended, with the identity it was made under.
    sessions: BTreeMap<u64, u64>,
    /// By peer name: the latest link of the peer's choosing that is gone.
    lost: BTreeMap<String, Lost>,
    /// What went over links that are gone.
    retired: Stats,
}

struct Entry {
    link: Link,
    turn: u64,
    /// Ends with the link's session.
    alive: watch::Receiver<()>,
}

struct Lost {
    incarnation: u64,
    turn: u64,
}

/// This node as it was when a handshake began.
#[derive(Clone)]
pub(crate) struct Ourselves {
    pub(crate) identity: Arc<Identity>,
    pub(crate) generation: u64,
}

/// A connection whose two sides know and believe each other.
pub(crate) struct Candidate {
    pub(crate) generation: u64,
    pub(crate) peer: Peer,
    pub(crate) dialed: Option<SocketAddr>,
    pub(crate) connection: Connection,
}

/// Who chooses.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Choice {
    /// This node does; the peer has lost our choice of this number.
    Ours { lost: u64 },
    /// The peer did; this was its choice of this number.
    Theirs { turn: u64 },
}

/// Why a candidate did not become a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unlinked {
    /// A link to a newer run of this peer is there.
    Stale { seen: u64 },
    /// A link to this very replica is there.
    Duplicate,
    /// As many links as allowed.
    Full,
    /// This node has another identity by now, or is closing.
    Renewed,
}

impl Registry {
    pub(crate) fn new(config: Arc<Config>, identity: Identity, rooms: Arc<Rooms>) -> Self {
        let lanes = config.lanes.iter();
        let lanes = lanes.map(|lane| LaneStats { name: lane.name, ..LaneStats::default() });
        let retired = Stats { lanes: lanes.collect(), ..Stats::default() };
        let state = State {
            identity: Arc::new(identity),
            generation: 0,
            fresh: true,
            stale_told: None,
            closing: false,
            last_id: 0,
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            lost: BTreeMap::new(),
            retired,
        };
        let state = Mutex::new(state);
        Self { config, rooms, state, renewed: watch::Sender::new(0), counters: Counters::default() }
    }

    /// Makes a candidate the link to its peer, in place of an earlier one, and says its turn.
    pub(crate) fn link(
        self: &Arc<Self>,
        candidate: Candidate,
        choice: Choice,
    ) -> Result<(Session, u64), Unlinked> {
        let Candidate { generation, peer, dialed, connection } = candidate;
        let mut state = self.lock();
        if state.generation != generation || state.closing {
            return Err(Unlinked::Renewed);
        }
        match state.links.get(&peer.name) {
            Some(entry) => entry.yields_to(peer.incarnation, choice)?,
            None if state.links.len() >= self.config.links_max => return Err(Unlinked::Full),
            None => {}
        }
        state.last_id += 1;
        let id = state.last_id;
        let turn = match choice {
            Choice::Ours { .. } => id,
            Choice::Theirs { turn } => turn,
        };
        let name = peer.name.clone();
        let link = Link::new(LinkParts {
            id,
            peer,
            dialed,
            connection,
            lanes: &self.config.lanes,
            frame_len_max: self.config.frame_len_max,
            rooms: self.rooms.clone(),
        });
        let (alive, watch) = watch::channel(());
        let entry = Entry { link: link.clone(), turn, alive: watch };
        let old = state.links.insert(name, entry);
        state.sessions.insert(id, generation);
        if let Some(old) = &old {
            state.lose(old);
        }
        drop(state);
        let previous = old.map(|old| {
            old.link.end(DownReason::Replaced);
            old.alive
        });
        Ok((Session::new(link, previous, alive, self.clone()), turn))
    }

    /// Forgets a link that is closed. Repeating it does nothing.
    pub(crate) fn remove(&self, link: &Link) {
        let stats = link.stats();
        let mut state = self.lock();
        if state.sessions.remove(&link.id()).is_none() {
            return;
        }
        state.retire(stats);
        let name = &link.peer().name;
        if state.links.get(name).is_some_and(|entry| entry.link == *link)
            && let Some(entry) = state.links.remove(name)
        {
            state.lose(&entry);
        }
    }

    /// Notes that a link is up.
    pub(crate) fn came_up(&self, link: &Link) {
        self.counters.links_up.add(1);
        let mut state = self.lock();
        if state.sessions.get(&link.id()) == Some(&state.generation) {
            state.fresh = false;
        }
    }

    pub(crate) fn ourselves(&self) -> Ourselves {
        let state = self.lock();
        Ourselves { identity: state.identity.clone(), generation: state.generation }
    }

    /// Takes a new identity and ends all links that were made under the old one.
    pub(crate) fn renew(&self, identity: Identity) {
        let mut state = self.lock();
        state.identity = Arc::new(identity);
        state.generation += 1;
        state.fresh = true;
        state.stale_told = None;
        state.lost.clear();
        let (generation, links) = (state.generation, state.links());
        drop(state);
        links.iter().for_each(|link| link.end(DownReason::Renewed));
        self.renewed.send_replace(generation);
    }

    /// Changes when the identity does.
    pub(crate) fn renewals(&self) -> watch::Receiver<u64> {
        self.renewed.subscribe()
    }

    /// The incarnation of the peer that is linked under this name, if one is.
    pub(crate) fn linked(&self, name: &str) -> Option<u64> {
        let state = self.lock();
        let entry = state.links.get(name).filter(|entry| !entry.link.is_closed());
        entry.map(|entry| entry.link.peer().incarnation)
    }

    /// The latest link of this replica's choosing that is gone; 0 for none.
    pub(crate) fn lost(&self, name: &str, incarnation: u64) -> u64 {
        let state = self.lock();
        let closed = state
            .links
            .get(name)
            .filter(|entry| entry.link.is_closed() && entry.link.peer().incarnation == incarnation);
        let lost = state.lost.get(name).filter(|lost| lost.incarnation == incarnation);
        closed.map_or(0, |entry| entry.turn).max(lost.map_or(0, |lost| lost.turn))
    }

    /// The link that makes a dial of this address needless, as something that ends with it.
    /// `last` is the replica that answered there last.
    pub(crate) fn covering(
        &self,
        address: SocketAddr,
        last: Option<&Replica>,
    ) -> Option<watch::Receiver<()>> {
        let state = self.lock();
        let covers = |entry: &&Entry| {
            let peer = entry.link.peer();
            entry.link.dialed() == Some(address)
                || peer.address == address
                || peer.advertise == Some(address)
        };
        let same = last.and_then(|last| {
            let entry = state.links.get(&last.name);
            entry.filter(|entry| entry.link.peer().incarnation == last.incarnation)
        });
        let entry = same.or_else(|| state.links.values().find(covers));
        entry.map(|entry| entry.alive.clone())
    }

    /// Whether the user should hear that a peer has seen this incarnation of our name, and whether
    /// no link was up under our identity.
    pub(crate) fn stale(&self, ourselves: &Ourselves, seen: u64) -> Option<bool> {
        let mut state = self.lock();
        let known = state.stale_told.unwrap_or(state.identity.incarnation);
        if state.generation != ourselves.generation || seen <= known {
            return None;
        }
        state.stale_told = Some(seen);
        Some(state.fresh)
    }

    /// No more links from here on; those that are there are returned.
    pub(crate) fn close(&self) -> Vec<Link> {
        let mut state = self.lock();
        state.closing = true;
        state.links()
    }

    pub(crate) fn links(&self) -> Vec<Link> {
        self.lock().links()
    }

    /// Ends when the link's session does; `None` when it has.
    pub(crate) fn ending(&self, link: &Link) -> Option<watch::Receiver<()>> {
        let state = self.lock();
        let entry = state.links.get(&link.peer().name).filter(|entry| entry.link == *link);
        entry.map(|entry| entry.alive.clone())
    }

    /// Everything counted here.
    pub(crate) fn stats(&self) -> Stats {
        let (links, mut stats) = {
            let state = self.lock();
            (state.links(), state.retired.clone())
        };
        links.iter().for_each(|link| stats.add(&link.stats()));
        stats.links = links.len();
        stats.links_up = self.counters.links_up.get();
        stats.dials = self.counters.dials.get();
        stats.dials_failed = self.counters.dials_failed.get();
        stats.refusals = self.counters.refusals.get();
        stats.crowded_out = self.counters.crowded_out.get();
        stats
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn links(&self) -> Vec<Link> {
        self.links.values().map(|entry| entry.link.clone()).collect()
    }

    /// Remembers that a link is gone, for the peer whose choice it was.
    fn lose(&mut self, entry: &Entry) {
        let Peer { name, incarnation, .. } = entry.link.peer();
        if self.lost.len() >= LOST_MAX && !self.lost.contains_key(name) {
            self.lost.pop_first();
        }
        self.lost.insert(name.clone(), Lost { incarnation: *incarnation, turn: entry.turn });
    }

    fn retire(&mut self, mut stats: LinkStats) {
        stats.lanes.iter_mut().for_each(|lane| lane.queued_bytes = 0);
        self.retired.add(&stats);
    }
}

impl Entry {
    /// Whether this link makes way for a newer connection of a peer of the same name.
    fn yields_to(&self, incarnation: u64, choice: Choice) -> Result<(), Unlinked> {
        let present = self.link.peer().incarnation;
        if self.link.is_closed() || present < incarnation {
            return Ok(());
        }
        if present > incarnation {
            return Err(Unlinked::Stale { seen: present });
        }
        let gone = match choice {
            Choice::Ours { lost } => lost >= self.turn,
            Choice::Theirs { turn } => turn > self.turn,
        };
        if gone { Ok(()) } else { Err(Unlinked::Duplicate) }
    }
}

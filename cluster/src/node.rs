//! The other nodes, each under a small number.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use presence::{NodeIx, NodeName, Replica, Time};

use crate::{agenda::Agenda, link::Link, relay::Source};

/// Whether a member counts as alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Up,
    /// Hidden since then.
    Down(Time),
}

/// A member that others take for dead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubt {
    pub(crate) asked_at: Time,
    pub(crate) decide_at: Time,
}

/// Another node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) replica: Replica,
    /// Where it can be dialled, once known.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) region: String,
    pub(crate) version: String,
    pub(crate) state: State,
    pub(crate) link: Option<Link>,
    /// When it is taken for dead unless membership has confirmed it by then.
    pub(crate) unconfirmed_at: Option<Time>,
    /// Membership says that it is down, and its link has been asked.
    pub(crate) doubt: Option<Doubt>,
    /// It said goodbye: it is forgotten as soon as its link ends.
    pub(crate) left: bool,
    /// It said that it takes no clients any more.
    pub(crate) draining: bool,
    /// Whether its last digest was equal to ours.
    pub(crate) agrees: Option<bool>,
    /// Where its feeds come from.
    pub(crate) source: Source,
    /// Peers that pull its feeds from us, and some that have ceased to.
    pub(crate) pullers: BTreeSet<NodeIx>,
    /// Of the peer that was asked last for its feeds, among all that could be.
    pub(crate) relay_rank: u64,
    /// Since when more of its feeds is known to be there than is here, or nothing is heard of them.
    pub(crate) behind_since: Option<Time>,
}

impl Node {
    pub(crate) fn new(replica: Replica, now: Time) -> Self {
        Self {
            replica,
            address: None,
            region: String::new(),
            version: String::new(),
            state: State::Up,
            link: None,
            unconfirmed_at: None,
            doubt: None,
            left: false,
            draining: false,
            agrees: None,
            source: Source::default(),
            pullers: BTreeSet::new(),
            relay_rank: 0,
            behind_since: Some(now),
        }
    }

    /// Whether all that was heard of its feeds is here, and more would be heard of.
    fn is_current(&self) -> bool {
        let has_all = match &self.link {
            Some(link) => link.caught_up(),
            None => self.source.is_current(),
        };
        self.state == State::Up && has_all
    }

    /// Notes whether its feeds are behind from here on: since it was heard last, where there is a link.
    pub(crate) fn settle_lag(&mut self, now: Time) {
        if self.is_current() {
            self.behind_since = None;
        } else {
            let since = self.link.as_ref().map_or(now, |link| link.heard_at);
            self.behind_since.get_or_insert(since);
        }
    }
}

/// All nodes known but this one.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    by_ix: BTreeMap<NodeIx, Node>,
    by_name: BTreeMap<NodeName, NodeIx>,
    pub(crate) agenda: Agenda,
}

impl Nodes {
    pub(crate) fn len(&self) -> usize {
        self.by_ix.len()
    }

    pub(crate) fn find(&self, name: &NodeName) -> Option<NodeIx> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn get(&self, ix: NodeIx) -> Option<&Node> {
        self.by_ix.get(&ix)
    }

    pub(crate) fn get_mut(&mut self, ix: NodeIx) -> Option<&mut Node> {
        self.agenda.wake(ix);
        self.by_ix.get_mut(&ix)
    }

    /// As [`link_mut`](Self::link_mut), to poll it: that gives it nothing more to send.
    pub(crate) fn polled_link_mut(&mut self, ix: NodeIx) -> Option<&mut Link> {
        self.agenda.touch(ix);
        self.by_ix.get_mut(&ix)?.link.as_mut()
    }

    /// Adds a node under the lowest free number; 0 is this node itself.
    pub(crate) fn add(&mut self, replica: Replica, now: Time) -> Option<NodeIx> {
        let free = (1..=u16::MAX).map(NodeIx).find(|ix| !self.by_ix.contains_key(ix))?;
        self.by_name.insert(replica.name.clone(), free);
        self.by_ix.insert(free, Node::new(replica, now));
        self.agenda.touch(free);
        Some(free)
    }

    pub(crate) fn remove(&mut self, ix: NodeIx) -> Option<Node> {
        let node = self.by_ix.remove(&ix)?;
        self.agenda.touch(ix);
        self.by_name.remove(&node.replica.name);
        Some(node)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeIx, &Node)> {
        self.by_ix.iter().map(|(ix, node)| (*ix, node))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (NodeIx, &mut Node)> {
        for ix in self.by_ix.keys() {
            self.agenda.wake(*ix);
        }
        self.by_ix.iter_mut().map(|(ix, node)| (*ix, node))
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = (NodeIx, &Link)> {
        self.iter().filter_map(|(ix, node)| Some((ix, node.link.as_ref()?)))
    }

    pub(crate) fn links_mut(&mut self) -> impl Iterator<Item = (NodeIx, &mut Link)> {
        self.iter_mut().filter_map(|(ix, node)| Some((ix, node.link.as_mut()?)))
    }

    pub(crate) fn link_mut(&mut self, ix: NodeIx) -> Option<&mut Link> {
        self.get_mut(ix)?.link.as_mut()
    }
}

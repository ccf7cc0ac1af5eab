//! Which nodes have work, and when: so that a frame of one peer costs nothing for each of the others.

use std::collections::BTreeSet;

use presence::{Deadlines, NodeIx, Time};

/// Kept by [`Nodes`](crate::node::Nodes): whoever changes a node touches it here.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    /// Changed since their deadline was last set.
    touched: BTreeSet<NodeIx>,
    /// Changed since their lanes were last polled.
    ready: BTreeSet<NodeIx>,
    deadlines: Deadlines<NodeIx>,
}

impl Agenda {
    /// The node may have another deadline now.
    pub(crate) fn touch(&mut self, ix: NodeIx) {
        self.touched.insert(ix);
    }

    /// The node may have frames to send.
    pub(crate) fn wake(&mut self, ix: NodeIx) {
        self.touched.insert(ix);
        self.ready.insert(ix);
    }

    /// The next node that may have frames to send.
    pub(crate) fn pop_ready(&mut self) -> Option<NodeIx> {
        self.ready.pop_first()
    }

    /// The next node whose deadline has to be set anew.
    pub(crate) fn pop_touched(&mut self) -> Option<NodeIx> {
        self.touched.pop_first()
    }

    pub(crate) fn set_deadline(&mut self, ix: NodeIx, at: Option<Time>) {
        self.deadlines.set(ix, at);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.deadlines.next()
    }

    /// The nodes whose deadline is over, in the order of the deadlines.
    pub(crate) fn due(&self, now: Time) -> Vec<NodeIx> {
        self.deadlines.due(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_woken_is_polled_once() {
        let mut agenda = Agenda::default();
        agenda.wake(NodeIx(3));
        agenda.wake(NodeIx(3));
        agenda.touch(NodeIx(1));
        assert_eq!(agenda.pop_ready(), Some(NodeIx(3)));
        assert_eq!(agenda.pop_ready(), None);
        assert_eq!(agenda.pop_touched(), Some(NodeIx(1)));
    }
}

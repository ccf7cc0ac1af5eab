//! Which nodes have work, and when: so that a frame of one peer costs nothing for each of the others.

use std::collections::{BTreeMap, BTreeSet};

use presence::{NodeIx, Time};

/// Kept by [`Nodes`](crate::node::Nodes): whoever changes a node touches it here.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    /// Changed since their deadline was last set.
    touched: BTreeSet<NodeIx>,
    /// Changed since their lanes were last polled.
    ready: BTreeSet<NodeIx>,
    deadlines: BTreeSet<(Time, NodeIx)>,
    deadline_of: BTreeMap<NodeIx, Time>,
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
        let before = match at {
            Some(at) => self.deadline_of.insert(ix, at),
            None => self.deadline_of.remove(&ix),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.deadlines.remove(&(before, ix));
        }
        if let Some(at) = at {
            self.deadlines.insert((at, ix));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The nodes whose deadline is over, in the order of the deadlines.
    pub(crate) fn due(&self, now: Time) -> Vec<NodeIx> {
        self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, ix)| *ix).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn a_node_is_due_once_its_last_deadline_is_over() {
        let mut agenda = Agenda::default();
        agenda.set_deadline(NodeIx(1), Some(at(5)));
        agenda.set_deadline(NodeIx(2), Some(at(7)));
        agenda.set_deadline(NodeIx(1), Some(at(9)));
        assert_eq!(agenda.poll_timeout(), Some(at(7)));
        assert_eq!(agenda.due(at(6)), []);
        assert_eq!(agenda.due(at(9)), [NodeIx(2), NodeIx(1)]);
        agenda.set_deadline(NodeIx(2), None);
        assert_eq!(agenda.due(at(9)), [NodeIx(1)]);
    }

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

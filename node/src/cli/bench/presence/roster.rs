//! Who a socket believes to be on its topic.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Instant};

use super::{
    super::{
        client::{Connection, Lost},
        message::{KeyChange, KeyScanner},
    },
    Board,
};

/// Diffs that are remembered, and their bytes at most: more is a roster, which nobody else gets.
const RECENT: usize = 16;
const RECENT_LEN_MAX: usize = 64 * 1024;

/// Reads presence frames. All sockets of a topic on one node get the same diffs, so those are taken
/// apart once.
#[derive(Debug)]
pub(super) struct Reader {
    scanner: KeyScanner,
    recent: VecDeque<(Box<[u8]>, Vec<KeyChange>)>,
}

impl Reader {
    pub(super) fn new(key_prefix: &str) -> Self {
        Self { scanner: KeyScanner::new(key_prefix), recent: VecDeque::with_capacity(RECENT) }
    }

    fn changes(&mut self, frame: &[u8], told: impl FnMut(KeyChange)) {
        if frame.len() > RECENT_LEN_MAX {
            self.scanner.changes(frame, told);
            return;
        }
        if !self.recent.iter().any(|(known, _)| **known == *frame) {
            let mut changes = Vec::new();
            self.scanner.changes(frame, |change| changes.push(change));
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back((frame.into(), changes));
        }
        let known = self.recent.iter().rev().find(|(known, _)| **known == *frame);
        known.into_iter().flat_map(|(_, changes)| changes).copied().for_each(told);
    }
}

/// Which clients of one topic a socket has been told of, a bit for each: the topic's clients are
/// every `topics`-th of the run's.
#[derive(Debug)]
struct Roster {
    topics: u64,
    present: Vec<u64>,
    /// Clients that are not present.
    missing: u64,
    /// Clients of the topic.
    all: u64,
}

impl Roster {
    fn new(topic: u64, topics: u64, clients: u64) -> Self {
        let all = clients.saturating_sub(topic).div_ceil(topics);
        let words = usize::try_from(all.div_ceil(64)).unwrap_or(usize::MAX);
        Self { topics, present: vec![0; words], missing: all, all }
    }

    fn change(&mut self, change: KeyChange) {
        let (client, joins) = match change {
            KeyChange::Anew => {
                self.present.fill(0);
                self.missing = self.all;
                return;
            }
            KeyChange::Join(client) => (client, true),
            KeyChange::Leave(client) => (client, false),
        };
        let place = client / self.topics;
        let word = usize::try_from(place / 64).ok().and_then(|word| self.present.get_mut(word));
        let Some(word) = word.filter(|_| place < self.all) else {
            return;
        };
        let bit = 1 << (place % 64);
        if (*word & bit == 0) == joins {
            *word ^= bit;
            self.missing = if joins { self.missing - 1 } else { self.missing + 1 };
        }
    }
}

/// A socket on a topic: one of its clients, or its observer.
#[derive(Debug)]
pub(super) struct Viewer {
    board: Rc<Board>,
    reader: Rc<RefCell<Reader>>,
    roster: Roster,
    observes: bool,
}

impl Viewer {
    /// A viewer of one of so many topics, over which so many clients are spread.
    pub(super) fn new(
        board: &Rc<Board>,
        reader: &Rc<RefCell<Reader>>,
        (topic, topics): (u64, u64),
        observes: bool,
    ) -> Self {
        let roster = Roster::new(topic, topics, board.clients());
        Self { board: Rc::clone(board), reader: Rc::clone(reader), roster, observes }
    }

    /// Notes what a frame says of who is present.
    pub(super) fn read(&mut self, frame: &[u8], now: Instant) {
        let Self { board, reader, roster, observes } = self;
        let was_whole = roster.missing == 0;
        reader.borrow_mut().changes(frame, |change| {
            roster.change(change);
            if let KeyChange::Join(client) = change
                && *observes
            {
                board.see(client, now);
            }
        });
        let is_whole = roster.missing == 0;
        if was_whole != is_whole {
            board.note_roster(is_whole, now);
        }
    }

    /// Reads until the socket ends.
    pub(super) async fn watch(mut self, mut connection: Connection) {
        let why: Lost = loop {
            if let Err(why) = connection.exchange(|frame, now| self.read(frame, now)).await {
                break why;
            }
        };
        self.board.swarm.note_loss(&why);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_roster_has_the_clients_of_its_topic() {
        for (topic, all) in [(0, 4), (1, 3), (2, 3)] {
            assert_eq!(Roster::new(topic, 3, 10).missing, all, "{topic}");
        }
        assert_eq!(Roster::new(5, 7, 3).missing, 0, "more topics than clients");
    }

    #[test]
    fn a_diff_says_the_same_to_each_who_reads_it_and_few_are_kept() {
        let mut reader = Reader::new("b-");
        let diff = |client: usize| {
            format!(
                r#"[null,null,"t","presence_diff",{{"joins":{{"b-{client}":{{}}}},"leaves":{{}}}}]"#
            )
        };
        for client in (0..2 * RECENT).flat_map(|client| [client, client, client / 2]) {
            let mut changes = Vec::new();
            reader.changes(diff(client).as_bytes(), |change| changes.push(change));
            assert_eq!(changes, [KeyChange::Join(client as u64)]);
        }
        assert_eq!(reader.recent.len(), RECENT);
        let long = diff(7).replace("{}}", &format!("{{}}{}}}", " ".repeat(RECENT_LEN_MAX)));
        let mut changes = Vec::new();
        reader.changes(long.as_bytes(), |change| changes.push(change));
        assert_eq!(changes, [KeyChange::Join(7)]);
        assert_eq!(reader.recent.len(), RECENT);
    }

    proptest! {
        #[test]
        fn what_a_roster_lacks_is_what_it_was_not_told(
            changes in prop::collection::vec((0_u64..3, 0_u64..150), 0..300),
        ) {
            let (mut roster, mut told) = (Roster::new(0, 1, 130), std::collections::BTreeSet::new());
            for (kind, client) in changes {
                roster.change(match (kind, client) {
                    (0, 0..10) => {
                        told.clear();
                        KeyChange::Anew
                    }
                    (1, _) => {
                        told.remove(&client);
                        KeyChange::Leave(client)
                    }
                    _ => {
                        told.insert(client);
                        KeyChange::Join(client)
                    }
                });
                let known = told.iter().filter(|client| **client < 130).count() as u64;
                prop_assert_eq!(roster.missing, 130 - known);
            }
        }
    }
}

//! Who a socket believes to be on its topic.

use std::{rc::Rc, time::Instant};

use super::{
    super::{
        client::{Connection, Lost},
        message::{KeyChange, KeyScanner},
    },
    Board,
};

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
    scanner: Rc<KeyScanner>,
    roster: Roster,
    observes: bool,
}

impl Viewer {
    /// A viewer of one of so many topics, over which so many clients are spread.
    pub(super) fn new(
        board: &Rc<Board>,
        scanner: &Rc<KeyScanner>,
        (topic, topics): (u64, u64),
        observes: bool,
    ) -> Self {
        let roster = Roster::new(topic, topics, board.clients());
        Self { board: Rc::clone(board), scanner: Rc::clone(scanner), roster, observes }
    }

    /// Notes what a frame says of who is present.
    pub(super) fn read(&mut self, frame: &[u8], now: Instant) {
        let Self { board, scanner, roster, observes } = self;
        let was_whole = roster.missing == 0;
        scanner.changes(frame, |change| {
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

//! How many sockets a run has, and who is who among them.

/// What counts as a message's arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Counts {
    /// A subscriber read it.
    Broadcasts,
    /// Its publisher read the reply to it.
    Replies,
}

/// How many sockets a run has, and how their messages look.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Shape {
    pub(in super::super) topics: usize,
    /// Subscribers of each topic.
    pub(in super::super) each: usize,
    /// Topics that a socket joins; at least 1. The sockets of one topic share all of theirs.
    pub(in super::super) topics_each_socket: usize,
    /// Each topic's publisher is its first subscriber, else it is no subscriber.
    pub(in super::super) member_publishes: bool,
    pub(in super::super) counts: Counts,
    /// Bytes of each payload.
    pub(in super::super) payload: usize,
}

impl Shape {
    /// Sockets that subscribe.
    pub(in super::super) fn subscribers(&self) -> usize {
        self.groups() * self.each
    }

    /// All of its sockets: subscribers first, then publishers.
    pub(in super::super) fn sockets(&self) -> usize {
        let publishers = if self.member_publishes { 0 } else { self.groups() };
        self.subscribers() + publishers
    }

    /// The topics that a socket joins. Those that take turns with each other are on different ones.
    pub(in super::super) fn topics_of(&self, socket: usize) -> impl Iterator<Item = usize> + use<> {
        (self.group_of(socket)..self.topics).step_by(self.groups())
    }

    /// Groups of topics that have the same sockets; at least 1.
    pub(super) fn groups(&self) -> usize {
        match self.topics_each_socket {
            // Asked for each frame.
            0 | 1 => self.topics.max(1),
            several => self.topics.div_ceil(several).max(1),
        }
    }

    pub(super) fn group_of(&self, socket: usize) -> usize {
        let subscribers = self.subscribers();
        socket.checked_sub(subscribers).unwrap_or(socket / self.each.max(1))
    }

    /// A socket's number among the subscriptions of all topics, as the books have them.
    pub(super) fn subscription(&self, socket: usize, topic: usize) -> usize {
        topic * self.each + socket % self.each.max(1)
    }

    pub(super) fn publisher_of(&self, topic: usize) -> usize {
        let group = topic % self.groups();
        if self.member_publishes { group * self.each } else { self.subscribers() + group }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_topic_has_its_subscribers_and_one_publisher(
            topics in 1_usize..40,
            each in 1_usize..5,
            topics_each_socket in 1_usize..12,
            member_publishes: bool,
        ) {
            let counts = Counts::Broadcasts;
            let shape = Shape {
                topics, each, topics_each_socket, member_publishes, counts, payload: 16,
            };
            let mut subscriptions = BTreeSet::new();
            for socket in 0..shape.sockets() {
                prop_assert!(shape.topics_of(socket).count() <= topics_each_socket);
                for topic in shape.topics_of(socket) {
                    prop_assert_eq!(topic % shape.groups(), shape.group_of(socket));
                    if socket < shape.subscribers() {
                        prop_assert!(subscriptions.insert(shape.subscription(socket, topic)));
                    }
                }
            }
            prop_assert!(subscriptions.into_iter().eq(0..topics * each));
            for topic in 0..topics {
                let publisher = shape.publisher_of(topic);
                prop_assert!(shape.topics_of(publisher).any(|own| own == topic));
                prop_assert_eq!(publisher < shape.subscribers(), member_publishes);
            }
        }
    }
}

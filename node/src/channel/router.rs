//! Which channel serves a topic.

use presence::Topic;

use crate::{channel::Relay, config::ChannelRule};

/// The channels of a node, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct Router(Vec<Relay>);

impl Router {
    pub(crate) fn new(rules: Vec<ChannelRule>) -> Self {
        Self(rules.into_iter().map(Relay::new).collect())
    }

    /// The number of the first channel whose pattern matches; the longest does not win.
    pub(crate) fn find(&self, topic: &Topic) -> Option<usize> {
        self.0.iter().position(|relay| relay.serves(topic))
    }

    pub(crate) fn get(&self, number: usize) -> Option<&Relay> {
        self.0.get(number)
    }
}

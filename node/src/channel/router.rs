//! Which channel serves a topic.

use std::sync::Arc;

use presence::Topic;

use crate::{
    app::Host,
    channel::{Relay, realtime::is_realtime},
    config::{ChannelRule, Pattern},
    pubsub::Intercepts,
};

/// The channels of a node: the application's own, then that of realtime topics, then those of the
/// configuration.
#[derive(Debug)]
pub(crate) struct Router {
    hosts: Vec<(Pattern, Arc<dyn Host>)>,
    relays: Vec<Relay>,
    realtime: bool,
}

impl Router {
    pub(crate) fn new(
        hosts: Vec<(Pattern, Arc<dyn Host>)>,
        rules: Vec<ChannelRule>,
        realtime: bool,
    ) -> Self {
        Self { hosts, relays: rules.into_iter().map(Relay::new).collect(), realtime }
    }

    /// The number of the first channel whose pattern matches; the longest does not win.
    pub(crate) fn find(&self, topic: &Topic) -> Option<usize> {
        let host = || self.hosts.iter().position(|(pattern, _)| pattern.matches(topic.as_str()));
        let relay = || {
            if self.realtime && is_realtime(topic.as_str()) {
                return Some(self.relays.len());
            }
            self.relays.iter().position(|relay| relay.serves(topic))
        };
        if self.hosts.is_empty() {
            return relay();
        }
        host().or_else(|| Some(relay()? + self.hosts.len()))
    }

    /// Whether realtime topics are served as such.
    pub(crate) fn serves_realtime(&self) -> bool {
        self.realtime
    }

    /// Whether the number is that of the channel of realtime topics.
    pub(crate) fn is_realtime(&self, number: usize) -> bool {
        number == self.hosts.len() + self.relays.len()
    }

    /// A channel of the configuration.
    pub(crate) fn relay(&self, number: usize) -> Option<&Relay> {
        self.relays.get(number.checked_sub(self.hosts.len())?)
    }

    /// A channel of the application.
    pub(crate) fn host(&self, number: usize) -> Option<&Arc<dyn Host>> {
        self.hosts.get(number).map(|(_, host)| host)
    }

    /// The events that each channel of the application sees before its clients, by its number.
    pub(crate) fn intercepts(&self) -> Intercepts {
        self.hosts.iter().map(|(_, host)| host.intercepts()).collect()
    }
}

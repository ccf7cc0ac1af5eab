//! What is measured: nodes, or the floor in their place.

use super::{super::Failure, NodeArgs, block_on, client::Endpoint, floor::Floor, server::Servers};

/// Where sockets go, and whose CPU time counts.
#[derive(Debug)]
pub(super) struct Target {
    /// Subscribers' nodes, then publishers'.
    pub(super) nodes: Vec<Endpoint>,
    /// How many of those are subscribers'; at least 1.
    pub(super) subscribers: usize,
    pub(super) servers: Servers,
    pub(super) concurrency: usize,
    /// What goes before the labels of progress bars.
    pub(super) label: String,
}

impl Target {
    /// The nodes that were named.
    pub(super) fn nodes(
        args: &NodeArgs,
        publishers: &[String],
        subscribers: &[String],
    ) -> Result<Self, Failure> {
        let all = args.all(subscribers);
        let servers = Servers::new(&all, args.token())?;
        let urls: Vec<String> = subscribers.iter().chain(publishers).cloned().collect();
        Ok(Self {
            nodes: block_on(Endpoint::resolve_all(&urls))?,
            subscribers: subscribers.len().max(1),
            servers,
            concurrency: args.concurrency,
            label: String::new(),
        })
    }

    /// A floor for all roles.
    pub(super) fn floor(args: &NodeArgs, floor: &Floor) -> Result<Self, Failure> {
        let endpoint = block_on(Endpoint::resolve(floor.url()))?;
        Ok(Self {
            nodes: vec![endpoint.clone(), endpoint],
            subscribers: 1,
            servers: Servers::of_process(floor.process()),
            concurrency: args.concurrency,
            label: "floor: ".to_owned(),
        })
    }

    /// How many nodes are publishers'; at least 1.
    pub(super) fn publishers(&self) -> usize {
        self.nodes.len().saturating_sub(self.subscribers).max(1)
    }

    pub(super) fn publisher_url(&self) -> String {
        let publisher = self.nodes.get(self.subscribers).or(self.nodes.first());
        publisher.map(ToString::to_string).unwrap_or_default()
    }

    pub(super) fn subscriber_urls(&self) -> Vec<String> {
        self.nodes.iter().take(self.subscribers).map(ToString::to_string).collect()
    }
}

//! What tests look at beside the lists.

use crate::world::World;

impl World {
    /// The version that the clients of a topic on a node were told last; 0 when nobody follows it.
    pub fn told_version(&self, node: usize, topic: &str) -> u64 {
        self.nodes[node].observers.get(topic).map_or(0, |observer| observer.version)
    }

    /// Members that a node misses, of how many, while it suspects a partition.
    pub fn suspects(&self, node: usize) -> Option<(usize, usize)> {
        let partition = self.nodes[node].cluster.partition()?;
        Some((partition.missing, partition.members))
    }
}

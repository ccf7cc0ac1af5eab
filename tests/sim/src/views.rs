//! What tests look at beside the lists.

use crate::world::World;

impl World {
    /// Members that a node misses, of how many, while it suspects a partition.
    pub fn suspects(&self, node: usize) -> Option<(usize, usize)> {
        let partition = self.nodes[node].cluster.partition()?;
        Some((partition.missing, partition.members))
    }
}

//! The floor as a peer of the bench's own client.

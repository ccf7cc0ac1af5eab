//! What names a connection in each of its packets.

use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator};

/// Bytes of an id. Ids only tell the connections of one socket apart, and quinn draws again where it has
/// one already; its default of 8 costs four bytes more in every packet.
const LEN: usize = 4;

/// Draws ids at random.
#[derive(Debug)]
pub(crate) struct ShortIds;

impl ConnectionIdGenerator for ShortIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; LEN]>())
    }

    fn cid_len(&self) -> usize {
        LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

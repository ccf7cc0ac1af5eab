//! What the core asks of its driver.

use std::{net::SocketAddr, time::Duration};

use presence::{NodeIx, NodeName, Replica};

/// What the driver must do or may want to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This run of this node is alive.
    MemberUp {
        /// The node.
        node: NodeIx,
        /// Its run.
        replica: Replica,
    },
    /// This run of this node is gone, or seems so; its presences are hidden.
    MemberDown {
        /// The node.
        node: NodeIx,
        /// Its run.
        replica: Replica,
        /// How we know.
        why: Down,
    },
    /// A member is missing that has not said goodbye: it has crashed, or the cluster is divided.
    PartitionSuspected {
        /// The first one.
        missing: NodeName,
    },
    /// No member is missing any more.
    PartitionOver {
        /// How long one was.
        lasted: Duration,
    },
    /// Nothing is kept of the node any more; its number may be given to another.
    Forgotten {
        /// The number.
        node: NodeIx,
        /// Its name.
        name: NodeName,
    },
    /// Keep a link to this address.
    Keep(SocketAddr),
    /// The address is of no use any more.
    Unkeep(SocketAddr),
    /// Whether all broadcasts of a shard must go to the peer, as its interest is not known.
    Flood {
        /// The peer.
        node: NodeIx,
        /// The shard.
        shard: u16,
        /// To start, or to stop.
        on: bool,
    },
    /// A join that waited for the peers may go on.
    Barrier {
        /// The number given to [`Cluster::barrier`](crate::Cluster::barrier).
        id: u64,
        /// False when a linked peer may not know of the interest yet: it did not answer in time, or
        /// was left out as it had not answered before.
        confirmed: bool,
    },
    /// Close the sockets with this id.
    Disconnect {
        /// The socket id.
        socket_id: String,
    },
    /// Close the link: it cannot be used any more.
    Cut {
        /// The peer.
        node: NodeIx,
        /// One line for the log.
        why: String,
    },
}

/// How a member's end became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// It does not answer probes of several members.
    Unreachable,
    /// Its link ended before it was a member.
    NeverConfirmed,
    /// It said goodbye.
    Left,
}

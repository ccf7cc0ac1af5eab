//! Who writes: a node, and one run of it.

use std::{fmt, str::FromStr, sync::Arc};

/// Bytes of the longest node name.
pub const NODE_NAME_LEN_MAX: usize = 128;

/// A node's name: 1 to 128 bytes of visible ASCII, unique in its cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

/// A text that is no node name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node name {0:?}: want 1 to {NODE_NAME_LEN_MAX} bytes of visible ASCII")]
pub struct InvalidNodeName(String);

impl NodeName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = InvalidNodeName;

    fn from_str(name: &str) -> Result<Self, InvalidNodeName> {
        let fits = (1..=NODE_NAME_LEN_MAX).contains(&name.len());
        if fits && name.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidNodeName(name.chars().take(NODE_NAME_LEN_MAX).collect()))
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One run of one node. A restart under the same name has a higher incarnation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica {
    /// The node.
    pub name: NodeName,
    /// Unique per process start; only ever compared within one name.
    pub incarnation: u64,
}

/// A node's small number within one process, given by whoever keeps the member list.
///
/// Two processes number the same node differently: it never crosses the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIx(pub u16);

impl NodeIx {
    /// This node itself.
    pub const SELF: Self = Self(0);

    /// As an index into a `Vec`.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

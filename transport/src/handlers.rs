//! What the transport asks its user, at once and often. Neither handler may block.

use std::{fmt, pin::Pin, sync::Arc};

use bytes::Bytes;

use crate::{config::Lane, link::Link};

/// What the frames of a direct lane caused and what is not done yet: the lane's next frames wait for it.
pub type Unfinished = Pin<Box<dyn Future<Output = ()> + Send>>;
/// See [`Handlers::direct`].
pub type Direct = Arc<dyn Fn(&Link, Lane, &[Bytes]) -> Option<Unfinished> + Send + Sync>;
/// See [`Handlers::admit`].
pub type Admission = Arc<dyn Fn(&str, u64) -> Admit + Send + Sync>;

/// What the transport calls in its own tasks.
#[derive(Clone)]
pub struct Handlers {
    /// Called with the frames of a lane with [`Delivery::Direct`](crate::Delivery::Direct), as many as
    /// one read brought, in the lane's reader task, in order. Never after the `Down` of its link was
    /// told. A panic in it closes the link.
    pub direct: Direct,
    /// Whether a replica (name, incarnation) may link. Called once or more per handshake.
    pub admit: Admission,
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handlers")
    }
}

/// Whether a replica may link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// It may.
    Yes,
    /// A higher incarnation of its name was seen.
    Stale {
        /// Which.
        seen: u64,
    },
}

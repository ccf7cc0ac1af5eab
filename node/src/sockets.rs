//! Sockets by their id, so that all of one user's can be closed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use foldhash::fast::RandomState;

use crate::pubsub::{CloseReason, Mailbox};

/// The sockets of this node that have an id.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Mutex<HashMap<Box<str>, Vec<Arc<Mailbox>>, RandomState>>);

/// Keeps a socket findable by its id. Dropping it ends that.
#[derive(Debug)]
#[must_use = "dropping it makes the socket anonymous"]
pub(crate) struct Named {
    sockets: Arc<Sockets>,
    id: Box<str>,
    mailbox: Arc<Mailbox>,
}

impl Sockets {
    pub(crate) fn name(self: &Arc<Self>, id: &str, mailbox: &Arc<Mailbox>) -> Named {
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.entry(id.into()).or_default().push(Arc::clone(mailbox));
        Named { sockets: Arc::clone(self), id: id.into(), mailbox: Arc::clone(mailbox) }
    }

    /// Closes this node's sockets with the id; tells how many.
    pub(crate) fn disconnect(&self, id: &str) -> usize {
        let mailboxes = {
            let sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            sockets.get(id).cloned().unwrap_or_default()
        };
        mailboxes.iter().filter(|mailbox| mailbox.close(CloseReason::Disconnected)).count()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let mut sockets = self.sockets.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mailboxes) = sockets.get_mut(&*self.id) {
            mailboxes.retain(|mailbox| !Arc::ptr_eq(mailbox, &self.mailbox));
            if mailboxes.is_empty() {
                sockets.remove(&*self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pubsub::Outlet;

    #[test]
    fn all_sockets_of_an_id_are_closed_and_no_others() {
        let sockets = Arc::new(Sockets::default());
        let [a, b, c] = [(); 3].map(|()| Mailbox::new(1024, Outlet::Owner));
        let named = [("u1", &a), ("u1", &b), ("u2", &c)].map(|(id, m)| sockets.name(id, m));
        assert_eq!(sockets.disconnect("u1"), 2);
        assert_eq!(a.closed(), Some(CloseReason::Disconnected));
        assert_eq!(c.closed(), None);
        drop(named);
        assert_eq!(sockets.disconnect("u2"), 0);
    }
}

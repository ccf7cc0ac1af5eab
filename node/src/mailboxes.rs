//! All mailboxes of a node, so that a stopping node can close them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;

use crate::pubsub::{CloseReason, Mailbox};

/// The mailboxes of all sockets and subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Mailboxes(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    mailboxes: Slab<Arc<Mailbox>>,
    /// All are closed for this; so is whatever comes later.
    closed: Option<CloseReason>,
}

/// Keeps a mailbox among them. Dropping it ends that.
#[derive(Debug)]
#[must_use = "dropping it takes the mailbox out"]
pub(crate) struct Listed {
    mailboxes: Arc<Mailboxes>,
    key: usize,
}

impl Mailboxes {
    pub(crate) fn add(self: &Arc<Self>, mailbox: &Arc<Mailbox>) -> Listed {
        let mut inner = self.lock();
        let key = inner.mailboxes.insert(Arc::clone(mailbox));
        let closed = inner.closed;
        drop(inner);
        if let Some(reason) = closed {
            mailbox.close(reason);
        }
        Listed { mailboxes: Arc::clone(self), key }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().mailboxes.len()
    }

    /// Closes all that are there, and all that come later.
    pub(crate) fn close(&self, reason: CloseReason) {
        let mailboxes: Vec<Arc<Mailbox>> = {
            let mut inner = self.lock();
            inner.closed = Some(reason);
            inner.mailboxes.iter().map(|(_, mailbox)| Arc::clone(mailbox)).collect()
        };
        for mailbox in mailboxes {
            mailbox.close(reason);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        // The last handle may go with it: it is dropped after the lock.
        let _mailbox = self.mailboxes.lock().mailboxes.try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopping_node_closes_those_that_come_late_as_well() {
        let mailboxes = Arc::new(Mailboxes::default());
        let [early, gone, late] = [(); 3].map(|()| Mailbox::new(1024));
        let _early = mailboxes.add(&early);
        drop(mailboxes.add(&gone));
        mailboxes.close(CloseReason::Shutdown);
        let _late = mailboxes.add(&late);
        assert_eq!(early.closed(), Some(CloseReason::Shutdown));
        assert_eq!(gone.closed(), None);
        assert_eq!(late.closed(), Some(CloseReason::Shutdown));
    }
}

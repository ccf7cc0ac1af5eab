//! All mailboxes of a node, so that a stopping node can close them.

use std::sync::{Arc, Mutex, PoisonError};

use slab::Slab;

use crate::pubsub::{CloseReason, Mailbox};

/// The mailboxes of all sockets and subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Mailboxes(Mutex<Slab<Arc<Mailbox>>>);

/// Keeps a mailbox among them. Dropping it ends that.
#[derive(Debug)]
#[must_use = "dropping it takes the mailbox out"]
pub(crate) struct Listed {
    mailboxes: Arc<Mailboxes>,
    key: usize,
}

impl Mailboxes {
    pub(crate) fn add(self: &Arc<Self>, mailbox: &Arc<Mailbox>) -> Listed {
        let mut mailboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = mailboxes.insert(Arc::clone(mailbox));
        Listed { mailboxes: Arc::clone(self), key }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Closes all that are there.
    pub(crate) fn close(&self, reason: CloseReason) {
        let mailboxes: Vec<Arc<Mailbox>> = {
            let mailboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            mailboxes.iter().map(|(_, mailbox)| Arc::clone(mailbox)).collect()
        };
        for mailbox in mailboxes {
            mailbox.close(reason);
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut mailboxes = self.mailboxes.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(mailboxes.try_remove(self.key));
    }
}

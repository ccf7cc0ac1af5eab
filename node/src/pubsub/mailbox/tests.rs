//! What an owner of a mailbox, and those who fill it, may rely on.

mod owner;
mod socket;
mod threads;
mod time;

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    task::Wake,
};

use super::*;

const FRAME: usize = 100;

/// Room for ten frames of [`FRAME`] bytes.
const LIMIT: usize = 10 * (FRAME + ITEM_OVERHEAD);

fn frame(fill: u8) -> Bytes {
    vec![fill; FRAME].into()
}

fn offer(channel: u64) -> Offer {
    Offer { channel, event: 0, overflow: Overflow::Disconnect }
}

/// A broadcast of channel 1; written at once where there is a socket.
fn push(mailbox: &Arc<Mailbox>, fill: u8) -> Pushed {
    mailbox.push(offer(1), frame(fill), &mut Flush::new())
}

fn push_presence(mailbox: &Arc<Mailbox>, channel: u64) -> Pushed {
    mailbox.push_presence(channel, frame(b'd'), &mut Flush::new())
}

fn push_reply(mailbox: &Arc<Mailbox>, fill: u8) -> Pushed {
    mailbox.push_reply([frame(fill)], &mut Flush::new())
}

/// Takes all out: the first byte of each frame.
fn pop_all(mailbox: &Mailbox) -> String {
    std::iter::from_fn(|| mailbox.pop()).map(|frame| char::from(frame[0])).collect()
}

/// A waker that counts.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

struct Owner {
    bell: Arc<Bell>,
    waker: Waker,
}

impl Owner {
    fn new() -> Self {
        let bell = Arc::new(Bell::default());
        Self { waker: Arc::clone(&bell).into(), bell }
    }

    fn rings(&self) -> usize {
        self.bell.0.load(SeqCst)
    }

    /// `None` when it has to wait.
    fn control(&self, mailbox: &Mailbox) -> Option<Control> {
        match mailbox.poll_control(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(control) => Some(control),
            Poll::Pending => None,
        }
    }
}

//! Mailboxes that several threads fill at a time.

use std::thread::{self, Thread};

use super::*;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The owner sleeps whenever it is told to wait: one lost wake-up and this never ends.
#[test]
fn no_wake_up_is_lost_between_threads() {
    const PUSHERS: u32 = 3;
    const PUSHES: u32 = 20_000;
    let mailbox = Mailbox::new(usize::MAX, Outlet::Owner);
    thread::scope(|scope| {
        for thread in 0..PUSHERS {
            let mailbox = &mailbox;
            scope.spawn(move || {
                for n in 0..PUSHES {
                    let frame = [thread.to_le_bytes(), n.to_le_bytes()].concat().into();
                    let pushed = mailbox.push(offer(1), frame, &mut Flush::new());
                    assert_eq!(pushed, Pushed::Queued);
                    // Let the owner find the mailbox empty now and then.
                    if n % 16 == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut next = [0; PUSHERS as usize];
        while next.iter().sum::<u32>() < PUSHERS * PUSHES {
            if mailbox.poll_control(&mut Context::from_waker(&waker)).is_pending()
                && mailbox.is_empty()
            {
                thread::park();
            }
            while let Some(frame) = mailbox.pop() {
                let (thread, n) = frame.split_first_chunk().unwrap();
                let next = &mut next[u32::from_le_bytes(*thread) as usize];
                assert_eq!(n, next.to_le_bytes(), "in order, none twice");
                *next += 1;
            }
        }
    });
    assert_eq!((mailbox.len(), mailbox.bytes()), (0, 0));
}

/// Whoever closes while others push: what was accepted comes out, the end comes after it, and it comes.
#[test]
fn a_close_among_pushes_comes_after_all_that_was_accepted() {
    for _ in 0..200 {
        let mailbox = Mailbox::new(usize::MAX, Outlet::Owner);
        thread::scope(|scope| {
            let pushers = [(); 2].map(|()| {
                scope.spawn(|| {
                    (0..200).take_while(|_| push(&mailbox, b'a') == Pushed::Queued).count()
                })
            });
            scope.spawn(|| mailbox.close(CloseReason::Shutdown));
            let waker = Waker::from(Arc::new(Unpark(thread::current())));
            let mut came = 0;
            while mailbox.poll_control(&mut Context::from_waker(&waker)).is_pending() {
                match mailbox.pop() {
                    Some(_) => came += 1,
                    None if mailbox.closed().is_none() => thread::park(),
                    // It closed between the two looks.
                    None => {}
                }
            }
            let accepted: usize = pushers.into_iter().map(|one| one.join().unwrap()).sum();
            assert_eq!(came, accepted);
        });
    }
}

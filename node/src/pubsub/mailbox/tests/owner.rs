//! A mailbox whose owner takes the frames out.

use super::*;

fn mailbox() -> Arc<Mailbox> {
    Mailbox::new(LIMIT, Outlet::Owner)
}

const SLOW: Option<Control> = Some(Control::Close(CloseReason::Slow));

#[test]
fn everything_comes_out_in_the_order_it_went_in() {
    let mailbox = mailbox();
    assert_eq!(push(&mailbox, b'a'), Pushed::Queued);
    assert_eq!(push_reply(&mailbox, b'b'), Pushed::Queued);
    assert_eq!(push_presence(&mailbox, 2), Pushed::Queued);
    assert_eq!(mailbox.push(offer(2), frame(b'c'), &mut Flush::new()), Pushed::Queued);
    assert_eq!((mailbox.len(), mailbox.bytes()), (4, 4 * (FRAME + ITEM_OVERHEAD)));
    assert_eq!(pop_all(&mailbox), "abdc");
    assert_eq!((mailbox.len(), mailbox.bytes()), (0, 0));
}

#[test]
fn what_the_owner_is_to_take_out_is_in_no_flush() {
    let (mailbox, mut flush) = (mailbox(), Flush::new());
    assert_eq!(mailbox.push(offer(1), frame(b'a'), &mut flush), Pushed::Queued);
    assert!(flush.is_empty());
    assert!(flush.write().is_done());
    assert_eq!(pop_all(&mailbox), "a");
}

#[test]
fn a_broadcast_that_does_not_fit_closes_a_slow_client() {
    let (mailbox, owner) = (mailbox(), Owner::new());
    assert_eq!(owner.control(&mailbox), None);
    (0..10).for_each(|_| assert_eq!(push(&mailbox, b'a'), Pushed::Queued));
    assert_eq!(owner.control(&mailbox), None);
    let rings = owner.rings();
    assert_eq!(push(&mailbox, b'b'), Pushed::Overflow);
    assert_eq!(owner.rings(), rings + 1);
    assert_eq!(push(&mailbox, b'b'), Pushed::Closed, "counted as slow only once");
    assert_eq!(push_reply(&mailbox, b'b'), Pushed::Closed);
    assert_eq!(push_presence(&mailbox, 1), Pushed::Closed);

    assert_eq!(mailbox.closed(), Some(CloseReason::Slow));
    assert_eq!((mailbox.len(), mailbox.bytes()), (0, 0), "what it missed is of no use");
    assert_eq!(owner.control(&mailbox), SLOW);
    assert_eq!(owner.control(&mailbox), SLOW, "nobody can miss it");
}

#[test]
fn a_client_that_asks_without_reading_is_slow_too() {
    let mailbox = mailbox();
    let queued = (0..).take_while(|_| push_reply(&mailbox, b'r') == Pushed::Queued).count();
    assert_eq!(queued, 41);
    assert_eq!(mailbox.closed(), Some(CloseReason::Slow));
}

#[test]
fn what_gives_way_is_told_to_who_pushed() {
    let mailbox = mailbox();
    let push = |channel, event, overflow| {
        mailbox.push(Offer { channel, event, overflow }, frame(b'a'), &mut Flush::new())
    };
    (0..10).for_each(|_| assert_eq!(push(1, 1, Overflow::DropOldest), Pushed::Queued));
    assert_eq!(push(1, 1, Overflow::DropOldest), Pushed::Displaced(1));
    assert_eq!(push(1, 1, Overflow::Conflate), Pushed::Displaced(1));
    assert_eq!(push(2, 1, Overflow::Conflate), Pushed::Dropped(1));
    assert_eq!((mailbox.closed(), mailbox.len()), (None, 10));
}

#[test]
fn a_diff_that_does_not_fit_becomes_one_fresh_state_once_all_else_is_out() {
    let (mailbox, owner) = (mailbox(), Owner::new());
    (0..10).for_each(|_| assert_eq!(push(&mailbox, b'a'), Pushed::Queued));
    for _ in 0..5 {
        assert_eq!(push_presence(&mailbox, 1), Pushed::Skipped);
        assert_eq!(push_presence(&mailbox, 2), Pushed::Skipped);
    }
    for _ in 0..10 {
        assert_eq!(owner.control(&mailbox), None, "the state comes after what waits");
        assert!(mailbox.pop().is_some());
    }
    assert_eq!(owner.control(&mailbox), Some(Control::Resync { channel: 1 }));
    assert_eq!(push_presence(&mailbox, 1), Pushed::Skipped, "the state comes first");
    mailbox.resynced(1);
    assert_eq!(push_presence(&mailbox, 1), Pushed::Queued);
    assert_eq!(owner.control(&mailbox), None);
    assert_eq!(pop_all(&mailbox), "d");
    assert_eq!(owner.control(&mailbox), Some(Control::Resync { channel: 2 }), "each on its own");
    mailbox.resynced(2);
    assert_eq!(owner.control(&mailbox), None, "and it is said no more");
}

#[test]
fn a_stopping_node_lets_what_was_queued_out_first() {
    for reason in [CloseReason::Shutdown, CloseReason::Disconnected] {
        let (mailbox, owner) = (mailbox(), Owner::new());
        push(&mailbox, b'a');
        push_reply(&mailbox, b'b');
        assert!(mailbox.close(reason));
        assert_eq!(push(&mailbox, b'c'), Pushed::Closed);
        assert_eq!(owner.control(&mailbox), None);
        assert_eq!(pop_all(&mailbox), "ab");
        assert_eq!(owner.control(&mailbox), Some(Control::Close(reason)));
        assert_eq!(owner.control(&mailbox), Some(Control::Close(reason)), "nobody can miss it");
    }
}

#[test]
fn the_first_reason_to_close_stays() {
    let mailbox = mailbox();
    assert!(mailbox.close(CloseReason::Shutdown));
    assert!(!mailbox.close(CloseReason::Disconnected));
    assert_eq!(mailbox.closed(), Some(CloseReason::Shutdown));
}

#[test]
fn last_words_come_after_what_waits_though_the_mailbox_is_closed() {
    let (mailbox, owner) = (mailbox(), Owner::new());
    push(&mailbox, b'a');
    mailbox.close(CloseReason::Gone);
    assert_eq!(owner.control(&mailbox), Some(Control::Close(CloseReason::Gone)), "at once");
    mailbox.push_last(frame(b'z'), &mut Flush::new());
    assert_eq!(pop_all(&mailbox), "az");
}

#[test]
fn an_abandoned_mailbox_holds_nothing() {
    let (mailbox, owner) = (mailbox(), Owner::new());
    assert_eq!(owner.control(&mailbox), None);
    push(&mailbox, b'a');
    mailbox.abandon();
    assert_eq!((mailbox.len(), mailbox.bytes()), (0, 0));
    assert_eq!(mailbox.closed(), Some(CloseReason::Gone));
    assert_eq!(push(&mailbox, b'a'), Pushed::Closed);
    assert_eq!(Arc::strong_count(&owner.bell), 2, "it keeps no waker");
}

#[test]
fn joins_go_on_in_order_and_before_anything_else() {
    let (mailbox, owner) = (mailbox(), Owner::new());
    assert_eq!(owner.control(&mailbox), None);
    push(&mailbox, b'a');
    mailbox.joined(1, true);
    mailbox.joined(2, false);
    mailbox.close(CloseReason::Slow);
    mailbox.joined(3, true);
    let joined = |channel, confirmed| Some(Control::Joined { channel, confirmed });
    assert_eq!(owner.control(&mailbox), joined(1, true));
    assert_eq!(owner.control(&mailbox), joined(2, false));
    assert_eq!(owner.control(&mailbox), SLOW, "a closed mailbox takes no more joins");
    assert!(mailbox.lock().joined.is_none(), "and their memory is free");
}

#[test]
fn only_an_owner_that_waits_is_woken_and_once() {
    let (mailbox, owner) = (mailbox(), Owner::new());
    push(&mailbox, b'a');
    assert_eq!(owner.rings(), 0, "it was not waiting");

    type Act = fn(&Arc<Mailbox>);
    let acts: [Act; 6] = [
        |m| assert_eq!(push(m, b'a'), Pushed::Queued),
        |m| assert_eq!(push_reply(m, b'a'), Pushed::Queued),
        |m| assert_eq!(push_presence(m, 1), Pushed::Queued),
        |m| m.joined(1, true),
        |m| m.push_last(frame(b'z'), &mut Flush::new()),
        |m| _ = m.close(CloseReason::Shutdown),
    ];
    for (n, act) in (1..).zip(acts) {
        pop_all(&mailbox);
        while owner.control(&mailbox).is_some() {}
        act(&mailbox);
        act(&mailbox);
        assert_eq!(owner.rings(), n);
    }
}

#[test]
fn the_last_owner_to_wait_is_the_one_woken() {
    let (mailbox, former, owner) = (mailbox(), Owner::new(), Owner::new());
    assert_eq!(former.control(&mailbox), None);
    assert_eq!(owner.control(&mailbox), None);
    push(&mailbox, b'a');
    assert_eq!((former.rings(), owner.rings()), (0, 1));
    assert_eq!(Arc::strong_count(&former.bell), 2, "the former's waker is dropped");
}

/// Uses the mailbox when woken and when dropped, as a task that runs at once, or ends, would.
struct Reentrant(Arc<Mailbox>, Arc<AtomicUsize>);

impl Wake for Reentrant {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(self.0.len(), SeqCst);
    }
}

impl Drop for Reentrant {
    fn drop(&mut self) {
        self.1.fetch_add(100 + self.0.len(), SeqCst);
    }
}

#[test]
fn a_waker_may_use_the_mailbox_when_it_wakes_and_when_it_is_dropped() {
    let (mailbox, seen) = (mailbox(), Arc::new(AtomicUsize::new(0)));
    let wait = |waker: &Waker| {
        assert!(mailbox.poll_control(&mut Context::from_waker(waker)).is_pending());
    };
    let reentrant = || Waker::from(Arc::new(Reentrant(Arc::clone(&mailbox), Arc::clone(&seen))));
    wait(&reentrant());
    push(&mailbox, b'a');
    assert_eq!(seen.load(SeqCst), 1 + 101, "woken, then dropped");

    wait(&reentrant());
    wait(Waker::noop());
    assert_eq!(seen.load(SeqCst), 102 + 101, "another took its place");

    wait(&reentrant());
    mailbox.abandon();
    assert_eq!(seen.load(SeqCst), 203 + 100, "the client is gone");
}

#[test]
fn all_is_written_when_all_is_taken_out() {
    let (mailbox, owner) = (mailbox(), Owner::new());
    let mut cx = Context::from_waker(&owner.waker);
    assert!(mailbox.poll_flushed(&mut cx).is_ready());
    push(&mailbox, b'a');
    assert!(mailbox.poll_flushed(&mut cx).is_pending());
    assert!(mailbox.pop().is_some());
    assert!(mailbox.poll_flushed(&mut cx).is_ready());
}

#[test]
fn its_debug_output_shows_no_frames() {
    let mailbox = mailbox();
    let secret = Bytes::from_static(b"secret");
    mailbox.push(offer(1), secret, &mut Flush::new());
    let text = format!("{mailbox:?}");
    assert!(text.contains("len: 1") && !text.contains("secret"), "{text}");
}

//! What an owner of a mailbox, and those who fill it, may rely on.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    task::Wake,
    thread::{self, Thread},
};

use proptest::prelude::*;

use super::*;

/// Room for one frame of [`FRAME`] bytes after another, ten times.
const LIMIT: usize = 10 * (FRAME + ITEM_OVERHEAD);
const FRAME: usize = 100;

fn frame(fill: u8) -> Bytes {
    vec![fill; FRAME].into()
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
    fn drain(&self, mailbox: &Mailbox, budget: usize) -> Option<Vec<Item>> {
        let mut into = VecDeque::new();
        let poll = mailbox.poll_drain(&mut Context::from_waker(&self.waker), &mut into, budget);
        assert_eq!(poll.is_ready(), !into.is_empty(), "ready means that there is something");
        poll.is_ready().then(|| into.into())
    }
}

fn item(channel: u64, fill: u8) -> Item {
    Item::Frame { channel, frame: frame(fill) }
}

fn close(reason: CloseReason) -> Item {
    Item::Control(Control::Close(reason))
}

#[test]
fn an_idle_mailbox_is_80_bytes() {
    assert_eq!(size_of::<Mailbox>(), 80);
}

#[test]
fn everything_comes_out_in_the_order_it_went_in() {
    let mailbox = Mailbox::new(LIMIT);
    let joined = Control::Joined { channel: 1, confirmed: true };
    assert_eq!(mailbox.push(1, frame(b'a')), Pushed::Queued);
    assert_eq!(mailbox.push_reply(frame(b'b')), Pushed::Queued);
    assert_eq!(mailbox.push_presence(2, 7, frame(b'c')), Pushed::Queued);
    assert_eq!(mailbox.control(joined), Pushed::Queued);
    assert_eq!(mailbox.push(2, frame(b'd')), Pushed::Queued);

    let presence = Item::Presence { channel: 2, version: 7, frame: frame(b'c') };
    let reply = Item::Reply { frame: frame(b'b') };
    let all = vec![item(1, b'a'), reply, presence, Item::Control(joined), item(2, b'd')];
    assert_eq!(Owner::new().drain(&mailbox, usize::MAX), Some(all));
}

#[test]
fn a_budget_takes_a_part_and_at_least_one() {
    let (mailbox, owner) = (Mailbox::new(LIMIT), Owner::new());
    for fill in b'a'..=b'd' {
        mailbox.push(1, frame(fill));
    }
    assert_eq!(owner.drain(&mailbox, 0), Some(vec![item(1, b'a')]));
    assert_eq!(mailbox.bytes(), 3 * (FRAME + ITEM_OVERHEAD), "what is taken counts no more");
    assert_eq!(owner.drain(&mailbox, FRAME + 100), Some(vec![item(1, b'b'), item(1, b'c')]));
    assert_eq!(owner.drain(&mailbox, 1), Some(vec![item(1, b'd')]));
    assert_eq!(owner.drain(&mailbox, 1), None);
}

#[test]
fn items_are_appended_to_what_the_owner_still_holds() {
    let mailbox = Mailbox::new(LIMIT);
    let mut into = VecDeque::from([item(9, b'z')]);
    mailbox.push(1, frame(b'a'));
    let waker = Owner::new().waker;
    let poll = mailbox.poll_drain(&mut Context::from_waker(&waker), &mut into, usize::MAX);
    assert!(poll.is_ready());
    assert_eq!(into, [item(9, b'z'), item(1, b'a')]);
}

#[test]
fn an_emptied_mailbox_gives_its_memory_back() {
    let (mailbox, owner) = (Mailbox::new(LIMIT), Owner::new());
    for budget in [usize::MAX, 1] {
        (0..5).for_each(|_| assert_eq!(mailbox.push(1, frame(b'a')), Pushed::Queued));
        while owner.drain(&mailbox, budget).is_some() {}
        assert_eq!(mailbox.lock().queue.capacity(), 0);
        assert_eq!((mailbox.len(), mailbox.bytes()), (0, 0));
    }
}

#[test]
fn a_broadcast_that_does_not_fit_closes_a_slow_client() {
    let (mailbox, owner) = (Mailbox::new(LIMIT), Owner::new());
    assert_eq!(owner.drain(&mailbox, 1), None);
    (0..10).for_each(|_| assert_eq!(mailbox.push(1, frame(b'a')), Pushed::Queued));
    assert_eq!(mailbox.push(1, frame(b'b')), Pushed::Overflow);
    assert_eq!(mailbox.push(1, frame(b'b')), Pushed::Closed, "counted as slow only once");
    assert_eq!(mailbox.push_reply(frame(b'b')), Pushed::Closed);
    assert_eq!(mailbox.push_presence(1, 1, frame(b'b')), Pushed::Closed);

    assert_eq!(mailbox.closed(), Some(CloseReason::Slow));
    assert_eq!((mailbox.len(), mailbox.bytes()), (0, 0), "what it missed is of no use");
    assert_eq!(owner.drain(&mailbox, 1), Some(vec![close(CloseReason::Slow)]));
}

#[test]
fn an_overflow_wakes_the_owner() {
    let (mailbox, owner) = (Mailbox::new(LIMIT), Owner::new());
    mailbox.push(1, frame(b'a'));
    owner.drain(&mailbox, usize::MAX);
    assert_eq!(owner.drain(&mailbox, usize::MAX), None);
    // One frame of any size fits into an empty mailbox; it rings once. The next does not fit.
    assert_eq!(mailbox.push(1, vec![0; 50 * LIMIT].into()), Pushed::Queued);
    assert_eq!(owner.rings(), 1);
    assert_eq!(mailbox.push(1, frame(b'a')), Pushed::Overflow);
    assert_eq!(owner.drain(&mailbox, 1), Some(vec![close(CloseReason::Slow)]));
}

#[test]
fn replies_have_room_of_their_own_but_not_without_end() {
    let mailbox = Mailbox::new(LIMIT);
    (0..10).for_each(|_| assert_eq!(mailbox.push(1, frame(b'a')), Pushed::Queued));
    (0..40).for_each(|_| assert_eq!(mailbox.push_reply(frame(b'r')), Pushed::Queued));
    assert_eq!(mailbox.push_reply(frame(b'r')), Pushed::Overflow);
    assert_eq!(mailbox.closed(), Some(CloseReason::Slow));
}

#[test]
fn replies_leave_the_room_of_broadcasts_alone() {
    let mailbox = Mailbox::new(LIMIT);
    (0..40).for_each(|_| assert_eq!(mailbox.push_reply(frame(b'r')), Pushed::Queued));
    (0..10).for_each(|_| assert_eq!(mailbox.push(1, frame(b'a')), Pushed::Queued));
}

#[test]
fn tiny_frames_are_bounded_too() {
    let mailbox = Mailbox::new(LIMIT);
    let queued = (0..).take_while(|_| mailbox.push(1, Bytes::new()) == Pushed::Queued).count();
    assert_eq!(queued, LIMIT / ITEM_OVERHEAD);
}

#[test]
fn a_diff_that_does_not_fit_becomes_one_fresh_state() {
    let (mailbox, owner) = (Mailbox::new(LIMIT), Owner::new());
    (0..10).for_each(|_| assert_eq!(mailbox.push(1, frame(b'a')), Pushed::Queued));
    for version in 1..=5 {
        assert_eq!(mailbox.push_presence(1, version, frame(b'd')), Pushed::Skipped);
        assert_eq!(mailbox.push_presence(2, version, frame(b'd')), Pushed::Skipped);
    }
    assert_eq!(mailbox.closed(), None);

    let items = owner.drain(&mailbox, usize::MAX).unwrap();
    let resync = |channel| Item::Control(Control::Resync { channel });
    assert_eq!(items[10..], [resync(1), resync(2)], "one for each channel");
    assert_eq!(mailbox.push_presence(1, 6, frame(b'd')), Pushed::Skipped, "the state comes first");

    mailbox.resynced(1);
    assert_eq!(mailbox.push_presence(1, 7, frame(b'd')), Pushed::Queued);
    assert_eq!(mailbox.push_presence(2, 7, frame(b'd')), Pushed::Skipped, "each on its own");
    mailbox.resynced(2);
    assert_eq!(mailbox.push_presence(2, 8, frame(b'd')), Pushed::Queued);
    assert!(mailbox.lock().stale.is_none(), "and its memory is free");
}

#[test]
fn the_first_reason_to_close_stays_and_what_was_queued_comes_before_it() {
    let (mailbox, owner) = (Mailbox::new(LIMIT), Owner::new());
    mailbox.push(1, frame(b'a'));
    assert!(mailbox.close(CloseReason::Shutdown));
    assert!(!mailbox.close(CloseReason::Disconnected));
    assert_eq!(mailbox.control(Control::Close(CloseReason::Slow)), Pushed::Closed);
    assert_eq!(mailbox.push(1, frame(b'b')), Pushed::Closed);

    let all = vec![item(1, b'a'), close(CloseReason::Shutdown)];
    assert_eq!(owner.drain(&mailbox, usize::MAX), Some(all));
    let again = owner.drain(&mailbox, usize::MAX);
    assert_eq!(again, Some(vec![close(CloseReason::Shutdown)]), "nobody can miss it");
}

#[test]
fn an_abandoned_mailbox_holds_nothing() {
    let mailbox = Mailbox::new(LIMIT);
    mailbox.push(1, frame(b'a'));
    mailbox.abandon();
    assert_eq!((mailbox.len(), mailbox.bytes()), (0, 0));
    assert_eq!(mailbox.closed(), Some(CloseReason::Gone));
    assert_eq!(mailbox.push(1, frame(b'a')), Pushed::Closed);
}

#[test]
fn only_an_owner_that_waits_is_woken_and_once() {
    let (mailbox, owner) = (Mailbox::new(LIMIT), Owner::new());
    mailbox.push(1, frame(b'a'));
    assert_eq!(owner.rings(), 0, "it was not waiting");
    owner.drain(&mailbox, usize::MAX);

    type Push = fn(&Mailbox);
    let pushes: [Push; 6] = [
        |m| assert_eq!(m.push(1, frame(b'a')), Pushed::Queued),
        |m| assert_eq!(m.push_reply(frame(b'a')), Pushed::Queued),
        |m| assert_eq!(m.push_presence(1, 1, frame(b'a')), Pushed::Queued),
        |m| assert_eq!(m.control(Control::Resync { channel: 1 }), Pushed::Queued),
        |m| assert!(m.close(CloseReason::Shutdown)),
        |m| assert!(!m.close(CloseReason::Shutdown)),
    ];
    for (n, push) in (1..).zip(&pushes[..4]) {
        assert_eq!(owner.drain(&mailbox, usize::MAX), None);
        push(&mailbox);
        push(&mailbox);
        assert_eq!(owner.rings(), n);
        assert_eq!(owner.drain(&mailbox, usize::MAX).map(|items| items.len()), Some(2));
    }
    assert_eq!(owner.drain(&mailbox, usize::MAX), None);
    pushes[4](&mailbox);
    pushes[5](&mailbox);
    assert_eq!(owner.rings(), 5);
}

#[test]
fn the_last_owner_to_wait_is_the_one_woken() {
    let (mailbox, former, owner) = (Mailbox::new(LIMIT), Owner::new(), Owner::new());
    assert_eq!(former.drain(&mailbox, 1), None);
    assert_eq!(owner.drain(&mailbox, 1), None);
    mailbox.push(1, frame(b'a'));
    assert_eq!((former.rings(), owner.rings()), (0, 1));
}

/// Wakes by locking the mailbox, as a task that runs at once would.
struct Reentrant(Arc<Mailbox>, AtomicUsize);

impl Wake for Reentrant {
    fn wake(self: Arc<Self>) {
        self.1.store(self.0.len(), SeqCst);
    }
}

#[test]
fn a_waker_may_use_the_mailbox() {
    let mailbox = Mailbox::new(LIMIT);
    let reentrant = Arc::new(Reentrant(Arc::clone(&mailbox), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&reentrant));
    let poll = mailbox.poll_drain(&mut Context::from_waker(&waker), &mut VecDeque::new(), 1);
    assert!(poll.is_pending());
    mailbox.push(1, frame(b'a'));
    assert_eq!(reentrant.1.load(SeqCst), 1);
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The owner sleeps whenever it is told to wait: one lost wake-up and this never ends.
#[test]
fn no_wake_up_is_lost_between_threads() {
    const PUSHERS: usize = 3;
    const PUSHES: u64 = 20_000;
    let mailbox = Mailbox::new(1 << 30);
    thread::scope(|scope| {
        for channel in 0..PUSHERS as u64 {
            let mailbox = &mailbox;
            scope.spawn(move || {
                for n in 0..PUSHES {
                    let frame = Bytes::copy_from_slice(&n.to_le_bytes());
                    assert_eq!(mailbox.push(channel, frame), Pushed::Queued);
                    // Let the owner find the mailbox empty now and then.
                    if n % 16 == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let (mut next, mut into) = ([0; PUSHERS], VecDeque::new());
        while next.iter().sum::<u64>() < PUSHERS as u64 * PUSHES {
            if mailbox.poll_drain(&mut Context::from_waker(&waker), &mut into, 500).is_pending() {
                thread::park();
            }
            for item in into.drain(..) {
                let Item::Frame { channel, frame } = item else { panic!("{item:?}") };
                let next = &mut next[usize::try_from(channel).unwrap()];
                assert_eq!(frame, next.to_le_bytes().as_slice(), "in order, none twice");
                *next += 1;
            }
        }
    });
    assert!(mailbox.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Push(u64, usize),
    Reply(usize),
    Presence(u64, usize),
    Resynced(u64),
    Drain(usize),
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u64, 0..400_usize).prop_map(|(channel, len)| Step::Push(channel, len)),
        2 => (0..400_usize).prop_map(Step::Reply),
        3 => (0..3_u64, 0..400_usize).prop_map(|(channel, len)| Step::Presence(channel, len)),
        1 => (0..3_u64).prop_map(Step::Resynced),
        3 => (0..2000_usize).prop_map(Step::Drain),
    ]
}

proptest! {
    /// Whatever happens: what was accepted comes out in order, and memory stays under the bound.
    #[test]
    fn a_mailbox_is_a_bounded_queue(steps in prop::collection::vec(a_step(), 0..120)) {
        let (mailbox, owner) = (Mailbox::new(1000), Owner::new());
        let mut model: VecDeque<Item> = VecDeque::new();
        let mut stale: Vec<u64> = Vec::new();
        for step in steps {
            let bytes = |len: usize| Bytes::from(vec![0; len]);
            match step {
                Step::Push(channel, len) => match mailbox.push(channel, bytes(len)) {
                    Pushed::Queued => model.push_back(Item::Frame { channel, frame: bytes(len) }),
                    Pushed::Overflow | Pushed::Skipped | Pushed::Closed => model.clear(),
                },
                Step::Reply(len) => match mailbox.push_reply(bytes(len)) {
                    Pushed::Queued => model.push_back(Item::Reply { frame: bytes(len) }),
                    Pushed::Overflow | Pushed::Skipped | Pushed::Closed => model.clear(),
                },
                Step::Presence(channel, len) => match mailbox.push_presence(channel, 1, bytes(len)) {
                    Pushed::Queued => {
                        prop_assert!(!stale.contains(&channel));
                        let frame = bytes(len);
                        model.push_back(Item::Presence { channel, version: 1, frame });
                    }
                    Pushed::Skipped if !stale.contains(&channel) => {
                        stale.push(channel);
                        model.push_back(Item::Control(Control::Resync { channel }));
                    }
                    Pushed::Overflow | Pushed::Skipped | Pushed::Closed => {}
                },
                Step::Resynced(channel) => {
                    stale.retain(|known| *known != channel);
                    mailbox.resynced(channel);
                }
                Step::Drain(budget) => {
                    for item in owner.drain(&mailbox, budget).unwrap_or_default() {
                        if let Item::Control(Control::Close(_)) = item {
                            break;
                        }
                        prop_assert_eq!(Some(item), model.pop_front());
                    }
                }
            }
            prop_assert_eq!(mailbox.len(), model.len());
            let counted: usize = model.iter().map(|item| cost(item) as usize).sum();
            prop_assert_eq!(mailbox.bytes(), counted);
            prop_assert!(mailbox.bytes() <= 5 * 1000 + 3 * ITEM_OVERHEAD);
        }
    }
}

//! What gives way when a client reads too slowly, and what never does.

mod model;

use super::*;

/// Room for ten frames of [`FRAME`] bytes, each counted with 64 more.
const LIMIT: u32 = 1640;
const FRAME: usize = 100;

fn frame(fill: u8) -> Bytes {
    vec![fill; FRAME].into()
}

fn offer(channel: u64, event: u32, overflow: Overflow) -> Offer {
    Offer { channel, event, overflow }
}

/// A broadcast with event 0.
fn push(queue: &mut Queue, channel: u64, fill: u8, overflow: Overflow) -> Queued {
    queue.push(offer(channel, 0, overflow), frame(fill), LIMIT)
}

/// A queue that the broadcasts `fills` of channel 1 fill up.
fn full(fills: &[u8; 10]) -> Queue {
    let mut queue = Queue::default();
    for fill in fills {
        assert_eq!(push(&mut queue, 1, *fill, Overflow::Disconnect), Queued::After(0));
    }
    queue
}

/// Writes `count` items, of the last of which only `bytes`.
fn write_part(queue: &mut Queue, count: usize, bytes: usize) {
    let mut taken = queue.take(count);
    let whole: usize = taken.iter().take(count - 1).map(|item| item.frame.len()).sum();
    take_off_written(&mut taken, whole + bytes);
    queue.put_back(taken);
}

/// The first byte of each frame that waits, oldest first.
fn fills(queue: &Queue) -> String {
    queue.only.iter().chain(&queue.items).map(|item| char::from(item.frame[0])).collect()
}

#[test]
fn a_mailbox_takes_what_fits_and_then_no_more() {
    let mut queue = full(b"abcdefghij");
    assert_eq!(queue.bytes(), LIMIT as usize);
    assert_eq!(push(&mut queue, 1, b'k', Overflow::Disconnect), Queued::Full);
    assert_eq!(fills(&queue), "abcdefghij", "nothing is dropped silently");
    write_part(&mut queue, 2, 0);
    assert_eq!(push(&mut queue, 1, b'k', Overflow::Disconnect), Queued::After(0));
    assert_eq!(fills(&queue), "bcdefghijk");
}

#[test]
fn where_nothing_waits_there_is_room_for_one_frame_of_any_size() {
    for overflow in [Overflow::Disconnect, Overflow::DropOldest, Overflow::Conflate] {
        let mut queue = Queue::default();
        let huge = Bytes::from(vec![b'h'; 50 * LIMIT as usize]);
        assert_eq!(queue.push(offer(1, 0, overflow), huge, LIMIT), Queued::After(0));
        let second = push(&mut queue, 2, b'a', overflow);
        assert_ne!(second, Queued::After(0), "{overflow:?}");
    }
}

#[test]
fn tiny_frames_are_bounded_too() {
    let mut queue = Queue::default();
    let tiny =
        |queue: &mut Queue| queue.push(offer(1, 0, Overflow::Disconnect), Bytes::new(), LIMIT);
    let queued = (0..).take_while(|_| tiny(&mut queue) == Queued::After(0)).count();
    assert_eq!(queued, LIMIT as usize / ITEM_OVERHEAD);
}

#[test]
fn replies_have_room_of_their_own_but_not_without_end() {
    let mut queue = full(b"abcdefghij");
    let reply = |queue: &mut Queue| queue.push_reply([frame(b'r')], LIMIT);
    let queued = (0..).take_while(|_| reply(&mut queue) == Queued::After(0)).count();
    assert_eq!(queued, 4 * 10 + 1, "one is taken beyond four limits");
    assert_eq!(queue.answer_bytes(), 41 * (FRAME + ITEM_OVERHEAD));
}

#[test]
fn replies_leave_the_room_of_broadcasts_alone() {
    let mut queue = Queue::default();
    (0..40).for_each(|_| assert_eq!(queue.push_reply([frame(b'r')], LIMIT), Queued::After(0)));
    (0..10).for_each(|_| {
        assert_eq!(push(&mut queue, 1, b'a', Overflow::Disconnect), Queued::After(0));
    });
}

#[test]
fn drop_oldest_makes_room_with_the_oldest_of_its_own_channel() {
    let mut queue = Queue::default();
    for (fill, channel) in (b'a'..).zip([2, 1, 2, 1, 1, 1, 1, 1, 1, 1]) {
        assert_eq!(push(&mut queue, channel, fill, Overflow::DropOldest), Queued::After(0));
    }
    assert_eq!(push(&mut queue, 1, b'k', Overflow::DropOldest), Queued::After(1));
    assert_eq!(fills(&queue), "acdefghijk", "b was the oldest of channel 1");
    let large = Bytes::from(vec![b'l'; 3 * FRAME]);
    assert_eq!(queue.push(offer(1, 0, Overflow::DropOldest), large, LIMIT), Queued::After(3));
    assert_eq!(fills(&queue), "acghijkl", "as many as it takes");
}

#[test]
fn a_channel_with_nothing_to_give_up_loses_the_new_broadcast() {
    let mut queue = full(b"abcdefghij");
    for overflow in [Overflow::DropOldest, Overflow::Conflate] {
        assert_eq!(push(&mut queue, 2, b'k', overflow), Queued::Dropped(1), "{overflow:?}");
    }
    assert_eq!(fills(&queue), "abcdefghij", "other channels' are left alone");
}

#[test]
fn neither_replies_nor_presence_give_way_nor_what_is_half_written() {
    let mut queue = Queue::default();
    assert_eq!(push(&mut queue, 1, b'a', Overflow::DropOldest), Queued::After(0));
    assert_eq!(queue.push_reply([frame(b'r')], LIMIT), Queued::After(0));
    for fill in b'b'..=b'j' {
        assert_eq!(queue.push_presence(1, frame(fill), LIMIT), Queued::After(0));
    }
    write_part(&mut queue, 1, 1);
    for overflow in [Overflow::DropOldest, Overflow::Conflate] {
        let large = Bytes::from(vec![b'l'; 2 * FRAME]);
        assert_eq!(queue.push(offer(1, 0, overflow), large, LIMIT), Queued::Dropped(1));
    }
    assert_eq!(fills(&queue), "arbcdefghij");
}

#[test]
fn conflate_replaces_the_waiting_broadcast_of_the_same_event() {
    let mut queue = Queue::default();
    let mut push = |channel, event, fill| {
        let pushed = queue.push(offer(channel, event, Overflow::Conflate), frame(fill), LIMIT);
        (pushed, fills(&queue))
    };
    for (fill, event) in (b'a'..).zip([1, 2, 3, 1, 2, 3, 1, 2, 3]) {
        assert_eq!(push(1, event, fill).0, Queued::After(0), "nothing is replaced while it fits");
    }
    assert_eq!(push(2, 2, b'j').0, Queued::After(0));
    assert_eq!(push(1, 2, b'k'), (Queued::After(1), "abcdefgijk".into()), "the newest of event 2");
    assert_eq!(push(1, 2, b'l'), (Queued::After(1), "abcdefgijl".into()));
    assert_eq!(
        push(2, 2, b'm'),
        (Queued::After(1), "abcdefgilm".into()),
        "of its own channel only"
    );
    assert_eq!(push(1, 9, b'n'), (Queued::After(1), "bcdefgilmn".into()), "else the oldest");
}

#[test]
fn a_frame_that_is_half_written_leaves_all_the_room_to_what_waits_behind_it() {
    let huge = || Bytes::from(vec![b'h'; 50 * LIMIT as usize]);
    let begin: [fn(&mut Queue, Bytes); 3] = [
        |queue, huge| _ = queue.push(offer(9, 0, Overflow::Disconnect), huge, LIMIT),
        |queue, huge| _ = queue.push_presence(9, huge, LIMIT),
        |queue, huge| _ = queue.push_reply([huge], LIMIT),
    ];
    for begin in begin {
        let mut queue = Queue::default();
        begin(&mut queue, huge());
        write_part(&mut queue, 1, 1);
        let joined = Bytes::from(vec![b'j'; 4 * FRAME]);
        assert!(queue.push_joined(1, &joined, 4, LIMIT));
        assert_eq!(queue.push_presence(2, frame(b'p'), LIMIT), Queued::After(0));
        let pushed = |queue: &mut Queue| push(queue, 1, b'a', Overflow::Disconnect);
        let queued = (0..).take_while(|_| pushed(&mut queue) == Queued::After(0)).count();
        assert_eq!(queued, 6, "no more than the limit");
        let reply = |queue: &mut Queue| queue.push_reply([frame(b'r')], LIMIT);
        let queued = (0..).take_while(|_| reply(&mut queue) == Queued::After(0)).count();
        assert_eq!(queued, 4 * 10 + 1);

        let mut queue = Queue::default();
        begin(&mut queue, huge());
        write_part(&mut queue, 1, 1);
        begin(&mut queue, huge());
        assert_eq!(queue.len(), 2, "another one, as nothing waits");
    }
}

#[test]
fn what_is_being_written_cannot_be_dropped_and_takes_no_room() {
    let mut queue = full(b"abcdefghij");
    let mut taken = queue.take(9);
    assert_eq!(queue.bytes(), FRAME + ITEM_OVERHEAD);
    for fill in b'k'..=b's' {
        assert_eq!(push(&mut queue, 1, fill, Overflow::DropOldest), Queued::After(0));
    }
    assert_eq!(push(&mut queue, 1, b't', Overflow::DropOldest), Queued::After(1), "j gave way");
    take_off_written(&mut taken, 3 * FRAME);
    queue.put_back(taken);
    assert_eq!(fills(&queue), "defghiklmnopqrst", "what came meanwhile is behind it");
    assert_eq!(queue.bytes(), 16 * (FRAME + ITEM_OVERHEAD));
    assert_eq!(push(&mut queue, 1, b'u', Overflow::Disconnect), Queued::Full, "all of it waits");
}

#[test]
fn bytes_that_are_written_of_a_frame_count_no_more() {
    let mut queue = full(b"abcdefghij");
    write_part(&mut queue, 1, 30);
    assert_eq!(queue.bytes(), LIMIT as usize - 30);
    write_part(&mut queue, 1, 69);
    assert_eq!(queue.bytes(), LIMIT as usize - 99);
    write_part(&mut queue, 1, 1);
    assert_eq!(queue.bytes(), LIMIT as usize - FRAME - ITEM_OVERHEAD);
    queue.push_reply([frame(b'r')], LIMIT);
    let replies = queue.answer_bytes();
    write_part(&mut queue, 10, 40);
    assert_eq!((queue.answer_bytes(), queue.bytes()), (replies - 40, replies - 40));
}

#[test]
fn broadcasts_that_come_together_are_one_item_and_give_way_together() {
    let mut queue = Queue::default();
    let joined = Bytes::from(b"abc".map(frame).concat());
    assert!(queue.push_joined(1, &joined, 3, LIMIT));
    assert_eq!((queue.len(), queue.bytes()), (1, 3 * FRAME + ITEM_OVERHEAD));
    while queue.push_presence(2, frame(b'd'), LIMIT) == Queued::After(0) {}
    assert!(!queue.push_joined(1, &joined, 3, LIMIT), "all of them or none");
    assert!(!Queue::default().push_joined(1, &joined, 3, 300), "each has to find its own room");
    let large = Bytes::from(vec![b'l'; 2 * FRAME]);
    let pushed = queue.push(offer(1, 0, Overflow::DropOldest), large, LIMIT);
    assert_eq!(pushed, Queued::After(3), "three messages were dropped");
}

#[test]
fn a_frame_alone_is_taken_and_written_without_memory_of_the_queues_own() {
    let mut queue = Queue::default();
    push(&mut queue, 1, b'a', Overflow::Disconnect);
    assert_eq!(queue.items.capacity(), 0);
    let only = queue.take_only().unwrap();
    assert!(queue.is_empty() && queue.bytes() == 0);
    push(&mut queue, 1, b'b', Overflow::Disconnect);
    drop(only);
    assert_eq!((fills(&queue).as_str(), queue.bytes()), ("b", FRAME + ITEM_OVERHEAD));

    let mut taken = VecDeque::from([queue.take_only().unwrap()]);
    push(&mut queue, 1, b'c', Overflow::Disconnect);
    take_off_written(&mut taken, 10);
    queue.put_back(taken);
    assert_eq!(fills(&queue), "bc");
    assert!(queue.take_only().is_none(), "there are two");
}

#[test]
fn an_emptied_queue_gives_its_memory_back() {
    for count in [1, 3, 100] {
        let mut queue = full(b"abcdefghij");
        while !queue.is_empty() {
            let mut taken = queue.take(count);
            let all = taken.iter().map(|item| item.frame.len()).sum();
            take_off_written(&mut taken, all);
            queue.put_back(taken);
        }
        assert_eq!((queue.items.capacity(), queue.bytes()), (0, 0));
    }
}

#[test]
fn a_diff_that_does_not_fit_makes_its_channel_stale_until_it_is_resynced() {
    let mut queue = full(b"abcdefghij");
    for channel in [1, 2, 1] {
        assert_eq!(queue.push_presence(channel, frame(b'd'), LIMIT), Queued::Dropped(1));
    }
    assert_eq!(queue.stale(), Some(1));
    write_part(&mut queue, 10, FRAME);
    assert_eq!(
        queue.push_presence(1, frame(b'd'), LIMIT),
        Queued::Dropped(1),
        "a gap never closes"
    );
    assert_eq!(queue.push_presence(3, frame(b'd'), LIMIT), Queued::After(0), "each on its own");
    queue.resynced(1);
    assert_eq!(queue.push_presence(1, frame(b'e'), LIMIT), Queued::After(0));
    assert_eq!(queue.stale(), Some(2));
    queue.resynced(9);
    queue.resynced(2);
    assert!(queue.stale.is_none(), "and its memory is free");
}

#[test]
fn clear_keeps_the_rest_of_a_frame_that_was_begun_and_nothing_else() {
    let mut queue = full(b"abcdefghij");
    assert_eq!(queue.clear().len(), 10, "nothing was begun");
    assert_eq!((queue.len(), queue.bytes()), (0, 0));

    let mut queue = full(b"abcdefghij");
    write_part(&mut queue, 2, 40);
    assert_eq!(queue.clear().len(), 8);
    assert_eq!((fills(&queue).as_str(), queue.bytes()), ("b", 60 + ITEM_OVERHEAD));
}

#[test]
fn clear_keeps_all_pieces_of_a_reply_that_was_begun() {
    let reply = || b"rst".map(frame);
    for (count, bytes, rest) in [(1, 10, "rst"), (1, FRAME, "st"), (2, 10, "st"), (3, FRAME, "")] {
        let mut queue = Queue::default();
        queue.push_reply(reply(), LIMIT);
        assert_eq!(push(&mut queue, 1, b'a', Overflow::Disconnect), Queued::After(0));
        queue.push_reply(reply(), LIMIT);
        write_part(&mut queue, count, bytes);
        queue.clear();
        assert_eq!(fills(&queue), rest, "{bytes} bytes of piece {count} are written");
    }
    let mut queue = Queue::default();
    queue.push_reply(reply(), LIMIT);
    assert_eq!((queue.clear().len(), queue.len()), (3, 0), "nothing of it is written");
}

#[test]
fn pieces_behind_one_that_is_being_written_are_kept_by_clear() {
    let mut queue = Queue::default();
    queue.push_reply(b"rst".map(frame), LIMIT);
    push(&mut queue, 1, b'a', Overflow::Disconnect);
    let mut taken = queue.take(1);
    assert_eq!(queue.clear().len(), 1);
    take_off_written(&mut taken, 10);
    queue.put_back(taken);
    assert_eq!(fills(&queue), "rst");
}

#[test]
fn what_is_cleared_while_it_is_being_written_does_not_come_back() {
    for (bytes, rest) in [(FRAME, "z"), (FRAME + 10, "bz"), (10 * FRAME + 10, "rstz")] {
        let mut queue = full(b"abcdefghij");
        queue.push_reply(b"rst".map(frame), LIMIT);
        let mut taken = queue.take(11);
        queue.clear();
        queue.push_reply([frame(b'z')], LIMIT);
        take_off_written(&mut taken, bytes);
        queue.put_back_begun(taken);
        assert_eq!(fills(&queue), rest, "after {bytes} bytes, and the last words");
        let left: usize = queue.only.iter().chain(&queue.items).map(|item| item.frame.len()).sum();
        assert_eq!(queue.bytes(), left + queue.len() * ITEM_OVERHEAD);
    }
}

//! A mailbox whose frames go to a real connection.

use std::{future::poll_fn, pin::pin, thread};

use socket2::SockRef;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use super::*;
use crate::pubsub::tests::pair;

/// More than the buffers of a connection hold, which [`pair`] bounds.
const MUCH: usize = 4 << 20;

async fn read(client: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    client.read_exact(&mut bytes).await.unwrap();
    bytes
}

fn much(fill: u8) -> Bytes {
    vec![fill; MUCH].into()
}

fn phase(mailbox: &Mailbox) -> Phase {
    mailbox.lock().phase
}

/// A mailbox whose client reads nothing: a frame of [`MUCH`] bytes is begun.
async fn blocked(limit: usize) -> (Arc<Mailbox>, TcpStream) {
    let (mailbox, client) = pair(limit).await;
    assert_eq!(mailbox.push(offer(1), much(b'm'), &mut Flush::new()), Pushed::Queued);
    assert_eq!(phase(&mailbox), Phase::Owner, "the connection did not take all");
    (mailbox, client)
}

#[tokio::test]
async fn a_push_is_written_by_whoever_pushed() {
    let (mailbox, mut client) = pair(LIMIT).await;
    let mut flush = Flush::new();
    mailbox.push(offer(1), frame(b'a'), &mut flush);
    mailbox.push_reply([frame(b'b'), frame(b'c')], &mut flush);
    mailbox.push_presence(1, frame(b'd'), &mut flush);
    assert_eq!(mailbox.len(), 4, "nothing is written before the input is handled");
    assert!(flush.write().is_done());
    assert_eq!((mailbox.len(), mailbox.bytes()), (0, 0));
    assert_eq!(read(&mut client, 4 * FRAME).await, b"abcd".map(frame).concat());
}

#[tokio::test]
async fn a_flush_that_is_dropped_is_written() {
    let (mailbox, mut client) = pair(LIMIT).await;
    let mut flush = Flush::new();
    mailbox.push(offer(1), frame(b'a'), &mut flush);
    drop(flush);
    assert_eq!(read(&mut client, FRAME).await, frame(b'a'));
}

#[tokio::test]
async fn only_the_first_to_push_into_an_idle_mailbox_writes_it() {
    let (mailbox, mut client) = pair(LIMIT).await;
    let (mut first, mut second) = (Flush::new(), Flush::new());
    mailbox.push(offer(1), frame(b'a'), &mut first);
    mailbox.push(offer(1), frame(b'b'), &mut second);
    assert!(second.is_empty());
    drop(second);
    assert_eq!(mailbox.len(), 2);
    drop(first);
    mailbox.push(offer(1), frame(b'c'), &mut Flush::new());
    assert_eq!(read(&mut client, 3 * FRAME).await, b"abc".map(frame).concat());
}

#[tokio::test]
async fn a_mailbox_that_never_empties_is_handed_to_its_owner() {
    let (mailbox, mut client) = pair(usize::MAX).await;
    let owner = Owner::new();
    assert_eq!(owner.control(&mailbox), None);
    let frames = WRITES_MAX * WRITE_FRAMES + 10;
    let mut flush = Flush::new();
    for _ in 0..frames {
        mailbox.push(offer(1), Bytes::from_static(b"ab"), &mut flush);
    }
    drop(flush);
    assert_eq!((mailbox.len(), owner.rings()), (10, 1), "nobody writes for ever");
    poll_fn(|cx| mailbox.poll_write(cx, 1)).await;
    assert!(mailbox.is_empty());
    assert_eq!(read(&mut client, 2 * frames).await, b"ab".repeat(frames));
}

#[tokio::test]
async fn a_client_that_stops_reading_is_left_to_the_owner_and_served_when_it_goes_on() {
    let (mailbox, mut client) = pair(usize::MAX).await;
    let owner = Owner::new();
    mailbox.hear(5);
    assert_eq!(owner.control(&mailbox), None);
    mailbox.push(offer(1), much(b'm'), &mut Flush::new());
    assert_eq!((phase(&mailbox), owner.rings()), (Phase::Owner, 1), "it is told");

    let mut cx = Context::from_waker(Waker::noop());
    assert!(mailbox.poll_write(&mut cx, 7).is_pending());
    assert_eq!(mailbox.expire(8, 50), Some(55));
    mailbox.hear(40);
    assert_eq!(mailbox.expire(41, 50), Some(57), "blocked since 7");

    let mut flush = Flush::new();
    mailbox.push(offer(1), frame(b'n'), &mut flush);
    mailbox.push_reply([frame(b'o')], &mut flush);
    assert!(flush.is_empty(), "others leave it alone");
    assert!(!mailbox.has_unread());

    let answers = Bytes::from(vec![b'q'; UNREAD_MAX]);
    mailbox.push_reply([answers.clone()], &mut flush);
    assert!(mailbox.has_unread());

    let all = [much(b'm'), frame(b'n'), frame(b'o'), answers].concat();
    let (bytes, ()) =
        tokio::join!(read(&mut client, all.len()), poll_fn(|cx| mailbox.poll_write(cx, 9)));
    assert!(bytes == all, "in order, and once");
    assert_eq!((phase(&mailbox), mailbox.bytes()), (Phase::Idle, 0));
    assert_eq!(mailbox.expire(41, 50), Some(90));
    push(&mailbox, b'p');
    assert_eq!(read(&mut client, FRAME).await, frame(b'p'), "by whoever pushes, as before");
}

#[tokio::test]
async fn all_is_written_when_the_client_could_be_sent_all() {
    let (mailbox, mut client) = blocked(usize::MAX).await;
    let flushed = poll_fn(|cx| {
        let _ = mailbox.poll_flushed(cx);
        std::task::ready!(mailbox.poll_write(cx, 1));
        mailbox.poll_flushed(cx)
    });
    let mut flushed = pin!(flushed);
    let poll = flushed.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll.is_pending());
    tokio::join!(read(&mut client, MUCH), flushed);
    assert!(mailbox.is_empty());
}

#[tokio::test]
async fn an_end_is_told_at_once_and_what_waits_goes_before_the_last_words() {
    let (mailbox, mut client) = blocked(usize::MAX).await;
    let owner = Owner::new();
    mailbox.close(CloseReason::Disconnected);
    assert_eq!(owner.control(&mailbox), Some(Control::Close(CloseReason::Disconnected)));
    mailbox.push_last(frame(b'z'), &mut Flush::new());
    let all = [much(b'm'), frame(b'z')].concat();
    let (bytes, ()) =
        tokio::join!(read(&mut client, all.len()), poll_fn(|cx| mailbox.poll_write(cx, 1)));
    assert!(bytes == all);
}

#[tokio::test]
async fn a_fresh_state_waits_for_what_a_client_has_yet_to_read() {
    let (mailbox, mut client) = blocked(LIMIT).await;
    let owner = Owner::new();
    let waiting = (0..10).filter(|_| push(&mailbox, b'w') == Pushed::Queued).count();
    assert_eq!(push_presence(&mailbox, 1), Pushed::Skipped);
    assert_eq!(owner.control(&mailbox), None);
    let all = MUCH + waiting * FRAME;
    tokio::join!(read(&mut client, all), poll_fn(|cx| mailbox.poll_write(cx, 1)));
    assert_eq!(owner.rings(), 1);
    assert_eq!(owner.control(&mailbox), Some(Control::Resync { channel: 1 }));
}

#[tokio::test]
async fn a_slow_client_reads_the_begun_frame_to_its_end_and_then_the_last_words() {
    let (mailbox, mut client) = blocked(LIMIT).await;
    let owner = Owner::new();
    assert_eq!(push_reply(&mailbox, b'r'), Pushed::Queued);
    for _ in 0..10 {
        assert_eq!(push(&mailbox, b'n'), Pushed::Queued, "behind it there is all the room");
    }
    assert_eq!(push(&mailbox, b'n'), Pushed::Overflow);
    let slow = Some(Control::Close(CloseReason::Slow));
    assert_eq!(owner.control(&mailbox), slow, "at once, though not all is written");
    mailbox.push_last(frame(b'z'), &mut Flush::new());

    let all = [much(b'm'), frame(b'z')].concat();
    let (bytes, ()) =
        tokio::join!(read(&mut client, all.len()), poll_fn(|cx| mailbox.poll_write(cx, 1)));
    assert!(bytes == all, "nothing between them");
    drop(mailbox);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "and nothing after");
}

#[tokio::test]
async fn a_client_that_reads_is_not_closed_for_a_frame_that_takes_long() {
    let (mailbox, mut client) = blocked(LIMIT).await;
    let much_asked = Bytes::from(vec![b'q'; MUCH]);
    assert_eq!(mailbox.push_reply([much_asked.clone()], &mut Flush::new()), Pushed::Queued);
    assert_eq!(push(&mailbox, b'n'), Pushed::Queued);
    assert!(mailbox.has_unread(), "it is asked no more for now");
    assert_eq!(mailbox.push(offer(1), frame(b'o'), &mut Flush::new()), Pushed::Queued);

    let all = [much(b'm'), much_asked, frame(b'n'), frame(b'o')].concat();
    let (bytes, ()) =
        tokio::join!(read(&mut client, all.len()), poll_fn(|cx| mailbox.poll_write(cx, 1)));
    assert!(bytes == all);
    assert_eq!((mailbox.closed(), mailbox.bytes()), (None, 0));
}

#[tokio::test]
async fn a_client_that_is_gone_closes_its_mailbox() {
    let (mailbox, client) = pair(LIMIT).await;
    let owner = Owner::new();
    assert_eq!(owner.control(&mailbox), None);
    SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    mailbox.socket().unwrap().readable().await.unwrap();
    let mut flush = Flush::new();
    mailbox.push(offer(1), frame(b'a'), &mut flush);
    mailbox.push(offer(1), frame(b'b'), &mut flush);
    drop(flush);
    assert_eq!(owner.rings(), 1);
    assert_eq!(owner.control(&mailbox), Some(Control::Close(CloseReason::Gone)));
    assert_eq!((mailbox.len(), mailbox.bytes(), phase(&mailbox)), (0, 0, Phase::Idle));
    assert_eq!(push(&mailbox, b'c'), Pushed::Closed);
}

#[tokio::test]
async fn nothing_is_kept_for_a_client_that_goes_in_the_middle_of_a_frame() {
    let (mailbox, client) = blocked(LIMIT).await;
    mailbox.close(CloseReason::Gone);
    mailbox.push_last(frame(b'z'), &mut Flush::new());
    SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    poll_fn(|cx| mailbox.poll_write(cx, 1)).await;
    assert_eq!((mailbox.len(), mailbox.bytes()), (0, 0));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(mailbox.poll_flushed(&mut cx).is_ready(), "nobody waits for it to be written");
}

#[tokio::test]
async fn an_abandoned_mailbox_is_written_no_more() {
    let (mailbox, mut client) = pair(LIMIT).await;
    let mut flush = Flush::new();
    mailbox.push(offer(1), frame(b'a'), &mut flush);
    mailbox.abandon();
    drop(flush);
    assert_eq!(phase(&mailbox), Phase::Idle);
    drop(mailbox);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

/// Pushes `frames` numbered frames of one thread, of differing lengths, and writes them now and then:
/// at every third, fifth or seventh.
fn push_numbered(mailbox: &Arc<Mailbox>, thread: u8, frames: u32) {
    let mut flush = Flush::new();
    for n in 0..frames {
        let padding = vec![thread; usize::try_from(n % 200).unwrap()];
        let len = [thread, u8::try_from(padding.len()).unwrap()];
        let frame = [&len, n.to_le_bytes().as_slice(), &padding].concat().into();
        assert_eq!(mailbox.push(offer(1), frame, &mut flush), Pushed::Queued);
        if n % (3 + 2 * u32::from(thread)) == 0 {
            assert!(std::mem::take(&mut flush).write().is_done());
        }
    }
}

/// Reads what [`push_numbered`] wrote, and says how much of each thread came.
async fn read_numbered(client: &mut TcpStream, threads: usize) -> Vec<u32> {
    let mut client = tokio::io::BufReader::new(client);
    let mut next = vec![0; threads];
    while let Ok(thread) = client.read_u8().await {
        let mut padding = vec![0; client.read_u8().await.unwrap().into()];
        let n = client.read_u32_le().await.unwrap();
        client.read_exact(&mut padding).await.unwrap();
        assert!(padding.iter().all(|byte| *byte == thread), "no frame is torn");
        assert_eq!(n, next[usize::from(thread)], "in order, none twice");
        next[usize::from(thread)] += 1;
    }
    next
}

/// Threads push and write at the same time, as fast as they can, and the owner goes on where the
/// client is slower: one lost wake-up and this never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_arrives_in_order_and_once_whoever_writes() {
    const THREADS: u8 = 3;
    const FRAMES: u32 = 8000;
    let (mailbox, mut client) = pair(usize::MAX).await;
    let owner = tokio::spawn({
        let mailbox = Arc::clone(&mailbox);
        async move {
            let end = poll_fn(|cx| {
                let control = mailbox.poll_control(cx);
                let _ = mailbox.poll_write(cx, 1);
                control
            });
            let end = end.await;
            let flushed = poll_fn(|cx| {
                if mailbox.poll_flushed(cx).is_pending() {
                    std::task::ready!(mailbox.poll_write(cx, 1));
                    std::task::ready!(mailbox.poll_flushed(cx));
                }
                Poll::Ready(())
            });
            flushed.await;
            end
        }
    });
    let pushers = tokio::task::spawn_blocking(move || {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let mailbox = &mailbox;
                scope.spawn(move || push_numbered(mailbox, thread, FRAMES));
            }
        });
        mailbox.close(CloseReason::Shutdown);
    });
    let came = read_numbered(&mut client, THREADS.into()).await;
    assert_eq!(came, [FRAMES; THREADS as usize]);
    pushers.await.unwrap();
    assert_eq!(owner.await.unwrap(), Control::Close(CloseReason::Shutdown));
}

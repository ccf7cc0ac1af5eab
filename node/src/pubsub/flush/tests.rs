//! Who is written when, and who waits for it.

use std::{io::Read as _, sync::atomic::Ordering::SeqCst, task::Waker};

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::*;
use crate::pubsub::{Outlet, tests::pair};

/// More than are written at once, and no whole number of slices.
const MANY: usize = AT_ONCE + SLICE + 7;

fn waits(writing: &mut Writing) -> bool {
    Pin::new(writing).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// A flush of `count` mailboxes with a frame each, and their clients.
async fn crowd(count: usize, mut flush: Flush) -> (Vec<TcpStream>, Flush) {
    let mut clients = Vec::new();
    for _ in 0..count {
        let (mailbox, client) = pair(1 << 20).await;
        mailbox.push_reply([Bytes::from_static(b"hello")], &mut flush);
        clients.push(client);
    }
    (clients, flush)
}

/// All clients have their frame, without waiting for it.
fn all_came(clients: &[TcpStream]) -> bool {
    let came = |client: &TcpStream| {
        let mut bytes = [0; 8];
        // What the reactor knows may be old: the socket itself is asked.
        (&*SockRef::from(client)).read(&mut bytes).is_ok_and(|len| bytes[..len] == *b"hello")
    };
    clients.iter().all(came)
}

fn recorded(latency: &Latency) -> u64 {
    latency.buckets().map(|(_, count)| count).sum()
}

#[tokio::test]
async fn a_few_mailboxes_are_written_at_once() {
    let latency = Arc::default();
    let (clients, flush) = crowd(SLICE.min(3), Flush::of_input(&latency)).await;
    assert!(flush.write().is_done());
    assert!(all_came(&clients));
    assert_eq!(recorded(&latency), 1);
}

#[test]
fn nothing_to_write_is_no_latency() {
    let latency = Arc::default();
    assert!(Flush::of_input(&latency).write().is_done());
    assert_eq!(recorded(&latency), 0);
}

async fn many_are_spread_over_tasks() {
    let latency = Arc::default();
    let (clients, flush) = crowd(MANY, Flush::of_input(&latency)).await;
    let mut writing = flush.write();
    assert!(!writing.is_done(), "others get a turn");
    (&mut writing).await;
    assert!(writing.is_done());
    assert!(all_came(&clients), "it is over when all are written");
    assert_eq!(recorded(&latency), 1, "one input");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_mailboxes_are_written_by_several_threads() {
    many_are_spread_over_tasks().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn many_mailboxes_are_written_by_one_worker_thread() {
    tokio::spawn(many_are_spread_over_tasks()).await.unwrap();
}

#[tokio::test]
async fn many_mailboxes_are_written_by_the_thread_that_waits() {
    let (clients, flush) = crowd(MANY, Flush::new()).await;
    let mut writing = flush.write();
    assert!(waits(&mut writing) && !all_came(&clients[..1]), "none before others had their turn");
    writing.await;
    assert!(all_came(&clients));
}

#[tokio::test]
async fn many_mailboxes_are_written_where_there_are_no_tasks() {
    let (clients, flush) = crowd(MANY, Flush::new()).await;
    let written = thread::spawn(|| flush.write().is_done()).join().unwrap();
    assert!(written && all_came(&clients));
}

#[tokio::test]
async fn a_large_flush_that_is_dropped_is_written() {
    let (clients, flush) = crowd(MANY, Flush::new()).await;
    drop(flush);
    assert!(all_came(&clients));
}

#[tokio::test]
async fn whoever_waits_is_told_once_the_last_slice_is_written() {
    struct Bell(AtomicUsize);
    impl std::task::Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let (clients, flush) = crowd(MANY, Flush::new()).await;
    let bell = Arc::new(Bell(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&bell));
    let mut writing = flush.write();
    assert!(Pin::new(&mut writing).poll(&mut Context::from_waker(&waker)).is_pending());
    while bell.0.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(all_came(&clients));
    assert!(!waits(&mut writing));
    assert_eq!(bell.0.load(SeqCst), 1);
}

#[test]
fn nobody_waits_for_a_runtime_that_has_ended() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut flush = Flush::new();
    for _ in 0..MANY {
        flush.add(&Mailbox::new(1, Outlet::Owner));
    }
    let guard = runtime.enter();
    let mut writing = flush.write();
    drop(guard);
    assert!(waits(&mut writing));
    drop(runtime);
    assert!(!waits(&mut writing));
}

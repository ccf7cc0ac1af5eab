//! The queue of one socket.

use std::{
    io::Read as _,
    net::{TcpListener, TcpStream},
    sync::Arc,
};

use bytes::Bytes;
use divan::Bencher;
use wingbeat::pubsub::{Flush, Mailbox, Offer, Outlet, Overflow};

use super::{MAILBOX_BYTES, PAYLOAD, drain, mailbox};

const OFFER: Offer = Offer { channel: 1, event: 1, overflow: Overflow::Disconnect };

fn push(mailbox: &Arc<Mailbox>, frame: &Bytes, flush: &mut Flush) {
    let pushed = mailbox.push(OFFER, frame.clone(), flush);
    assert_eq!(pushed, wingbeat::pubsub::Pushed::Queued);
}

/// In, and out by the owner.
#[divan::bench(args = [1, 16])]
fn push_and_pop(bencher: Bencher<'_, '_>, frames: usize) {
    let (mailbox, frame) = (mailbox(), Bytes::from_static(PAYLOAD));
    bencher.counter(divan::counter::ItemsCount::new(frames)).bench_local(|| {
        let mut flush = Flush::new();
        (0..frames).for_each(|_| push(&mailbox, &frame, &mut flush));
        drain(&mailbox)
    });
}

/// Into a full one, whose oldest gives way.
#[divan::bench]
fn push_into_a_full_one(bencher: Bencher<'_, '_>) {
    let (mailbox, frame) = (mailbox(), Bytes::from_static(PAYLOAD));
    let offer = Offer { overflow: Overflow::DropOldest, ..OFFER };
    let full = MAILBOX_BYTES / PAYLOAD.len();
    for _ in 0..full {
        let _ = mailbox.push(offer, frame.clone(), &mut Flush::new());
    }
    bencher.bench_local(|| mailbox.push(offer, frame.clone(), &mut Flush::new()));
}

/// In, and to the client by whoever pushed: a `send`, or a `writev` of several. The client reads.
#[divan::bench(args = [1, 16])]
fn push_and_write(bencher: Bencher<'_, '_>, frames: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _guard = runtime.enter();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stream = listener.accept().unwrap().0;
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    // The reactor's first word on a connection is that it is ready.
    runtime.block_on(stream.writable()).unwrap();
    let mailbox = Mailbox::new(MAILBOX_BYTES, Outlet::Socket(stream));
    let frame = Bytes::from_static(PAYLOAD);
    let mut read = vec![0; frames * frame.len()];
    bencher.counter(divan::counter::ItemsCount::new(frames)).bench_local(|| {
        let mut flush = Flush::new();
        (0..frames).for_each(|_| push(&mailbox, &frame, &mut flush));
        drop(flush);
        client.read_exact(&mut read).unwrap();
    });
}

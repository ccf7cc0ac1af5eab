//! What a client says: out of its frame, and understood.

use divan::Bencher;
use wingbeat::{
    internals::Session,
    pubsub::{Flush, Mailbox},
};

use super::{drain, mailbox, masked, push};

/// One frame, unmasked where it lies.
#[divan::bench]
fn websocket_frame(bencher: Bencher<'_, '_>) {
    let (frame, mut session) = (masked(&push()), Session::new());
    bencher.with_inputs(|| frame.clone()).bench_local_refs(|frame| {
        let mut len = 0;
        session.decode(frame, |text| len += text.len()).unwrap();
        len
    });
}

/// A read of 64 frames.
#[divan::bench]
fn websocket_frames_64(bencher: Bencher<'_, '_>) {
    let (frames, mut session) = (masked(&push()).repeat(64), Session::new());
    bencher.with_inputs(|| frames.clone()).bench_local_refs(|frames| {
        let mut len = 0;
        session.decode(frames, |text| len += text.len()).unwrap();
        len
    });
}

fn bench_message(bencher: Bencher<'_, '_>, text: &str) {
    let (mut session, mailbox) = (Session::new(), mailbox());
    handle(&mut session, r#"["1","1","room:lobby","phx_join",{}]"#, &mailbox);
    bencher.bench_local(|| handle(&mut session, text, &mailbox));
}

/// Answers included.
fn handle(session: &mut Session, text: &str, mailbox: &std::sync::Arc<Mailbox>) -> usize {
    let (mut flush, mut len) = (Flush::new(), 0);
    let done = session.handle(text, mailbox, &mut flush, |_, payload, _| len += payload.len());
    done.unwrap();
    drop(flush);
    len + drain(mailbox)
}

#[divan::bench]
fn v2_push_and_reply(bencher: Bencher<'_, '_>) {
    bench_message(bencher, &push());
}

#[divan::bench]
fn v2_heartbeat(bencher: Bencher<'_, '_>) {
    bench_message(bencher, r#"[null,"7","phoenix","heartbeat",{}]"#);
}

#[divan::bench]
fn v2_rejoin(bencher: Bencher<'_, '_>) {
    bench_message(bencher, r#"["1","1","room:lobby","phx_join",{}]"#);
}

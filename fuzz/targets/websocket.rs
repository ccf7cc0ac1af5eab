//! Bytes of a WebSocket client: whatever they are and however they are cut, the decoder says the same,
//! and takes memory for what came only.
#![no_main]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ops::ControlFlow,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use libfuzzer_sys::fuzz_target;
use websocket::{Decoder, Message, Rules, Violation};

#[allow(dead_code, unused_imports, reason = "the node uses all of it")]
#[path = "../../node/src/websocket/mod.rs"]
mod websocket;

/// Bytes that a decoder may take besides those that came.
const OVERHEAD: usize = 512;

/// Bytes of a thread's inflater, which the first deflated message makes.
const INFLATER: usize = 64 << 10;

#[global_allocator]
static ALLOCATOR: Largest = Largest(AtomicUsize::new(0));

/// Notes the largest allocation.
struct Largest(AtomicUsize);

// SAFETY: each call is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_max(layout.size(), Relaxed);
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.0.fetch_max(size, Relaxed);
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// All that a new decoder makes of these chunks.
fn outcome(chunks: Vec<Vec<u8>>, rules: &Rules) -> (Vec<String>, Result<(), Violation>) {
    let came = chunks.iter().map(Vec::len).sum::<usize>();
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    let mut end = Ok(());
    for mut chunk in chunks {
        ALLOCATOR.0.store(0, Relaxed);
        let mut outside = 0;
        let result = decoder.decode(&mut chunk, rules, |message| {
            if let Message::Text(_) | Message::Binary(_) = message {
                assert!(message_len(message) <= rules.message_max);
            }
            outside = outside.max(ALLOCATOR.0.load(Relaxed));
            messages.push(format!("{message:?}"));
            ALLOCATOR.0.store(0, Relaxed);
            Ok(ControlFlow::Continue(()))
        });
        let largest = outside.max(ALLOCATOR.0.load(Relaxed));
        let inflated = if rules.inflate { INFLATER.max(rules.message_max) } else { 0 };
        let bound = OVERHEAD + inflated.max(2 * came);
        assert!(largest <= bound, "{largest} bytes allocated, {came} came");
        end = end.and(result.map(drop));
    }
    (messages, end)
}

fn message_len(message: Message<'_>) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    }
}

fuzz_target!(|input: (u16, bool, Vec<u8>, Vec<u8>)| {
    let (message_max, inflate, sizes, bytes) = input;
    let rules = Rules { message_max: message_max.into(), inflate };
    let whole = outcome(vec![bytes.clone()], &rules);
    let mut rest = bytes.as_slice();
    let mut cut = Vec::new();
    for size in sizes.iter().cycle().take(bytes.len()) {
        let size = usize::from(*size).clamp(1, rest.len().max(1)).min(rest.len());
        let (chunk, left) = rest.split_at(size);
        cut.push(chunk.to_vec());
        rest = left;
    }
    cut.push(rest.to_vec());
    assert_eq!(outcome(cut, &rules), whole);
});

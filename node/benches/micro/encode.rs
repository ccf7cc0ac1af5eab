//! A broadcast's frame: once per format in use, however many subscribers there are.

use bytes::Bytes;
use divan::Bencher;
use wingbeat::{
    internals::encode,
    pubsub::{Format, Payload},
};

use super::PAYLOAD;

const FORMATS: [Format; 8] = [
    Format::V2,
    Format::V1,
    Format::Sse,
    Format::V2Deflated,
    Format::V1Deflated,
    Format::Tcp,
    Format::PollV1,
    Format::PollV2,
];

#[divan::bench(args = FORMATS)]
fn broadcast(bencher: Bencher<'_, '_>, format: Format) {
    bencher.bench(|| -> Option<Bytes> {
        encode(format, "room:lobby", "new_msg", Payload::Json(PAYLOAD))
    });
}

#[divan::bench]
fn broadcast_of_16_kib(bencher: Bencher<'_, '_>) {
    let payload = format!("\"{}\"", "x".repeat(16 << 10));
    let payload = Payload::Json(payload.as_bytes());
    bencher.bench(|| encode(Format::V2, "room:lobby", "new_msg", payload));
}

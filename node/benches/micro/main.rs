//! What the steps of a message cost, one by one:
//! `cargo bench -p wingbeat --features internals --bench micro [name]`.
//!
//! They say what a change of one step does. Whether it matters for users says `wingbeat bench`.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run may panic")]

mod decode;
mod encode;
mod forward;
mod mailbox;
mod registry;

use std::sync::Arc;

use bytes::Bytes;
use presence::Topic;
use wingbeat::pubsub::{
    Filter, Format, Mailbox, Outlet, Overflow, Registry, Subscriber, Subscription,
};

/// The default limit of a socket's mailbox.
const MAILBOX_BYTES: usize = 256 * 1024;

/// A payload of 100 bytes.
const PAYLOAD: &[u8] = br#"{"body":"01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678"}"#;

const _: () = assert!(PAYLOAD.len() == 100);

fn main() {
    divan::main();
}

fn topic(name: &str) -> Topic {
    name.parse().unwrap()
}

fn mailbox() -> Arc<Mailbox> {
    Mailbox::new(MAILBOX_BYTES, Outlet::Owner)
}

fn subscribe(registry: &Arc<Registry>, topic: &Topic, mailbox: &Arc<Mailbox>) -> Subscription {
    let mailbox = Arc::clone(mailbox);
    let (format, overflow) = (Format::V2, Overflow::Disconnect);
    let (filter, presence_after) = (Filter::All, None);
    let subscriber = Subscriber { mailbox, channel: 1, format, overflow, filter, presence_after };
    registry.subscribe(topic, subscriber)
}

/// As an owner takes out what waits.
fn drain(mailbox: &Mailbox) -> usize {
    std::iter::from_fn(|| mailbox.pop()).map(|frame: Bytes| frame.len()).sum()
}

/// A text frame of a client.
fn masked(text: &str) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let len = u16::try_from(text.len()).unwrap();
    let mut frame = vec![0x81];
    match u8::try_from(len) {
        Ok(len @ ..=125) => frame.push(0x80 | len),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(len.to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// What a client says in V2.
fn push() -> String {
    format!(r#"["1","2","room:lobby","new_msg",{}]"#, str::from_utf8(PAYLOAD).unwrap())
}

//! Broadcasts of a topic for the node's own code instead of a client.

use std::{sync::Arc, task::Poll};

use bytes::Bytes;

use super::Payload;
use crate::{
    mailboxes::Listed,
    node::Shared,
    pubsub::{CloseReason, Control, Mailbox, Outlet},
};

/// What waits for one reader, and the way out of it.
pub(crate) struct Tap {
    mailbox: Arc<Mailbox>,
    _listed: Listed,
}

/// One broadcast.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) event: Box<str>,
    pub(crate) payload: Payload,
}

/// What a tap gives.
pub(crate) enum Tapped {
    Heard(Heard),
    /// Presence diffs did not fit: a fresh state is due, and [`Mailbox::resynced`].
    Resync,
    /// Nothing comes after this: the reader is too slow, or the node stops.
    Closed(CloseReason),
}

impl Tap {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let mailbox = Mailbox::new(shared.config.limits.mailbox_bytes.bytes(), Outlet::Owner);
        Self { _listed: shared.mailboxes.add(&mailbox), mailbox }
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// The next broadcast; `None` when they came faster than they were taken. Waits for ever when the
    /// node stops. For taps without presence.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        loop {
            match self.tapped().await {
                Tapped::Heard(heard) => return Some(heard),
                Tapped::Resync => {}
                Tapped::Closed(CloseReason::Slow | CloseReason::Stalled) => return None,
                Tapped::Closed(_) => std::future::pending().await,
            }
        }
    }

    /// What comes next. Nothing is lost when it is given up.
    pub(crate) async fn tapped(&mut self) -> Tapped {
        std::future::poll_fn(|cx| {
            loop {
                // First this, so that whoever pushes from here on wakes us.
                let control = self.mailbox.poll_control(cx);
                if let Some(heard) = self.mailbox.pop().and_then(|frame| decode(&frame)) {
                    return Poll::Ready(Tapped::Heard(heard));
                }
                match control {
                    Poll::Ready(Control::Close(why)) => return Poll::Ready(Tapped::Closed(why)),
                    Poll::Ready(Control::Resync { .. }) => return Poll::Ready(Tapped::Resync),
                    Poll::Ready(Control::Joined { .. } | Control::Called { .. }) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.mailbox.abandon();
    }
}

/// A broadcast as [`Format::Tap`](crate::pubsub::Format::Tap) has it: whether it is binary, the bytes
/// of the event's name, the name, the payload.
pub(crate) fn encode(event: &str, payload: &[u8], binary: bool) -> Bytes {
    let len = u16::try_from(event.len()).unwrap_or(u16::MAX);
    let name = event.as_bytes().get(..len.into()).unwrap_or_default();
    [&[u8::from(binary)], len.to_be_bytes().as_slice(), name, payload].concat().into()
}

fn decode(frame: &Bytes) -> Option<Heard> {
    let (&[binary, high, low], rest) = frame.split_first_chunk()?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let event = std::str::from_utf8(rest.get(..len)?).ok()?;
    let payload = frame.slice_ref(rest.get(len..)?);
    let payload = if binary == 0 { Payload::raw_json(payload) } else { Payload::binary(payload) };
    Some(Heard { event: event.into(), payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasts_come_out_as_they_went_in() {
        for payload in [Payload::raw_json("{}"), Payload::binary(vec![0, 255]), Payload::binary("")]
        {
            let frame = encode("new", payload.bytes(), payload.is_binary());
            assert_eq!(decode(&frame), Some(Heard { event: "new".into(), payload }));
        }
        for short in [&b""[..], b"\0\0", b"\0\0\x04new"] {
            assert_eq!(decode(&Bytes::from_static(short)), None);
        }
    }
}

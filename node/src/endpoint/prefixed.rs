//! Messages over plain TCP: each behind its length, four bytes with the highest first.

use std::{
    mem,
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    codec::{Codec, Heard},
    driver::End,
};
use crate::websocket::{FrameBuf, Rules, Violation};

/// Bytes of the length before a message.
pub(super) const PREFIX: usize = 4;

/// How often a client is told that the node is there, or twice in an idle timeout if that is short.
const HEARTBEAT_MAX: Duration = Duration::from_secs(30);

/// Messages that begin with a byte below this one are binary: no JSON text does.
const TEXT_MIN: u8 = 9;

/// The connection of one client, and where its bytes have got to.
///
/// It keeps of a message what came of it, with the room that growing by doubling leaves; nothing while
/// none is under way.
#[derive(Debug, Default)]
pub(super) struct Prefixed {
    state: State,
    /// Until the client is told next; begun with the first wait.
    heartbeat: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Cut(Box<Cut>),
    /// The client broke a rule, or its messages are wanted no more.
    Over,
}

/// A message that is not whole.
#[derive(Debug, Default)]
struct Cut {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that came.
    came: usize,
    payload: Vec<u8>,
}

impl Codec for Prefixed {
    fn decode(
        &mut self,
        bytes: &mut [u8],
        rules: &Rules,
        mut on_message: impl FnMut(Heard<'_>) -> Result<ControlFlow<()>, End>,
    ) -> Result<usize, End> {
        let mut rest = &*bytes;
        // Stays if this returns early.
        let mut cut = match mem::replace(&mut self.state, State::Over) {
            State::Idle => None,
            State::Cut(cut) => Some(cut),
            State::Over => return Ok(0),
        };
        while !rest.is_empty() {
            let wanted = if let Some(under_way) = &mut cut {
                let Some(payload) = under_way.take(&mut rest, rules)? else { continue };
                let wanted = on_message(message(payload)?)?;
                cut = None;
                wanted
            } else if let Some(payload) = take_whole(&mut rest, rules)? {
                on_message(message(payload)?)?
            } else {
                cut = Some(Box::default());
                ControlFlow::Continue(())
            };
            if wanted.is_break() {
                break;
            }
        }
        self.state = cut.map_or(State::Idle, State::Cut);
        Ok(rest.len())
    }

    /// A text message, as a stream has no close frame.
    fn last_words(code: u16, reason: &str) -> Bytes {
        let payload = serde_json::json!({ "code": code, "reason": reason });
        message_of(&format!(r#"[null,null,"phoenix","phx_close",{payload}]"#))
    }

    fn poll_heartbeat(&mut self, cx: &mut Context<'_>, idle_timeout: Duration) -> Poll<Bytes> {
        let pause = HEARTBEAT_MAX.min(idle_timeout / 2);
        let heartbeat = self.heartbeat.get_or_insert_with(|| Box::pin(sleep(pause)));
        ready!(heartbeat.as_mut().poll(cx));
        heartbeat.as_mut().reset(Instant::now() + pause);
        Poll::Ready(message_of(r#"[null,null,"phoenix","heartbeat",{}]"#))
    }
}

/// A text behind its length.
pub(super) fn message_of(text: &str) -> Bytes {
    let mut frame = FrameBuf::with_capacity(text.len());
    frame.extend_from_slice(text.as_bytes());
    frame.into_prefixed()
}

/// The length that a prefix says, if that may be.
fn length(prefix: [u8; PREFIX], rules: &Rules) -> Result<usize, Violation> {
    let len = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if len > rules.message_max { Err(Violation::TooLarge) } else { Ok(len) }
}

/// Takes a message, if `bytes` begin with a whole one.
fn take_whole<'a>(bytes: &mut &'a [u8], rules: &Rules) -> Result<Option<&'a [u8]>, Violation> {
    let Some((prefix, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let Some((payload, rest)) = rest.split_at_checked(length(*prefix, rules)?) else {
        return Ok(None);
    };
    *bytes = rest;
    Ok(Some(payload))
}

/// What a payload is, by its first byte.
fn message(payload: &[u8]) -> Result<Heard<'_>, Violation> {
    if payload.first().is_some_and(|first| *first < TEXT_MIN) {
        return Ok(Heard::Binary(payload));
    }
    Ok(Heard::Text(str::from_utf8(payload).map_err(|_| Violation::Utf8)?))
}

impl Cut {
    /// Takes bytes of one message, and returns that if its last byte was among them.
    fn take(&mut self, bytes: &mut &[u8], rules: &Rules) -> Result<Option<&[u8]>, Violation> {
        while self.came < PREFIX {
            let Some(byte) = bytes.split_off_first() else { return Ok(None) };
            self.prefix[self.came] = *byte;
            self.came += 1;
        }
        let left = length(self.prefix, rules)? - self.payload.len();
        let now = bytes.split_off(..left.min(bytes.len())).unwrap_or_default();
        if self.payload.capacity() - self.payload.len() < now.len() {
            // At most doubled, and never more than is wanted: what a prefix claims costs nothing.
            self.payload.reserve_exact(now.len().max(self.payload.len()).min(left));
        }
        self.payload.extend_from_slice(now);
        Ok((now.len() == left).then_some(&*self.payload))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const RULES: Rules = Rules { message_max: 300, inflate: false };

    /// What was heard of some chunks, and the code of the end.
    fn heard(codec: &mut Prefixed, chunks: &[&[u8]]) -> (Vec<String>, Option<u16>) {
        let mut heard = Vec::new();
        let mut chunks = chunks.iter().map(|chunk| chunk.to_vec());
        let mut chunk = Vec::new();
        loop {
            if chunk.is_empty() {
                let Some(next) = chunks.next() else { break };
                chunk = next;
            }
            let before = heard.len();
            let done = codec.decode(&mut chunk, &RULES, |message| {
                heard.push(match message {
                    Heard::Text(text) => text.to_owned(),
                    Heard::Binary(data) => format!("binary {}", data.escape_ascii()),
                    Heard::Ping(_) | Heard::Pong | Heard::Closed(_) => unreachable!(),
                });
                // Every third one is enough for now.
                let pause = heard.len().is_multiple_of(3);
                Ok(if pause { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            });
            assert!(heard.len() <= before + 3);
            match done {
                Ok(left) => chunk = chunk.split_off(chunk.len() - left),
                Err(End::Close(close)) => return (heard, Some(close.code)),
                Err(End::Closed(_) | End::Gone) => break,
            }
        }
        (heard, None)
    }

    fn framed(payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap();
        [&len.to_be_bytes(), payload].concat()
    }

    fn kept(codec: &Prefixed) -> usize {
        match &codec.state {
            State::Cut(cut) => size_of::<Cut>() + cut.payload.capacity(),
            State::Idle | State::Over => 0,
        }
    }

    #[test]
    fn the_first_byte_says_what_a_message_is() {
        let stream = [&b"[1]"[..], b"\x00\xff", b"", b"\t[]", b"\x08"].map(framed).concat();
        let (messages, end) = heard(&mut Prefixed::default(), &[&stream]);
        assert_eq!(messages, ["[1]", r"binary \x00\xff", "", "\t[]", r"binary \x08"]);
        assert_eq!(end, None);
    }

    #[test]
    fn a_broken_rule_is_the_end() {
        let mut codec = Prefixed::default();
        let bad = [framed(b"[1]"), framed(b"[\xff]"), framed(b"[2]")].concat();
        assert_eq!(heard(&mut codec, &[&bad]), (vec!["[1]".into()], Some(1007)));
        assert_eq!(heard(&mut codec, &[&framed(b"[3]")]), (vec![], None), "nothing more is wanted");
        assert_eq!(heard(&mut Prefixed::default(), &[&[0, 0, 1, 44]]), (vec![], None));
        for chunks in [&[&[0, 0, 1, 45][..]][..], &[&[0], &[0, 1], &[45]]] {
            assert_eq!(heard(&mut Prefixed::default(), chunks), (vec![], Some(1009)));
        }
    }

    #[test]
    fn the_last_words_are_a_text_message() {
        let words = r#"[null,null,"phoenix","phx_close",{"code":1013,"reason":"too slow"}]"#;
        assert_eq!(Prefixed::last_words(1013, "too slow"), framed(words.as_bytes()));
    }

    proptest! {
        #[test]
        fn chunks_change_nothing(
            payloads in vec(vec(any::<u8>(), 0..310), 0..6),
            garbage in vec(any::<u8>(), 0..9),
            sizes in vec(1..40_usize, 1..9),
        ) {
            let framed = payloads.iter().map(|payload| framed(payload));
            let stream = framed.chain([garbage]).collect::<Vec<_>>().concat();
            let mut rest = stream.as_slice();
            let mut chunks = Vec::new();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                chunks.extend(rest.split_off(..(*size).min(rest.len())));
            }
            let whole = heard(&mut Prefixed::default(), &[&stream]);
            prop_assert_eq!(heard(&mut Prefixed::default(), &chunks), whole);
        }

        /// What a length claims is not allocated: the bytes kept grow with those that came.
        #[test]
        fn memory_follows_what_came(claim in 1..=300_u32, came in 0..300_usize, by in 1..50_usize) {
            let mut codec = Prefixed::default();
            heard(&mut codec, &[&claim.to_be_bytes()]);
            let came = came.min(claim as usize - 1);
            for chunk in vec![b'x'; came].chunks(by) {
                heard(&mut codec, &[chunk]);
            }
            prop_assert!(kept(&codec) <= size_of::<Cut>() + 2 * came);
            heard(&mut codec, &[&vec![b'x'; claim as usize - came]]);
            prop_assert_eq!(kept(&codec), 0, "the message is whole");
        }
    }
}

//! A client's bytes, as they come, to its messages.

use std::{mem, ops::ControlFlow};

use super::{
    Violation,
    deflate::inflate,
    frame::{Frame, HEADER_MAX, Header, Kind, Opcode, unmask},
};

/// One whole message or control frame of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// To be answered by [`pong`](super::pong()) with the same payload.
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The client's last message, with its code if it gave one. To be answered by a close frame, unless
    /// it answers ours.
    Close(Option<u16>),
}

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Bytes of the longest message, as it comes and as it is once inflated.
    pub(crate) message_max: usize,
    /// Whether permessage-deflate was agreed on.
    pub(crate) inflate: bool,
}

/// Where a client's bytes have got to.
///
/// It keeps what is cut only: nothing on a connection where no message is under way, and then as much
/// as came of it, with the room that growing by doubling leaves.
#[derive(Debug, Default)]
pub(crate) struct Decoder(State);

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Cut(Box<Cut>),
    /// The client closed or broke a rule, or its messages are wanted no more.
    Over,
}

impl Decoder {
    /// Takes the next bytes, whose mask is taken off in place, and hands on each message that they make
    /// whole, in order, until `on_message` wants no more for now. Returns how many of the last bytes were
    /// not taken then: they come first at the next call.
    ///
    /// # Errors
    /// The first rule that was broken, or the first error of `on_message`. After an error, as after
    /// [`Message::Close`], whatever else comes is ignored.
    pub(crate) fn decode<E: From<Violation>>(
        &mut self,
        mut bytes: &mut [u8],
        rules: &Rules,
        mut on_message: impl FnMut(Message<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<usize, E> {
        // Stays if this returns early.
        let mut cut = match mem::replace(&mut self.0, State::Over) {
            State::Idle => None,
            State::Cut(cut) => Some(cut),
            State::Over => return Ok(0),
        };
        let mut deliver = |kind: Kind, payload: &[u8]| -> Result<End, E> {
            let inflated;
            let payload = if kind.deflated {
                inflated = inflate(payload, rules.message_max)?;
                &inflated
            } else {
                payload
            };
            let message = message(kind.opcode, payload)?;
            let wanted = on_message(message)?;
            Ok(if matches!(message, Message::Close(_)) {
                End::Closed
            } else if wanted.is_break() {
                End::Paused
            } else {
                End::Open
            })
        };
        while !bytes.is_empty() {
            let end = if let Some(under_way) = &mut cut {
                let Some(frame) = under_way.take(&mut bytes, rules)? else { continue };
                let end = match under_way.message(frame)? {
                    Some((kind, payload)) => deliver(kind, payload)?,
                    None => End::Open,
                };
                if under_way.ends(frame) {
                    cut = None;
                }
                end
            } else if let Some((frame, payload)) = take_whole(&mut bytes, rules)? {
                deliver(frame.kind, payload)?
            } else {
                cut = Some(Box::default());
                End::Open
            };
            match end {
                End::Open => {}
                End::Paused => break,
                End::Closed => return Ok(0),
            }
        }
        self.0 = cut.map_or(State::Idle, State::Cut);
        Ok(bytes.len())
    }
}

/// Whether a client may send more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Paused,
    Closed,
}

/// Takes a frame that is a whole message, if `bytes` begin with one.
fn take_whole<'a>(
    bytes: &mut &'a mut [u8],
    rules: &Rules,
) -> Result<Option<(Frame, &'a [u8])>, Violation> {
    let Some((header, header_len)) = Header::parse(bytes) else { return Ok(None) };
    let frame = header.check(None, rules)?;
    if !frame.fin || bytes.len() - header_len < frame.len {
        return Ok(None);
    }
    let Some(whole) = bytes.split_off_mut(..header_len + frame.len) else { return Ok(None) };
    let payload = &mut whole[header_len..];
    unmask(payload, frame.mask);
    Ok(Some((frame, payload)))
}

/// The message that a payload is.
fn message(opcode: Opcode, payload: &[u8]) -> Result<Message<'_>, Violation> {
    Ok(match opcode {
        Opcode::Text => Message::Text(str::from_utf8(payload).map_err(|_| Violation::Utf8)?),
        // A continuation's message has the opcode of its first frame.
        Opcode::Binary | Opcode::Continuation => Message::Binary(payload),
        Opcode::Ping => Message::Ping(payload),
        Opcode::Pong => Message::Pong(payload),
        Opcode::Close => Message::Close(close_code(payload)?),
    })
}

/// The code in the body of a close frame, and whether that may be sent (RFC 6455, section 7.4).
fn close_code(body: &[u8]) -> Result<Option<u16>, Violation> {
    let Some((code, reason)) = body.split_first_chunk() else {
        return if body.is_empty() { Ok(None) } else { Err(Violation::CloseBody) };
    };
    if str::from_utf8(reason).is_err() {
        return Err(Violation::Utf8);
    }
    match u16::from_be_bytes(*code) {
        code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(Some(code)),
        _ => Err(Violation::CloseCode),
    }
}

/// What came of a frame or message that is not whole.
#[derive(Debug, Default)]
struct Cut {
    /// What the open message's frames brought, then what came of the frame that is under way.
    payload: Vec<u8>,
    /// The frame that is under way.
    frame: Option<Frame>,
    /// Bytes of its payload that came.
    came: usize,
    /// What the open message is, from its first frame to its last.
    open: Option<Kind>,
    /// Bytes of an open text message that are known to be UTF-8.
    utf8: usize,
    /// A header that is cut.
    header: [u8; HEADER_MAX],
    /// Bytes of it that came.
    header_len: u8,
}

impl Cut {
    /// Takes bytes of one frame, and returns that if its last byte was among them. Else all are taken.
    fn take(&mut self, bytes: &mut &mut [u8], rules: &Rules) -> Result<Option<Frame>, Violation> {
        let frame = match self.frame {
            Some(frame) => frame,
            None => match self.take_header(bytes) {
                Some(header) => header.check(self.open.map(|_| self.payload.len()), rules)?,
                None => return Ok(None),
            },
        };
        let left = frame.len - self.came;
        let now = bytes.split_off_mut(..left.min(bytes.len())).unwrap_or_default();
        let mut mask = frame.mask;
        mask.rotate_left(self.came % 4);
        unmask(now, mask);
        if self.payload.capacity() - self.payload.len() < now.len() {
            // At most doubled, and never more than is wanted: what a header claims costs nothing.
            self.payload.reserve_exact(now.len().max(self.payload.len()).min(left));
        }
        self.payload.extend_from_slice(now);
        if now.len() < left {
            self.came += now.len();
            self.frame = Some(frame);
            return Ok(None);
        }
        self.came = 0;
        self.frame = None;
        Ok(Some(frame))
    }

    /// Takes bytes of a header, and returns it if it is whole.
    fn take_header(&mut self, bytes: &mut &mut [u8]) -> Option<Header> {
        loop {
            if let Some((header, _)) = Header::parse(&self.header[..self.header_len.into()]) {
                self.header_len = 0;
                return Some(header);
            }
            self.header[usize::from(self.header_len)] = *bytes.split_off_first_mut()?;
            self.header_len += 1;
        }
    }

    /// What the frame, whose payload was just taken, makes whole: itself, if it is a control frame, or
    /// its message.
    fn message(&mut self, frame: Frame) -> Result<Option<(Kind, &[u8])>, Violation> {
        if frame.kind.opcode.is_control() {
            return Ok(Some((frame.kind, &self.payload[self.payload.len() - frame.len..])));
        }
        let kind = *self.open.get_or_insert(frame.kind);
        if frame.fin {
            return Ok(Some((kind, &self.payload)));
        }
        if kind.opcode == Opcode::Text && !kind.deflated {
            // The client hears of bad text at the end of its frame, however long the message goes on.
            self.utf8 += utf8_prefix(&self.payload[self.utf8..])?;
        }
        Ok(None)
    }

    /// Forgets a frame whose message was handed on. Returns whether nothing is under way after it.
    fn ends(&mut self, frame: Frame) -> bool {
        if frame.kind.opcode.is_control() {
            self.payload.truncate(self.payload.len() - frame.len);
            self.open.is_none()
        } else {
            frame.fin
        }
    }
}

/// Bytes of the whole characters of a text that goes on.
fn utf8_prefix(text: &[u8]) -> Result<usize, Violation> {
    match str::from_utf8(text) {
        Ok(text) => Ok(text.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(_) => Err(Violation::Utf8),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { message_max: 1 << 20, inflate: false };

    /// Bytes that a decoder keeps.
    fn kept(decoder: &Decoder) -> usize {
        match &decoder.0 {
            State::Cut(cut) => size_of::<Cut>() + cut.payload.capacity(),
            State::Idle | State::Over => 0,
        }
    }

    fn decode(decoder: &mut Decoder, mut bytes: Vec<u8>) -> Result<usize, Violation> {
        decoder.decode(&mut bytes, &RULES, |_| Ok(ControlFlow::Continue(())))
    }

    #[test]
    fn an_idle_connection_costs_two_words() {
        assert!(size_of::<Decoder>() <= 16);
        let mut decoder = Decoder::default();
        decode(&mut decoder, b"\x82\x81\0\0\0\0a\x82\x82\0\0\0\0a".to_vec()).unwrap();
        assert!(kept(&decoder) > 0);
        decode(&mut decoder, b"b".to_vec()).unwrap();
        assert_eq!(kept(&decoder), 0, "the message is whole");
        decode(&mut decoder, b"\x02\x81\0\0\0\0a\x89\x80\0\0\0\0".to_vec()).unwrap();
        assert!(kept(&decoder) > 0, "a message is open");
        assert_eq!(decode(&mut decoder, b"\x80\x00".to_vec()), Err(Violation::Unmasked));
        assert_eq!(kept(&decoder), 0, "nothing more is wanted");
    }

    proptest! {
        /// What a header claims is not allocated: the bytes kept grow with those that came.
        #[test]
        fn memory_follows_what_came(
            claims in proptest::collection::vec(1..1u64 << 20, 1..4),
            chunks in proptest::collection::vec(1..3000usize, 1..50),
        ) {
            let mut decoder = Decoder::default();
            let mut came = 0;
            for (at, claim) in claims.into_iter().enumerate() {
                let first = if at == 0 { 0x02 } else { 0x00 };
                let mut header = vec![first, 0xff];
                header.extend(claim.to_be_bytes());
                header.extend([1, 2, 3, 4]);
                // It is payload, if the frame before it is not whole.
                came += header.len();
                decode(&mut decoder, header).ok();
                let mut left = usize::try_from(claim).unwrap();
                for chunk in &chunks {
                    let now = left.min(*chunk);
                    left -= now;
                    came += now;
                    decode(&mut decoder, vec![0; now]).ok();
                    prop_assert!(kept(&decoder) <= size_of::<Cut>() + 2 * came);
                }
            }
        }
    }
}

//! What the tests of the codec share: a client's encoder, and messages that outlive their bytes.

mod deflated;
mod oracle;
mod rules;

use std::ops::ControlFlow;

use super::{Decoder, Message, Rules, Violation};

/// A [`Message`] that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

impl From<Message<'_>> for Kept {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.into()),
            Message::Binary(bytes) => Self::Binary(bytes.into()),
            Message::Ping(bytes) => Self::Ping(bytes.into()),
            Message::Pong(bytes) => Self::Pong(bytes.into()),
            Message::Close(code) => Self::Close(code),
        }
    }
}

/// What a new decoder makes of bytes that come in these chunks.
fn decode<'a>(
    chunks: impl IntoIterator<Item = &'a [u8]>,
    rules: &Rules,
) -> (Vec<Kept>, Result<(), Violation>) {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    let mut end = Ok(());
    for chunk in chunks {
        let result = decoder.decode(&mut chunk.to_vec(), rules, |message| {
            messages.push(message.into());
            Ok(ControlFlow::Continue(()))
        });
        // What comes after an error is ignored, so only the first call reports one.
        end = end.and(result.map(|left| assert_eq!(left, 0)));
    }
    (messages, end)
}

/// The same, by a decoder that stops after each message.
fn decode_one_by_one<'a>(
    chunks: impl IntoIterator<Item = &'a [u8]>,
    rules: &Rules,
) -> (Vec<Kept>, Result<(), Violation>) {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    let mut end = Ok(());
    for chunk in chunks {
        let mut rest = chunk.to_vec();
        while !rest.is_empty() {
            let before = messages.len();
            let result = decoder.decode(&mut rest, rules, |message| {
                messages.push(message.into());
                Ok(ControlFlow::Break(()))
            });
            assert!(messages.len() <= before + 1);
            let left = *result.as_ref().unwrap_or(&0);
            rest = rest.split_off(rest.len() - left);
            end = end.and(result.map(drop));
        }
    }
    (messages, end)
}

/// A frame of a client: `first` holds FIN, the reserved bits and the opcode.
fn client_frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![first];
    if let Ok(len @ ..=125) = u8::try_from(payload.len()) {
        frame.push(0x80 | len);
    } else if let Ok(len) = u16::try_from(payload.len()) {
        frame.push(0x80 | 126);
        frame.extend(len.to_be_bytes());
    } else {
        frame.push(0x80 | 127);
        frame.extend((payload.len() as u64).to_be_bytes());
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

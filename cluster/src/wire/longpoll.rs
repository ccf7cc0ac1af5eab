//! Long-poll requests that reached another node than their session's.

use bincode::{Decode, Encode};
use bytes::Bytes;

use super::{Parts, frame, kind, malformed};
use crate::error::WireError;

/// A session among those of its node.
pub type SessionId = [u8; 16];

/// Frames in one request.
const FRAMES_MAX: usize = 1024;

/// What a client asks of a session of the peer, on a stream of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionRequest {
    /// The next messages; the answer waits for some.
    Poll(SessionId),
    /// Takes the client's frames, one after another.
    Frames(SessionId, Vec<ClientFrame>),
}

/// One frame of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame {
    /// UTF-8, which is checked where it is read.
    Text(Bytes),
    /// Bytes.
    Binary(Bytes),
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAnswer {
    /// There is no such session, or it has just ended.
    Gone,
    /// The poll: no messages came in time, or a later poll gets them.
    Nothing,
    /// The poll: messages as elements of a JSON array, with commas between.
    Messages(Bytes),
    /// The frames: the session has taken them.
    Taken,
    /// The frames: one of them could not be decoded, which has ended the session.
    Undecodable,
}

#[derive(Encode, Decode)]
struct FramesHeader {
    session: SessionId,
    /// (binary, bytes) of each frame; they follow as the payload, one behind the other.
    frames: Vec<(bool, u32)>,
}

#[derive(Encode, Decode)]
enum Outcome {
    Gone,
    Nothing,
    Messages,
    Taken,
    Undecodable,
}

/// A request as the body of a stream.
pub fn encode_session_request(request: &SessionRequest) -> Bytes {
    match request {
        SessionRequest::Poll(session) => frame(kind::SESSION_POLL, session, &[]),
        SessionRequest::Frames(session, frames) => {
            let len = |bytes: &Bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let lens = frames.iter().map(|frame| (frame.is_binary(), len(frame.bytes())));
            let header = FramesHeader { session: *session, frames: lens.collect() };
            let pieces: Vec<&[u8]> = frames.iter().map(|frame| &frame.bytes()[..]).collect();
            frame(kind::SESSION_FRAMES, &header, &pieces.concat())
        }
    }
}

/// Reads a request; `None` when the body asks something else.
pub fn decode_session_request(body: &Bytes) -> Result<Option<SessionRequest>, WireError> {
    const NAME: &str = "session frames";
    let parts = Parts::of(body)?;
    match parts.kind {
        kind::SESSION_POLL => Ok(Some(SessionRequest::Poll(parts.whole("session poll")?))),
        kind::SESSION_FRAMES => {
            let FramesHeader { session, frames } = parts.header(NAME)?;
            if frames.len() > FRAMES_MAX {
                return Err(malformed(NAME, format!("{} frames", frames.len())));
            }
            let mut rest = body.slice(parts.payload_at..);
            let mut taken = Vec::with_capacity(frames.len());
            for (binary, len) in frames {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                if len > rest.len() {
                    return Err(malformed(NAME, "a frame is longer than the rest".to_owned()));
                }
                let bytes = rest.split_to(len);
                let text_or_binary = if binary { ClientFrame::Binary } else { ClientFrame::Text };
                taken.push(text_or_binary(bytes));
            }
            match rest.len() {
                0 => Ok(Some(SessionRequest::Frames(session, taken))),
                len => Err(malformed(NAME, format!("{len} bytes too many"))),
            }
        }
        _ => Ok(None),
    }
}

/// An answer as the body of a stream.
pub fn encode_session_answer(answer: &SessionAnswer) -> Bytes {
    let (outcome, payload) = match answer {
        SessionAnswer::Gone => (Outcome::Gone, &[][..]),
        SessionAnswer::Nothing => (Outcome::Nothing, &[][..]),
        SessionAnswer::Messages(messages) => (Outcome::Messages, messages.as_ref()),
        SessionAnswer::Taken => (Outcome::Taken, &[][..]),
        SessionAnswer::Undecodable => (Outcome::Undecodable, &[][..]),
    };
    frame(kind::SESSION_ANSWER, &outcome, payload)
}

/// Reads an answer.
pub fn decode_session_answer(body: &Bytes) -> Result<SessionAnswer, WireError> {
    const NAME: &str = "session answer";
    let parts = Parts::of(body)?;
    match parts.kind {
        kind::SESSION_ANSWER => {}
        kind => return Err(WireError::UnknownKind { kind }),
    }
    let outcome = parts.header(NAME)?;
    let payload = body.slice(parts.payload_at..);
    if !payload.is_empty() && !matches!(outcome, Outcome::Messages) {
        return Err(malformed(NAME, format!("{} bytes too many", payload.len())));
    }
    Ok(match outcome {
        Outcome::Gone => SessionAnswer::Gone,
        Outcome::Nothing => SessionAnswer::Nothing,
        Outcome::Messages => SessionAnswer::Messages(payload),
        Outcome::Taken => SessionAnswer::Taken,
        Outcome::Undecodable => SessionAnswer::Undecodable,
    })
}

impl ClientFrame {
    /// Its bytes.
    pub const fn bytes(&self) -> &Bytes {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes,
        }
    }

    const fn is_binary(&self) -> bool {
        matches!(self, Self::Binary(_))
    }
}

//! Requests: a bidirectional stream each, with one body and one answer, framed like a lane.
//!
//! The asker ends its half once it has taken the answer, and resets it when it has not: so whoever
//! answers can keep what was not taken. An asker that goes away first stops the other half.

use std::{fmt, time::Duration};

use bytes::Bytes;
use quinn::{Connection, ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    config::REQUEST_LEN_MAX,
    error::{RequestError, SendError},
    events::Event,
    frame::{Decoder, Frame, pack},
    link::Link,
    session::Context,
};

/// How long a peer may take to send the body of a request that it has opened.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The code of a stream on which no answer will come.
const NO_ANSWER: VarInt = VarInt::from_u32(1);
/// The code of a stream whose answer was not taken, or is not wanted any more.
const NOT_TAKEN: VarInt = VarInt::from_u32(2);

/// Where the answer to one request goes. Dropping it tells the peer that there is none.
#[derive(Debug)]
pub struct Responder(oneshot::Sender<Reply>);

#[derive(Debug)]
struct Reply {
    body: Bytes,
    fate: oneshot::Sender<Fate>,
}

/// An answer on its way. Dropping it is not to care what becomes of it.
#[derive(Debug)]
pub struct Sent(oneshot::Receiver<Fate>);

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The asker has taken it.
    Taken,
    /// The asker has not, and never will.
    NotTaken,
    /// The link went down before the asker said so.
    Unknown,
}

/// The answer of a peer. Dropping it tells the peer that it was not taken.
pub struct Answer {
    body: Bytes,
    asking: Asking,
    connection: Connection,
}

/// The asker's half of a stream, which is reset unless the answer is taken.
struct Asking(Option<SendStream>);

impl Responder {
    /// Answers. Nobody may be waiting any more; that is not an error.
    ///
    /// # Errors
    /// [`SendError::TooLong`] when the answer is over [`REQUEST_LEN_MAX`]; the peer hears that there is
    /// none.
    pub fn send(self, body: Bytes) -> Result<Sent, SendError> {
        if body.len() > REQUEST_LEN_MAX {
            return Err(SendError::TooLong);
        }
        let (fate, sent) = oneshot::channel();
        if let Err(Reply { fate, .. }) = self.0.send(Reply { body, fate }) {
            // The link went down, or the time was up: nothing of it was sent.
            let _ = fate.send(Fate::NotTaken);
        }
        Ok(Sent(sent))
    }

    /// Waits until no answer is wanted any more: the asker has given up, or the link is down.
    /// Cancel-safe.
    pub async fn abandoned(&mut self) {
        self.0.closed().await;
    }
}

impl Sent {
    /// Waits until the asker has taken the answer or not.
    pub async fn fate(self) -> Fate {
        self.0.await.unwrap_or(Fate::Unknown)
    }
}

impl Answer {
    /// What the peer answered.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Whether the peer can still be told.
    pub fn is_linked(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Tells the peer that the answer is taken.
    pub fn take(mut self) -> Bytes {
        if let Some(mut send) = self.asking.0.take() {
            // Fails only on a stream that has ended already.
            let _ = send.finish();
        }
        std::mem::take(&mut self.body)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("len", &self.body.len()).finish_non_exhaustive()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(mut send) = self.0.take() {
            // Fails only on a stream that has ended already.
            let _ = send.reset(NOT_TAKEN);
        }
    }
}

/// Asks and waits for the answer, without a limit of time. Dropping the future takes the question
/// back.
pub(crate) async fn ask(connection: &Connection, body: Bytes) -> Result<Answer, RequestError> {
    let (send, mut receive) = connection.open_bi().await.map_err(|_| RequestError::Closed)?;
    let mut asking = Asking(Some(send));
    if let Some(send) = &mut asking.0 {
        write(send, body).await.map_err(|error| match error {
            WriteError::ConnectionLost(_) => RequestError::Closed,
            WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
                RequestError::Unanswered
            }
        })?;
    }
    match read(&mut receive).await {
        Ok(Some(body)) => Ok(Answer { body, asking, connection: connection.clone() }),
        Ok(None) => Err(RequestError::Unanswered),
        Err(ReadError::ConnectionLost(_)) => Err(RequestError::Closed),
        Err(
            ReadError::Reset(_)
            | ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected,
        ) => Err(RequestError::Unanswered),
    }
}

/// Serves one request of the peer: reads it, hands it to the user, writes the answer, and hears
/// whether it was taken.
pub(crate) async fn answer(
    link: Link,
    mut send: SendStream,
    mut receive: RecvStream,
    context: Context,
) {
    let Ok(Ok(Some(body))) = timeout(BODY_TIMEOUT, read(&mut receive)).await else {
        return refuse(&mut send);
    };
    link.counters().requests_received.add(1);
    let (sender, mut answer) = oneshot::channel();
    let len = body.len();
    let event = Event::Request { link, body, reply: Responder(sender) };
    if context.events.send_bytes(event, len).await.is_err() {
        return refuse(&mut send);
    }
    let stopped = send.stopped();
    let reply = tokio::select! {
        reply = timeout(context.answer_timeout, &mut answer) => reply.ok().and_then(Result::ok),
        // The asker does not want it any more.
        _ = stopped => None,
    };
    let Some(Reply { body, fate }) = reply else {
        // It may have come in this very moment.
        answer.close();
        if let Ok(Reply { fate, .. }) = answer.try_recv() {
            let _ = fate.send(Fate::NotTaken);
        }
        return refuse(&mut send);
    };
    let written = write(&mut send, body).await.is_ok() && send.finish().is_ok();
    // Whoever answered may not care.
    let _ = fate.send(if written { heard(&mut receive).await } else { Fate::NotTaken });
}

/// Nothing but the end of the asker's half says that it has the answer.
async fn heard(receive: &mut RecvStream) -> Fate {
    match receive.read_chunk(1, true).await {
        Ok(None) => Fate::Taken,
        Ok(Some(_)) | Err(ReadError::Reset(_)) => Fate::NotTaken,
        Err(
            ReadError::ConnectionLost(_)
            | ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected,
        ) => Fate::Unknown,
    }
}

fn refuse(send: &mut SendStream) {
    // Fails only on a stream that has ended already.
    let _ = send.reset(NO_ANSWER);
}

async fn write(stream: &mut SendStream, body: Bytes) -> Result<(), WriteError> {
    let mut chunks = pack([Frame { head: Bytes::new(), body }]);
    stream.write_all_chunks(&mut chunks).await
}

/// One body; `None` if it is too long or incomplete.
async fn read(stream: &mut RecvStream) -> Result<Option<Bytes>, ReadError> {
    let mut decoder = Decoder::new(REQUEST_LEN_MAX);
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
        decoder.push(chunk.bytes);
        match decoder.next() {
            Ok(None) => {}
            Ok(Some(body)) => return Ok(Some(body)),
            Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

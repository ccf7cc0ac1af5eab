//! Requests: a bidirectional stream each, with one body and one answer, framed like a lane.

use std::time::Duration;

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

/// Where the answer to one request goes. Dropping it tells the peer that there is none.
#[derive(Debug)]
pub struct Responder(oneshot::Sender<Bytes>);

impl Responder {
    /// Answers. Nobody may be waiting any more; that is not an error.
    ///
    /// # Errors
    /// [`SendError::TooLong`] when the answer is over 1 MiB; the peer hears that there is none.
    pub fn send(self, body: Bytes) -> Result<(), SendError> {
        if body.len() > REQUEST_LEN_MAX {
            return Err(SendError::TooLong);
        }
        // The other end is gone when the link went down or the time was up.
        let _ = self.0.send(body);
        Ok(())
    }
}

/// Asks and waits for the answer, without a limit of time.
pub(crate) async fn ask(connection: &Connection, body: Bytes) -> Result<Bytes, RequestError> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(|_| RequestError::Closed)?;
    write(&mut send, body).await.map_err(|error| match error {
        WriteError::ConnectionLost(_) => RequestError::Closed,
        WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            RequestError::Unanswered
        }
    })?;
    match read(&mut receive).await {
        Ok(Some(answer)) => Ok(answer),
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

/// Serves one request of the peer: reads it, hands it to the user, writes the answer.
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
    let (sender, answer) = oneshot::channel();
    let len = body.len();
    let event = Event::Request { link, body, reply: Responder(sender) };
    if context.events.send_bytes(event, len).await.is_err() {
        return refuse(&mut send);
    }
    match timeout(context.answer_timeout, answer).await {
        // An error is the asker's loss of interest, or the end of the link.
        Ok(Ok(answer)) => drop(write(&mut send, answer).await),
        Ok(Err(_)) | Err(_) => refuse(&mut send),
    }
}

fn refuse(send: &mut SendStream) {
    // Fails only on a stream that has ended already.
    let _ = send.reset(NO_ANSWER);
}

async fn write(stream: &mut SendStream, body: Bytes) -> Result<(), WriteError> {
    let mut chunks = pack([Frame { head: Bytes::new(), body }]);
    stream.write_all_chunks(&mut chunks).await?;
    stream.finish()?;
    Ok(())
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

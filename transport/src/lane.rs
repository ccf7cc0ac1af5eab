//! One lane of one link: its bounded queue, the task that writes it and the task that reads it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use tokio::{sync::Notify, task::coop};

use crate::{
    close,
    config::{Delivery, Lane, LaneConfig},
    error::DownReason,
    events::{Event, EventSender},
    frame::{Decoder, Frame, HEADER_LEN, pack},
    link::Link,
    session::Context,
    stats::{Counter, LaneStats},
};

/// A batch ends when it has this many bytes or frames.
const BATCH_BYTES: usize = 64 * 1024;
const BATCH_FRAMES: usize = 256;
/// How many packets' worth of bytes a reader takes at a time.
const READ_CHUNKS: usize = 32;

/// The frames of one lane that wait to be written.
#[derive(Debug)]
pub(crate) struct Queue {
    config: LaneConfig,
    state: Mutex<State>,
    /// Wakes the writer.
    ready: Notify,
    sent_frames: Counter,
    sent_bytes: Counter,
    received_frames: Counter,
    received_bytes: Counter,
    dropped_frames: Counter,
    cleared_frames: Counter,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frame>,
    /// The bytes of all frames that QUIC has not taken, those in the writer's hands included.
    bytes: usize,
    /// More than half of the bound was used since the last time it was not.
    crowded: bool,
    /// Takes no more.
    ended: bool,
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unqueued {
    Full,
    Ended,
}

/// Frames packed for one write.
struct Batch {
    chunks: Vec<Bytes>,
    frames: usize,
    bytes: usize,
}

impl Queue {
    pub(crate) fn new(config: LaneConfig) -> Self {
        Self {
            config,
            state: Mutex::default(),
            ready: Notify::new(),
            sent_frames: Counter::default(),
            sent_bytes: Counter::default(),
            received_frames: Counter::default(),
            received_bytes: Counter::default(),
            dropped_frames: Counter::default(),
            cleared_frames: Counter::default(),
        }
    }

    pub(crate) fn config(&self) -> &LaneConfig {
        &self.config
    }

    /// Queues a frame, or counts it as dropped if it does not fit.
    pub(crate) fn push(&self, frame: Frame) -> Result<(), Unqueued> {
        let cost = frame.len() + HEADER_LEN;
        let mut state = self.lock();
        if state.ended {
            return Err(Unqueued::Ended);
        }
        if state.bytes > 0 && state.bytes + cost > self.config.bound {
            // Who was refused wants to hear of room, however small the lane's bound is.
            state.crowded = true;
            drop(state);
            self.dropped_frames.add(1);
            return Err(Unqueued::Full);
        }
        let idle = state.frames.is_empty();
        state.bytes += cost;
        state.crowded |= state.bytes > self.config.bound / 2;
        state.frames.push_back(frame);
        drop(state);
        if idle {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// The bytes that still fit.
    pub(crate) fn room(&self) -> usize {
        self.config.bound.saturating_sub(self.lock().bytes)
    }

    /// The bytes that wait.
    pub(crate) fn queued(&self) -> usize {
        self.lock().bytes
    }

    /// Takes no more frames; the writer ends when it has written those that are here.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.ready.notify_one();
    }

    /// Takes no more frames and drops those that are here.
    pub(crate) fn clear(&self) {
        let frames = {
            let mut state = self.lock();
            state.ended = true;
            state.bytes = 0;
            std::mem::take(&mut state.frames)
        };
        self.dropped_frames.add(frames.len() as u64);
        self.cleared_frames.add(frames.len() as u64);
    }

    pub(crate) fn stats(&self) -> LaneStats {
        LaneStats {
            name: self.config.name,
            sent_frames: self.sent_frames.get(),
            sent_bytes: self.sent_bytes.get(),
            received_frames: self.received_frames.get(),
            received_bytes: self.received_bytes.get(),
            dropped_frames: self.dropped_frames.get(),
            cleared_frames: self.cleared_frames.get(),
            queued_bytes: self.queued() as u64,
        }
    }

    /// Waits for frames; `None` when the queue has ended and is empty.
    async fn next(&self) -> Option<Batch> {
        loop {
            {
                let mut state = self.lock();
                if !state.frames.is_empty() {
                    return Some(take(&mut state.frames));
                }
                if state.ended {
                    return None;
                }
            }
            self.ready.notified().await;
        }
    }

    /// QUIC took a batch. True when the lane has room again after having been crowded.
    fn written(&self, frames: usize, bytes: usize) -> bool {
        self.sent_frames.add(frames as u64);
        self.sent_bytes.add((bytes - frames * HEADER_LEN) as u64);
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        let roomy = state.crowded && state.bytes <= self.config.bound / 2;
        state.crowded &= !roomy;
        roomy
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes as many frames as fit into one write, at least one.
fn take(queue: &mut VecDeque<Frame>) -> Batch {
    let (mut frames, mut bytes) = (0, 0);
    for frame in queue.iter().take(BATCH_FRAMES) {
        if frames > 0 && bytes + frame.len() > BATCH_BYTES {
            break;
        }
        frames += 1;
        bytes += frame.len() + HEADER_LEN;
    }
    let chunks = pack(queue.drain(..frames));
    Batch { chunks, frames, bytes }
}

/// Writes a lane until its queue ends, and ends the stream. False if there was nothing to write.
pub(crate) async fn write(link: &Link, lane: Lane) -> Result<bool, DownReason> {
    let Some(queue) = link.queue(lane) else {
        return Ok(false);
    };
    let mut stream: Option<SendStream> = None;
    while let Some(mut batch) = queue.next().await {
        let stream = match &mut stream {
            Some(stream) => stream,
            None => stream.insert(open(link, lane).await?),
        };
        stream.write_all_chunks(&mut batch.chunks).await.map_err(write_failure)?;
        if queue.written(batch.frames, batch.bytes) {
            link.tell_room(lane);
        }
    }
    // Finishing fails only on a stream that has ended already.
    Ok(stream.is_some_and(|mut stream| stream.finish().is_ok()))
}

/// Opens the lane's stream. Waits until the peer allows it, which it does once its side is up.
async fn open(link: &Link, lane: Lane) -> Result<SendStream, DownReason> {
    let mut stream = link.connection().open_uni().await.map_err(|e| close::down_reason(&e))?;
    let priority = link.queue(lane).map_or(0, |queue| queue.config.priority);
    // Fails only on a stream that is finished already.
    let _ = stream.set_priority(priority);
    stream.write_all(&[lane.0]).await.map_err(write_failure)?;
    Ok(stream)
}

pub(crate) fn write_failure(error: WriteError) -> DownReason {
    match error {
        WriteError::ConnectionLost(error) => close::down_reason(&error),
        WriteError::Stopped(_) => DownReason::Protocol("it stopped reading a lane"),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            DownReason::Internal("a lane's stream was closed twice".into())
        }
    }
}

pub(crate) fn read_failure(error: ReadError) -> DownReason {
    match error {
        ReadError::ConnectionLost(error) => close::down_reason(&error),
        ReadError::Reset(_) => DownReason::Protocol("it reset a lane"),
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            DownReason::Internal("a lane's stream cannot be read".into())
        }
    }
}

/// Reads a lane of the peer until its stream ends.
pub(crate) async fn read(
    link: &Link,
    lane: Lane,
    stream: &mut RecvStream,
    context: &Context,
) -> Result<(), DownReason> {
    let Some(queue) = link.queue(lane) else {
        return Err(DownReason::Protocol("a lane that does not exist"));
    };
    if !link.claim(lane) {
        return Err(DownReason::Protocol("a lane was opened twice"));
    }
    let mut decoder = Decoder::new(context.frame_len_max);
    let mut chunks = vec![Bytes::new(); READ_CHUNKS];
    let mut frames = Vec::new();
    while let Some(n) = stream.read_chunks(&mut chunks).await.map_err(read_failure)? {
        for chunk in &mut chunks[..n] {
            decoder.push(std::mem::take(chunk));
            while let Some(frame) =
                decoder.next().map_err(|_| DownReason::Protocol("a frame is too long"))?
            {
                queue.received_frames.add(1);
                queue.received_bytes.add(frame.len() as u64);
                frames.push(frame);
            }
        }
        if link.is_closed() {
            return Ok(());
        }
        hand_on(link, lane, queue.config.delivery, &frames, context).await?;
        frames.clear();
        // A peer that always has more to say must not keep a worker thread to itself.
        coop::consume_budget().await;
    }
    Ok(())
}

async fn hand_on(
    link: &Link,
    lane: Lane,
    delivery: Delivery,
    frames: &[Bytes],
    context: &Context,
) -> Result<(), DownReason> {
    match delivery {
        Delivery::Direct => {
            if let Some(unfinished) = (context.direct)(link, lane, frames) {
                unfinished.await;
            }
        }
        Delivery::Queue => {
            for frame in frames {
                if link.is_closed() {
                    break;
                }
                enqueue(link, lane, frame.clone(), &context.events).await?;
            }
        }
    }
    Ok(())
}

async fn enqueue(
    link: &Link,
    lane: Lane,
    frame: Bytes,
    events: &EventSender,
) -> Result<(), DownReason> {
    let len = frame.len();
    let event = Event::Frame { link: link.clone(), lane, frame };
    events.send_bytes(event, len).await.map_err(|_| DownReason::Closed("nobody listens".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WhenFull;

    fn queue(bound: usize) -> Queue {
        Queue::new(LaneConfig {
            name: "test",
            bound,
            when_full: WhenFull::Drop,
            delivery: Delivery::Queue,
            priority: 0,
        })
    }

    fn frame(len: usize) -> Frame {
        Frame { head: Bytes::new(), body: Bytes::from(vec![0; len]) }
    }

    #[test]
    fn an_empty_queue_takes_a_frame_of_any_size_and_then_is_full() {
        let queue = queue(100);
        assert_eq!(queue.push(frame(1000)), Ok(()));
        assert_eq!(queue.push(frame(1)), Err(Unqueued::Full));
        assert_eq!(queue.room(), 0);
        assert_eq!(queue.stats().dropped_frames, 1);
    }

    #[tokio::test]
    async fn bytes_count_until_they_are_written_and_room_is_told_once() {
        let queue = queue(100);
        for _ in 0..4 {
            queue.push(frame(19)).expect("fits");
        }
        let batch = queue.next().await.expect("frames wait");
        assert_eq!((batch.frames, queue.room()), (4, 4));
        assert_eq!(queue.push(frame(1)), Err(Unqueued::Full));
        assert!(queue.written(batch.frames, batch.bytes), "it was crowded");
        assert_eq!(queue.room(), 100);
        queue.push(frame(1)).expect("fits");
        let batch = queue.next().await.expect("a frame waits");
        assert!(!queue.written(batch.frames, batch.bytes), "it was not crowded");
    }

    #[tokio::test]
    async fn an_ended_queue_gives_what_it_has_and_takes_no_more() {
        let queue = queue(100);
        queue.push(frame(1)).expect("fits");
        queue.end();
        assert_eq!(queue.push(frame(1)), Err(Unqueued::Ended));
        assert!(queue.next().await.is_some());
        assert!(queue.next().await.is_none());
    }

    #[test]
    fn a_cleared_queue_counts_what_it_dropped() {
        let queue = queue(100);
        queue.push(frame(1)).expect("fits");
        queue.clear();
        let stats = queue.stats();
        assert_eq!((stats.dropped_frames, stats.cleared_frames), (1, 1));
        assert_eq!(queue.push(frame(1)), Err(Unqueued::Ended));
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_and_frames() {
        let mut frames: VecDeque<Frame> = (0..1000).map(|_| frame(1)).collect();
        assert_eq!(take(&mut frames).frames, BATCH_FRAMES);
        let mut frames: VecDeque<Frame> =
            (0..10).map(|_| frame(BATCH_BYTES / 2 - HEADER_LEN)).collect();
        assert_eq!(take(&mut frames).frames, 2);
        let mut frames: VecDeque<Frame> = (0..10).map(|_| frame(BATCH_BYTES * 2)).collect();
        assert_eq!(take(&mut frames).frames, 1);
    }
}

//! The task of one channel: its callbacks, one after another, and what becomes of their failures.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{sleep, timeout},
};
use tracing::{error, warn};

use super::{
    Channel, Error, Joined, Outcome, Payload, Reason, Refused, Socket,
    error::Why,
    seat::{Seat, Verdict},
    socket::Asked,
    tap::{Heard, Tap},
};

/// Events and messages that wait for one channel. At 1 KiB each, a stuck one costs 1 MiB.
const INBOX_MAX: usize = 1_000;

/// How long a join may take. The official client gives up then too.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a handler may go on after its client is gone, and how long `terminate` may take: as long
/// as a stopping node waits.
const ENDING_TIMEOUT: Duration = Duration::from_secs(5);

/// What waits for a channel's callbacks.
pub(super) enum Message<I> {
    Asked(Asked),
    Info(I),
}

/// A channel's inbox, whatever its type.
pub(crate) trait Inbox: Send + Sync {
    /// Takes a client's event; false when too many wait.
    fn offer(&self, asked: Asked) -> bool;
}

impl<I: Send> Inbox for mpsc::Sender<Message<I>> {
    fn offer(&self, asked: Asked) -> bool {
        match self.try_send(Message::Asked(asked)) {
            // One that has ended by itself answers nothing any more, and its end is on its way.
            Ok(()) | Err(TrySendError::Closed(_)) => true,
            Err(TrySendError::Full(_)) => false,
        }
    }
}

/// Begins a channel: its join runs in a task of its own.
pub(super) fn spawn<C: Channel>(
    seat: Arc<Seat>,
    assigns: Arc<C::Assigns>,
    payload: Payload,
    tap: Option<Tap>,
) -> Box<dyn Inbox> {
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let tasks = seat.node.shared().tasks.clone();
    let socket = Socket { seat: Arc::clone(&seat), assigns, inbox: sender.clone(), asked: None };
    tasks.spawn(Task::<C> { seat, socket, inbox, tap }.run(payload));
    Box::new(sender)
}

struct Task<C: Channel> {
    seat: Arc<Seat>,
    socket: Socket<C>,
    inbox: mpsc::Receiver<Message<C::Info>>,
    tap: Option<Tap>,
}

/// Sees to it that no task goes without a word.
struct Last(Arc<Seat>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.abandoned();
    }
}

/// What the task does next.
enum Next<I> {
    Do(Message<I>),
    Out(Heard),
    /// Intercepted broadcasts came faster than they were handled.
    Lost,
    /// Nobody asks any more.
    End(Reason),
}

/// A callback did not return.
enum Failed {
    Error(Error),
    Panic(Box<dyn Any + Send>),
}

impl<C: Channel> Task<C> {
    async fn run(mut self, payload: Payload) {
        let seat = Arc::clone(&self.seat);
        let _last = Last(Arc::clone(&seat));
        let joined = tokio::select! {
            biased;
            _ = seat.ended() => return,
            joined = self.join(payload) => joined,
        };
        let mut channel = match joined {
            Ok(Joined { channel, reply, presence }) => {
                seat.give(Verdict::Joined { reply, presence });
                channel
            }
            Err(verdict) => return seat.give(verdict),
        };
        let reason = match seat.entered().await {
            Err(reason) => reason,
            Ok(()) => tokio::select! {
                biased;
                reason = self.serve(&mut channel) => reason,
                reason = expired(&seat) => reason,
            },
        };
        seat.farewell();
        self.inbox.close();
        self.terminate(channel, reason).await;
    }

    async fn join(&mut self, payload: Payload) -> Result<Joined<C>, Verdict> {
        let topic = self.seat.topic().clone();
        let seat = Arc::clone(&self.seat);
        let joining =
            timeout(JOIN_TIMEOUT, async { C::join(&topic, payload, &mut self.socket).await });
        let failed = match watch(&seat, "phx_join", joining).await {
            Ok(Ok(decided)) => match answerable(decided) {
                Ok(joined) => return Ok(joined),
                Err(Refused(Why::Decided(response))) => return Err(Verdict::Refused(response)),
                Err(Refused(Why::Failed(error))) => Failed::Error(error),
            },
            Ok(Err(_)) => Failed::Error(Error::new(format!("no answer within {JOIN_TIMEOUT:?}"))),
            Err(panic) => Failed::Panic(panic),
        };
        crashed(&seat, "phx_join", failed);
        Err(Verdict::Crashed)
    }

    /// Runs the callbacks until the channel ends: why.
    async fn serve(&mut self, channel: &mut C) -> Reason {
        loop {
            let (event, done) = match self.next().await {
                Next::End(Reason::Left) => return self.drain(channel).await,
                Next::End(reason) => return reason,
                Next::Lost => {
                    let why = Error::new("limits.mailbox_bytes of broadcasts wait for it");
                    ("handle_out".into(), Err(Failed::Error(why)))
                }
                Next::Out(heard) => {
                    let done = self.handle_out(channel, &heard).await;
                    (heard.event, done.map(|()| Outcome::NoReply))
                }
                Next::Do(message) => self.handle(channel, message).await,
            };
            if let Some(reason) = self.conclude(&event, done) {
                return reason;
            }
        }
    }

    async fn next(&mut self) -> Next<C::Info> {
        let tap = async {
            match &mut self.tap {
                Some(tap) => tap.next().await,
                None => std::future::pending().await,
            }
        };
        let inbox = self.inbox.recv();
        let work = async {
            tokio::select! {
                heard = tap => heard.map_or(Next::Lost, Next::Out),
                // The socket keeps a sender.
                message = inbox => message.map_or(Next::End(Reason::Closed), Next::Do),
            }
        };
        tokio::select! {
            biased;
            reason = self.seat.ended() => Next::End(reason),
            next = work => next,
        }
    }

    /// Does what the client asked before it left.
    async fn drain(&mut self, channel: &mut C) -> Reason {
        self.inbox.close();
        while let Some(message) = self.inbox.recv().await {
            let (event, done) = self.handle(channel, message).await;
            if let Some(reason @ Reason::Crashed) = self.conclude(&event, done) {
                return reason;
            }
        }
        Reason::Left
    }

    /// The event's name, and what became of it.
    async fn handle(
        &mut self,
        channel: &mut C,
        message: Message<C::Info>,
    ) -> (Box<str>, Result<Outcome, Failed>) {
        let seat = Arc::clone(&self.seat);
        let socket = &mut self.socket;
        let (event, done) = match message {
            Message::Asked(Asked { event, payload, reference }) => {
                socket.asked = Some(reference);
                let handling = async { channel.handle_in(&event, payload, socket).await };
                let done = watch(&seat, &event, handling).await;
                (event, done)
            }
            Message::Info(info) => {
                socket.asked = None;
                let handling = async { channel.handle_info(info, socket).await };
                ("handle_info".into(), watch(&seat, "handle_info", handling).await)
            }
        };
        (event, flatten(done))
    }

    async fn handle_out(&mut self, channel: &mut C, heard: &Heard) -> Result<(), Failed> {
        let seat = Arc::clone(&self.seat);
        let socket = &mut self.socket;
        socket.asked = None;
        let payload = heard.payload.clone();
        let handling = async { channel.handle_out(&heard.event, payload, socket).await };
        flatten(watch(&seat, &heard.event, handling).await)
    }

    /// Answers the client; why the channel ends, if it does.
    fn conclude(&mut self, event: &str, done: Result<Outcome, Failed>) -> Option<Reason> {
        let (reply, stop) = match done {
            Ok(Outcome::NoReply) => (None, false),
            Ok(Outcome::Reply(reply)) => (Some(reply), false),
            Ok(Outcome::Stop(reply)) => (reply, true),
            Err(failed) => {
                crashed(&self.seat, event, failed);
                self.seat.give(Verdict::Crashed);
                return Some(Reason::Crashed);
            }
        };
        if let (Some(reply), Some(reference)) = (reply, self.socket.asked.take()) {
            // One that is over has nobody to answer.
            let _ = self.seat.reply(&reference, &reply);
        }
        stop.then(|| {
            self.seat.give(Verdict::Stopped);
            Reason::Stopped
        })
    }

    async fn terminate(mut self, channel: C, reason: Reason) {
        let socket = &mut self.socket;
        let ending = timeout(ENDING_TIMEOUT, async { channel.terminate(&reason, socket).await });
        match watch(&self.seat, "terminate", ending).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                let (node, topic) = (&self.seat.node.shared().name, self.seat.topic());
                warn!(%node, %topic, "terminate did not end within {ENDING_TIMEOUT:?}");
            }
            Err(panic) => crashed(&self.seat, "terminate", Failed::Panic(panic)),
        }
    }
}

/// What a join decided, if its client can be told.
fn answerable<C>(decided: Result<Joined<C>, Refused>) -> Result<Joined<C>, Refused> {
    let binary = match &decided {
        Ok(joined) => joined.reply.is_binary(),
        Err(Refused(Why::Decided(response))) => response.is_binary(),
        Err(Refused(Why::Failed(_))) => false,
    };
    if binary {
        Err(Error::new("a join is answered with JSON, not with bytes").into())
    } else {
        decided
    }
}

/// Waits until the channel's client has been gone for so long that nothing is waited for any more.
async fn expired(seat: &Seat) -> Reason {
    let reason = seat.ended().await;
    sleep(ENDING_TIMEOUT).await;
    let (node, topic) = (&seat.node.shared().name, seat.topic());
    warn!(%node, %topic, "a handler is given up: it still runs {ENDING_TIMEOUT:?} after the channel's end");
    reason
}

/// Runs a callback: catches its panic, and names it if it takes too long.
async fn watch<T>(
    seat: &Seat,
    event: &str,
    callback: impl Future<Output = T>,
) -> Result<T, Box<dyn Any + Send>> {
    let limit = seat.node.slow_after();
    let begun = Instant::now();
    let mut callback = std::pin::pin!(AssertUnwindSafe(callback).catch_unwind());
    tokio::select! {
        biased;
        done = &mut callback => {
            // One that never awaits is seen only now.
            if begun.elapsed() >= limit {
                slow(seat, event, begun.elapsed());
            }
            return done;
        }
        () = sleep(limit) => slow(seat, event, limit),
    }
    callback.await
}

fn slow(seat: &Seat, event: &str, took: Duration) {
    let (shared, topic) = (seat.node.shared(), seat.topic());
    warn!(node = %shared.name, %topic, event, "slow handler: {took:?} and more");
    shared.stats.slow_handlers.fetch_add(1, Ordering::Relaxed);
}

fn crashed(seat: &Seat, event: &str, failed: Failed) {
    let (shared, topic) = (seat.node.shared(), seat.topic());
    shared.stats.channel_crashes.fetch_add(1, Ordering::Relaxed);
    let (how, why) = match failed {
        Failed::Error(error) => ("crashed", one_line(&error.to_string())),
        Failed::Panic(panic) => ("panicked", panic_message(&*panic)),
    };
    error!(node = %shared.name, %topic, event, "channel {how}: {why}");
}

fn flatten<T>(done: Result<Result<T, Error>, Box<dyn Any + Send>>) -> Result<T, Failed> {
    match done {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(error)) => Err(Failed::Error(error)),
        Err(panic) => Err(Failed::Panic(panic)),
    }
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    one_line(text.unwrap_or("no message"))
}

/// The log has a line for each.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

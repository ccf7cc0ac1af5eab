//! The task of one channel: its callbacks, one after another, and what becomes of their failures.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

use super::{
    Channel, Error, Joined, Outcome, Payload, Reason, Refused, Socket,
    error::Why,
    inbox::{Inbox, Message, Receiver, inbox},
    seat::{Seat, Verdict},
    socket::Asked,
    tap::{Heard, Tap},
};

/// How long a join may take. The official client gives up then too.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a handler may go on after its client is gone, how long `terminate` may take, and how long the
/// next channel of the client and topic waits for that: as long as a stopping node waits.
const ENDING_TIMEOUT: Duration = Duration::from_secs(5);

/// Begins a channel: its join runs in a task of its own, once the former channel has ended.
pub(super) fn spawn<C: Channel>(
    seat: Arc<Seat>,
    assigns: Arc<C::Assigns>,
    (payload, tap): (Payload, Option<Tap>),
    former: Option<Arc<Seat>>,
) -> Box<dyn Inbox> {
    let (sender, inbox) = inbox(seat.mailbox());
    if let Some(watchdog) = seat.node.watchdog() {
        watchdog.add(&seat);
    }
    let tasks = seat.node.shared().tasks.clone();
    let socket = Socket { seat: Arc::clone(&seat), assigns, inbox: sender.clone(), asked: None };
    tasks.spawn(Task::<C> { seat, socket, inbox, tap }.run(payload, former));
    Box::new(sender)
}

struct Task<C: Channel> {
    seat: Arc<Seat>,
    socket: Socket<C>,
    inbox: Receiver<C::Info>,
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
    async fn run(mut self, payload: Payload, former: Option<Arc<Seat>>) {
        let seat = Arc::clone(&self.seat);
        let _last = Last(Arc::clone(&seat));
        if let Some(former) = former {
            // Also when this one has ended meanwhile: the next one waits for it in turn. What is stuck
            // does not keep its client out for ever.
            let _ = timeout(ENDING_TIMEOUT, former.gone()).await;
        }
        let joined = tokio::select! {
            biased;
            _ = seat.ended() => return,
            joined = self.join(payload) => joined,
        };
        let mut channel = match joined {
            Ok(Joined { channel, reply, presence, linger }) => {
                seat.give(Verdict::Joined { reply, presence, linger });
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
                Next::End(Reason::Replaced) => return Reason::Replaced,
                Next::End(reason) => return self.drain(channel, reason).await,
                Next::Lost => {
                    let why = Error::new("limits.mailbox_bytes of broadcasts wait for it");
                    ("handle_out".into(), Err(Failed::Error(why)))
                }
                Next::Out(heard) => {
                    let done = self.handle_out(channel, &heard).await;
                    (heard.event, done)
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

    /// Does what the client asked before it was gone.
    async fn drain(&mut self, channel: &mut C, reason: Reason) -> Reason {
        // Not those that come meanwhile: tasks may go on sending.
        for _ in 0..self.inbox.len() {
            let Some(message) = self.inbox.recv().await else { break };
            let (event, done) = self.handle(channel, message).await;
            if let Some(sooner) = self.conclude(&event, done) {
                return sooner;
            }
        }
        reason
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

    async fn handle_out(&mut self, channel: &mut C, heard: &Heard) -> Result<Outcome, Failed> {
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
            Err(failed) => return Some(self.fail(event, failed)),
        };
        if let (Some(reply), Some(reference)) = (reply, self.socket.asked.take()) {
            self.seat.reply(&reference, &reply);
        }
        stop.then(|| {
            self.seat.give(Verdict::Stopped);
            Reason::Stopped
        })
    }

    /// A callback has failed. An error may come of the client's end, when there is nobody to tell; a panic
    /// is never right.
    fn fail(&self, event: &str, failed: Failed) -> Reason {
        if let (Failed::Error(error), Some(reason)) = (&failed, self.seat.over()) {
            let (node, topic) = (&self.seat.node.shared().name, self.seat.topic());
            debug!(%node, %topic, event, "failed after the channel's end: {error}");
            return reason;
        }
        crashed(&self.seat, event, failed);
        self.seat.give(Verdict::Crashed);
        Reason::Crashed
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

/// Runs a callback: catches its panic, and has it named if it takes too long.
async fn watch<T>(
    seat: &Seat,
    event: &str,
    callback: impl Future<Output = T>,
) -> Result<T, Box<dyn Any + Send>> {
    /// Also when the callback is given up.
    struct Ran<'a>(&'a Seat);
    impl Drop for Ran<'_> {
        fn drop(&mut self) {
            self.0.running.end(self.0);
        }
    }
    seat.running.begin(event);
    let _ran = Ran(seat);
    AssertUnwindSafe(callback).catch_unwind().await
}

fn crashed(seat: &Seat, event: &str, failed: Failed) {
    let (shared, topic) = (seat.node.shared(), seat.topic());
    shared.stats.channel_crashes.fetch_add(1, Ordering::Relaxed);
    let (how, why) = match failed {
        Failed::Error(error) => ("crashed", one_line(&error.to_string())),
        Failed::Panic(panic) => ("panicked", panic_message(&*panic)),
    };
    let (channel, socket) = (seat.name, seat.socket_id.as_deref());
    error!(node = %shared.name, %topic, event, channel, socket, "channel {how}: {why}");
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

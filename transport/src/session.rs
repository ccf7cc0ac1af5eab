//! The life of one link: waits for the link it replaces, is up, owns every task of it, goes down.

use std::{sync::Arc, time::Duration};

use quinn::{Connection, ReadExactError, RecvStream, VarInt};
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::timeout,
};

use crate::{
    close,
    config::{Lane, REQUESTS_FIRST, REQUESTS_MAX},
    error::DownReason,
    events::{Event, EventSender},
    goodbye::{self, Goodbye, Lanes},
    handlers::Direct,
    lane,
    link::Link,
    registry::Registry,
    request, tls,
};

/// How long the answers of a link that is down may take to learn what became of them: longer than
/// any does unless the user has stopped reading its events.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the tasks of a link work with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) events: EventSender,
    pub(crate) direct: Direct,
    pub(crate) frame_len_max: usize,
    pub(crate) answer_timeout: Duration,
}

/// A link that both sides agreed on, before it is run. Dropping it at any time ends the link.
pub(crate) struct Session {
    link: Link,
    /// Ends when the link that this one replaces is down and told.
    previous: Option<watch::Receiver<()>>,
    /// Ends with this session: who replaces it waits for that.
    _alive: watch::Sender<()>,
    registry: Arc<Registry>,
}

/// How a task of a link ended well.
enum Done {
    /// A lane will be written no more; whether it ever was.
    Written(Lane, bool),
    /// A lane of the peer was read to its end.
    Read(Lane),
    /// The peer said goodbye.
    Leaving(Goodbye),
    Other,
}

/// The peer's requests that are open, and how many may be.
struct Requests {
    open: JoinSet<()>,
    allowed: u32,
}

/// What is known of the lanes' ends.
#[derive(Default)]
struct Ends {
    writers: u32,
    written: Lanes,
    read: Lanes,
    goodbye: Option<Goodbye>,
}

impl Session {
    pub(crate) fn new(
        link: Link,
        previous: Option<watch::Receiver<()>>,
        alive: watch::Sender<()>,
        registry: Arc<Registry>,
    ) -> Self {
        Self { link, previous, _alive: alive, registry }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Runs the link to its end.
    pub(crate) async fn run(mut self, context: Context) {
        if let Some(mut previous) = self.previous.take() {
            // Nothing is ever sent: this returns when the sender is dropped.
            let _ = previous.changed().await;
        }
        if self.link.is_closed() {
            return;
        }
        self.registry.came_up(&self.link);
        if context.events.send(Event::Up(self.link.clone())).await.is_err() {
            return;
        }
        let reason = self.serve(&context).await;
        self.registry.remove(&self.link);
        let down = Event::Down { link: self.link.clone(), reason };
        // Unheard only if the user has dropped the receiving end.
        let _ = context.events.send(down).await;
    }

    /// Serves the link until it is closed; no task of it is left when this returns.
    async fn serve(&self, context: &Context) -> DownReason {
        let link = &self.link;
        let connection = link.connection();
        let mut tasks = JoinSet::new();
        let mut ends = Ends::default();
        let mut requests = Requests { open: JoinSet::new(), allowed: REQUESTS_FIRST };
        for lane in link.lanes() {
            let link = link.clone();
            tasks.spawn(async move { Ok(Done::Written(lane, lane::write(&link, lane).await?)) });
            ends.writers += 1;
        }
        tasks.spawn(datagrams(link.clone(), context.clone()));
        // The hello is over: the peer may use its lanes, and one stream to say goodbye.
        connection.set_receive_window(VarInt::from_u32(tls::LINK_WINDOW));
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(ends.writers + 1));
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(requests.allowed));

        while !link.is_closed() {
            tokio::select! {
                stream = connection.accept_uni() => match stream {
                    Ok(stream) => {
                        tasks.spawn(receive(link.clone(), stream, context.clone()));
                    }
                    Err(error) => link.end(close::down_reason(&error)),
                },
                stream = connection.accept_bi() => match stream {
                    Ok((send, receive)) => {
                        requests.open.spawn(request::answer(
                            link.clone(), send, receive, context.clone(),
                        ));
                        requests.opened(connection);
                    }
                    Err(error) => link.end(close::down_reason(&error)),
                },
                Some(done) = tasks.join_next() => match done {
                    Ok(Ok(done)) => self.note(done, &mut ends, &mut tasks),
                    Ok(Err(reason)) => link.end(reason),
                    Err(error) => link.end(task_failure(error)),
                },
                Some(answered) = requests.open.join_next() => if let Err(error) = answered {
                    link.end(task_failure(error));
                },
            }
            // Who leaves has said of each answer whether it took it, and that may come after the goodbye.
            if requests.open.is_empty()
                && let Some(reason) = ends.reason()
            {
                link.end(reason);
            }
        }
        tasks.shutdown().await;
        requests.settle().await;
        link.clear();
        link.down().cloned().unwrap_or(DownReason::Internal("no reason".into()))
    }

    /// Notes how a task ended; says goodbye after the last writer, leaves after the last reader.
    fn note(&self, done: Done, ends: &mut Ends, tasks: &mut JoinSet<Result<Done, DownReason>>) {
        match done {
            Done::Other => {}
            Done::Read(lane) => drop(ends.read.insert(lane)),
            Done::Leaving(goodbye) => ends.goodbye = Some(goodbye),
            Done::Written(lane, used) => {
                ends.writers = ends.writers.saturating_sub(1);
                if used {
                    ends.written.insert(lane);
                }
                if ends.writers == 0 {
                    let (link, lanes) = (self.link.clone(), ends.written);
                    let reason = self.link.draining().unwrap_or_default().to_owned();
                    tasks.spawn(async move {
                        goodbye::say(&link, lanes, &reason).await.map(|()| Done::Other)
                    });
                }
            }
        }
    }
}

impl Ends {
    /// Why the link ends, once the peer has said goodbye and all its lanes have been read.
    fn reason(&self) -> Option<DownReason> {
        self.goodbye.as_ref().and_then(|goodbye| goodbye.fulfilled(self.read))
    }
}

impl Requests {
    /// One more is open. The peer gets room for twice as many before it has to wait.
    fn opened(&mut self, connection: &Connection) {
        let half = usize::try_from(self.allowed / 2).unwrap_or(usize::MAX);
        if self.open.len() > half && self.allowed < REQUESTS_MAX {
            self.allowed = (self.allowed * 2).min(REQUESTS_MAX);
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(self.allowed));
        }
    }

    /// Lets each answer learn what became of it, now that the connection is closed. One that was cut
    /// short could not tell, though its asker may have said so before.
    async fn settle(mut self) {
        // Not in time: the rest is cut short.
        let _ =
            timeout(SETTLE_TIMEOUT, async { while self.open.join_next().await.is_some() {} }).await;
        self.open.shutdown().await;
    }
}

/// Reads one stream of the peer: a lane, or its goodbye.
async fn receive(link: Link, mut stream: RecvStream, context: Context) -> Result<Done, DownReason> {
    let mut first = [0];
    stream.read_exact(&mut first).await.map_err(|error| match error {
        ReadExactError::FinishedEarly(_) => DownReason::Protocol("a stream without a lane"),
        ReadExactError::ReadError(error) => lane::read_failure(error),
    })?;
    if first[0] == goodbye::GOODBYE {
        return goodbye::hear(&mut stream).await.map(Done::Leaving);
    }
    let lane = Lane(first[0]);
    lane::read(&link, lane, &mut stream, &context).await.map(|()| Done::Read(lane))
}

impl Drop for Session {
    fn drop(&mut self) {
        self.link.end(DownReason::Closed("the transport is closed".into()));
        self.registry.remove(&self.link);
    }
}

fn task_failure(error: JoinError) -> DownReason {
    let text = match error.try_into_panic() {
        Ok(panic) => match panic.downcast::<String>() {
            Ok(text) => format!("a task panicked: {text}"),
            Err(panic) => match panic.downcast::<&'static str>() {
                Ok(text) => format!("a task panicked: {text}"),
                Err(_) => "a task panicked".into(),
            },
        },
        Err(error) => error.to_string(),
    };
    DownReason::Internal(text)
}

/// Hands the peer's datagrams to the user. While the user is slow, QUIC drops the oldest.
async fn datagrams(link: Link, context: Context) -> Result<Done, DownReason> {
    loop {
        let data = link.connection().read_datagram().await.map_err(|e| close::down_reason(&e))?;
        link.counters().datagrams_received.add(1);
        let len = data.len();
        let event = Event::Datagram { link: link.clone(), data };
        if context.events.send_bytes(event, len).await.is_err() {
            return Err(DownReason::Closed("nobody listens".into()));
        }
    }
}

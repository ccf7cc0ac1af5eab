//! Clients that join, and observers on another node that see them come.

mod report;
mod roster;

#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};

use super::{
    super::Failure,
    NodeArgs,
    client::{Endpoint, Joined},
    process,
    progress::Progress,
    report::Meter,
    server::Servers,
    swarm::{Swarm, not_opened, run_name},
};
pub(super) use report::PresenceReport;
use roster::{Reader, Viewer};

const EXAMPLES: &str = "\
Examples:
  wingbeat bench presence --url http://127.0.0.1:4000 --url http://127.0.0.1:4001
  wingbeat bench presence --clients 5000 --topics 1 --concurrency 500
  wingbeat bench presence --spread --url http://a:4000 --url http://b:4000 --url http://c:4000
                                                 joins on all three at once";

const DETAILS: &str = "\
Each topic has one observer, which is joined first. A key is visible when its topic's observer has
read it in a presence_state or presence_diff. Every socket, observer or client, keeps its list from
those; the run ends when all lists are whole, and so those of one topic are equal. With thousands in
one topic that takes the bench CPU time of its own. Topics must track on join, as they do without a
configuration. With one --url the observers are on the clients' own node. The server's CPU time is
that of the nodes named by --url and --observers-url: name all of a cluster.

JSON fields:
  scenario, client_urls, observer_urls, clients, topics
  seconds                  from the first connection to the last reply to a join
  joins_per_second
  join_reply_us            join sent to reply: count, mean, p50, p90, p99, p99_9, max
  join_to_visible_us       join sent to visible at the observer, likewise
  reply_to_visible_us      reply read to visible, likewise; 0 if it was visible first
  converged_seconds        from the last reply to a join until all lists were whole; null if they
                           never were
  missing                  clients that the observer never saw
  incomplete_lists         sockets whose list lacked a client at the end
  disconnected             sockets that ended
  server                   processes, cpu_seconds, cpu_cores, resident_bytes,
                           cpu_seconds_per_million (joins); or null
  bench                    cpu_seconds, cpu_cores of this process; or null

Exit code 1 if a client was not seen or a list not whole within --patience, or a socket ended.";

/// Clients join: joins a second, and how soon another node shows them
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{DETAILS}"))]
pub(super) struct PresenceArgs {
    /// How many join
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    clients: u64,
    /// Topics that they join, in turns; each client joins one
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    topics: u64,
    /// Where observers connect to, in turns [default: each --url but the first, or the only one]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    observers_url: Vec<String>,
    /// Topics take turns over all --url: a topic's clients join on one, its observer on the next
    #[arg(long, conflicts_with = "observers_url")]
    spread: bool,
    /// How long after the last join its key may take to show, and all lists to be whole
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    patience: Duration,
    #[command(flatten)]
    pub(super) nodes: NodeArgs,
}

/// What all sockets share.
#[derive(Debug)]
struct Board {
    clients: RefCell<Vec<Client>>,
    visible: Cell<u64>,
    /// Sockets whose list lacks a client, and since when there are none.
    incomplete: Cell<u64>,
    converged: Cell<Option<Instant>>,
    /// The last client has become visible, or the last list whole.
    complete: Notify,
    swarm: Swarm,
}

/// When things happened to one client.
#[derive(Clone, Copy, Debug, Default)]
struct Client {
    joined: Option<Joined>,
    visible: Option<Instant>,
}

impl Board {
    fn new(clients: u64, topics: u64) -> Self {
        // Observers of topics that nobody joins lack nobody.
        let incomplete = clients + topics.min(clients);
        let clients = usize::try_from(clients).unwrap_or(0);
        Self {
            clients: RefCell::new(vec![Client::default(); clients]),
            visible: Cell::new(0),
            incomplete: Cell::new(incomplete),
            converged: Cell::new(None),
            complete: Notify::new(),
            swarm: Swarm::default(),
        }
    }

    fn join(&self, client: u64, joined: Joined) {
        self.with(client, |client| client.joined = Some(joined));
    }

    /// An observer has read a client's key.
    fn see(&self, client: u64, now: Instant) {
        let first = self.with(client, |client| {
            let first = client.visible.is_none();
            client.visible.get_or_insert(now);
            first
        });
        if first == Some(true) {
            self.visible.set(self.visible.get() + 1);
            self.tell();
        }
    }

    /// A socket's list has become whole, or is no more.
    fn note_roster(&self, whole: bool, now: Instant) {
        let before = self.incomplete.get();
        let incomplete = if whole { before.saturating_sub(1) } else { before + 1 };
        self.incomplete.set(incomplete);
        self.converged.set((incomplete == 0).then_some(now));
        self.tell();
    }

    fn clients(&self) -> u64 {
        self.clients.borrow().len() as u64
    }

    fn is_complete(&self) -> bool {
        self.visible.get() == self.clients() && self.incomplete.get() == 0
    }

    fn tell(&self) {
        if self.is_complete() {
            self.complete.notify_one();
        }
    }

    async fn completed(&self) {
        while !self.is_complete() {
            self.complete.notified().await;
        }
    }

    fn with<T>(&self, client: u64, change: impl FnOnce(&mut Client) -> T) -> Option<T> {
        let mut clients = self.clients.borrow_mut();
        let index = usize::try_from(client).ok()?;
        clients.get_mut(index).map(change)
    }
}

/// The names of a run.
#[derive(Debug)]
struct Names {
    run: String,
}

impl Names {
    fn topic(&self, topic: u64) -> String {
        format!("bench:presence:{}:{topic}", self.run)
    }

    fn key_prefix(&self) -> String {
        format!("bench-{}-", self.run)
    }

    fn observer(&self, topic: u64) -> String {
        format!("observer-{}-{topic}", self.run)
    }
}

/// Where clients and observers go.
#[derive(Debug)]
struct Places {
    clients: Vec<Endpoint>,
    observers: Vec<Endpoint>,
}

impl Places {
    fn pick(nodes: &[Endpoint], topic: u64) -> &Endpoint {
        let turn = topic % (nodes.len() as u64);
        &nodes[usize::try_from(turn).unwrap_or(0)]
    }
}

impl PresenceArgs {
    pub(super) async fn run(&self, progress: Progress) -> Result<PresenceReport, Failure> {
        let servers = Servers::new(&self.nodes.all(&self.observers_url), self.nodes.token())?;
        process::require_sockets(self.clients + self.topics)?;
        let (client_urls, observer_urls) = self.urls();
        let places = Places {
            clients: Endpoint::resolve_all(&client_urls).await?,
            observers: Endpoint::resolve_all(&observer_urls).await?,
        };
        servers.usage().await?;

        let names = Names { run: run_name() };
        let board = Rc::new(Board::new(self.clients, self.topics));
        let reader = Rc::new(RefCell::new(Reader::new(&names.key_prefix())));
        self.observe(&names, &places, (&board, &reader), progress).await?;
        let meter = Meter::start(&servers).await?;
        let started = Instant::now();
        let seen = || board.visible.get();
        let joined = async {
            self.join(&names, &places, (&board, &reader)).await?;
            // What is missing then is reported.
            drop(timeout(self.patience, board.completed()).await);
            Ok::<_, Failure>(())
        };
        progress.during("joining", self.clients, seen, joined).await?;
        let usage = meter.stop(&servers, self.clients).await?;
        Ok(PresenceReport::new(self, started, &board, usage))
    }

    /// Where clients and observers connect to; lists of equal turns.
    fn urls(&self) -> (Vec<String>, Vec<String>) {
        if self.spread {
            let clients = self.nodes.url.clone();
            let mut observers = clients.clone();
            observers.rotate_left(1);
            (clients, observers)
        } else {
            (vec![self.nodes.first().to_owned()], self.nodes.others(&self.observers_url))
        }
    }

    async fn observe(
        &self,
        names: &Names,
        places: &Places,
        (board, reader): (&Rc<Board>, &Rc<RefCell<Reader>>),
        progress: Progress,
    ) -> Result<(), Failure> {
        let observers = Swarm::default();
        let opening = observers.open(self.topics, self.nodes.concurrency, |topic| {
            let viewer = Viewer::new(board, reader, (topic, self.topics), true);
            async move {
                let node = Places::pick(&places.observers, topic);
                let user = names.observer(topic);
                enter(node, &user, &names.topic(topic), viewer).await.map(drop)
            }
        });
        progress.during("observers", self.topics, || observers.opened(), opening).await
    }

    async fn join(
        &self,
        names: &Names,
        places: &Places,
        (board, reader): (&Rc<Board>, &Rc<RefCell<Reader>>),
    ) -> Result<(), Failure> {
        let prefix = &names.key_prefix();
        let joining = board.swarm.open(self.clients, self.nodes.concurrency, |client| {
            let topic = client % self.topics;
            let viewer = Viewer::new(board, reader, (topic, self.topics), false);
            async move {
                let node = Places::pick(&places.clients, topic);
                let user = format!("{prefix}{client}");
                let joined = enter(node, &user, &names.topic(topic), viewer).await?;
                board.join(client, joined);
                Ok(())
            }
        });
        joining.await
    }
}

/// Opens a socket and joins a topic; the viewer reads from then on.
async fn enter(
    node: &Endpoint,
    user: &str,
    topic: &str,
    mut viewer: Viewer,
) -> Result<Joined, Failure> {
    let failed = |error| not_opened(node, &error);
    let mut connection = node.open(Some(user)).await.map_err(failed)?;
    let joined = connection.join(topic, |frame, now| viewer.read(frame, now)).await;
    let joined = joined.map_err(failed)?;
    // Ends with the runtime.
    drop(tokio::task::spawn_local(viewer.watch(connection)));
    Ok(joined)
}

//! `wingbeat serve` and `wingbeat dev`: nodes that run until somebody stops them.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    process::ExitCode,
};

use base64::Engine as _;
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    app::App,
    cli::{self, DevArgs, Failure, Runners, ServeArgs, say},
    config::{Config, Seed},
    node::{Node, NodeEnd, Role, StartError},
    telemetry::logs,
};

/// What the command line calls to run nodes.
pub fn runners() -> Runners {
    Runners { dev, serve }
}

fn serve(args: &ServeArgs) -> Result<(), Failure> {
    serve_with(args.load()?, Node::start)
}

/// The main function of a program that runs an application. It takes the flags of `wingbeat serve`, its
/// variables and its file, and ends at SIGTERM or SIGINT.
///
/// ```no_run
/// # use wingbeat::{Accepted, App};
/// fn main() -> std::process::ExitCode {
///     wingbeat::run_app(App::new(|_| async { Ok(Accepted::new(())) }).with_relay())
/// }
/// ```
pub fn run_app<A: Send + Sync + 'static>(app: App<A>) -> ExitCode {
    cli::run_program(|args| {
        let mut config = args.load()?;
        config.leave_clients_to_application();
        serve_with(config, |config| Node::start_app(config, app))
    })
}

/// Runs the node that `start` makes of the configuration.
fn serve_with<S>(config: Config, start: impl FnOnce(Config) -> S) -> Result<(), Failure>
where
    S: Future<Output = Result<Node, StartError>>,
{
    config.check()?;
    logs::start(config.log);
    runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let node = start(config).await.map_err(failure)?;
        say(&listening(&node));
        run(vec![node], &mut signals).await
    })
}

fn dev(args: &DevArgs) -> Result<(), Failure> {
    let mut config = Config::load(args.config.as_deref(), env::vars_os(), &[])?;
    if args.port != 0 && args.port.checked_add(u16::from(args.nodes) - 1).is_none() {
        return Err(Failure::Usage(format!(
            "--port {} leaves no room for {} nodes below 65536",
            args.port, args.nodes
        )));
    }
    let secret: [u8; 32] = rand::random();
    let secret = base64::engine::general_purpose::STANDARD_NO_PAD.encode(secret);
    config.set_cluster_secret(&secret);
    config.auth.anonymous.get_or_insert(true);
    config.cluster.advertise = None;
    logs::start(config.log);
    runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let mut nodes = Vec::new();
        for number in 0..u16::from(args.nodes) {
            match start_one(&config, number, args.port, &nodes).await {
                Ok(node) => nodes.push(node),
                Err(error) => {
                    stop(nodes).await;
                    return Err(error);
                }
            }
        }
        say(&welcome(&nodes));
        run(nodes, &mut signals).await
    })
}

/// Starts a node of `dev` that looks for those before it.
async fn start_one(
    config: &Config,
    number: u16,
    port: u16,
    before: &[Node],
) -> Result<Node, Failure> {
    let mut config = config.clone();
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let name = format!("n{}", number + 1);
    config.node.name = name.parse().ok();
    config.http.listen = loopback(if port == 0 { 0 } else { port.saturating_add(number) });
    config.tcp.listen = Some(loopback(0));
    config.cluster.listen = Some(loopback(0));
    let seeds = before.iter().filter_map(Node::cluster_address);
    config.cluster.join = seeds.map(Seed::Address).collect();
    let role = Role { development: true, ..Role::default() };
    Node::start_with(config, role).await.map_err(dev_failure)
}

/// Runs nodes until a signal asks them to stop, or one ends by itself: at SIGTERM a node drains first. A second signal does not wait.
async fn run(mut nodes: Vec<Node>, signals: &mut Signals) -> Result<(), Failure> {
    let ended = {
        let endings = nodes.iter_mut().map(|node| Box::pin(node.ended()));
        tokio::select! {
            (end, ..) = futures_util::future::select_all(endings) => Ok(end),
            asked = signals.next() => Err(asked),
        }
    };
    let going: Pin<Box<dyn Future<Output = ()>>> = match (&ended, nodes.pop()) {
        // The nodes of `dev` end together: there is nowhere to go for their clients.
        (Err(Asked::Terminate), Some(node)) if nodes.is_empty() => Box::pin(node.drain()),
        (_, last) => Box::pin(stop(nodes.into_iter().chain(last).collect())),
    };
    tokio::select! {
        () = going => {}
        _ = signals.next() => return Err(Failure::Failed("stopped at once by a second signal".to_owned())),
    }
    match ended {
        Ok(NodeEnd::Drained) | Err(_) => Ok(()),
        Ok(end) => Err(Failure::Failed(end.to_string())),
    }
}

async fn stop(nodes: Vec<Node>) {
    futures_util::future::join_all(nodes.into_iter().map(Node::stop)).await;
}

/// Tasks that a thread runs before it looks for further input: the default, 61, makes a busy node
/// look more often than there is something new.
const EVENT_INTERVAL: u32 = 150;

fn runtime() -> Result<Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.enable_all().event_interval(EVENT_INTERVAL).build();
    built.map_err(|error| Failure::Failed(format!("cannot start threads: {error}")))
}

/// `dev` has no flag for one listener.
fn dev_failure(error: StartError) -> Failure {
    match error {
        StartError::Http { address, source } => Failure::Failed(format!(
            "cannot listen for HTTP on {address}: {source} (is another cluster running? end it, or \
             choose other ports with --port)"
        )),
        other @ (StartError::Config(_)
        | StartError::Secret(_)
        | StartError::Name(_)
        | StartError::Tcp { .. }
        | StartError::Pattern(_)
        | StartError::Intercept { .. }
        | StartError::Cluster(_)) => failure(other),
    }
}

fn failure(error: StartError) -> Failure {
    match error {
        StartError::Config(error) => Failure::Config(error),
        StartError::Secret(_) | StartError::Name(_) => Failure::Usage(error.to_string()),
        StartError::Http { .. }
        | StartError::Tcp { .. }
        | StartError::Pattern(_)
        | StartError::Intercept { .. }
        | StartError::Cluster(_) => Failure::Failed(error.to_string()),
    }
}

/// The lines that scripts read ports from.
fn listening(node: &Node) -> String {
    let listeners = [
        ("http", Some(node.http_address())),
        ("tcp", node.tcp_address()),
        ("cluster", node.cluster_address()),
    ];
    let bound = listeners.into_iter().filter_map(|(name, address)| Some((name, address?)));
    bound.map(|(name, address)| format!("listening {name} {address}\n")).collect()
}

/// What is where, and what to try next.
fn welcome(nodes: &[Node]) -> String {
    let mut text: String = nodes.iter().map(listening).collect();
    text.push_str("\nWingbeat: a cluster of this machine's own, gone when you press Ctrl-C.\n\n");
    for node in nodes {
        let shown =
            |address: Option<SocketAddr>| address.map_or_else(String::new, |a| a.to_string());
        let (http, tcp) = (node.http_address(), shown(node.tcp_address()));
        let cluster = shown(node.cluster_address());
        let name = node.name();
        text.push_str(&format!(
            "  {name:<4} http://{http}/   tcp {tcp}   cluster {cluster} (QUIC)\n"
        ));
    }
    let addresses = (nodes.first(), nodes.last());
    if let (Some(first), Some(last)) = addresses {
        text.push_str(&suggestions(first.http_address(), last.http_address()));
    }
    text
}

fn suggestions(first: SocketAddr, last: SocketAddr) -> String {
    // As it was typed: it may not be on the shell's path.
    let program = env::args().next().unwrap_or_else(|| "wingbeat".to_owned());
    let default = first.port() == DEFAULT_PORT;
    let url = if default { String::new() } else { format!(" --url http://{first}") };
    format!(
        "\nTry:\n  \
         open http://{first}/ and http://{last}/ in two tabs, and chat between two nodes\n  \
         {program} members{url}\n  \
         {program} who room:lobby --watch{url}\n  \
         {program} broadcast room:lobby message '{{\"name\":\"me\",\"text\":\"hello\"}}' --url http://{last}\n  \
         any Phoenix Channels client: ws://{first}/socket/websocket\n"
    )
}

/// The port that the commands talk to unless told otherwise.
const DEFAULT_PORT: u16 = 4000;

/// What a signal asks for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// To end soon: somebody waits at a terminal.
    Interrupt,
    /// To end in order: clients move first.
    Terminate,
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::Failed(format!("cannot wait for signals: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
        }
    }
}

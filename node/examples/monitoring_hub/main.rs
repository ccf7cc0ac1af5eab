//! A monitoring hub: `cargo run --example monitoring_hub`, then open `http://127.0.0.1:4000/`.
//!
//! Applications connect over plain TCP (docs/PROTOCOL.md, section 10; `tcp.listen`, here
//! `127.0.0.1:4100` unless it is set) with the parameters `app` and `instance`, join `metrics`, and push
//! latencies as binary events `samples`, as many and as often as they like; docs/tcp-client.py has all
//! that takes. Numbers are big-endian:
//!
//! | bytes | |
//! |---|---|
//! | 1 | length of the component's name |
//! | 1 to 64 | the component's name: letters, digits, `-`, `_`, `.` |
//! | 2 | number of samples, at least 1 |
//! | 4 each | microseconds |
//!
//! A push is answered ok, or with an error and its reason. Each application's channel sums its samples
//! up, and every second broadcasts a `point` for each component on `metrics:<app>:<component>`:
//! `{"t": 1767225600, "instance": "shop-1", "count": 120, "p50": 810, "p90": 1200, "p99": 4100,
//! "max": 5020}`. `t` is when the second ended, in seconds since 1970; latencies are in
//! microseconds and exact to 1 %.
//!
//! Pages join the same topics. On `metrics`, presence tells which applications are connected, of which
//! instances and components; the reply's `topics` has those too that are gone, as far as this node
//! remembers them. The reply on a component's topic has its `points` of the last five minutes; one may come
//! again as a broadcast.
//!
//! On a cluster (configuration file as the argument, or variables), presence and points are on every
//! node. The past is not: a node remembers what its own applications pushed, and what its pages have
//! heard. So a page that is the first of its node begins, for applications of other nodes, with now.
//!
//! Whoever connects is believed: this belongs in a network that is trusted.

mod channels;
mod history;
mod samples;
mod second;

use std::{net::SocketAddr, path::Path};

use axum::{Router, response::Html, routing::get};
use tokio::net::TcpListener;
use wingbeat::{App, Config, Node};

use channels::{Component, Metrics, connect};
use history::History;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "whoever starts it reads the ports")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1);
    let mut config = Config::load(file.as_ref().map(Path::new), std::env::vars_os(), &[])?;
    let listener = TcpListener::bind(config.http.listen).await?;
    config.http.listen = listener.local_addr()?;
    config.tcp.listen.get_or_insert(SocketAddr::from(([127, 0, 0, 1], 4100)));

    let history = History::default();
    let app = App::new(move |client| connect(client, history.clone()))
        .channel::<Metrics>("metrics")
        .channel::<Component>("metrics:*");
    let mut node = Node::embed(config, app).await?;
    println!("listening http {}", node.http_address());
    let others = [("tcp", node.tcp_address()), ("cluster", node.cluster_address())];
    for (name, address) in others.into_iter().filter_map(|(name, bound)| Some((name, bound?))) {
        println!("listening {name} {address}");
    }

    let page = Router::new().route("/", get(async || Html(include_str!("page.html"))));
    let service = page.fallback_service(node.router());
    let served = async {
        let service = service.into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, service).await
    };
    tokio::select! {
        ended = served => ended?,
        end = node.ended() => return Err(end.to_string().into()),
        asked = tokio::signal::ctrl_c() => asked?,
    }
    node.stop().await;
    Ok(())
}

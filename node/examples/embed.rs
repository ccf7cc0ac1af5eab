//! Wingbeat within an axum application, which shares its port:
//! `cargo run --example embed -- 127.0.0.1:4000`, then `curl -d hello http://127.0.0.1:4000/say`.

use std::{error::Error, net::SocketAddr};

use axum::{Router, extract::State, http::StatusCode, routing::post};
use serde_json::json;
use tokio::net::TcpListener;
use wingbeat::{Accepted, App, Config, Node, NodeHandle};

/// What is posted is broadcast to all who have joined `room:lobby`.
async fn say(State(node): State<NodeHandle>, text: String) -> StatusCode {
    match node.broadcast("room:lobby", "said", json!({ "text": text })).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "whoever starts it reads the port")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4000".to_owned());
    let listener = TcpListener::bind(address).await?;
    let mut config = Config::load(None, std::env::vars_os(), &[])?;
    config.http.listen = listener.local_addr()?;
    // Rooms as the configuration says; channels of your own go here as well.
    let app = App::new(|_| async { Ok(Accepted::new(())) }).with_relay();
    let mut node = Node::embed(config, app).await?;

    let own = Router::new().route("/say", post(say)).with_state(node.handle());
    let service = own.fallback_service(node.router());
    println!("listening http {}", listener.local_addr()?);
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

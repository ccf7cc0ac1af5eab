//! `GET /healthz` and `GET /readyz`.

use std::{sync::Arc, time::Instant};

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

use crate::node::Shared;

/// The process answers.
pub(super) async fn alive() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Clients may be sent here: the node has caught up with the cluster, or is alone by right. Once
/// ready it stays so until it drains or stops; later loneliness is no reason to turn clients away.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Value>) {
    let joined = *shared.peers.ready().borrow();
    let status = if *shared.stopping.borrow() {
        "stopping"
    } else if shared.drain.is_asked() {
        "draining"
    } else if joined || Instant::now() >= shared.lonely_at {
        "ready"
    } else {
        "starting"
    };
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "status": status, "peers": shared.peers.linked() })))
}

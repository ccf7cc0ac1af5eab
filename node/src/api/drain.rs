//! `POST /api/drain` and `GET /api/drain`.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

use crate::node::Shared;

/// Begins to take the node out of its cluster; doing it again changes nothing.
pub(super) async fn post(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Value>) {
    shared.drain.ask();
    (StatusCode::ACCEPTED, Json(describe(&shared)))
}

/// How far that is.
pub(super) async fn get(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(describe(&shared))
}

fn describe(shared: &Shared) -> Value {
    let progress = shared.drain.progress();
    let now = Instant::now();
    json!({
        "name": shared.name.as_str(),
        "draining": shared.drain.is_asked(),
        "stage": progress.stage.name(),
        "sockets": shared.stats.sockets.load(Ordering::Relaxed),
        "detached": shared.tracker.detached(),
        "seconds": progress.times.map(|(began, _)| (now - began).as_secs_f64()),
        "seconds_left": progress
            .times
            .map(|(_, end)| end.saturating_duration_since(now).as_secs_f64()),
    })
}

//! The HTTP API: a file a resource.

mod broadcast;
mod cluster;
mod disconnect;
mod drain;
mod error;
mod guard;
mod health;
mod presence;
mod query;
mod realtime;
mod subscribe;
mod topics;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{any, get, post},
};

use crate::{dashboard, endpoint, node::Shared, telemetry};

pub(crate) use guard::ApiToken;

/// Bytes of the largest request body: 1,000 broadcasts of 16 KiB.
const BODY_MAX: usize = 16 << 20;

/// What clients connect to.
fn sockets() -> Router<Arc<Shared>> {
    Router::new()
        .route("/socket/websocket", any(endpoint::websocket))
        .route("/socket/longpoll", any(endpoint::longpoll))
}

/// Only what clients connect to.
pub(crate) fn socket_router(shared: Arc<Shared>) -> Router {
    sockets().with_state(shared)
}

/// All that a node serves over HTTP.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let api = Router::new()
        .route("/broadcast", post(broadcast::post))
        .route("/broadcast/{name}/events/{event}", post(realtime::post))
        .route("/presence/{topic}", get(presence::list))
        .route("/presence/{topic}/{key}", get(presence::get))
        .route("/topics", get(topics::list))
        .route("/cluster", get(cluster::get))
        .route("/disconnect", post(disconnect::post))
        .route("/drain", get(drain::get).post(drain::post))
        .route("/subscribe", get(subscribe::get))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard::check));
    sockets()
        .route("/", get(dashboard::page))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(telemetry::metrics::serve))
        .nest("/api", api)
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(shared)
}

//! The page at `/`: chat and see who is online, with nothing but this node.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderName, header},
    response::{Html, IntoResponse},
};

use crate::node::Shared;

const PAGE: &str = include_str!("index.html");

/// The page runs its own script and style, and talks to nodes; it loads nothing from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      img-src data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Serves the page with this node's name in it.
pub(crate) async fn page(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let page = PAGE
        .replace("{{node}}", &escape(shared.name.as_str()))
        .replace("{{version}}", env!("CARGO_PKG_VERSION"));
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")];
    (headers, Html(page))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

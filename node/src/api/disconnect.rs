//! `POST /api/disconnect`.

use std::sync::Arc;

use axum::{Json, body::Bytes, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{api::error::ApiError, node::Shared};

/// Bytes of the longest socket id.
const SOCKET_ID_LEN_MAX: usize = 512;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    socket_id: String,
}

/// Closes all sockets with an id, on all nodes.
pub(super) async fn post(
    State(shared): State<Arc<Shared>>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let body: Body = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request("bad_json", error.to_string()))?;
    if !(1..=SOCKET_ID_LEN_MAX).contains(&body.socket_id.len()) {
        let why = format!("socket_id must have 1 to {SOCKET_ID_LEN_MAX} bytes");
        return Err(ApiError::bad_request("bad_socket_id", why));
    }
    shared.disconnect(&body.socket_id).await;
    Ok((StatusCode::ACCEPTED, Json(json!({ "accepted": 1 }))))
}

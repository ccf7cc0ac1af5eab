//! `POST /api/broadcast`.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use presence::Topic;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::{
    api::{
        error::ApiError,
        realtime::{self, Guest},
    },
    node::Shared,
    pubsub::{Flush, Payload},
    socket::{DISCONNECT, EVENT_LEN_MAX, has_lone_surrogate, reserved_event},
};

/// Broadcasts in one request.
pub(super) const ITEMS_MAX: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    topic: std::borrow::Cow<'a, str>,
    event: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// A broadcast that has been checked.
struct Checked {
    topic: Topic,
    event: String,
    payload: Bytes,
}

/// Publishes one broadcast, or an array of them: all or none.
pub(super) async fn post(
    State(shared): State<Arc<Shared>>,
    guest: Option<Extension<Guest>>,
    body: Bytes,
) -> Result<Response, ApiError> {
    if realtime::is_messages(&shared, &body) {
        return realtime::messages(&shared, &body).await.map(|done| done.into_response());
    }
    if let Some(Extension(Guest(refusal))) = guest {
        return Err(refusal);
    }
    let checked = check(&body, shared.config.http.max_frame_size.bytes())?;
    let accepted = checked.len();
    let mut flush = Flush::new();
    for Checked { topic, event, payload } in checked {
        if event == DISCONNECT || flush.is_heavy() {
            // Whoever publishes faster than it is written waits; and what was said before a disconnect
            // is said.
            std::mem::take(&mut flush).write().await;
        }
        if event == DISCONNECT {
            shared.disconnect(topic.as_str()).await;
        } else {
            shared.publisher.publish(&topic, &event, Payload::Json(&payload), None, &mut flush);
        }
    }
    flush.write().await;
    Ok((StatusCode::ACCEPTED, Json(json!({ "accepted": accepted }))).into_response())
}

fn check(body: &[u8], payload_max: usize) -> Result<Vec<Checked>, ApiError> {
    if !body.trim_ascii_start().starts_with(b"[") {
        return Ok(vec![check_item(body, payload_max, "")?]);
    }
    let items: Vec<&RawValue> = serde_json::from_slice(body).map_err(|e| bad_json(&e, ""))?;
    if items.len() > ITEMS_MAX {
        let why = format!("{} broadcasts in one request, limit {ITEMS_MAX}", items.len());
        return Err(ApiError::bad_request("too_many", why));
    }
    let items = items.iter().enumerate();
    items
        .map(|(at, i)| check_item(i.get().as_bytes(), payload_max, &format!("item {at}: ")))
        .collect()
}

fn check_item(item: &[u8], payload_max: usize, place: &str) -> Result<Checked, ApiError> {
    let Item { topic, event, payload } =
        serde_json::from_slice(item).map_err(|error| bad_json(&error, place))?;
    let refuse = |code, why: String| Err(ApiError::bad_request(code, format!("{place}{why}")));
    let topic: Topic = match topic.parse() {
        Ok(topic) => topic,
        Err(error) => return refuse("bad_topic", error.to_string()),
    };
    if event.is_empty() || event.len() > EVENT_LEN_MAX {
        return refuse("bad_event", format!("event must have 1 to {EVENT_LEN_MAX} bytes"));
    }
    if reserved_event(&event) && event != DISCONNECT {
        return refuse("reserved_event", format!("event {event:?} is the protocol's own"));
    }
    let payload = payload.get().as_bytes();
    if payload.len() > payload_max {
        let why = format!("payload of {} bytes, limit {payload_max}", payload.len());
        return refuse("payload_too_large", why);
    }
    if has_lone_surrogate(payload) {
        return refuse("bad_json", "payload holds half of a surrogate pair".to_owned());
    }
    let payload = Bytes::copy_from_slice(payload);
    Ok(Checked { topic, event: event.into_owned(), payload })
}

fn bad_json(error: &serde_json::Error, place: &str) -> ApiError {
    let why = format!("{place}{error}; want {{\"topic\":…,\"event\":…,\"payload\":…}}");
    ApiError::bad_request("bad_json", why)
}

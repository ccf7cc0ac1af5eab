//! `GET /api/presence/{topic}` and `GET /api/presence/{topic}/{key}`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Path, RawQuery, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use presence::{Count, Topic};

use crate::{
    api::{
        error::ApiError,
        query::{self, pairs},
    },
    node::Shared,
    tracker::push_json_string,
};

/// Keys in an answer, unless asked otherwise.
const LIMIT: usize = 1_000;

/// Keys in an answer at most.
const LIMIT_MAX: usize = 10_000;

/// Who is on a topic, by key, on any node; or only how many, if the query asks for that.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(topic): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<impl IntoResponse, ApiError> {
    let topic = parse_topic(&topic)?;
    let query: BTreeMap<String, String> = pairs(&query.unwrap_or_default()).collect();
    if query.get("count").is_some_and(|count| matches!(count.as_str(), "" | "true" | "1")) {
        let mut body = head(&topic, shared.tracker.count(&topic));
        body.push(b'}');
        return Ok(json(body.into()));
    }
    let limit = query::limit(query.get("limit"), LIMIT, LIMIT_MAX)?;
    let after = query.get("after").map(String::as_str);
    let listing = shared.tracker.list(&topic, after, limit);
    let mut body = head(&topic, listing.count);
    body.extend_from_slice(b",\"presences\":");
    body.extend_from_slice(&listing.presences);
    if let Some(next) = listing.next {
        body.extend_from_slice(b",\"next\":");
        push_json_string(&mut body, &next);
    }
    body.push(b'}');
    Ok(json(body.into()))
}

/// The metas of one key.
pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    Path((topic, key)): Path<(String, String)>,
) -> Result<impl IntoResponse, ApiError> {
    let topic = parse_topic(&topic)?;
    match shared.tracker.get(&topic, &key) {
        Some(metas) => Ok(json(metas)),
        None => {
            let why = format!("nobody is on {topic} under the key {key:?}");
            Err(ApiError::new(StatusCode::NOT_FOUND, "not_present", why))
        }
    }
}

/// What an answer begins with: how many there are.
fn head(topic: &Topic, count: Count) -> Vec<u8> {
    let mut body = b"{\"topic\":".to_vec();
    push_json_string(&mut body, topic.as_str());
    let Count { keys, entries } = count;
    body.extend_from_slice(format!(",\"count\":{keys},\"entries\":{entries}").as_bytes());
    body
}

pub(super) fn parse_topic(topic: &str) -> Result<Topic, ApiError> {
    topic.parse().map_err(|error: presence::InvalidTopic| {
        ApiError::bad_request("bad_topic", error.to_string())
    })
}

fn json(body: Bytes) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], body)
}

//! `GET /api/topics`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{RawQuery, State},
};
use cluster::wire::{self, TopicsRequest};
use presence::Count;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    api::{error::ApiError, query},
    node::Shared,
};

/// Topics in an answer, unless asked otherwise.
const LIMIT: usize = 1_000;

/// Topics in an answer at most.
const LIMIT_MAX: usize = 10_000;

/// How long peers may take to say who subscribes there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// (subscribers, presences) by topic.
type Counts = BTreeMap<String, (u64, Count)>;

/// Topics that start so, the first ones by name, with their subscribers and presences.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let query: BTreeMap<String, String> = query::pairs(&query.unwrap_or_default()).collect();
    let limit = query::limit(query.get("limit"), LIMIT, LIMIT_MAX)?;
    let prefix = query.get("prefix").cloned().unwrap_or_default();
    let whole = match query.get("scope").map(String::as_str) {
        None | Some("cluster") => true,
        Some("node") => false,
        Some(_) => {
            return Err(ApiError::bad_request("bad_scope", "scope is cluster or node"));
        }
    };
    let mut counts = Counts::new();
    for (topic, subscribers) in shared.registry.topics(&prefix, limit) {
        counts.entry(topic.to_string()).or_default().0 += subscribers as u64;
    }
    let missing =
        if whole { ask_peers(&shared, &prefix, limit, &mut counts).await } else { Vec::new() };
    for (topic, count) in shared.tracker.topics(&prefix, limit) {
        counts.entry(topic.to_string()).or_default().1 = count;
    }
    let topics = counts.into_iter().take(limit).map(|(topic, (subscribers, Count { keys, entries }))| {
        json!({ "topic": topic, "subscribers": subscribers, "presences": keys, "entries": entries })
    });
    Ok(Json(json!({ "topics": topics.collect::<Vec<_>>(), "missing": missing })))
}

/// Adds the peers' subscribers; gives the names of those that did not answer in time.
async fn ask_peers(
    shared: &Shared,
    prefix: &str,
    limit: usize,
    counts: &mut Counts,
) -> Vec<String> {
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let question = wire::encode_topics_request(&TopicsRequest { prefix: prefix.to_owned(), limit });
    let members = shared.peers.members().await;
    let mut missing = Vec::new();
    let mut answers = JoinSet::new();
    for member in members.into_iter().filter(|member| member.up) {
        let name = member.replica.name.to_string();
        match shared.links.get(member.node) {
            Some(link) => {
                let question = question.clone();
                answers.spawn(async move {
                    let answer = link.request(question, ANSWER_TIMEOUT).await.ok();
                    (name, answer.and_then(|answer| wire::decode_topics(&answer).ok()))
                });
            }
            None => missing.push(name),
        }
    }
    while let Some(answer) = answers.join_next().await {
        match answer {
            Ok((_, Some(answer))) => {
                for (topic, subscribers) in answer.topics {
                    counts.entry(topic).or_default().0 += u64::from(subscribers);
                }
            }
            Ok((name, None)) => missing.push(name),
            Err(_) => {}
        }
    }
    missing.sort();
    missing
}

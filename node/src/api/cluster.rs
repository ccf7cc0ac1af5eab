//! `GET /api/cluster`.

use std::{net::SocketAddr, sync::Arc};

use axum::{Json, extract::State};
use cluster::Member;
use presence::{NodeName, Total};
use serde_json::{Value, json};

use crate::{node::Shared, tracker::PresenceTotals};

/// This node, and the cluster as it sees it.
pub(super) async fn get(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let members = shared.peers.members().await;
    let totals = shared.tracker.totals();
    let held = listed(&totals, &shared.name);
    let own = json!({
        "name": shared.name.as_str(),
        "incarnation": shared.peers.incarnation(),
        "address": shared.cluster.map(|address| shared.config.advertised(address)),
        "http": shared.http,
        "state": "self",
        "region": shared.config.node.region,
        "version": env!("CARGO_PKG_VERSION"),
        "linked": true,
        "rtt_ms": null,
        "queued_bytes": 0,
        "presence_lag": 0,
        "lag_ms": 0,
        "via": null,
        "presences": held.entries,
        "presence_topics": held.topics,
        "agreement": null,
    });
    let mut list = vec![own];
    list.extend(members.iter().map(|member| describe(&shared, member, &totals)));
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Json(json!({
        "node": {
            "name": shared.name.as_str(),
            "incarnation": shared.peers.incarnation(),
            "region": shared.config.node.region,
            "version": env!("CARGO_PKG_VERSION"),
            "address": shared.cluster.map(|address| shared.config.advertised(address)),
            "http": shared.http,
            "cluster": shared.config.cluster.name,
            "uptime_seconds": shared.started.elapsed().as_secs(),
        },
        "members": list,
        "partition_suspected": shared.peers.suspected().map(|suspected| json!({
            "seconds": suspected.since.elapsed().as_secs(),
            "missing": suspected.missing,
            "members": suspected.members,
        })),
        "agreement": agreement(&members),
        "presence": { "topics": totals.cluster.topics, "entries": totals.cluster.entries },
        "interest": { "topics_of_peers": shared.routes.topics() },
    }))
}

fn describe(shared: &Shared, member: &Member, totals: &PresenceTotals) -> Value {
    let held = listed(totals, &member.replica.name);
    let link = shared.links.get(member.node);
    let state = match (member.up, member.suspect) {
        (true, false) if member.draining => "draining",
        (true, false) => "up",
        (true, true) => "suspect",
        (false, _) => "down",
    };
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "name": member.replica.name.as_str(),
        "incarnation": member.replica.incarnation,
        "address": member.address,
        "http": link.as_ref().and_then(http_of),
        "state": state,
        "region": text(&member.region),
        "version": text(&member.version),
        "linked": member.linked,
        "rtt_ms": link.as_ref().map(|link| link.rtt().as_secs_f64() * 1000.0),
        "queued_bytes": link.as_ref().map_or(0, transport::Link::queued),
        "presence_lag": member.lag,
        "lag_ms": u64::try_from(member.stale.as_millis()).unwrap_or(u64::MAX),
        "via": member.via.as_ref().map(NodeName::as_str),
        "presences": held.entries,
        "presence_topics": held.topics,
        "agreement": member.agrees,
    })
}

/// What a node has that is listed.
fn listed(totals: &PresenceTotals, name: &NodeName) -> Total {
    totals.nodes.get(name).copied().unwrap_or_default()
}

/// Whether all nodes that are up list the same: as each that this one agrees with does, they agree with
/// each other. `None` while one has not been compared with.
fn agreement(members: &[Member]) -> Option<bool> {
    let mut answers = members.iter().filter(|member| member.up).map(|member| member.agrees);
    if answers.clone().any(|agrees| agrees == Some(false)) {
        return Some(false);
    }
    answers.all(|agrees| agrees == Some(true)).then_some(true)
}

/// Where the peer said that clients connect.
fn http_of(link: &transport::Link) -> Option<SocketAddr> {
    std::str::from_utf8(&link.peer().hello).ok()?.parse().ok()
}

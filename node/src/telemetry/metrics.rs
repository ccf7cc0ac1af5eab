//! Every metric: name, unit, help. Read from the parts' own counters when somebody asks.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::{node::Shared, pubsub::Latency, telemetry::process};

/// `GET /metrics`, as Prometheus reads it.
pub(crate) async fn serve(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Node(shared)));
    let mut text = String::new();
    let status = match encode(&mut text, &registry) {
        Ok(()) => StatusCode::OK,
        Err(fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (status, [(header::CONTENT_TYPE, kind)], text)
}

#[derive(Debug)]
struct Node(Arc<Shared>);

/// Writes one metric after another.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn count(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        let encoder = self.0.encode_descriptor(name, help, None, counter.metric_type())?;
        counter.encode(encoder)
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        let encoder = self.0.encode_descriptor(name, help, None, counter.metric_type())?;
        counter.encode(encoder)
    }

    fn level(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let encoder = self.0.encode_descriptor(name, help, None, gauge.metric_type())?;
        gauge.encode(encoder)
    }

    /// One counter with a value for each label set.
    fn counts<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: &[([(&str, &str); N], u64)],
    ) -> fmt::Result {
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            let labels: &[(&str, &str)] = labels;
            ConstCounter::new(*value).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// What OpenMetrics takes for the upper bound of the last bucket.
fn latency(page: &mut Page<'_>, latency: &Latency) -> fmt::Result {
    let buckets: Vec<(f64, u64)> = latency
        .buckets()
        .map(|(bound, count)| (if bound.is_finite() { bound } else { f64::MAX }, count))
        .collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    page.0
        .encode_descriptor(
            "wingbeat_fanout_seconds",
            "From the read of frames of a client or peer to the last write of what they caused.",
            None,
            MetricType::Histogram,
        )?
        .encode_histogram::<NoLabelSet>(latency.sum_seconds(), count, &buckets, None)
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

fn read_level(level: &AtomicUsize) -> u64 {
    level.load(Relaxed) as u64
}

impl Collector for Node {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let page = &mut Page(encoder);
        process(page)?;
        clients(page, &self.0)?;
        broadcasts(page, &self.0)?;
        presence(page, &self.0)?;
        cluster(page, &self.0)?;
        links(page, &self.0)?;
        lanes(page, &self.0)
    }
}

fn process(page: &mut Page<'_>) -> fmt::Result {
    let usage = process::usage();
    page.seconds("process_cpu_seconds", "CPU time of the process.", usage.cpu_seconds)?;
    page.level("process_resident_memory_bytes", "Memory of the process.", usage.resident_bytes)?;
    page.level("process_open_fds", "Open descriptors of the process.", usage.open_fds)?;
    page.level("wingbeat_process_id", "The process, which nodes of `dev` share.", usage.id)
}

fn clients(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let (listener, stats) = (&shared.listener, &shared.stats);
    page.level("wingbeat_connections", "TCP connections open.", read_level(&listener.open))?;
    page.count(
        "wingbeat_connections_accepted",
        "TCP connections accepted.",
        read(&listener.accepted),
    )?;
    page.counts(
        "wingbeat_connections_refused",
        "TCP connections not served.",
        &[
            ([("reason", "max_connections")], read(&listener.turned_away)),
            ([("reason", "accept_failed")], read(&listener.failed)),
        ],
    )?;
    page.level("wingbeat_sockets", "Client sockets open.", read_level(&stats.sockets))?;
    let sessions = &shared.longpoll.sessions;
    page.level(
        "wingbeat_longpoll_sessions",
        "Client sockets open that are long-poll sessions.",
        sessions.len() as u64,
    )?;
    page.count(
        "wingbeat_longpoll_refused",
        "Long-poll sessions refused, as there were http.max_connections of them.",
        read(&sessions.stats().refused),
    )?;
    page.count(
        "wingbeat_longpoll_forwarded",
        "Long-poll requests handed to the node of their session.",
        read(&sessions.stats().forwarded),
    )?;
    page.count("wingbeat_client_frames", "Frames of clients.", read(&stats.frames_in))?;
    page.count("wingbeat_joins", "Joins of topics.", read(&stats.joins))?;
    page.count("wingbeat_joins_refused", "Joins refused.", read(&stats.joins_refused))?;
    page.counts(
        "wingbeat_events_refused",
        "Events of clients answered with an error: over limits.events_per_second, or against the \
         channel's rule.",
        &[
            ([("reason", "rate")], read(&stats.events_over_rate)),
            ([("reason", "rule")], read(&stats.events_refused)),
        ],
    )?;
    page.count(
        "wingbeat_channel_crashes",
        "Callbacks of the application's channels that failed or panicked.",
        read(&stats.channel_crashes),
    )?;
    let slow = stats.slow_handlers.counts();
    let slow: Vec<_> = slow.iter().map(|(name, count)| ([("channel", *name)], *count)).collect();
    page.counts(
        "wingbeat_slow_handlers",
        "Callbacks of the application's channels that took longer than they may: the log names them.",
        &slow,
    )?;
    page.count(
        "wingbeat_slow_clients",
        "Sockets closed with 1013 and event streams ended, as the client did not read.",
        read(&stats.slow),
    )
}

fn broadcasts(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let size = shared.registry.size();
    page.level("wingbeat_topics", "Topics with subscribers here.", size.topics as u64)?;
    page.level("wingbeat_subscriptions", "Subscriptions.", size.subscriptions as u64)?;
    let local = shared.registry.stats();
    page.count(
        "wingbeat_broadcasts",
        "Broadcasts to this node's subscribers.",
        local.broadcasts(),
    )?;
    page.count("wingbeat_deliveries", "Frames put into mailboxes.", local.deliveries())?;
    page.counts(
        "wingbeat_deliveries_dropped",
        "Frames that a client was not sent: a slow one by the channel's overflow policy (what is lost \
         with a disconnected client is no more than what its mailbox held), or binary ones for which \
         its protocol has no form.",
        &[
            ([("reason", "drop_oldest")], local.dropped()),
            ([("reason", "conflate")], local.conflated()),
            ([("reason", "disconnect")], local.overflows()),
            ([("reason", "binary")], local.formless()),
        ],
    )?;
    latency(page, shared.registry.latency())?;
    let out = shared.publisher.stats();
    page.count("wingbeat_forwarded", "Broadcasts sent to peers.", read(&out.forwarded))?;
    page.counts(
        "wingbeat_forward_dropped",
        "Broadcasts that a peer with subscribers was not sent: its lane was full, its link went down \
         while they waited, or was down.",
        &[
            ([("reason", "lane_full")], read(&out.lane_full)),
            ([("reason", "link_ended")], shared.links.lost()),
            ([("reason", "unlinked")], read(&out.unlinked)),
        ],
    )?;
    page.count("wingbeat_received", "Broadcasts of peers.", read(&out.received))?;
    page.count(
        "wingbeat_received_unwanted",
        "Broadcasts of peers that nobody here subscribes to.",
        read(&out.received_unwanted),
    )?;
    page.count(
        "wingbeat_received_invalid",
        "Broadcasts of peers that could not be read: their link was closed.",
        read(&out.received_invalid),
    )?;
    page.level(
        "wingbeat_routed_topics",
        "Topics that some peer wants.",
        shared.routes.topics() as u64,
    )
}

fn presence(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    page.count(
        "wingbeat_presence_skipped",
        "Presence diffs that did not fit into a mailbox.",
        shared.registry.stats().presence_skips(),
    )?;
    page.count(
        "wingbeat_presence_resyncs",
        "Fresh presence states in place of diffs that did not fit.",
        read(&shared.stats.resyncs),
    )?;
    page.level(
        "wingbeat_presence_detached",
        "Own clients that are listed though their sockets are gone.",
        shared.tracker.detached() as u64,
    )?;
    let stats = shared.peers.stats();
    page.count("wingbeat_feed_ranges_sent", "Feed ranges sent.", stats.ranges_sent)?;
    page.count("wingbeat_feed_changes_sent", "Changes in them.", stats.ops_sent)?;
    page.count("wingbeat_feed_ranges_applied", "Feed ranges applied.", stats.ranges_applied)?;
    page.count(
        "wingbeat_feed_ranges_duplicate",
        "Feed ranges that were known already.",
        stats.ranges_duplicate,
    )?;
    page.count(
        "wingbeat_feed_ranges_relayed",
        "Feed ranges of other nodes sent to peers that have no link to these.",
        stats.ranges_relayed,
    )?;
    page.count("wingbeat_feed_gaps", "Feed ranges asked for again.", stats.nacks_sent)?;
    page.count(
        "wingbeat_feed_refetches",
        "Feeds fetched anew as their checksum was wrong: a bug.",
        stats.refetches,
    )
}

fn cluster(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let stats = shared.peers.stats();
    page.level(
        "wingbeat_draining",
        "1 while the node is taken out of its cluster.",
        u64::from(shared.drain.is_asked()),
    )?;
    page.level("wingbeat_peers_linked", "Peers with a link.", shared.peers.linked() as u64)?;
    let missing = shared.peers.suspected().map_or(0, |suspected| suspected.missing as u64);
    page.level(
        "wingbeat_partition_suspected",
        "1 while a member is missing that has not said goodbye: it has crashed, or the cluster is divided.",
        missing.min(1),
    )?;
    page.level("wingbeat_members_missing", "Members that are down without a goodbye.", missing)?;
    page.count(
        "wingbeat_barrier_timeouts",
        "Joins that waited in vain for a peer.",
        stats.barrier_timeouts,
    )?;
    page.count(
        "wingbeat_barriers_skipped",
        "Joins that did not wait, as too many others did.",
        stats.barriers_skipped,
    )?;
    page.count(
        "wingbeat_swim_dropped",
        "Membership packets without a link to go by.",
        stats.swim_dropped,
    )?;
    page.count(
        "wingbeat_swim_refused",
        "Membership packets that made no sense.",
        stats.swim_refused,
    )?;
    page.count(
        "wingbeat_members_refused",
        "Nodes ignored as there were too many.",
        stats.members_refused,
    )
}

fn links(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let Some(stats) = shared.transport.as_ref().map(transport::Transport::stats) else {
        return Ok(());
    };
    page.count("wingbeat_links_up", "Links that came up.", stats.links_up)?;
    page.count("wingbeat_dials", "Dials of peers and seeds.", stats.dials)?;
    page.count("wingbeat_dials_failed", "Dials that nobody answered.", stats.dials_failed)?;
    page.count(
        "wingbeat_links_refused",
        "Links refused, by this node or by the other.",
        stats.refusals,
    )?;
    page.count(
        "wingbeat_handshakes_crowded_out",
        "Connections of peers turned away, as too many were shaking hands.",
        stats.crowded_out,
    )
}

/// What went over each peer's lanes since its link came up.
fn lanes(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let links = shared.links.all();
    let stats: Vec<_> =
        links.iter().map(|(_, link)| (link.peer().name.as_str(), link.stats())).collect();
    let lanes = || stats.iter().flat_map(|(peer, link)| link.lanes.iter().map(|l| (*peer, l)));
    let values = |read: fn(&transport::LaneStats) -> u64| -> Vec<_> {
        lanes().map(|(peer, lane)| ([("peer", peer), ("lane", lane.name)], read(lane))).collect()
    };
    page.counts("wingbeat_lane_sent_bytes", "Bytes sent.", &values(|l| l.sent_bytes))?;
    page.counts("wingbeat_lane_received_bytes", "Bytes received.", &values(|l| l.received_bytes))?;
    page.counts(
        "wingbeat_lane_dropped_frames",
        "Frames dropped as the lane was full.",
        &values(|l| l.dropped_frames),
    )
}

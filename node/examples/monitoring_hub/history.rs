//! The last minutes of each component, for pages that come late.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

/// How far back a component's points go.
const SPAN_SECONDS: u64 = 300;

/// Points of one component: those of four instances.
const POINTS_MAX: usize = 1_200;

/// Components that are remembered, gone ones too.
const TOPICS_MAX: usize = 500;

/// What one second of a component came to. Latencies are in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Seconds from 1970 to the end of this one, by the clock of the instance's node.
    pub(crate) t: u64,
    pub(crate) instance: String,
    pub(crate) count: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

/// Points by their topics. All channels of a node have the same one.
#[derive(Clone, Default)]
pub(crate) struct History(Arc<Mutex<Topics>>);

type Topics = BTreeMap<String, BTreeSet<Point>>;

impl History {
    /// Keeps a point; several pages that hear the same one keep it once.
    pub(crate) fn keep(&self, topic: &str, point: &Point) {
        let mut topics = self.topics_mut();
        if !topics.contains_key(topic) && topics.len() >= TOPICS_MAX {
            let recent = |last: &Point| last.t.saturating_add(SPAN_SECONDS) > point.t;
            topics.retain(|_, points| points.last().is_some_and(recent));
            if topics.len() >= TOPICS_MAX {
                return;
            }
        }
        let points = topics.entry(topic.to_owned()).or_default();
        points.insert(point.clone());
        let is_old = |first: &Point| first.t.saturating_add(SPAN_SECONDS) < point.t;
        while points.len() > POINTS_MAX || points.first().is_some_and(is_old) {
            points.pop_first();
        }
    }

    /// A topic's points, the oldest first.
    pub(crate) fn points(&self, topic: &str) -> Vec<Point> {
        self.topics_mut().get(topic).into_iter().flatten().cloned().collect()
    }

    pub(crate) fn topics(&self) -> Vec<String> {
        self.topics_mut().keys().cloned().collect()
    }

    fn topics_mut(&self) -> MutexGuard<'_, Topics> {
        // No point is half kept, so a panic elsewhere leaves nothing wrong.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

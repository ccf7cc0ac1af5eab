//! Joins that wait until the linked peers know of a new interest.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use presence::Time;

use crate::{cluster::Cluster, event::Event};

/// A place in one of our feeds that peers must have reached.
type Mark = (u16, u64);

#[derive(Debug, Default)]
pub(crate) struct Barriers {
    waiting: BTreeMap<Mark, (Time, Vec<u64>)>,
    deadlines: BTreeSet<(Time, Mark)>,
    len: usize,
}

impl Barriers {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn add(&mut self, mark: Mark, id: u64, timeout: Duration, now: Time) {
        self.len += 1;
        let (_, ids) = self.waiting.entry(mark).or_insert_with(|| {
            self.deadlines.insert((now + timeout, mark));
            (now + timeout, Vec::new())
        });
        ids.push(id);
    }

    /// Joins of the shard that waited for no more than `floor`.
    pub(crate) fn reached(&mut self, shard: u16, floor: u64) -> Vec<u64> {
        let mut done = Vec::new();
        while let Some((&mark, _)) = self.waiting.range((shard, 0)..=(shard, floor)).next() {
            done.append(&mut self.remove(mark));
        }
        done
    }

    /// Shards that joins wait in.
    pub(crate) fn shards(&self) -> BTreeSet<u16> {
        self.waiting.keys().map(|(shard, _)| *shard).collect()
    }

    /// The next join that has waited too long, if any.
    pub(crate) fn expired(&mut self, now: Time) -> Option<(Mark, Vec<u64>)> {
        let &(at, mark) = self.deadlines.first()?;
        (at <= now).then(|| (mark, self.remove(mark)))
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    fn remove(&mut self, mark: Mark) -> Vec<u64> {
        let Some((at, ids)) = self.waiting.remove(&mark) else { return Vec::new() };
        self.deadlines.remove(&(at, mark));
        self.len -= ids.len();
        ids
    }
}

impl Cluster {
    /// How far all peers that joins wait for have our feed of the shard.
    pub(crate) fn floor(&self, shard: u16) -> u64 {
        let waited_for = self.nodes.links().filter(|(_, link)| !link.lagging);
        waited_for.map(|(_, link)| link.acked_position(shard)).min().unwrap_or(u64::MAX)
    }

    pub(crate) fn settle_barriers(&mut self) {
        if self.barriers.len() == 0 {
            return;
        }
        let confirmed = self.all_answer();
        for shard in self.barriers.shards() {
            let floor = self.floor(shard);
            for id in self.barriers.reached(shard, floor) {
                self.events.push_back(Event::Barrier { id, confirmed });
            }
        }
    }

    /// No linked peer is left out of barriers.
    pub(crate) fn all_answer(&self) -> bool {
        self.nodes.links().all(|(_, link)| !link.lagging)
    }

    pub(crate) fn expire_barriers(&mut self, now: Time) {
        while let Some(((shard, seq), ids)) = self.barriers.expired(now) {
            self.stats.barrier_timeouts += 1;
            for (_, link) in self.nodes.links_mut() {
                link.lagging |= link.acked_position(shard) < seq;
            }
            let late = ids.into_iter().map(|id| Event::Barrier { id, confirmed: false });
            self.events.extend(late);
            self.settle_barriers();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(200);

    #[test]
    fn a_floor_releases_what_lies_under_it_in_its_shard_only() {
        let mut barriers = Barriers::default();
        barriers.add((0, 5), 1, WAIT, Time::ZERO);
        barriers.add((0, 5), 2, WAIT, Time::ZERO);
        barriers.add((0, 7), 3, WAIT, Time::ZERO);
        barriers.add((1, 1), 4, WAIT, Time::ZERO);
        assert_eq!(barriers.reached(0, 4), Vec::<u64>::new());
        assert_eq!(barriers.reached(0, 6), vec![1, 2]);
        assert_eq!(barriers.len(), 2);
    }

    #[test]
    fn a_join_never_waits_longer_than_the_timeout() {
        let mut barriers = Barriers::default();
        barriers.add((0, 5), 1, WAIT, Time::ZERO);
        assert_eq!(barriers.poll_timeout(), Some(Time::ZERO + WAIT));
        assert_eq!(barriers.expired(Time::ZERO), None);
        assert_eq!(barriers.expired(Time::ZERO + WAIT), Some(((0, 5), vec![1])));
        assert_eq!((barriers.len(), barriers.poll_timeout()), (0, None));
    }
}

//! What those are told who only want to know how many are there.

use bytes::Bytes;
use presence::{Count, EntryId, Time, Topic, TrackError};

use super::{Seat, State};
use crate::pubsub::count_version;

/// The event that tells how many are there.
pub(super) const EVENT: &str = "presence_count";

impl Seat {
    /// Lists a client, if it is to be, and tells it how many are there with it.
    pub(super) fn begin_count(
        &mut self,
        topic: &Topic,
        own: Option<(&str, &[u8])>,
        now: Time,
    ) -> Result<(Option<EntryId>, State), TrackError> {
        let track = |(key, meta)| self.shard.track(topic, key, meta, now);
        let entry = own.map(track).transpose()?;
        // Then this: the first one who follows the count knows that it is there itself.
        self.shard.observe_count(topic, now);
        Ok((entry, self.count_state(topic)))
    }

    /// How many are there now.
    pub(super) fn count_state(&self, topic: &Topic) -> State {
        let (version, count) = self.shard.counted(topic);
        State::new(EVENT, count_version(version), render(count))
    }
}

/// `{"count": keys, "entries": n}`.
pub(super) fn render(count: Count) -> Bytes {
    let Count { keys, entries } = count;
    format!("{{\"count\":{keys},\"entries\":{entries}}}").into()
}

//! The channels of one socket, by id and by topic.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use foldhash::fast::RandomState;
use presence::Topic;

use super::message::Ref;

/// Names one join of one socket. An id is not used again: an answer to a channel that has ended
/// finds nothing, even when the topic is joined anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChannelId {
    index: u32,
    generation: u32,
}

impl ChannelId {
    /// The id as one number.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The id of which [`Self::to_bits`] made `bits`.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are taken apart")]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// How far a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChannelState {
    /// Its join is not answered yet.
    Joining,
    /// Its join was answered with ok.
    Joined,
}

/// One joined topic, or one about to be.
#[derive(Debug)]
pub(super) struct Channel {
    /// What was joined.
    pub(super) topic: Topic,
    /// Which channel of the router serves it.
    pub(super) route: usize,
    /// The `join_ref` of the client's frames, of the join's reply, and of the close. Null, in V2,
    /// for a join without one.
    pub(super) expected: Ref,
    /// The `join_ref` of the other frames to the client: never null unless the join had no refs.
    pub(super) carried: Ref,
    /// What the join left to do; `None` once it is answered.
    pub(super) joining: Option<Box<Joining>>,
}

/// What waits for the answer of a join.
#[derive(Debug)]
pub(super) struct Joining {
    /// The join's own `ref`.
    pub(super) reference: Ref,
    /// Pushes, oldest first.
    pub(super) pushes: VecDeque<QueuedPush>,
    /// The `join_ref`s of former joins of the topic, oldest first: their closes follow the reply.
    pub(super) closes: Vec<Ref>,
}

/// A push that waits behind a join.
#[derive(Debug)]
pub(super) struct QueuedPush {
    /// The event; `None` when it is no string.
    pub(super) event: Option<Box<str>>,
    /// Raw JSON within the frame.
    pub(super) payload: Bytes,
    /// Its `ref`.
    pub(super) reference: Ref,
    /// Bytes of the frame that it keeps alive.
    pub(super) frame_len: usize,
}

/// The table. A topic is in it once at most.
#[derive(Debug, Default)]
pub(super) struct Channels {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_topic: HashMap<Topic, ChannelId, RandomState>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    channel: Option<Channel>,
}

impl Channels {
    /// Adds a channel whose topic is not in the table. The caller bounds their number.
    pub(super) fn insert(&mut self, channel: Channel) -> ChannelId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[index as usize];
        let id = ChannelId { index, generation: slot.generation };
        self.by_topic.insert(channel.topic.clone(), id);
        slot.channel = Some(channel);
        id
    }

    /// Takes a channel out; its id is void from here on.
    pub(super) fn remove(&mut self, id: ChannelId) -> Option<Channel> {
        let slot = self.slots.get_mut(id.index as usize)?;
        let channel = slot.channel.take_if(|_| slot.generation == id.generation)?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        self.by_topic.remove(&channel.topic);
        Some(channel)
    }

    /// Changes a channel.
    pub(super) fn get_mut(&mut self, id: ChannelId) -> Option<&mut Channel> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.channel.as_mut().filter(|_| slot.generation == id.generation)
    }

    /// The channel of an id.
    pub(super) fn get(&self, id: ChannelId) -> Option<&Channel> {
        let slot = self.slots.get(id.index as usize)?;
        slot.channel.as_ref().filter(|_| slot.generation == id.generation)
    }

    /// The channel that joined a topic.
    pub(super) fn find(&self, topic: &str) -> Option<ChannelId> {
        self.by_topic.get(topic).copied()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// All ids, in the order of their slots.
    #[cfg(test)]
    pub(super) fn ids(&self) -> impl Iterator<Item = ChannelId> {
        self.slots
            .iter()
            .zip(0..)
            .filter(|(slot, _)| slot.channel.is_some())
            .map(|(slot, index)| ChannelId { index, generation: slot.generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_under_other_ids() {
        let mut channels = Channels::default();
        let mut former = None;
        for _ in 0..100 {
            let topic: Topic = "room:x".parse().expect("a topic");
            let (expected, carried) = (Ref::null(), Ref::null());
            let id = channels.insert(Channel { topic, route: 0, expected, carried, joining: None });
            assert_ne!(former.replace(id), Some(id));
            assert!(channels.remove(id).is_some());
            assert!(channels.remove(id).is_none() && channels.find("room:x").is_none());
        }
        assert_eq!((channels.slots.len(), channels.free.len()), (1, 1));
    }
}

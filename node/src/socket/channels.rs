//! The channels of one socket, by id and by topic.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use cluster::wire::PayloadKind;
use foldhash::fast::RandomState;
use presence::Topic;

use super::message::{Message, Ref};

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
pub(super) struct Channel<D> {
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
    /// The driver's own.
    pub(super) data: Option<D>,
}

impl<D> Channel<D> {
    /// A message to its client alone.
    pub(super) fn message<'a>(&'a self, event: &'a str, payload: &'a [u8]) -> Message<'a> {
        Message {
            join_ref: self.carried.as_bytes(),
            reference: b"null",
            topic: self.topic.as_str(),
            event,
            payload,
        }
    }
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
    /// What the bytes of the payload are.
    pub(super) kind: PayloadKind,
    /// Raw JSON, or bytes.
    pub(super) payload: Bytes,
    /// Its `ref`.
    pub(super) reference: Ref,
    /// Bytes of the frame that it came in.
    pub(super) frame_len: usize,
}

/// The table. A topic is in it once at most. A socket of one channel owns one slot and nothing else.
#[derive(Debug)]
pub(super) struct Channels<D> {
    slots: Vec<Slot<D>>,
    /// The first vacant slot, if it is below the number of slots.
    vacant: u32,
    len: u32,
    /// Slots by topic, while there are too many to be looked through.
    #[expect(clippy::box_collection, reason = "one word in every idle socket instead of five")]
    by_topic: Option<Box<HashMap<Topic, u32, RandomState>>>,
}

#[derive(Debug)]
struct Slot<D> {
    generation: u32,
    /// The next vacant slot, while this one is.
    vacant: u32,
    channel: Option<Channel<D>>,
}

/// Channels that are looked through faster than a topic is hashed.
const SCANNED_MAX: u32 = 8;

/// No slot.
const NONE: u32 = u32::MAX;

impl<D> Channels<D> {
    /// An empty table.
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), vacant: NONE, len: 0, by_topic: None }
    }

    /// Adds a channel whose topic is not in the table. The caller bounds their number.
    pub(super) fn insert(&mut self, channel: Channel<D>) -> ChannelId {
        let topic = channel.topic.clone();
        let index = self.vacate();
        let slot = &mut self.slots[index as usize];
        self.vacant = slot.vacant;
        slot.channel = Some(channel);
        self.len += 1;
        let generation = slot.generation;
        if let Some(by_topic) = &mut self.by_topic {
            by_topic.insert(topic, index);
        } else if self.len > SCANNED_MAX {
            self.by_topic = Some(Box::new(self.indexed()));
        }
        ChannelId { index, generation }
    }

    /// Takes a channel out; its id is void from here on.
    pub(super) fn remove(&mut self, id: ChannelId) -> Option<Channel<D>> {
        let slot = self.slots.get_mut(id.index as usize)?;
        let channel = slot.channel.take_if(|_| slot.generation == id.generation)?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.vacant = std::mem::replace(&mut self.vacant, id.index);
        self.len -= 1;
        if let Some(by_topic) = &mut self.by_topic {
            by_topic.remove(&channel.topic);
            if self.len < SCANNED_MAX / 2 {
                self.by_topic = None;
            }
        }
        Some(channel)
    }

    /// Changes a channel.
    pub(super) fn get_mut(&mut self, id: ChannelId) -> Option<&mut Channel<D>> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.channel.as_mut().filter(|_| slot.generation == id.generation)
    }

    /// The channel of an id.
    pub(super) fn get(&self, id: ChannelId) -> Option<&Channel<D>> {
        let slot = self.slots.get(id.index as usize)?;
        slot.channel.as_ref().filter(|_| slot.generation == id.generation)
    }

    /// The channel that joined a topic.
    pub(super) fn find(&self, topic: &str) -> Option<ChannelId> {
        if let Some(by_topic) = &self.by_topic {
            let index = *by_topic.get(topic)?;
            let generation = self.slots.get(index as usize)?.generation;
            return Some(ChannelId { index, generation });
        }
        self.ids().find_map(|(id, channel)| (channel.topic.as_str() == topic).then_some(id))
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    /// All channels, in the order of their slots.
    pub(super) fn ids(&self) -> impl Iterator<Item = (ChannelId, &Channel<D>)> {
        self.slots.iter().zip(0..).filter_map(|(slot, index)| {
            let channel = slot.channel.as_ref()?;
            Some((ChannelId { index, generation: slot.generation }, channel))
        })
    }

    /// The first vacant slot. Most sockets join one topic: the first one makes room for itself alone.
    fn vacate(&mut self) -> u32 {
        if self.vacant == NONE {
            self.slots.reserve_exact(if self.slots.len() == self.slots.capacity() {
                self.slots.len().max(1)
            } else {
                0
            });
            self.vacant = u32::try_from(self.slots.len()).unwrap_or(NONE);
            self.slots.push(Slot { generation: 0, vacant: NONE, channel: None });
        }
        self.vacant
    }

    fn indexed(&self) -> HashMap<Topic, u32, RandomState> {
        self.ids().map(|(id, channel)| (channel.topic.clone(), id.index)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(topic: &str) -> Channel<()> {
        let topic = topic.parse().expect("a topic");
        let (expected, carried) = (Ref::NULL, Ref::NULL);
        Channel { topic, route: 0, expected, carried, joining: None, data: None }
    }

    #[test]
    fn slots_are_used_again_under_other_ids() {
        let mut channels = Channels::new();
        let mut former = None;
        for _ in 0..100 {
            let id = channels.insert(channel("room:x"));
            assert_ne!(former.replace(id), Some(id));
            assert!(channels.remove(id).is_some());
            assert!(channels.remove(id).is_none() && channels.find("room:x").is_none());
        }
        assert_eq!((channels.slots.len(), channels.slots.capacity()), (1, 1));
    }

    #[test]
    fn a_topic_is_found_however_many_there_are() {
        let mut channels = Channels::new();
        let names: Vec<String> = (0..50).map(|n| format!("room:{n}")).collect();
        let ids: Vec<_> = names.iter().map(|name| channels.insert(channel(name))).collect();
        let find = |channels: &Channels<()>| -> Vec<_> {
            names.iter().map(|name| channels.find(name)).collect()
        };
        assert_eq!(find(&channels), ids.iter().copied().map(Some).collect::<Vec<_>>());
        for id in &ids[1..] {
            assert!(channels.remove(*id).is_some());
        }
        assert_eq!(
            (channels.len(), channels.find("room:0"), channels.find("room:1")),
            (1, Some(ids[0]), None)
        );
        let again = channels.insert(channel("room:1"));
        assert_eq!(channels.find("room:1"), Some(again));
    }
}

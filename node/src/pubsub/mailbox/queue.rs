//! The frames that wait for one socket, and what gives way when they are too many. Pure.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};

/// Bytes that a queued item counts besides its frame's: a flood of tiny frames, or of frames that
/// many mailboxes share, is bounded by what it costs here.
pub const ITEM_OVERHEAD: usize = 64;

/// Replies may fill this many times the limit: the client asked for each, so they are never
/// dropped, but one that asks without reading is slow as well.
const REPLY_LIMITS: u32 = 4;

/// The highest limit, 512 MiB; sums of bytes then fit into 32 bits.
pub(super) const LIMIT_MAX: u32 = u32::MAX / 8;

/// What happens to a broadcast that does not fit into a client's mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// The client is disconnected (1013); it reconnects and resynchronises.
    #[default]
    Disconnect,
    /// The channel's oldest broadcasts make room for it.
    DropOldest,
    /// It replaces the channel's waiting broadcast of the same event; without one, its oldest.
    Conflate,
}

/// A frame on its way to a channel of the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// As it goes on the wire; what is written of it is taken off its front.
    pub(super) frame: Bytes,
    /// Whose it is; only broadcasts of the same channel make room for another.
    channel: u64,
    /// A hash of the event, for [`Overflow::Conflate`].
    event: u32,
    kind: Kind,
    /// How many frames it is, joined.
    frames: u16,
    /// Part of a WebSocket frame whose beginning is written, or goes before it: not to be dropped
    /// alone.
    attached: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Broadcast,
    Presence,
    Reply,
    State,
}

/// A broadcast for one channel.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// The subscription's [`channel`](super::super::Subscriber::channel).
    pub channel: u64,
    /// A hash of its event: equal events have equal ones.
    pub event: u32,
    /// What happens if it does not fit.
    pub overflow: Overflow,
}

/// What became of a frame that was to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queued {
    /// It waits, and so many older ones were dropped for it.
    After(usize),
    /// It was dropped, and maybe others with it: so many in all.
    Dropped(usize),
    /// It did not fit, and nothing may be dropped silently.
    Full,
}

/// Frames, oldest first. Broadcasts and replies are counted apart: what others send must not take
/// the room for what the client asked for.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The one item of most queues: it needs no memory of its own. Before `items`.
    only: Option<Item>,
    items: VecDeque<Item>,
    /// Channels whose diffs are skipped until they get a fresh state; a handful, so they are
    /// scanned. Boxed because there are almost never any.
    #[expect(clippy::box_collection, reason = "one word in every idle socket instead of three")]
    stale: Option<Box<Vec<u64>>>,
    /// Bytes of broadcasts and diffs.
    data: u32,
    /// Bytes of replies.
    replies: u32,
    /// Bytes of presence states that are shared with others.
    states: u32,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        usize::from(self.only.is_some()) + self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.only.is_none() && self.items.is_empty()
    }

    /// Bytes waiting, each item counted with [`ITEM_OVERHEAD`].
    pub(super) fn bytes(&self) -> usize {
        self.data as usize + self.answer_bytes()
    }

    /// Bytes of replies and states among them.
    pub(super) fn answer_bytes(&self) -> usize {
        self.replies as usize + self.states as usize
    }

    #[inline]
    pub(super) fn push(&mut self, offer: Offer, frame: Bytes, limit: u32) -> Queued {
        let Offer { channel, event, overflow } = offer;
        let item =
            Item { frame, channel, event, kind: Kind::Broadcast, frames: 1, attached: false };
        if self.has_room(&item, limit) {
            self.append(item);
            return Queued::After(0);
        }
        match overflow {
            Overflow::Disconnect => Queued::Full,
            Overflow::DropOldest => self.make_room(item, limit, 0),
            Overflow::Conflate => {
                self.spill();
                let same = |other: &Item| other.droppable(channel) && other.event == event;
                let replaced = self.items.iter().rposition(same).map_or(0, |at| self.drop_at(at));
                self.make_room(item, limit, replaced)
            }
        }
    }

    /// Queues several broadcasts as one, if there is room for all.
    pub(super) fn push_joined(
        &mut self,
        channel: u64,
        frames: &Bytes,
        count: usize,
        limit: u32,
    ) -> bool {
        let item = Item {
            frame: frames.clone(),
            channel,
            event: 0,
            kind: Kind::Broadcast,
            frames: u16::try_from(count).unwrap_or(u16::MAX),
            attached: false,
        };
        let fits = self.data.saturating_add(item.cost()) <= limit;
        if fits {
            self.append(item);
        }
        fits
    }

    /// Queues a presence diff; [`Queued::Dropped`] says that its channel is now stale.
    pub(super) fn push_presence(&mut self, channel: u64, frame: Bytes, limit: u32) -> Queued {
        if self.is_stale(channel) {
            return Queued::Dropped(1);
        }
        let item =
            Item { frame, channel, event: 0, kind: Kind::Presence, frames: 1, attached: false };
        if self.has_room(&item, limit) {
            self.append(item);
            return Queued::After(0);
        }
        self.stale.get_or_insert_default().push(channel);
        Queued::Dropped(1)
    }

    /// Queues the pieces of one reply.
    pub(super) fn push_reply(
        &mut self,
        pieces: impl IntoIterator<Item = Bytes>,
        limit: u32,
    ) -> Queued {
        if self.replies > limit.saturating_mul(REPLY_LIMITS) {
            return Queued::Full;
        }
        self.append_pieces(pieces, Kind::Reply);
        Queued::After(0)
    }

    /// Queues the pieces of a presence state: of any size, as others share it. Whoever asks for more
    /// should wait until it is read.
    pub(super) fn push_state(&mut self, pieces: impl IntoIterator<Item = Bytes>) -> Queued {
        self.append_pieces(pieces, Kind::State);
        Queued::After(0)
    }

    fn append_pieces(&mut self, pieces: impl IntoIterator<Item = Bytes>, kind: Kind) {
        for (at, frame) in pieces.into_iter().enumerate() {
            let attached = at > 0;
            self.append(Item { frame, channel: 0, event: 0, kind, frames: 1, attached });
        }
    }

    /// A channel that lost diffs, if there is one.
    pub(super) fn stale(&self) -> Option<u64> {
        self.stale.as_ref().and_then(|stale| stale.first().copied())
    }

    /// The channel's diffs are queued again.
    pub(super) fn resynced(&mut self, channel: u64) {
        if let Some(stale) = &mut self.stale {
            stale.retain(|known| *known != channel);
            if stale.is_empty() {
                self.stale = None;
            }
        }
    }

    /// Takes the item of a queue that holds one. It counts here until
    /// [`written_whole`](Self::written_whole) or [`put_back`](Self::put_back).
    pub(super) fn take_only(&mut self) -> Option<Item> {
        if self.items.is_empty() { self.only.take() } else { None }
    }

    /// A taken item is written.
    pub(super) fn written_whole(&mut self, item: &Item) {
        self.discount(item.kind, item.cost() as usize);
    }

    /// Takes what is to be written next: up to `count` items. They count here until
    /// [`written`](Self::written) or [`put_back`](Self::put_back).
    #[inline]
    pub(super) fn take(&mut self, count: usize) -> VecDeque<Item> {
        self.spill();
        if self.items.len() <= count {
            return std::mem::take(&mut self.items);
        }
        self.items.drain(..count).collect()
    }

    /// `bytes` of the taken items are written: those written whole are taken off.
    pub(super) fn written(&mut self, taken: &mut VecDeque<Item>, mut bytes: usize) {
        while let Some(first) = taken.front_mut() {
            if first.frame.len() > bytes {
                if bytes > 0 {
                    first.frame.advance(bytes);
                    first.attached = true;
                    let kind = first.kind;
                    self.discount(kind, bytes);
                }
                return;
            }
            bytes -= first.frame.len();
            let (kind, cost) = (first.kind, first.cost());
            self.discount(kind, cost as usize);
            taken.pop_front();
        }
    }

    /// Puts what could not be written back, before what came meanwhile.
    pub(super) fn put_back(&mut self, mut taken: VecDeque<Item>) {
        if !taken.is_empty() {
            self.spill();
            taken.append(&mut self.items);
            self.items = taken;
        }
    }

    /// Puts back the rest of a frame that was begun, where the queue was cleared meanwhile.
    pub(super) fn put_back_begun(&mut self, mut taken: VecDeque<Item>) {
        self.spill();
        let begun = taken.iter().take_while(|item| item.attached).count();
        if begun < taken.len() {
            // The pieces of one that was not.
            while self.items.pop_front_if(|first| first.attached).is_some() {}
        }
        taken.truncate(begun);
        taken.append(&mut self.items);
        (self.data, self.replies, self.states) = (0, 0, 0);
        taken.into_iter().for_each(|item| self.append(item));
    }

    /// Drops all but the rest of the frame that is being written.
    pub(super) fn clear(&mut self) -> VecDeque<Item> {
        self.spill();
        let mut dropped = std::mem::take(&mut self.items);
        self.stale = None;
        (self.data, self.replies, self.states) = (0, 0, 0);
        while let Some(rest) = dropped.pop_front_if(|first| first.attached) {
            self.append(rest);
        }
        dropped
    }

    fn is_stale(&self, channel: u64) -> bool {
        self.stale.as_ref().is_some_and(|stale| stale.contains(&channel))
    }

    /// Whether a broadcast of that length could wait too.
    pub(super) fn has_room_for(&self, len: usize, limit: u32) -> bool {
        self.fits(cost(len), limit)
    }

    fn has_room(&self, item: &Item, limit: u32) -> bool {
        self.fits(item.cost(), limit)
    }

    /// An empty mailbox takes one frame of any size.
    const fn fits(&self, cost: u32, limit: u32) -> bool {
        self.data == 0 || self.data.saturating_add(cost) <= limit
    }

    fn make_room(&mut self, item: Item, limit: u32, mut dropped: usize) -> Queued {
        self.spill();
        while !self.has_room(&item, limit) {
            let oldest = self.items.iter().position(|other| other.droppable(item.channel));
            match oldest {
                Some(at) => dropped += self.drop_at(at),
                None => return Queued::Dropped(dropped + 1),
            }
        }
        self.append(item);
        Queued::After(dropped)
    }

    fn drop_at(&mut self, at: usize) -> usize {
        let Some(item) = self.items.remove(at) else {
            return 0;
        };
        self.discount(item.kind, item.cost() as usize);
        item.frames.into()
    }

    fn append(&mut self, item: Item) {
        let cost = item.cost();
        let sum = self.sum(item.kind);
        *sum = sum.saturating_add(cost);
        if self.is_empty() {
            self.only = Some(item);
        } else {
            self.items.push_back(item);
        }
    }

    fn spill(&mut self) {
        if let Some(only) = self.only.take() {
            self.items.push_front(only);
        }
    }

    fn discount(&mut self, kind: Kind, bytes: usize) {
        let sum = self.sum(kind);
        *sum = sum.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    fn sum(&mut self, kind: Kind) -> &mut u32 {
        match kind {
            Kind::Broadcast | Kind::Presence => &mut self.data,
            Kind::Reply => &mut self.replies,
            Kind::State => &mut self.states,
        }
    }
}

impl Item {
    fn cost(&self) -> u32 {
        cost(self.frame.len())
    }

    fn droppable(&self, channel: u64) -> bool {
        self.kind == Kind::Broadcast && self.channel == channel && !self.attached
    }
}

/// What a frame of that length counts.
fn cost(len: usize) -> u32 {
    u32::try_from(len + ITEM_OVERHEAD).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;

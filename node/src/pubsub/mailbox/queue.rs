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
///
/// Limits are for what waits. What is taken to be written is not counted, and neither is the rest of a
/// frame whose beginning is written: however large it is, its client may well be reading it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The one item of most queues: it needs no memory of its own. Before `items`.
    only: Option<Item>,
    items: VecDeque<Item>,
    /// Channels whose diffs are skipped until they get a fresh state; a handful, so they are
    /// scanned. Boxed because there are almost never any.
    #[expect(clippy::box_collection, reason = "one word in every idle socket instead of three")]
    stale: Option<Box<Vec<u64>>>,
    /// Bytes of broadcasts and diffs that wait.
    data: u32,
    /// Bytes of replies that wait.
    replies: u32,
    /// Bytes of presence states that wait; they are shared with others.
    states: u32,
    /// Bytes left of the frame that is half written: the first item, if it is attached.
    begun: u32,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        usize::from(self.only.is_some()) + self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.only.is_none() && self.items.is_empty()
    }

    /// Bytes that are here, each item counted with [`ITEM_OVERHEAD`].
    pub(super) fn bytes(&self) -> usize {
        [self.data, self.replies, self.states, self.begun].iter().map(|sum| *sum as usize).sum()
    }

    /// Bytes of replies and states among them.
    pub(super) fn answer_bytes(&self) -> usize {
        let begun = match self.first() {
            Some(first) if first.kind.is_answer() => self.begun as usize,
            Some(_) | None => 0,
        };
        self.replies as usize + self.states as usize + begun
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

    /// All channels that lost diffs.
    pub(super) fn all_stale(&self) -> &[u64] {
        self.stale.as_ref().map_or(&[], |stale| stale)
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

    /// Takes the item of a queue that holds one, to be written. What is not goes
    /// [back](Self::put_back).
    pub(super) fn take_only(&mut self) -> Option<Item> {
        if !self.items.is_empty() {
            return None;
        }
        self.uncount_all();
        self.only.take()
    }

    /// Takes what is to be written next: up to `count` items. What is not goes
    /// [back](Self::put_back).
    #[inline]
    pub(super) fn take(&mut self, count: usize) -> VecDeque<Item> {
        self.spill();
        if self.items.len() <= count {
            self.uncount_all();
            return std::mem::take(&mut self.items);
        }
        let taken: VecDeque<Item> = self.items.drain(..count).collect();
        for item in &taken {
            // The first one may be what is half written.
            if std::mem::take(&mut self.begun) == 0 {
                self.uncount(item);
            }
        }
        taken
    }

    /// Puts the rest of what was taken back, before what came meanwhile.
    pub(super) fn put_back(&mut self, mut rest: VecDeque<Item>) {
        rest.iter().for_each(|item| self.count(item));
        if !rest.is_empty() {
            self.spill();
            rest.append(&mut self.items);
            self.items = rest;
        }
        self.begin();
    }

    /// Puts back the rest of a frame that was begun, where the queue was cleared meanwhile.
    pub(super) fn put_back_begun(&mut self, mut rest: VecDeque<Item>) {
        self.spill();
        let begun = rest.iter().take_while(|item| item.attached).count();
        if begun < rest.len() {
            // The pieces of one that was not.
            while self.items.pop_front_if(|first| first.attached).is_some() {}
        }
        rest.truncate(begun);
        rest.append(&mut self.items);
        self.uncount_all();
        rest.into_iter().for_each(|item| self.append(item));
        self.begin();
    }

    /// Drops all but the rest of the frame that is being written.
    pub(super) fn clear(&mut self) -> VecDeque<Item> {
        self.spill();
        let mut dropped = std::mem::take(&mut self.items);
        self.stale = None;
        self.uncount_all();
        while let Some(rest) = dropped.pop_front_if(|first| first.attached) {
            self.append(rest);
        }
        self.begin();
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

    /// Where nothing else waits there is room for one frame of any size.
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
        self.uncount(&item);
        item.frames.into()
    }

    fn append(&mut self, item: Item) {
        self.count(&item);
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

    /// The first item may now be the rest of a frame: it does not wait any more.
    fn begin(&mut self) {
        let first = self.first().filter(|first| first.attached);
        if self.begun == 0
            && let Some((kind, cost)) = first.map(|first| (first.kind, first.cost()))
        {
            self.begun = cost;
            let sum = self.sum(kind);
            *sum = sum.saturating_sub(cost);
        }
    }

    pub(super) fn first(&self) -> Option<&Item> {
        self.only.as_ref().or_else(|| self.items.front())
    }

    fn count(&mut self, item: &Item) {
        let sum = self.sum(item.kind);
        *sum = sum.saturating_add(item.cost());
    }

    fn uncount(&mut self, item: &Item) {
        let sum = self.sum(item.kind);
        *sum = sum.saturating_sub(item.cost());
    }

    const fn uncount_all(&mut self) {
        (self.data, self.replies, self.states, self.begun) = (0, 0, 0, 0);
    }

    fn sum(&mut self, kind: Kind) -> &mut u32 {
        match kind {
            Kind::Broadcast | Kind::Presence => &mut self.data,
            Kind::Reply => &mut self.replies,
            Kind::State => &mut self.states,
        }
    }
}

impl Kind {
    /// Whether the client asked for it.
    const fn is_answer(self) -> bool {
        matches!(self, Self::Reply | Self::State)
    }
}

impl Item {
    fn cost(&self) -> u32 {
        cost(self.frame.len())
    }

    /// So many bytes are written, but not all.
    fn written(&mut self, bytes: usize) {
        if bytes > 0 {
            self.frame.advance(bytes);
            self.attached = true;
        }
    }

    fn droppable(&self, channel: u64) -> bool {
        self.kind == Kind::Broadcast && self.channel == channel && !self.attached
    }
}

/// Takes off those of the items whose bytes, the first `bytes` of all, are written.
pub(super) fn take_off_written(taken: &mut VecDeque<Item>, mut bytes: usize) {
    while let Some(first) = taken.front_mut() {
        if first.frame.len() > bytes {
            return first.written(bytes);
        }
        bytes -= first.frame.len();
        taken.pop_front();
    }
}

/// What a frame of that length counts.
fn cost(len: usize) -> u32 {
    u32::try_from(len + ITEM_OVERHEAD).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;

//! A queue against a naive one, byte by byte.

use proptest::prelude::*;

use super::*;

const LIMIT: u32 = 1000;

#[derive(Clone, Debug)]
enum Step {
    Push {
        channel: u64,
        event: u32,
        overflow: Overflow,
        len: usize,
    },
    Joined {
        channel: u64,
        count: usize,
        len: usize,
    },
    Presence {
        channel: u64,
        len: usize,
    },
    Reply {
        pieces: Vec<usize>,
    },
    Resynced {
        channel: u64,
    },
    /// Takes items; what comes next happens while they are being written.
    Take {
        count: usize,
    },
    /// So much of what was taken is written.
    Write {
        bytes: usize,
    },
    Clear,
}

fn a_step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![4 => 0..300_usize, 1 => 0..2000_usize];
    let overflow =
        prop::sample::select(vec![Overflow::Disconnect, Overflow::DropOldest, Overflow::Conflate]);
    prop_oneof![
        12 => (0..3_u64, 1..4_u32, overflow, len())
            .prop_map(|(channel, event, overflow, len)| Step::Push { channel, event, overflow, len }),
        4 => (0..3_u64, 1..5_usize, len())
            .prop_map(|(channel, count, len)| Step::Joined { channel, count, len }),
        4 => (0..3_u64, len()).prop_map(|(channel, len)| Step::Presence { channel, len }),
        4 => prop::collection::vec(len(), 1..4).prop_map(|pieces| Step::Reply { pieces }),
        2 => (0..3_u64).prop_map(|channel| Step::Resynced { channel }),
        4 => (1..6_usize).prop_map(|count| Step::Take { count }),
        8 => (0..900_usize).prop_map(|bytes| Step::Write { bytes }),
        1 => Just(Step::Clear),
    ]
}

/// What waits, in the plainest words.
#[derive(Clone, Debug)]
struct Waiting {
    kind: Kind,
    channel: u64,
    event: u32,
    /// All its bytes are this.
    number: u8,
    /// Which frame of the client it is part of.
    message: usize,
    /// How many broadcasts it is.
    count: usize,
    left: usize,
    /// A byte of its frame is written.
    begun: bool,
    /// It is being written, or is what is half written.
    uncounted: bool,
}

#[derive(Default)]
struct Model {
    waiting: Vec<Waiting>,
    /// How many of them, the first ones, are being written.
    taken: usize,
    stale: Vec<u64>,
    numbers: usize,
    messages: usize,
    /// What the client reads.
    wire: Vec<u8>,
}

impl Model {
    fn bytes(&self, reply: bool) -> usize {
        let counted = |item: &&Waiting| (item.kind == Kind::Reply) == reply && !item.uncounted;
        self.waiting.iter().filter(counted).map(|item| item.left + ITEM_OVERHEAD).sum()
    }

    /// Bytes of all that is here, or of answers.
    fn held(&self, answers: bool) -> usize {
        let here = self.waiting.iter().skip(self.taken);
        let here = here.filter(|item| !answers || item.kind == Kind::Reply);
        here.map(|item| item.left + ITEM_OVERHEAD).sum()
    }

    fn take(&mut self, count: usize) {
        self.taken = count.min(self.waiting.len());
        self.waiting[..self.taken].iter_mut().for_each(|item| item.uncounted = true);
    }

    fn fits(&self, len: usize) -> bool {
        let data = self.bytes(false);
        data == 0 || data + len + ITEM_OVERHEAD <= LIMIT as usize
    }

    /// The content of the next frame.
    fn next(&mut self, len: usize) -> (u8, Bytes) {
        let number = u8::try_from(self.numbers % 251).unwrap();
        self.numbers += 1;
        (number, vec![number; len].into())
    }

    fn append(&mut self, kind: Kind, channel: u64, event: u32, (number, frame): &(u8, Bytes)) {
        let (message, left) = (self.messages, frame.len());
        let number = *number;
        let (count, begun, uncounted) = (1, false, false);
        self.waiting.push(Waiting {
            kind,
            channel,
            event,
            number,
            message,
            count,
            left,
            begun,
            uncounted,
        });
    }

    /// Drops the first or last droppable broadcast that `which` accepts, and says how many it was.
    fn give_up(&mut self, channel: u64, last: bool, which: impl Fn(&Waiting) -> bool) -> usize {
        let droppable = |(at, item): &(usize, &Waiting)| {
            let own = item.kind == Kind::Broadcast && item.channel == channel;
            *at >= self.taken && own && !item.begun && which(item)
        };
        let mut found = self.waiting.iter().enumerate().filter(droppable).map(|(at, _)| at);
        let at = if last { found.last() } else { found.next() };
        at.map_or(0, |at| self.waiting.remove(at).count)
    }

    fn push(&mut self, offer: Offer, content: &(u8, Bytes)) -> Queued {
        let Offer { channel, event, overflow } = offer;
        let len = content.1.len();
        let mut dropped = 0;
        if !self.fits(len) {
            if overflow == Overflow::Disconnect {
                return Queued::Full;
            }
            if overflow == Overflow::Conflate {
                dropped += self.give_up(channel, true, |item| item.event == event);
            }
            while !self.fits(len) {
                match self.give_up(channel, false, |_| true) {
                    0 => return Queued::Dropped(dropped + 1),
                    count => dropped += count,
                }
            }
        }
        self.append(Kind::Broadcast, channel, event, content);
        Queued::After(dropped)
    }

    fn push_joined(&mut self, channel: u64, content: &(u8, Bytes), count: usize) -> bool {
        let fits = self.bytes(false) + content.1.len() + ITEM_OVERHEAD <= LIMIT as usize;
        if fits {
            self.append(Kind::Broadcast, channel, 0, content);
            self.waiting.last_mut().unwrap().count = count;
        }
        fits
    }

    fn push_presence(&mut self, channel: u64, content: &(u8, Bytes)) -> Queued {
        if self.stale.contains(&channel) {
            return Queued::Dropped(1);
        }
        if !self.fits(content.1.len()) {
            self.stale.push(channel);
            return Queued::Dropped(1);
        }
        self.append(Kind::Presence, channel, 0, content);
        Queued::After(0)
    }

    fn push_reply(&mut self, pieces: &[(u8, Bytes)]) -> Queued {
        if self.bytes(true) > 4 * LIMIT as usize {
            return Queued::Full;
        }
        for piece in pieces {
            self.append(Kind::Reply, 0, 0, piece);
        }
        Queued::After(0)
    }

    /// Writes up to so many bytes of what was taken.
    fn write(&mut self, bytes: usize) {
        let was_taken = self.taken > 0;
        self.write_taken(bytes);
        if was_taken {
            // What is left of it waits again, but for what is half written.
            for (at, item) in self.waiting.iter_mut().enumerate() {
                item.uncounted = at == 0 && item.begun;
            }
        }
    }

    fn write_taken(&mut self, mut bytes: usize) {
        for _ in 0..std::mem::take(&mut self.taken) {
            let first = &mut self.waiting[0];
            let now = first.left.min(bytes);
            bytes -= now;
            first.left -= now;
            first.begun |= now > 0;
            self.wire.extend(std::iter::repeat_n(first.number, now));
            if first.left > 0 {
                return;
            }
            // The other pieces of its message cannot be left out any more.
            let message = self.waiting.remove(0).message;
            let rest = self.waiting.iter_mut().filter(|item| item.message == message);
            rest.for_each(|item| item.begun = true);
        }
    }

    fn clear(&mut self) {
        let begun = self.waiting.first().filter(|first| first.begun).map(|first| first.message);
        self.waiting.retain(|item| Some(item.message) == begun);
        self.stale.clear();
    }
}

/// The queue, with what is being written.
#[derive(Default)]
struct Subject {
    queue: Queue,
    taken: Option<VecDeque<Item>>,
    wire: Vec<u8>,
}

impl Subject {
    fn write(&mut self, bytes: usize) {
        let Some(mut taken) = self.taken.take() else { return };
        let all: Vec<u8> = taken.iter().flat_map(|item| item.frame.iter().copied()).collect();
        let bytes = bytes.min(all.len());
        self.wire.extend_from_slice(&all[..bytes]);
        take_off_written(&mut taken, bytes);
        self.queue.put_back(taken);
    }
}

fn step(step: &Step, subject: &mut Subject, model: &mut Model) {
    let queue = &mut subject.queue;
    model.messages += 1;
    match *step {
        Step::Push { channel, event, overflow, len } => {
            let content = model.next(len);
            let offer = offer(channel, event, overflow);
            let pushed = queue.push(offer, content.1.clone(), LIMIT);
            assert_eq!(pushed, model.push(offer, &content));
        }
        Step::Joined { channel, count, len } => {
            let content = model.next(len);
            let pushed = queue.push_joined(channel, &content.1, count, LIMIT);
            assert_eq!(pushed, model.push_joined(channel, &content, count));
        }
        Step::Presence { channel, len } => {
            let content = model.next(len);
            let pushed = queue.push_presence(channel, content.1.clone(), LIMIT);
            assert_eq!(pushed, model.push_presence(channel, &content));
        }
        Step::Reply { ref pieces } => {
            let pieces: Vec<_> = pieces.iter().map(|len| model.next(*len)).collect();
            let frames = pieces.iter().map(|piece| piece.1.clone());
            assert_eq!(queue.push_reply(frames, LIMIT), model.push_reply(&pieces));
        }
        Step::Resynced { channel } => {
            queue.resynced(channel);
            model.stale.retain(|known| *known != channel);
        }
        Step::Take { count } if subject.taken.is_none() => {
            model.take(count);
            let only = if count == 1 { queue.take_only() } else { None };
            subject.taken = Some(only.map_or_else(|| queue.take(count), |only| [only].into()));
        }
        Step::Write { bytes } => {
            subject.write(bytes);
            model.write(bytes);
        }
        // A queue that is cleared while it is written has tests of its own.
        Step::Clear if subject.taken.is_none() => {
            queue.clear();
            model.clear();
        }
        Step::Take { .. } | Step::Clear => {}
    }
}

proptest! {
    /// Whatever is pushed, written in whatever pieces: the same gives way, the same is read, and what
    /// waits is counted to the byte.
    #[test]
    fn a_queue_is_what_its_model_says(steps in prop::collection::vec(a_step(), 0..150)) {
        let (mut subject, mut model) = (Subject::default(), Model::default());
        for one in &steps {
            step(one, &mut subject, &mut model);
            let queue = &subject.queue;
            let taken = subject.taken.as_ref().map_or(0, VecDeque::len);
            prop_assert_eq!(queue.bytes(), model.held(false));
            prop_assert_eq!(queue.answer_bytes(), model.held(true));
            prop_assert_eq!(queue.stale(), model.stale.first().copied());
            prop_assert_eq!(queue.len() + taken, model.waiting.len());
        }
        subject.write(usize::MAX);
        model.write(usize::MAX);
        subject.taken = Some(subject.queue.take(usize::MAX));
        model.take(usize::MAX);
        subject.write(usize::MAX);
        model.write(usize::MAX);
        prop_assert_eq!(&subject.wire, &model.wire);
        prop_assert_eq!((subject.queue.len(), subject.queue.bytes()), (0, 0));
    }
}

//! Fixed work on the way of a message, for `tests/instructions` to count instructions of:
//! `instructions CASE ROUNDS` does `ROUNDS` rounds of a case. Without arguments it names the cases.
//!
//! Everything is done before the first round that later rounds need not do, so the difference of two
//! runs is that of their rounds.

#![allow(clippy::unwrap_used, reason = "work that cannot be done ends it")]
#![allow(clippy::print_stdout, reason = "it names its cases")]

use std::{hint::black_box, sync::Arc};

use cluster::wire::{self, PayloadKind};
use presence::{NodeIx, Topic};
use wingbeat::{
    internals::{Session, encode},
    pubsub::{
        Broadcast, Filter, Flush, Format, Mailbox, Outlet, Overflow, Payload, Registry, Routes,
        Subscriber, Subscription,
    },
};

/// Subscribers of the topic.
const SUBSCRIBERS: usize = 100;

/// Messages in a read of several.
const READ: usize = 32;

const JOIN: &str = r#"["1","1","room:lobby","phx_join",{}]"#;
const LEAVE: &str = r#"["1","3","room:lobby","phx_leave",{}]"#;
const HEARTBEAT: &str = r#"[null,"7","phoenix","heartbeat",{}]"#;
const PUSH: &str = r#"["1","2","room:lobby","new_msg",{"body":"a message of a hundred bytes, as people write them to each other in a room, more or less"}]"#;

const CASES: [(&str, Work); 6] = [
    ("a message to 100 subscribers", |room| room.read(Said::Push, SUBSCRIBERS)),
    ("32 messages in one read to 100 subscribers", |room| room.read(Said::Pushes, SUBSCRIBERS)),
    ("a heartbeat", |room| room.read(Said::Heartbeat, 1)),
    ("a leave and a join", |room| {
        room.read(Said::Rejoin, 1);
        room.subscriptions.pop();
        room.subscribe();
    }),
    ("a broadcast of a peer to 100 subscribers", Room::receive),
    ("a broadcast to 50 of 100 peers", Room::forward),
];

type Work = fn(&mut Room);

/// What a client says in one read.
#[derive(Clone, Copy)]
enum Said {
    Push,
    Pushes,
    Heartbeat,
    Rejoin,
}

/// A topic with its subscribers, one of whom speaks.
struct Room {
    registry: Arc<Registry>,
    routes: Routes,
    topic: Topic,
    mailboxes: Vec<Arc<Mailbox>>,
    subscriptions: Vec<Subscription>,
    session: Session,
    /// The bytes of each [`Said`].
    said: [Vec<u8>; 4],
}

impl Room {
    fn new() -> Self {
        let topic: Topic = "room:lobby".parse().unwrap();
        let routes = Routes::new(64);
        for peer in (0..100).map(NodeIx) {
            routes.link(peer, true);
            routes.interest(topic.hash64(), peer, peer.0 % 2 == 0);
        }
        let mut room = Self {
            registry: Registry::new(),
            routes,
            topic,
            mailboxes: (0..SUBSCRIBERS).map(|_| Mailbox::new(1 << 18, Outlet::Owner)).collect(),
            subscriptions: Vec::new(),
            session: Session::new(),
            said: [
                masked(PUSH),
                masked(PUSH).repeat(READ),
                masked(HEARTBEAT),
                [masked(LEAVE), masked(JOIN)].concat(),
            ],
        };
        (0..SUBSCRIBERS).for_each(|_| room.subscribe());
        room.read(Said::Rejoin, 1);
        room
    }

    /// The next one that is not there.
    fn subscribe(&mut self) {
        let subscriber = Subscriber {
            mailbox: Arc::clone(&self.mailboxes[self.subscriptions.len()]),
            channel: 1,
            format: Format::V2,
            overflow: Overflow::Disconnect,
            filter: Filter::All,
            presence_after: None,
        };
        self.subscriptions.push(self.registry.subscribe(&self.topic, subscriber));
    }

    /// Reads what the first subscriber says, and hands it to all; the first `listeners` take it out.
    fn read(&mut self, said: Said, listeners: usize) {
        let (registry, topic, speaker) = (&self.registry, &self.topic, &self.mailboxes[0]);
        let mut bytes = self.said[said as usize].clone();
        let mut flush = Flush::new();
        let done = self.session.read(&mut bytes, speaker, &mut flush, |event, payload, flush| {
            let broadcast = Broadcast::new(topic, event, payload, encode);
            registry.publish(&broadcast, None, flush);
        });
        done.unwrap();
        self.take_out(flush, listeners);
    }

    /// Hands what a peer sent to all.
    fn receive(&mut self) {
        let head = wire::encode_broadcast(&broadcast());
        let frame = [&head, PUSH.as_bytes()].concat().into();
        let (header, payload) = wire::decode_broadcast(&frame).unwrap().unwrap();
        let topic: Topic = header.topic.parse().unwrap();
        let mut flush = Flush::new();
        let payload = Payload::new(header.kind, &payload).unwrap();
        let broadcast = Broadcast::new(&topic, header.event, payload, encode);
        self.registry.publish(&broadcast, None, &mut flush);
        self.take_out(flush, SUBSCRIBERS);
    }

    /// Says to whom a message goes, and encodes it for them.
    fn forward(&mut self) {
        let mut reached = 0;
        self.routes.peers(black_box(self.topic.hash64()), 0, |_| reached += 1);
        assert_eq!(reached, 50);
        black_box(wire::encode_broadcast(black_box(&broadcast())));
    }

    /// As the owners of the mailboxes do.
    fn take_out(&self, flush: Flush, listeners: usize) {
        assert!(flush.write().is_done());
        for mailbox in &self.mailboxes[..listeners] {
            while let Some(frame) = mailbox.pop() {
                black_box(frame);
            }
        }
    }
}

fn broadcast() -> wire::Broadcast<'static> {
    let kind = PayloadKind::Json;
    wire::Broadcast { topic: "room:lobby", event: "new_msg", kind, sequence: 12_345 }
}

/// A text frame of a client.
fn masked(text: &str) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let len = u16::try_from(text.len()).unwrap();
    let head = match u8::try_from(len) {
        Ok(len @ ..=125) => vec![0x81, 0x80 | len],
        _ => [&[0x81, 0x80 | 126], len.to_be_bytes().as_slice()].concat(),
    };
    let payload = text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    head.into_iter().chain(mask).chain(payload).collect()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let named = arguments.next().and_then(|name| CASES.iter().find(|(case, _)| *case == name));
    let (Some((_, work)), Some(rounds)) = (named, arguments.next()) else {
        return CASES.iter().for_each(|(case, _)| println!("{case}"));
    };
    let mut room = Room::new();
    (0..rounds.parse().unwrap()).for_each(|_: u32| work(&mut room));
}

//! Registry, subscriptions and mailboxes together, as the node uses them.

mod runs;
mod sockets;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    thread,
};

use bytes::Bytes;
use presence::Topic;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::*;

const LIMIT: usize = 1 << 20;

fn topic(name: &str) -> Topic {
    name.parse().unwrap()
}

/// Server-sent events have no form for bytes.
fn encode(format: Format, topic: &str, event: &str, payload: Payload<'_>) -> Option<Bytes> {
    let bytes = payload.to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    let has_form = matches!(payload, Payload::Json(_)) || format != Format::Sse;
    has_form.then(|| format!("{format:?} {topic} {event} {text}").into())
}

fn message<'a>(topic: &'a Topic, payload: &'a str) -> Broadcast<'a> {
    Broadcast::new(topic, "e", Payload::Json(payload.as_bytes()), encode)
}

fn subscriber(mailbox: &Arc<Mailbox>, format: Format) -> Subscriber {
    let (mailbox, overflow) = (Arc::clone(mailbox), Overflow::Disconnect);
    let (filter, presence_after) = (Filter::All, None);
    Subscriber { mailbox, channel: 1, format, overflow, filter, presence_after }
}

fn mailbox(limit: usize) -> Arc<Mailbox> {
    Mailbox::new(limit, Outlet::Owner)
}

/// A mailbox with a connection, and the client's end of that. It buffers far less than a MiB.
pub(super) async fn pair(limit: usize) -> (Arc<Mailbox>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    SockRef::from(&stream).set_send_buffer_size(64 << 10).unwrap();
    SockRef::from(&client).set_recv_buffer_size(64 << 10).unwrap();
    (Mailbox::new(limit, Outlet::Socket(stream)), client)
}

/// The texts of the frames in a mailbox, then what its owner is to do.
fn texts(mailbox: &Mailbox) -> Vec<String> {
    let frames = std::iter::from_fn(|| mailbox.pop());
    let mut texts: Vec<_> =
        frames.map(|frame| String::from_utf8_lossy(&frame).into_owned()).collect();
    if let Poll::Ready(control) = mailbox.poll_control(&mut Context::from_waker(Waker::noop())) {
        texts.push(format!("{control:?}"));
    }
    texts
}

fn broadcast(registry: &Registry, message: &Broadcast<'_>) -> Delivered {
    registry.broadcast(message, None, &mut Flush::new())
}

fn diff(registry: &Registry, message: &Broadcast<'_>, version: u64) -> Delivered {
    registry.presence(message, version, &mut Flush::new())
}

#[test]
fn a_broadcast_reaches_the_subscribers_of_its_topic_in_their_formats_and_in_order() {
    let registry = Registry::new();
    let [a, b, other] = [(); 3].map(|()| mailbox(LIMIT));
    let (here, there) = (topic("room:a"), topic("room:b"));
    let _a = registry.subscribe(&here, subscriber(&a, Format::V2));
    let _b = registry.subscribe(&here, subscriber(&b, Format::Sse));
    let _other = registry.subscribe(&there, subscriber(&other, Format::V2));

    let reached = Delivered { subscribers: 2, ..Delivered::default() };
    assert_eq!(broadcast(&registry, &message(&here, "1")), reached);
    assert_eq!(broadcast(&registry, &message(&here, "2")), reached);
    assert_eq!(texts(&a), ["V2 room:a e 1", "V2 room:a e 2"]);
    assert_eq!(texts(&b), ["Sse room:a e 1", "Sse room:a e 2"]);
    assert_eq!(texts(&other), [""; 0]);
    assert_eq!((registry.stats().broadcasts(), registry.stats().deliveries()), (2, 4));
}

#[test]
fn nothing_is_encoded_for_nobody() {
    static ENCODED: AtomicUsize = AtomicUsize::new(0);
    let counting: Encode = |format, topic, event, payload| {
        ENCODED.fetch_add(1, SeqCst);
        encode(format, topic, event, payload)
    };
    let (registry, here) = (Registry::new(), topic("room:a"));
    let send = || broadcast(&registry, &Broadcast::new(&here, "e", Payload::Json(b"1"), counting));
    assert_eq!(send(), Delivered::default());
    assert_eq!(ENCODED.load(SeqCst), 0);

    let mailboxes = [(); 100].map(|()| mailbox(LIMIT));
    let _subscriptions =
        mailboxes.each_ref().map(|m| registry.subscribe(&here, subscriber(m, Format::V2)));
    assert_eq!(send().subscribers, 100);
    assert_eq!(ENCODED.load(SeqCst), 1);
}

#[test]
fn who_has_no_form_for_a_message_is_left_out_and_counted() {
    let (registry, here) = (Registry::new(), topic("room:a"));
    let (a, b) = (mailbox(LIMIT), mailbox(LIMIT));
    let _a = registry.subscribe(&here, subscriber(&a, Format::V2));
    let _b = registry.subscribe(&here, subscriber(&b, Format::Sse));
    let bytes = || Broadcast::new(&here, "e", Payload::Binary(b"1"), encode);
    let delivered = broadcast(&registry, &bytes());
    assert_eq!((delivered.subscribers, delivered.formless), (1, 1));
    let mut flush = Flush::new();
    for message in [message(&here, "2"), bytes(), message(&here, "3"), bytes()] {
        registry.publish(&message, None, &mut flush);
    }
    drop(flush);
    assert_eq!(
        texts(&a).concat(),
        "V2 room:a e 1V2 room:a e 2V2 room:a e 1V2 room:a e 3V2 room:a e 1"
    );
    assert_eq!(texts(&b).concat(), "Sse room:a e 2Sse room:a e 3");
    assert_eq!((registry.stats().deliveries(), registry.stats().formless()), (7, 3));
}

#[test]
fn the_excluded_channel_alone_is_left_out() {
    let (registry, here) = (Registry::new(), topic("room:a"));
    let mailbox = mailbox(LIMIT);
    let sender = registry.subscribe(&here, subscriber(&mailbox, Format::V2));
    let _same_socket = registry.subscribe(&here, subscriber(&mailbox, Format::V1));
    registry.broadcast(&message(&here, "1"), Some(sender.id()), &mut Flush::new());
    assert_eq!(texts(&mailbox), ["V1 room:a e 1"], "its other channel does get it");
}

#[test]
fn the_name_of_an_ended_subscription_never_means_another_one() {
    let (registry, here) = (Registry::new(), topic("room:a"));
    let [keeper, former, later] = [(); 3].map(|()| mailbox(LIMIT));
    let _keeper = registry.subscribe(&here, subscriber(&keeper, Format::V2));
    let ended = registry.subscribe(&here, subscriber(&former, Format::V2)).id();
    let _later = registry.subscribe(&here, subscriber(&later, Format::V2));
    registry.broadcast(&message(&here, "1"), Some(ended), &mut Flush::new());
    assert_eq!(texts(&later), ["V2 room:a e 1"], "though it has the same slot");
    assert_eq!(texts(&former), [""; 0]);
}

#[test]
fn a_topic_lives_as_long_as_its_last_subscription() {
    let (registry, here) = (Registry::new(), topic("room:a"));
    let mailbox = mailbox(LIMIT);
    let first = registry.subscribe(&here, subscriber(&mailbox, Format::V2));
    let second = registry.subscribe(&topic("room:a"), subscriber(&mailbox, Format::V2));
    assert_eq!(registry.subscribers(&here), 2);
    assert_eq!(
        first.topic().as_str().as_ptr(),
        second.topic().as_str().as_ptr(),
        "subscribers share the topic's name"
    );
    drop(first);
    assert_eq!(registry.size(), Size { topics: 1, subscriptions: 1 });
    drop(second);
    assert_eq!(registry.subscribers(&here), 0);
    assert_eq!(registry.size(), Size::default());
    assert_eq!(Arc::strong_count(&mailbox), 1, "nothing of it is kept");
}

#[test]
fn a_slow_subscriber_is_closed_and_counted_once_and_others_lose_nothing() {
    let (registry, here) = (Registry::new(), topic("room:a"));
    let (slow, fast) = (mailbox(300), mailbox(LIMIT));
    let _slow = registry.subscribe(&here, subscriber(&slow, Format::V2));
    let _fast = registry.subscribe(&here, subscriber(&fast, Format::V2));
    let sum = (0..10).fold((0, 0), |(subscribers, overflowed), n| {
        let delivered = broadcast(&registry, &message(&here, &n.to_string()));
        (subscribers + delivered.subscribers, overflowed + delivered.overflowed)
    });
    assert_eq!(sum, (13, 1), "three fit into 300 bytes");
    assert_eq!(texts(&slow), ["Close(Slow)"]);
    assert_eq!(texts(&fast).len(), 10);
    assert_eq!(registry.stats().overflows(), 1);
}

#[test]
fn a_presence_diff_goes_to_those_whose_state_is_older() {
    let (registry, here) = (Registry::new(), topic("room:a"));
    let [none, old, new] = [(); 3].map(|()| mailbox(LIMIT));
    let with = |mailbox, presence_after| {
        let subscriber = Subscriber { presence_after, ..subscriber(mailbox, Format::V2) };
        registry.subscribe(&here, subscriber)
    };
    let _none = with(&none, None);
    let _old = with(&old, Some(4));
    let new_one = with(&new, Some(5));

    assert_eq!(diff(&registry, &message(&here, "v5"), 5).subscribers, 1);
    assert_eq!(diff(&registry, &message(&here, "v6"), 6).subscribers, 2);
    new_one.set_presence_after(9, || ());
    diff(&registry, &message(&here, "v9"), 9);
    diff(&registry, &message(&here, "v10"), 10);

    assert_eq!(texts(&none), [""; 0]);
    assert_eq!(texts(&old).len(), 4);
    assert_eq!(texts(&new), ["V2 room:a e v6", "V2 room:a e v10"]);
}

#[test]
fn who_wants_counts_gets_no_diffs_and_the_other_way_round() {
    let (registry, here) = (Registry::new(), topic("room:a"));
    let [counts, diffs] = [(); 2].map(|()| mailbox(LIMIT));
    let with = |mailbox, version| {
        let presence_after = Some(version);
        registry.subscribe(&here, Subscriber { presence_after, ..subscriber(mailbox, Format::V2) })
    };
    let (_counts, _diffs) = (with(&counts, count_version(4)), with(&diffs, 4));
    for version in [4, 5] {
        diff(&registry, &message(&here, "diff"), version);
        diff(&registry, &message(&here, "count"), count_version(version));
    }
    assert_eq!(texts(&counts), ["V2 room:a e count"]);
    assert_eq!(texts(&diffs), ["V2 room:a e diff"]);
}

#[test]
fn a_diff_without_room_is_skipped_and_the_socket_stays() {
    let (registry, here) = (Registry::new(), topic("room:a"));
    let mailbox = mailbox(100);
    let presence_after = Some(0);
    let subscriber = Subscriber { presence_after, ..subscriber(&mailbox, Format::V2) };
    let _subscription = registry.subscribe(&here, subscriber);
    let counts = [1, 2, 3].map(|version| {
        let delivered = diff(&registry, &message(&here, "d"), version);
        (delivered.subscribers, delivered.skipped)
    });
    assert_eq!(counts, [(1, 0), (0, 1), (0, 1)]);
    assert_eq!(texts(&mailbox), ["V2 room:a e d", "Resync { channel: 1 }"]);
    assert_eq!(registry.stats().presence_skips(), 2);
}

#[test]
fn topics_are_listed_by_name_and_prefix_up_to_a_limit() {
    let registry = Registry::new();
    let mailbox = mailbox(LIMIT);
    let names = ["room:c", "lobby", "room:a", "room:b", "room:a"];
    let _subscriptions =
        names.map(|name| registry.subscribe(&topic(name), subscriber(&mailbox, Format::V2)));
    let (a, b, c) = (topic("room:a"), topic("room:b"), topic("room:c"));
    assert_eq!(registry.topics("room:", 2), [(a.clone(), 2), (b.clone(), 1)]);
    assert_eq!(registry.topics("room:", 9), [(a, 2), (b, 1), (c, 1)]);
    assert_eq!(registry.topics("", 9).len(), 4);
    assert_eq!(registry.topics("", 0), []);
}

/// Threads come and go on a few topics while others broadcast: a subscriber hears everything that
/// one publisher says on its topic while it is there, in order, and nothing stays behind.
#[test]
fn subscribers_come_and_go_while_others_broadcast() {
    const TOPICS: usize = 3;
    const ROUNDS: usize = 150;
    let registry = Registry::new();
    let topics: [Topic; TOPICS] = ["t:0", "t:1", "t:2"].map(topic);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (registry, topics, done) = (&registry, &topics, &done);
        let publishers: Vec<_> = topics
            .iter()
            .map(|topic| {
                scope.spawn(move || {
                    for n in 0.. {
                        if done.load(SeqCst) {
                            return;
                        }
                        broadcast(registry, &message(topic, &n.to_string()));
                    }
                })
            })
            .collect();
        let subscribers: Vec<_> = (0..4)
            .map(|seed| scope.spawn(move || come_and_go(registry, &topics[seed % TOPICS], ROUNDS)))
            .collect();
        let heard: usize = subscribers.into_iter().map(|thread| thread.join().unwrap()).sum();
        done.store(true, SeqCst);
        publishers.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(heard >= 4 * ROUNDS, "each round hears something");
    });
    assert_eq!(registry.size(), Size::default());
}

/// Subscribes, hears a few messages and leaves, over and over; returns how many were heard.
fn come_and_go(registry: &Arc<Registry>, topic: &Topic, rounds: usize) -> usize {
    let mut heard = 0;
    for _ in 0..rounds {
        let mailbox = mailbox(1 << 30);
        let subscription = registry.subscribe(topic, subscriber(&mailbox, Format::V2));
        while mailbox.is_empty() {
            thread::yield_now();
        }
        drop(subscription);
        let numbers = texts(&mailbox)
            .into_iter()
            .map(|text| text.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap());
        let numbers: Vec<u64> = numbers.collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
        heard += numbers.len();
    }
    heard
}

#[test]
fn a_full_mailbox_gives_way_as_its_channel_is_told_to() {
    let (registry, here) = (Registry::new(), topic("room:a"));
    let [oldest, conflated] = [(); 2].map(|()| mailbox(300));
    let with = |mailbox, overflow| {
        registry.subscribe(&here, Subscriber { overflow, ..subscriber(mailbox, Format::V2) })
    };
    let _both = [with(&oldest, Overflow::DropOldest), with(&conflated, Overflow::Conflate)];
    let send = |event, payload: &str| {
        let payload = Payload::Json(payload.as_bytes());
        broadcast(&registry, &Broadcast::new(&here, event, payload, encode))
    };
    for (event, payload) in [("e", "1"), ("f", "2"), ("e", "3")] {
        assert_eq!(send(event, payload).subscribers, 2);
    }
    let delivered = send("f", "4");
    assert_eq!((delivered.subscribers, delivered.dropped, delivered.conflated), (2, 1, 1));
    assert_eq!(texts(&oldest), ["V2 room:a f 2", "V2 room:a e 3", "V2 room:a f 4"]);
    assert_eq!(texts(&conflated), ["V2 room:a e 1", "V2 room:a e 3", "V2 room:a f 4"]);
    assert_eq!((registry.stats().dropped(), registry.stats().conflated()), (1, 1));
}

#[test]
fn what_a_subscription_begins_with_goes_before_what_is_broadcast() {
    let (registry, here) = (Registry::new(), topic("room:a"));
    let mailbox = mailbox(LIMIT);
    let first = || _ = mailbox.push_reply([Bytes::from_static(b"first")], &mut Flush::new());
    let subscription = registry.subscribe_after(&here, subscriber(&mailbox, Format::V2), first);
    broadcast(&registry, &message(&here, "1"));
    subscription.set_presence_after(1, first);
    assert_eq!(texts(&mailbox), ["first", "V2 room:a e 1", "first"]);
}

#[test]
fn an_intercepted_event_goes_to_the_channel_and_not_to_its_client() {
    let (registry, here) = (Registry::new(), topic("room:a"));
    registry.set_intercepts(Box::new([&["secret"]]));
    let [client, channel, other] = [(); 3].map(|()| mailbox(LIMIT));
    let wants = |mailbox, filter| Subscriber { filter, ..subscriber(mailbox, Format::V2) };
    let _other = registry.subscribe(&here, wants(&other, Filter::All));
    let first = registry.subscribe(&here, wants(&client, Filter::Except(0)));
    let _second = registry.subscribe_beside(&first, wants(&channel, Filter::Only(0)));
    let send = |event, except, flush: &mut Flush| {
        let message = Broadcast::new(&here, event, Payload::Json(b"1"), encode);
        registry.publish(&message, except, flush);
    };

    let mut flush = Flush::new();
    send("open", None, &mut flush);
    send("secret", None, &mut flush);
    drop(flush);
    assert_eq!(texts(&client), ["V2 room:a open 1"]);
    assert_eq!(texts(&channel), ["V2 room:a secret 1"]);
    assert_eq!(texts(&other), ["V2 room:a open 1V2 room:a secret 1"]);
    send("secret", None, &mut Flush::new());
    assert_eq!(texts(&channel), ["V2 room:a secret 1"], "alone as well");
    send("secret", Some(first.id()), &mut Flush::new());
    assert_eq!((texts(&client), texts(&channel)), (Vec::new(), Vec::new()), "both are left out");
}

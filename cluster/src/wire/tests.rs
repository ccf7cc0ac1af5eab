//! Round trips, bytes of strangers, and the format itself.

mod format;
mod swim;

use proptest::prelude::*;

use super::*;
use presence::{Bitmap, Op, Range, Value};

pub(super) fn identity() -> impl Strategy<Value = Identity> {
    let name = "[!-~]{1,12}".prop_map(|name| name.parse().expect("visible ASCII"));
    let address = any::<std::net::SocketAddr>().prop_map(|mut address| {
        // Neither crosses the wire, nor means anything on another machine.
        if let std::net::SocketAddr::V6(v6) = &mut address {
            v6.set_flowinfo(0);
            v6.set_scope_id(0);
        }
        address
    });
    (name, address, any::<u64>(), any::<u32>()).prop_map(|(name, address, incarnation, renewal)| {
        Identity::new(name, address, incarnation, renewal)
    })
}

fn record() -> impl Strategy<Value = MemberRecord> {
    (identity(), any::<u16>(), 0..3_u8).prop_map(|(identity, incarnation, state)| MemberRecord {
        identity,
        incarnation,
        state,
    })
}

fn sync() -> impl Strategy<Value = Sync> {
    let positions = || prop::collection::vec(any::<u64>(), 0..20);
    let members = prop::collection::vec(record(), 0..5);
    (identity(), ".{0,9}", ".{0,9}", positions(), positions(), members).prop_map(
        |(identity, region, version, heads, positions, members)| Sync {
            identity,
            region,
            version,
            heads,
            positions,
            members,
        },
    )
}

fn client_frame() -> impl Strategy<Value = ClientFrame> {
    (any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(binary, bytes)| {
        if binary { ClientFrame::Binary(bytes.into()) } else { ClientFrame::Text(bytes.into()) }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop_oneof![
        (any::<u32>(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(topic, kv)| Value::Presence { topic, kv: kv.into() }),
        any::<u64>().prop_map(|hash| Value::Interest { hash }),
    ];
    prop_oneof![
        (any::<u32>(), any::<u64>(), any::<u64>(), value)
            .prop_map(|(slot, seq, born, value)| Op::Put { slot, seq, born, value }),
        (any::<u32>(), any::<u64>()).prop_map(|(slot, seq)| Op::Remove { slot, seq }),
    ]
}

/// As the wire can carry it, sound or not: what is sound is for the feeds to say.
fn feed_range() -> impl Strategy<Value = FeedRange> {
    let topic = "[a-zé:]{1,20}".prop_map(|name| name.parse().expect("no control characters"));
    let retain = prop::option::of(prop::collection::vec(any::<u64>(), 0..9).prop_map(Bitmap));
    let head = (any::<u16>(), any::<u32>(), any::<bool>(), any::<u64>());
    let body = (
        prop::array::uniform4(any::<u64>()),
        retain,
        prop::collection::vec(topic, 0..4),
        prop::collection::vec(op(), 0..9),
    );
    (head, body).prop_map(|((shard, epoch, ack_now, incarnation), body)| {
        let ([from, to, head, horizon], retain, topics, ops) = body;
        let range = Range { incarnation, from, to, head, horizon, retain, topics, ops };
        FeedRange { shard, epoch, ack_now, range }
    })
}

fn message() -> impl Strategy<Value = Message> {
    let positions = prop::collection::vec(any::<(u16, u64)>(), 0..20);
    let feeds = prop::collection::vec(any::<(u64, u64)>(), 0..20);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..50).prop_map(|packet| Message::Swim(packet.into())),
        sync().prop_map(Message::Sync),
        feed_range().prop_map(Message::Range),
        (any::<u64>(), positions).prop_map(|(incarnation, positions)| {
            Message::Ack(Positions { incarnation, positions })
        }),
        any::<(u64, u16, u64)>().prop_map(|(incarnation, shard, position)| {
            Message::Nack(Nack { incarnation, shard, position })
        }),
        any::<(u64, u64)>().prop_map(|(clock, own)| Message::Digest(Digest { clock, own })),
        Just(Message::DigestRequest),
        (any::<u64>(), feeds)
            .prop_map(|(incarnation, feeds)| Message::Sums(Sums { incarnation, feeds })),
        ".{0,20}".prop_map(Message::Disconnect),
        Just(Message::Draining),
        any::<u64>().prop_map(Message::Leave),
        pull(),
        (any::<u64>(), prop::option::of(prop::collection::vec(any::<u64>(), 0..20)))
            .prop_map(|(id, heads)| Message::PullAnswer(PullAnswer { id, heads })),
        any::<u64>().prop_map(Message::PullEnd),
        ("[a-z]{1,8}", any::<(u64, u64)>()).prop_map(|(name, (incarnation, lease))| {
            Message::Departed(Departed { name, incarnation, lease })
        }),
        prop::collection::vec(record(), 0..5).prop_map(Message::Members),
        (any::<u64>(), feed_range())
            .prop_map(|(pull, feed)| Message::Relayed(Relayed { pull, feed })),
    ]
}

fn pull() -> impl Strategy<Value = Message> {
    let positions = prop::collection::vec(any::<u64>(), 0..20);
    (any::<u64>(), ".{0,12}", any::<u64>(), positions).prop_map(
        |(id, owner, incarnation, positions)| {
            Message::Pull(Pull { id, owner, incarnation, positions })
        },
    )
}

proptest! {
    #[test]
    fn a_message_comes_back_as_it_went(message in message()) {
        prop_assert_eq!(Message::decode(&message.encode()), Ok(Some(message)));
    }

    #[test]
    fn a_broadcast_comes_back_with_its_payload(
        topic in ".{0,30}",
        event in ".{0,30}",
        binary in any::<bool>(),
        sequence in any::<u64>(),
        payload in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let kind = if binary { PayloadKind::Binary } else { PayloadKind::Json };
        let broadcast = Broadcast { topic: &topic, event: &event, kind, sequence };
        let frame = Bytes::from([&encode_broadcast(&broadcast)[..], &payload].concat());
        prop_assert_eq!(decode_broadcast(&frame), Ok(Some((broadcast, payload.into()))));
    }

    #[test]
    fn questions_and_answers_come_back(
        prefix in ".{0,30}",
        limit in any::<u32>(),
        topics in prop::collection::vec((".{0,9}", any::<u32>()), 0..9),
    ) {
        let request = TopicsRequest { prefix, limit };
        prop_assert_eq!(decode_topics_request(&encode_topics_request(&request)), Ok(request));
        let answer = Topics { topics };
        prop_assert_eq!(decode_topics(&encode_topics(&answer)), Ok(answer));
    }

    #[test]
    fn requests_of_long_poll_clients_come_back(
        session in any::<SessionId>(),
        frames in prop::collection::vec(client_frame(), 0..9),
        messages in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        for request in [SessionRequest::Poll(session), SessionRequest::Frames(session, frames)] {
            let body = encode_session_request(&request);
            prop_assert_eq!(decode_session_request(&body), Ok(Some(request)));
            for cut in 0..body.len() {
                prop_assert!(decode_session_request(&body.slice(..cut)).is_err());
            }
        }
        let messages = SessionAnswer::Messages(messages.into());
        let (gone, nothing) = (SessionAnswer::Gone, SessionAnswer::Nothing);
        for answer in [messages, gone, nothing, SessionAnswer::Taken, SessionAnswer::Undecodable] {
            prop_assert_eq!(decode_session_answer(&encode_session_answer(&answer)), Ok(answer));
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_all(&bytes.into());
    }

    /// Past the prefix, where arbitrary bytes hardly ever get.
    #[test]
    fn arbitrary_headers_do_no_harm(
        kind in 0..0x25_u8,
        header in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        decode_all(&framed(kind, &header, &[]));
    }

    #[test]
    fn a_mutated_frame_does_no_harm(
        message in message(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut frame = message.encode().to_vec();
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        decode_all(&frame.into());
    }

    #[test]
    fn a_frame_cut_short_is_refused(message in message(), cut in any::<prop::sample::Index>()) {
        let frame = message.encode();
        // A membership packet has no length of its own.
        prop_assume!(!matches!(message, Message::Swim(_)));
        let cut = frame.slice(..cut.index(frame.len()));
        prop_assert_eq!(Message::decode(&cut), Err(WireError::Short { len: cut.len() }));
    }

    #[test]
    fn bytes_after_a_header_or_in_it_are_refused(message in message(), rest in 1..9_usize) {
        prop_assume!(!matches!(message, Message::Swim(_)));
        let frame = message.encode();
        let rest = vec![0; rest];
        let after = Bytes::from([&frame[..], &rest].concat());
        let refused = |frame| matches!(Message::decode(frame), Err(WireError::Malformed { .. }));
        prop_assert!(refused(&after));
        let header = if frame[1] == LONG { PREFIX_LEN + 4 } else { PREFIX_LEN };
        let within = [&frame[header..], &rest].concat();
        prop_assert!(refused(&framed(frame[0], &within, &[])));
    }
}

/// A frame of this kind, whatever its header is.
pub(super) fn framed(kind: u8, header: &[u8], payload: &[u8]) -> Bytes {
    let len = header.len();
    let prefix = match u8::try_from(len) {
        Ok(len) if len < LONG => vec![kind, len],
        _ => [&[kind, LONG], &u32::try_from(len).expect("a header").to_le_bytes()[..]].concat(),
    };
    [&prefix, header, payload].concat().into()
}

fn decode_all(frame: &Bytes) {
    let _ = Message::decode(frame);
    let _ = decode_broadcast(frame);
    let _ = decode_topics_request(frame);
    let _ = decode_topics(frame);
    let _ = decode_session_request(frame);
    let _ = decode_session_answer(frame);
}

#[test]
fn kinds_of_a_later_release_are_ignored_from_0x80_on() {
    for kind in (0x80..=0xff).filter(|kind| *kind != kind::DEPARTED) {
        let frame = framed(kind, b"whatever", b"follows");
        assert_eq!(Message::decode(&frame), Ok(None));
        assert_eq!(decode_broadcast(&frame), Ok(None));
    }
    for kind in [0x00, 0x12, 0x1f, 0x20, 0x22, 0x25, 0x7f] {
        let refused = WireError::UnknownKind { kind };
        assert_eq!(Message::decode(&framed(kind, &[], &[])), Err(refused.clone()));
        assert_eq!(decode_broadcast(&framed(kind, &[], &[])), Err(refused));
    }
    let swim = framed(kind::SWIM, &[], &[]);
    assert_eq!(decode_topics(&swim), Err(WireError::UnknownKind { kind: kind::SWIM }));
    assert_eq!(decode_topics_request(&swim), Err(WireError::UnknownKind { kind: kind::SWIM }));
}

#[test]
fn a_header_over_the_limit_is_refused_by_its_length() {
    let len = HEADER_LEN_MAX + 1;
    let frame = framed(kind::LEAVE, &vec![0; len], &[]);
    let refused = WireError::TooLong { len, limit: HEADER_LEN_MAX };
    assert_eq!(decode_broadcast(&frame), Err(refused.clone()));
    // Also when the rest of it has not come.
    assert_eq!(Message::decode(&frame.slice(..PREFIX_LEN + 4)), Err(refused));
    // A core sends no frame that is longer than this, whatever is in it.
    let frame = framed(kind::SWIM, &[], &vec![0; FRAME_LEN_MAX]);
    let refused = WireError::TooLong { len: frame.len(), limit: FRAME_LEN_MAX };
    assert_eq!(Message::decode(&frame), Err(refused));
}

/// bincode claims what a list is going to take before it makes room for it.
#[test]
fn a_list_that_claims_more_than_a_header_holds_is_refused_before_it_is_made() {
    let huge = |items: u64| {
        let mut claim = vec![0xfd];
        claim.extend_from_slice(&items.to_le_bytes());
        claim
    };
    let region = |claim: &[u8]| {
        let identity = [&[1, b'n', 0, 10, 0, 0, 1, 80, 1, 0][..]].concat();
        [&identity[..], claim].concat()
    };
    for items in [u64::MAX, u64::from(u32::MAX), HEADER_LEN_MAX as u64 + 1] {
        let claim = huge(items);
        let after = |start: &[u8]| [start, &claim[..]].concat();
        let frames = [
            framed(kind::SYNC, &region(&claim), &[]),
            framed(kind::SYNC, &after(&region(&[0, 0])), &[]),
            framed(kind::SYNC, &after(&region(&[0, 0, 0])), &[]),
            framed(kind::SYNC, &after(&region(&[0, 0, 0, 0])), &[]),
            framed(kind::ACK, &after(&[7]), &[]),
            framed(kind::SUMS, &after(&[7]), &[]),
            framed(kind::DISCONNECT, &claim, &[]),
            framed(kind::RANGE, &after(&[0, 0, 0, 1, 0, 0, 0, 0, 1]), &[]),
            framed(kind::RANGE, &after(&[0, 0, 0, 1, 0, 0, 0, 0, 0]), &[]),
            framed(kind::RANGE, &after(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]), &[]),
        ];
        for frame in frames {
            let error = Message::decode(&frame).expect_err("it is far too short");
            let WireError::Malformed { why, .. } = &error else { panic!("{error}") };
            // Borrowed strings are not made at all.
            assert!(why.contains("LimitExceeded") || why.contains("UnexpectedEnd"), "{why}");
        }
        let topics = decode_topics(&framed(kind::TOPICS, &claim, &[]));
        assert!(topics.is_err_and(|error| error.to_string().contains("LimitExceeded")));
    }
}

#[test]
fn names_and_topics_that_are_none_are_refused() {
    let leave_name = framed(kind::SYNC, &[0, 0, 10, 0, 0, 1, 80, 1, 0, 0, 0, 0, 0, 0], &[]);
    assert!(matches!(Message::decode(&leave_name), Err(WireError::Malformed { kind: "sync", .. })));
    let control = framed(kind::RANGE, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, b'\n', 0], &[]);
    assert!(matches!(Message::decode(&control), Err(WireError::Malformed { kind: "range", .. })));
    let odd_bitmap = framed(kind::RANGE, &[0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 1, 2, 3, 0, 0], &[]);
    assert!(Message::decode(&odd_bitmap).is_err_and(|e| e.to_string().contains("odd")));
}

/// Another tenant's messages must not show up in this one's topics.
#[test]
fn a_broadcast_of_another_namespace_is_ignored() {
    let frame = encode_broadcast(&Broadcast {
        topic: "t",
        event: "e",
        kind: PayloadKind::Json,
        sequence: 1,
    });
    let mut other = frame.to_vec();
    // Topic and event take two bytes each, the kind one.
    other[PREFIX_LEN + 5] = 1;
    assert!(decode_broadcast(&frame).is_ok_and(|decoded| decoded.is_some()));
    assert_eq!(decode_broadcast(&other.into()), Ok(None));
}

//! One frame of each kind, byte for byte. A test that fails here breaks clusters of two releases:
//! it needs another wire version.

use presence::{Bitmap, Op, Range, Value};

use super::*;

fn identity() -> Identity {
    let address = "10.0.0.1:4400".parse().expect("an address");
    Identity::new("n1".parse().expect("a name"), address, 1 << 40, 2)
}

/// Checks that the message is these bytes, and the bytes this message.
fn check(message: &Message, kind: u8, header: &[u8], payload: &[u8]) {
    let frame = framed(kind, header, payload);
    assert_eq!(message.encode(), frame, "{message:?}");
    assert_eq!(Message::decode(&frame).as_ref(), Ok(&Some(message.clone())));
}

/// Name, address family, address, port, incarnation, renewal.
const IDENTITY: &[u8] =
    b"\x02n1\x00\x0a\x00\x00\x01\xfb\x30\x11\xfd\x00\x00\x00\x00\x00\x01\x00\x00\x02";

#[test]
fn control_frames() {
    check(&Message::Swim(Bytes::from_static(b"packet")), 0x01, b"", b"packet");
    let ack = Positions { incarnation: 300, positions: vec![(1, 2), (15, 251)] };
    check(&Message::Ack(ack), 0x04, b"\xfb\x2c\x01\x02\x01\x02\x0f\xfb\xfb\x00", b"");
    let nack = Nack { incarnation: 7, shard: 3, position: 9 };
    check(&Message::Nack(nack), 0x05, b"\x07\x03\x09", b"");
    let digest = Digest { clock: 1, own: 0x0102_0304 };
    check(&Message::Digest(digest), 0x06, b"\x01\xfc\x04\x03\x02\x01", b"");
    check(&Message::DigestRequest, 0x07, b"", b"");
    let sums = Sums { incarnation: 7, feeds: vec![(1, 2), (3, 4)] };
    check(&Message::Sums(sums), 0x08, b"\x07\x02\x01\x02\x03\x04", b"");
    check(&Message::Disconnect("users:1".to_owned()), 0x09, b"\x07users:1", b"");
    check(&Message::Leave(5), 0x0a, b"\x05", b"");
    check(&Message::Draining, 0x11, b"", b"");
    let pull = Pull { id: 1, owner: "n2".to_owned(), incarnation: 7, positions: vec![5, 0] };
    check(&Message::Pull(pull), 0x0b, b"\x01\x02n2\x07\x02\x05\x00", b"");
    let answer = PullAnswer { id: 1, heads: Some(vec![6, 0]) };
    check(&Message::PullAnswer(answer), 0x0c, b"\x01\x01\x02\x06\x00", b"");
    check(&Message::PullAnswer(PullAnswer { id: 2, heads: None }), 0x0c, b"\x02\x00", b"");
    check(&Message::PullEnd(3), 0x0d, b"\x03", b"");
    let departed = Departed { name: "n1".to_owned(), incarnation: 3, lease: 15_000 };
    check(&Message::Departed(departed), 0x81, b"\x02n1\x03\xfb\x98\x3a", b"");
    let members = vec![MemberRecord { identity: identity(), incarnation: 4, state: 1 }];
    let header = [b"\x01", IDENTITY, b"\x04\x01"].concat();
    check(&Message::Members(members), 0x0f, &header, b"");
}

#[test]
fn the_first_frame_of_a_link() {
    let sync = Sync {
        identity: identity(),
        region: "eu".to_owned(),
        version: "0.1.0".to_owned(),
        heads: vec![5, 0],
        positions: vec![1, 2],
        members: vec![MemberRecord { identity: identity(), incarnation: 4, state: 1 }],
    };
    let fields = b"\x02eu\x050.1.0\x02\x05\x00\x02\x01\x02\x01";
    let header = [IDENTITY, fields, IDENTITY, b"\x04\x01"].concat();
    check(&Message::Sync(sync), 0x02, &header, b"");
}

#[test]
fn ranges() {
    let kv: Box<[u8]> = (*b"\x01\x00k{}").into();
    let range = Range {
        incarnation: 7,
        from: 10,
        to: 20,
        head: 30,
        horizon: 12,
        retain: Some(Bitmap(vec![0x0102])),
        topics: vec!["room:é".parse().expect("a topic")],
        ops: vec![
            Op::Put { slot: 4, seq: 11, born: 9, value: Value::Presence { topic: 0, kv } },
            Op::Put { slot: 5, seq: 13, born: 13, value: Value::Interest { hash: 6 } },
            Op::Remove { slot: 6, seq: 20 },
        ],
    };
    let header = [
        &b"\x03\x02\x01\x07\x0a\x0a\x0a\x0c"[..],
        b"\x01\x08\x02\x01\x00\x00\x00\x00\x00\x00",
        b"\x01\x07room:\xc3\xa9",
        b"\x03",
        // Positions and sequence numbers as steps, births as ages.
        b"\x00\x04\x01\x02\x00\x05\x01\x00k{}",
        b"\x01\x05\x02\x00\x06",
        b"\x02\x06\x07",
    ]
    .concat();
    check(
        &Message::Range(FeedRange { shard: 3, epoch: 2, ack_now: true, range }),
        0x03,
        &header,
        b"",
    );
    // The pull before the range.
    let range = Range {
        incarnation: 7,
        from: 1,
        to: 2,
        head: 3,
        horizon: 0,
        retain: None,
        topics: Vec::new(),
        ops: vec![Op::Remove { slot: 6, seq: 2 }],
    };
    let feed = FeedRange { shard: 3, epoch: 0, ack_now: false, range };
    let header = b"\x09\x03\x00\x00\x07\x01\x01\x01\x00\x00\x00\x01\x02\x06\x01";
    check(&Message::Relayed(Relayed { pull: 9, feed }), 0x0e, header, b"");
}

#[test]
fn broadcasts_and_requests() {
    let broadcast =
        Broadcast { topic: "room:1", event: "msg", kind: PayloadKind::Binary, sequence: 300 };
    let header = b"\x06room:1\x03msg\x01\x00\xfb\x2c\x01\x00";
    assert_eq!(encode_broadcast(&broadcast), framed(0x10, header, b""));
    let request = TopicsRequest { prefix: "room:".to_owned(), limit: 10 };
    assert_eq!(encode_topics_request(&request), framed(0x20, b"\x05room:\x0a", b""));
    let topics = Topics { topics: vec![("a".to_owned(), 1), ("b".to_owned(), 2)] };
    assert_eq!(encode_topics(&topics), framed(0x21, b"\x02\x01a\x01\x01b\x02", b""));
}

#[test]
fn requests_of_long_poll_clients() {
    let (id, session) = (*b"0123456789abcdef", b"0123456789abcdef");
    let poll = encode_session_request(&SessionRequest::Poll(id));
    assert_eq!(poll, framed(0x22, session, b""));
    let frames = vec![ClientFrame::Text("[]".into()), ClientFrame::Binary("\0".into())];
    let request = encode_session_request(&SessionRequest::Frames(id, frames));
    let header = [&session[..], b"\x02\x00\x02\x01\x01"].concat();
    assert_eq!(request, framed(0x23, &header, b"[]\0"));
    let outcome = |answer| encode_session_answer(&answer);
    assert_eq!(outcome(SessionAnswer::Gone), framed(0x24, b"\x00", b""));
    assert_eq!(outcome(SessionAnswer::Nothing), framed(0x24, b"\x01", b""));
    let messages = outcome(SessionAnswer::Messages("\"[]\"".into()));
    assert_eq!(messages, framed(0x24, b"\x02", b"\"[]\""));
    assert_eq!(outcome(SessionAnswer::Taken), framed(0x24, b"\x03", b""));
    assert_eq!(outcome(SessionAnswer::Undecodable), framed(0x24, b"\x04", b""));
}

#[test]
fn membership_packets() {
    use foca::Codec as _;
    let mut packet = Vec::new();
    let message = foca::Message::PingReq { target: identity(), probe_number: 3 };
    let header = foca::Header { src: identity(), src_incarnation: 1, dst: identity(), message };
    SwimCodec.encode_header(&header, &mut packet).expect("a Vec has room");
    let want = [IDENTITY, b"\x01", IDENTITY, b"\x02\x03\x01", IDENTITY].concat();
    assert_eq!(packet, want);
}

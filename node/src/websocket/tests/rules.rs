//! Each rule of RFC 6455, with its bytes.

use std::ops::ControlFlow;

use super::{Decoder, Kept, Message, Rules, Violation, client_frame, decode, decode_one_by_one};

const RULES: Rules = Rules { message_max: 1000, inflate: false };
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What the frames come to: in one piece, and byte by byte.
fn verdict(frames: &[Vec<u8>]) -> (Vec<Kept>, Result<(), Violation>) {
    let bytes = frames.concat();
    let whole = decode([bytes.as_slice()], &RULES);
    assert_eq!(decode(bytes.chunks(1), &RULES), whole, "chunks do not matter");
    for size in [7, bytes.len().max(1)] {
        let one_by_one = decode_one_by_one(bytes.chunks(size), &RULES);
        assert_eq!(one_by_one, whole, "pauses do not matter");
    }
    whole
}

/// Asserts that the last of these frames breaks a rule.
fn refused(frames: &[Vec<u8>], violation: Violation) {
    assert_eq!(verdict(frames).1, Err(violation), "{frames:02x?}");
    if let [before @ .., _] = frames {
        assert_eq!(verdict(before).1, Ok(()), "the frames before break none");
    }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    client_frame(first, payload, MASK)
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason].concat())
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    // Section 5.7.
    let hello = vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(verdict(&[hello]), (vec![Kept::Text("Hello".into())], Ok(())));
    let pong = vec![0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(verdict(&[pong]), (vec![Kept::Pong(b"Hello".into())], Ok(())));
}

#[test]
fn each_kind_of_message_is_told_apart() {
    let frames =
        [frame(0x81, "é".as_bytes()), frame(0x82, &[0xff]), frame(0x89, b"a"), frame(0x8a, b"")];
    let messages = vec![
        Kept::Text("é".into()),
        Kept::Binary(vec![0xff]),
        Kept::Ping(b"a".into()),
        Kept::Pong(Vec::new()),
    ];
    assert_eq!(verdict(&frames), (messages, Ok(())));
}

#[test]
fn fragments_become_one_message_and_control_frames_between_them_come_first() {
    let frames = [
        frame(0x01, b"Hel"),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x8a, b""),
        frame(0x80, b"lo"),
        frame(0x02, &[]),
        frame(0x80, &[]),
    ];
    let messages = vec![
        Kept::Ping(b"ping".into()),
        Kept::Pong(Vec::new()),
        Kept::Text("Hello".into()),
        Kept::Binary(Vec::new()),
    ];
    assert_eq!(verdict(&frames), (messages, Ok(())));
}

#[test]
fn a_frame_needs_a_mask() {
    refused(&[vec![0x81, 0x01, b'a']], Violation::Unmasked);
    refused(&[frame(0x01, b"a"), vec![0x89, 0x00]], Violation::Unmasked);
}

#[test]
fn reserved_bits_and_opcodes_are_refused() {
    for bit in [0x40, 0x20, 0x10] {
        refused(&[frame(0x81 | bit, b"a")], Violation::ReservedBits);
        refused(&[frame(0x89 | bit, b"a")], Violation::ReservedBits);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        refused(&[frame(0x80 | opcode, b"")], Violation::Opcode);
    }
}

#[test]
fn control_frames_are_short_and_whole() {
    for opcode in [8, 9, 10] {
        refused(&[frame(opcode, b"")], Violation::ControlFragmented);
        refused(&[frame(0x80 | opcode, &[0; 126])], Violation::ControlTooLong);
    }
    assert_eq!(verdict(&[frame(0x89, &[7; 125])]).0, [Kept::Ping(vec![7; 125])]);
    let small = Rules { message_max: 10, inflate: false };
    let ping = frame(0x89, &[7; 125]);
    assert_eq!(decode([ping.as_slice()], &small).1, Ok(()), "messages only are limited");
}

#[test]
fn a_message_ends_before_the_next_begins() {
    refused(&[frame(0x80, b"a")], Violation::UnexpectedContinuation);
    refused(&[frame(0x00, b"a")], Violation::UnexpectedContinuation);
    let message = [frame(0x01, b"a"), frame(0x80, b"b")];
    refused(&[&message[..], &[frame(0x80, b"c")]].concat(), Violation::UnexpectedContinuation);
    refused(&[frame(0x01, b"a"), frame(0x81, b"b")], Violation::UnfinishedMessage);
    refused(&[frame(0x02, b"a"), frame(0x02, b"b")], Violation::UnfinishedMessage);
}

#[test]
fn a_length_in_too_many_bytes_is_taken() {
    let mut long = vec![0x82, 0xfe, 0, 1, 0, 0, 0, 0, b'a'];
    long.extend([0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, b'b']);
    let messages = vec![Kept::Binary(b"a".into()), Kept::Binary(b"b".into())];
    assert_eq!(verdict(&[long]), (messages, Ok(())));
}

#[test]
fn a_message_over_the_limit_is_refused_by_its_header_alone() {
    assert_eq!(verdict(&[frame(0x82, &[1; 1000])]).0, [Kept::Binary(vec![1; 1000])]);
    let header = |first, len: u64| [&[first, 0xff][..], &len.to_be_bytes(), &MASK].concat();
    for len in [1001, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX] {
        refused(&[header(0x82, len)], Violation::TooLarge);
        refused(&[frame(0x02, b"a"), header(0x80, len)], Violation::TooLarge);
    }
    let open = [frame(0x02, &[1; 600]), frame(0x89, &[2; 100])];
    assert_eq!(verdict(&[&open[..], &[frame(0x80, &[1; 400])]].concat()).1, Ok(()));
    refused(&[&open[..], &[header(0x80, 401)]].concat(), Violation::TooLarge);
}

#[test]
fn a_close_frame_has_no_body_or_a_code_that_may_be_sent() {
    assert_eq!(verdict(&[frame(0x88, b"")]), (vec![Kept::Close(None)], Ok(())));
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999] {
        assert_eq!(verdict(&[close(code, b"bye")]), (vec![Kept::Close(Some(code))], Ok(())));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535] {
        refused(&[close(code, b"")], Violation::CloseCode);
    }
    refused(&[frame(0x88, &[3])], Violation::CloseBody);
    refused(&[close(1000, b"\xff")], Violation::Utf8);
    refused(&[close(1000, b"\xc3")], Violation::Utf8);
}

#[test]
fn text_is_utf8_as_a_whole() {
    refused(&[frame(0x81, b"\xff")], Violation::Utf8);
    refused(&[frame(0x81, b"\xc3")], Violation::Utf8);
    refused(&[frame(0x81, b"\xed\xa0\x80")], Violation::Utf8);
    let cut = [frame(0x01, b"\xf0\x9f"), frame(0x00, b"\x8e"), frame(0x80, b"\x89")];
    assert_eq!(verdict(&cut), (vec![Kept::Text("🎉".into())], Ok(())));
    refused(&[frame(0x01, b"a\xc3"), frame(0x80, b"b")], Violation::Utf8);
    refused(&[frame(0x01, b"a"), frame(0x80, b"\xc3")], Violation::Utf8);
}

#[test]
fn bad_text_is_refused_before_its_message_ends() {
    refused(&[frame(0x01, b"a\xff")], Violation::Utf8);
    refused(&[frame(0x01, b"a\xc3"), frame(0x00, b"a")], Violation::Utf8);
}

#[test]
fn nothing_is_read_after_a_close_frame() {
    let frames = [frame(0x81, b"a"), frame(0x88, b""), frame(0x81, b"b"), vec![0xff; 20]];
    let messages = vec![Kept::Text("a".into()), Kept::Close(None)];
    assert_eq!(verdict(&frames), (messages.clone(), Ok(())));
    assert_eq!(decode(frames.iter().map(Vec::as_slice), &RULES), (messages, Ok(())));
}

#[test]
fn nothing_is_read_after_a_violation() {
    let frames = [frame(0x81, b"a"), frame(0x83, b""), frame(0x81, b"b")];
    let end = (vec![Kept::Text("a".into())], Err(Violation::Opcode));
    assert_eq!(verdict(&frames), end);
    assert_eq!(decode(frames.iter().map(Vec::as_slice), &RULES), end);
}

#[test]
fn nothing_is_read_after_the_reader_has_had_enough() {
    #[derive(Debug, PartialEq)]
    enum Enough {
        Messages,
        Violation(Violation),
    }
    impl From<Violation> for Enough {
        fn from(violation: Violation) -> Self {
            Self::Violation(violation)
        }
    }
    let bytes = [frame(0x81, b"a"), frame(0x81, b"b")].concat();
    let mut decoder = Decoder::default();
    let mut seen = 0;
    let mut read = |decoder: &mut Decoder| {
        decoder.decode(&mut bytes.clone(), &RULES, |_: Message<'_>| {
            seen += 1;
            Err(Enough::Messages)
        })
    };
    assert_eq!(read(&mut decoder), Err(Enough::Messages));
    assert_eq!(read(&mut decoder), Ok(0));
    assert_eq!(seen, 1);
    let unmasked =
        Decoder::default().decode(&mut [0x81, 0x00], &RULES, |_| Ok(ControlFlow::Continue(())));
    assert_eq!(unmasked, Err(Enough::Violation(Violation::Unmasked)));
}

#[test]
fn a_whole_frame_is_read_where_it_lies() {
    let mut bytes = frame(0x82, b"abc");
    let range = bytes.as_ptr_range();
    let mut lies_there = false;
    let read: Result<usize, Violation> = Decoder::default().decode(&mut bytes, &RULES, |message| {
        lies_there =
            matches!(message, Message::Binary(payload) if range.contains(&payload.as_ptr()));
        Ok(ControlFlow::Continue(()))
    });
    assert_eq!(read, Ok(0));
    assert!(lies_there);
}

#[test]
fn each_violation_has_the_code_that_the_rfc_gives_it() {
    let others = [
        Violation::Opcode,
        Violation::ReservedBits,
        Violation::Unmasked,
        Violation::ControlFragmented,
        Violation::ControlTooLong,
        Violation::UnexpectedContinuation,
        Violation::UnfinishedMessage,
        Violation::CloseBody,
        Violation::CloseCode,
    ];
    assert!(others.iter().all(|violation| violation.close().0 == 1002));
    assert_eq!(Violation::Utf8.close().0, 1007);
    assert_eq!(Violation::Deflate.close().0, 1007);
    assert_eq!(Violation::TooLarge.close().0, 1009);
    assert_eq!(Violation::TooLarge.to_string(), "frame is over the limit");
}

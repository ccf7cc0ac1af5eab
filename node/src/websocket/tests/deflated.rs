//! Messages that are deflated, with the compressor's own library as the client.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use proptest::{collection::vec, prelude::*};

use super::{
    super::{deflate::inflate, deflate_text},
    Kept, Rules, Violation, client_frame, decode,
};

const RULES: Rules = Rules { message_max: 100_000, inflate: true };
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A message as a client deflates it.
fn deflated(message: &[u8], level: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 1000);
    let mut compress = Compress::new(Compression::new(level), false);
    compress.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
    assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xff, 0xff]);
    out
}

/// The payload of a frame of ours, as a client that has seen none before inflates it.
fn inflated(frame: &[u8]) -> Vec<u8> {
    assert_eq!(frame[0], 0xc1, "a final text frame with RSV1");
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        len => {
            assert_eq!(usize::from(len), frame.len() - 2);
            2
        }
    };
    let payload = [&frame[header..], &[0, 0, 0xff, 0xff]].concat();
    let mut out = Vec::with_capacity(1 << 20);
    let mut decompress = Decompress::new(false);
    decompress.decompress_vec(&payload, &mut out, FlushDecompress::Sync).unwrap();
    assert_eq!(decompress.total_in(), payload.len() as u64);
    out
}

fn verdict(frames: &[Vec<u8>]) -> (Vec<Kept>, Result<(), Violation>) {
    let bytes = frames.concat();
    let whole = decode([bytes.as_slice()], &RULES);
    assert_eq!(decode(bytes.chunks(3), &RULES), whole, "chunks do not matter");
    whole
}

fn refused(frames: &[Vec<u8>], violation: Violation) {
    assert_eq!(verdict(frames).1, Err(violation), "{frames:02x?}");
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    client_frame(first, payload, MASK)
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    let hello = (vec![Kept::Text("Hello".into())], Ok(()));
    // Section 7.2.3.1: one block, then the same in two fragments.
    let block = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(verdict(&[frame(0xc1, &block)]), hello);
    assert_eq!(verdict(&[frame(0x41, &block[..3]), frame(0x80, &block[3..])]), hello);
    // Section 7.2.3.3: a block that is not compressed.
    let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
    assert_eq!(verdict(&[frame(0xc1, &stored)]), hello);
    // Section 7.2.3.4: a last block.
    let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    assert_eq!(verdict(&[frame(0xc1, &last)]), hello);
    // Section 7.2.3.5: two blocks.
    let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(verdict(&[frame(0xc1, &two)]), hello);
    // Section 7.2.3.6: an empty message.
    assert_eq!(verdict(&[frame(0xc1, &[0])]), (vec![Kept::Text(String::new())], Ok(())));
}

#[test]
fn a_message_may_refer_to_none_before_it() {
    // Section 7.2.3.2: the second message refers to the first.
    let first = frame(0xc2, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    let second = frame(0xc2, &[0xf2, 0x00, 0x11, 0x00, 0x00]);
    let (messages, _) = verdict(&[first, second]);
    assert_eq!(messages[0], Kept::Binary(b"Hello".into()));
    assert!(!messages[1..].contains(&Kept::Binary(b"Hello".into())));
}

#[test]
fn plain_and_deflated_messages_mix() {
    let frames = [
        frame(0x81, b"plain"),
        frame(0x41, &deflated(b"deflated", 6)[..4]),
        frame(0x89, b"ping"),
        frame(0x80, &deflated(b"deflated", 6)[4..]),
        frame(0x01, b"pl"),
        frame(0x80, b"ain"),
    ];
    let messages = vec![
        Kept::Text("plain".into()),
        Kept::Ping(b"ping".into()),
        Kept::Text("deflated".into()),
        Kept::Text("plain".into()),
    ];
    assert_eq!(verdict(&frames), (messages, Ok(())));
}

#[test]
fn only_the_first_frame_of_a_message_says_that_it_is_deflated() {
    refused(&[frame(0x41, &[0]), frame(0xc0, &[0])], Violation::ReservedBits);
    refused(&[frame(0x01, &[0]), frame(0xc0, &[0])], Violation::ReservedBits);
    for control in [0xc8, 0xc9, 0xca] {
        refused(&[frame(control, &[])], Violation::ReservedBits);
    }
    for first in [0xa1, 0x91, 0xe1, 0xd1] {
        refused(&[frame(first, &[0])], Violation::ReservedBits);
    }
    let plain = Rules { inflate: false, ..RULES };
    let bytes = frame(0xc1, &[0]);
    assert_eq!(decode([bytes.as_slice()], &plain).1, Err(Violation::ReservedBits));
}

#[test]
fn a_bomb_stops_at_the_limit() {
    for level in [1, 9] {
        let at_limit = deflated(&vec![b'a'; RULES.message_max], level);
        let text = "a".repeat(RULES.message_max);
        assert_eq!(verdict(&[frame(0xc1, &at_limit)]), (vec![Kept::Text(text)], Ok(())));
        refused(
            &[frame(0xc1, &deflated(&vec![b'a'; RULES.message_max + 1], level))],
            Violation::TooLarge,
        );
    }
    let bomb = deflated(&vec![0; 50 << 20], 9);
    assert!(bomb.len() < RULES.message_max, "the frame itself is short enough");
    refused(&[frame(0xc2, &bomb)], Violation::TooLarge);
    assert_eq!(inflate(&bomb, 0), Err(Violation::TooLarge));
    assert_eq!(inflate(&[0], 0), Ok(Vec::new()));
    assert!(inflate(&bomb, usize::MAX).is_ok_and(|message| message.len() == 50 << 20));
    let kept = inflate(&deflated(&[7; 5000], 6), 6000).unwrap();
    assert!(kept.capacity() <= 6001);
}

#[test]
fn what_cannot_be_inflated_is_refused() {
    let garbage: [&[u8]; 7] = [
        &[0xff],
        // A block of the fourth type, which there is not.
        &[0x06, 0x00],
        // A stored block whose length is not what it says twice.
        &[0x00, 0x05, 0x00, 0x00, 0x00],
        // Cut: within a block, and within a stored one.
        &[0xf2, 0x48, 0xcd, 0xc9],
        &[0x00, 0x06, 0x00, 0xf9, 0xff, 0x48],
        // More after the last block.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x01],
        &[0x03, 0x00, 0x00, 0x00],
    ];
    for payload in garbage {
        refused(&[frame(0xc2, payload)], Violation::Deflate);
    }
    refused(&[frame(0xc1, &deflated(b"\xff\xff\xff", 6))], Violation::Utf8);
}

#[test]
fn a_message_that_deflating_does_not_shorten_is_left_as_it_is() {
    assert_eq!(deflate_text(b""), None);
    assert_eq!(deflate_text(&[b'a'; 63]), None);
    assert!(deflate_text(&[b'a'; 64]).is_some());
    let mut random = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        random.to_be_bytes()[0]
    })
    .take(100_000)
    .collect();
    for len in [64, 100, 1000, 100_000] {
        assert_eq!(deflate_text(&noise[..len]), None, "{len}");
        let text = "after noise ".repeat(20);
        assert_eq!(inflated(&deflate_text(text.as_bytes()).unwrap()), text.as_bytes());
    }
}

#[test]
fn each_message_is_deflated_as_if_it_were_the_first() {
    let text =
        r#"[null,null,"room:lobby","new_msg",{"user":"ann","body":"hello, hello"}]"#.repeat(2);
    for _ in 0..1000 {
        let frame = deflate_text(text.as_bytes()).unwrap();
        // A reference to one of the same messages before it would be far shorter.
        assert!((70..text.len()).contains(&frame.len()));
        assert_eq!(inflated(&frame), text.as_bytes());
        deflate_text("something else, ".repeat(9).as_bytes()).unwrap();
    }
}

proptest! {
    #[test]
    fn a_client_reads_what_we_deflate(texts in vec("([a-z]{1,9}|[ -~é漢]{0,20}){1,99}", 1..9), times in 1..200usize) {
        for text in texts {
            let text = text.repeat(times);
            if let Some(frame) = deflate_text(text.as_bytes()) {
                prop_assert_eq!(String::from_utf8(inflated(&frame)).unwrap(), text);
            }
        }
    }

    #[test]
    fn we_read_what_a_client_deflates(
        parts in vec(vec(any::<u8>(), 0..200), 0..9),
        times in 1..20usize,
        level in 0..=9u32,
        cut in any::<prop::sample::Index>(),
        chunk in 1..5000usize,
    ) {
        let messages: Vec<_> = parts.into_iter().map(|part| part.repeat(times)).collect();
        let mut bytes = Vec::new();
        for message in &messages {
            let payload = deflated(message, level);
            let (head, tail) = payload.split_at(cut.index(payload.len() + 1));
            bytes.extend(frame(0x42, head));
            bytes.extend(frame(0x80, tail));
        }
        let messages = messages.into_iter().map(Kept::Binary).collect();
        prop_assert_eq!(decode(bytes.chunks(chunk), &RULES), (messages, Ok(())));
    }

    #[test]
    fn inflating_whatever_comes_stays_within_the_limit(payload in vec(any::<u8>(), 0..300), max in 0..2000usize) {
        if let Ok(message) = inflate(&payload, max) {
            prop_assert!(message.len() <= max);
            prop_assert!(message.capacity() <= max + 1);
        }
    }
}

//! The frames in the body of a POST.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use cluster::wire::ClientFrame;

/// Frames in one body.
pub(super) const FRAMES_MAX: usize = 100;

/// What `btoa` makes, with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What no session can decode: it ends the one it is handed to, behind the frames before it.
pub(super) const UNDECODABLE: ClientFrame = ClientFrame::Text(Bytes::new());

/// The one frame that is the body.
pub(super) fn single(body: Bytes, frame_len_max: usize) -> Vec<ClientFrame> {
    vec![if body.len() > frame_len_max { UNDECODABLE } else { ClientFrame::Text(body) }]
}

/// The frames of a body with one in each line: text, or binary as base64. A line that is neither, or
/// a frame too many, is the last one and [`UNDECODABLE`].
pub(super) fn lines(body: &Bytes, frame_len_max: usize) -> Vec<ClientFrame> {
    let text = body.strip_suffix(b"\n").unwrap_or(body);
    let mut frames = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let frame = if frames.len() < FRAMES_MAX { frame(body, line, frame_len_max) } else { None };
        let last = frame.is_none();
        frames.push(frame.unwrap_or(UNDECODABLE));
        if last {
            break;
        }
    }
    frames
}

fn frame(body: &Bytes, line: &[u8], frame_len_max: usize) -> Option<ClientFrame> {
    let frame = match line.first()? {
        b'[' | b'{' => ClientFrame::Text(body.slice_ref(line)),
        _ => ClientFrame::Binary(BASE64.decode(line).ok()?.into()),
    };
    (frame.bytes().len() <= frame_len_max).then_some(frame)
}

/// Parts of the frames, in order, each of at most `bytes` or of one frame.
pub(super) fn parts(frames: Vec<ClientFrame>, bytes: usize) -> Vec<Vec<ClientFrame>> {
    let mut parts = vec![Vec::new()];
    let mut len = 0;
    for frame in frames {
        len += frame.bytes().len();
        if len > bytes && parts.last().is_some_and(|part| !part.is_empty()) {
            len = frame.bytes().len();
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(frame);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &'static str) -> ClientFrame {
        ClientFrame::Text(text.into())
    }

    fn taken(body: &'static str) -> Vec<ClientFrame> {
        lines(&body.into(), 10)
    }

    #[test]
    fn each_line_is_a_text_or_base64() {
        let binary = ClientFrame::Binary("\0\u{1}".into());
        assert_eq!(
            taken("[1]\n{}\r\nAAE=\nAAE\n"),
            [text("[1]"), text("{}"), binary.clone(), binary]
        );
    }

    #[test]
    fn what_cannot_be_decoded_is_the_last() {
        for bad in ["[1]\n\n[2]", "[1]\n#\n[2]", "[1]\n[234567890]\n[2]", "[1]\nAAE\u{e9}\n[2]"] {
            assert_eq!(taken(bad), [text("[1]"), UNDECODABLE], "{bad:?}");
        }
        assert_eq!(taken(""), [UNDECODABLE]);
        assert_eq!(single("12345678901".into(), 10), [UNDECODABLE]);
    }

    #[test]
    fn a_body_has_at_most_a_hundred_frames() {
        let body = Bytes::from("[]\n".repeat(FRAMES_MAX));
        assert_eq!(lines(&body, 10), vec![text("[]"); FRAMES_MAX]);
        let body = Bytes::from("[]\n".repeat(FRAMES_MAX + 1));
        assert_eq!(lines(&body, 10).last(), Some(&UNDECODABLE));
    }

    #[test]
    fn parts_keep_order_and_bounds() {
        let all = [text("12345"), text("12345"), text("1"), text("123456789012"), text("")];
        let [a, b, c, d, e] = all.clone();
        assert_eq!(parts(all.into(), 10), [vec![a, b], vec![c], vec![d], vec![e]]);
    }

    proptest! {
        #[test]
        fn any_body_is_taken_apart(body in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!lines(&body.into(), 50).is_empty());
        }
    }
}

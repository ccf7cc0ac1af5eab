//! How a connection's messages go on its wire: the one place that tells transports apart.

use bytes::Bytes;

use crate::{
    pubsub::Format,
    socket::{Frame, Version},
    websocket::FrameBuf,
};

/// What carries a client's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// WebSocket frames. Broadcasts are compressed where the client agreed to it.
    WebSocket {
        /// It did.
        deflate: bool,
    },
    /// Each message behind its length in four bytes.
    Tcp,
    /// Each message as one JSON string: an element of a poll's answer. No binary ones.
    Poll,
}

impl Framing {
    /// The broadcasts that a client of that version reads.
    pub(crate) const fn format(self, version: Version) -> Format {
        match (self, version) {
            (Self::WebSocket { deflate: false }, Version::V1) => Format::V1,
            (Self::WebSocket { deflate: false }, Version::V2) => Format::V2,
            (Self::WebSocket { deflate: true }, Version::V1) => Format::V1Deflated,
            (Self::WebSocket { deflate: true }, Version::V2) => Format::V2Deflated,
            // Its connect takes no other version.
            (Self::Tcp, _) => Format::Tcp,
            (Self::Poll, Version::V1) => Format::PollV1,
            (Self::Poll, Version::V2) => Format::PollV2,
        }
    }

    /// The bytes of a message; `None` when there is no form for it.
    pub(crate) fn frame(self, frame: Frame) -> Option<Bytes> {
        match frame {
            Frame::Text(text) => Some(self.text(text)),
            Frame::Binary(bytes) => match self {
                Self::WebSocket { .. } => Some(bytes.into_binary()),
                Self::Tcp => Some(bytes.into_prefixed()),
                Self::Poll => None,
            },
        }
    }

    /// The bytes of a text message.
    pub(crate) fn text(self, text: FrameBuf) -> Bytes {
        match self {
            Self::WebSocket { .. } => text.into_text(),
            Self::Tcp => text.into_prefixed(),
            Self::Poll => quoted(text.payload()),
        }
    }

    /// The bytes of a text message in pieces, which may be shared with other clients but for the first.
    pub(crate) fn pieces<const N: usize>(
        self,
        mut first: FrameBuf,
        others: [Bytes; N],
    ) -> Vec<Bytes> {
        let behind = others.iter().map(Bytes::len).sum();
        let first = match self {
            Self::WebSocket { .. } => first.into_text_begun(behind),
            Self::Tcp => first.into_prefixed_begun(behind),
            Self::Poll => {
                others.iter().for_each(|piece| first.extend_from_slice(piece));
                return vec![quoted(first.payload())];
            }
        };
        let others = others.into_iter().filter(|piece| !piece.is_empty());
        std::iter::once(first).chain(others).collect()
    }
}

/// Text as a JSON string.
pub(crate) fn quoted(text: &[u8]) -> Bytes {
    // What the node encodes is UTF-8; anything else is not worth a client's session.
    serde_json::to_vec(&String::from_utf8_lossy(text)).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> FrameBuf {
        let mut frame = FrameBuf::with_capacity(text.len());
        frame.extend_from_slice(text.as_bytes());
        frame
    }

    #[test]
    fn a_message_is_framed_as_its_transport_wants_it() {
        let framed = |framing: Framing| framing.text(text("[\"é\"]"));
        assert_eq!(framed(Framing::WebSocket { deflate: true }), b"\x81\x06[\"\xc3\xa9\"]"[..]);
        assert_eq!(framed(Framing::Tcp), "\0\0\0\u{6}[\"é\"]");
        assert_eq!(framed(Framing::Poll), r#""[\"é\"]""#);
    }

    #[test]
    fn bytes_have_no_form_in_a_poll() {
        let framed = |framing: Framing| framing.frame(Frame::Binary(text("x")));
        assert_eq!(framed(Framing::WebSocket { deflate: true }).unwrap(), b"\x82\x01x"[..]);
        assert_eq!(framed(Framing::Tcp).unwrap(), "\0\0\0\u{1}x");
        assert_eq!(framed(Framing::Poll), None);
    }

    #[test]
    fn pieces_are_the_message() {
        for framing in [Framing::WebSocket { deflate: false }, Framing::Tcp, Framing::Poll] {
            let pieces =
                framing.pieces(text("[1"), ["\"2".into(), "".into(), "\"".into(), "]".into()]);
            assert_eq!(pieces.concat(), framing.text(text("[1\"2\"]")));
        }
    }
}

//! Server-sent events, decoded as they come: bytes in, events out. Pure.

use std::{collections::VecDeque, mem};

/// Bytes of the longest event: the presence state of a large topic is one event.
const EVENT_LEN_MAX: usize = 64 << 20;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Its type, `message` if the stream names none.
    pub(super) name: String,
    /// Its data; several `data` lines are joined by line feeds.
    pub(super) data: String,
}

/// A stream that no node sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SseError {
    /// An event is over [`EVENT_LEN_MAX`].
    #[error("an event of over {EVENT_LEN_MAX} bytes")]
    TooLong,
    /// A line is not UTF-8.
    #[error("a line that is not UTF-8")]
    NotUtf8,
}

/// Decodes one stream. Lines end with `\n`, `\r\n` or `\r`, wherever the chunks are cut.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    /// The last line ended with `\r`: a `\n` that follows belongs to it.
    after_return: bool,
    name: String,
    data: String,
    /// A `data` line came, even an empty one.
    has_data: bool,
    events: VecDeque<Event>,
}

impl Decoder {
    /// Takes the next bytes of the stream. After an error the stream is to be dropped.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), SseError> {
        if mem::take(&mut self.after_return) && bytes.first() == Some(&b'\n') {
            bytes = &bytes[1..];
        }
        while let Some(end) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            self.extend_line(&bytes[..end])?;
            let returned = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            match bytes.first() {
                Some(b'\n') if returned => bytes = &bytes[1..],
                None if returned => self.after_return = true,
                Some(_) | None => {}
            }
            let line = mem::take(&mut self.line);
            self.end_line(str::from_utf8(&line).map_err(|_| SseError::NotUtf8)?)?;
        }
        self.extend_line(bytes)
    }

    /// The next event that is complete.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        if self.line.len() + bytes.len() > EVENT_LEN_MAX {
            return Err(SseError::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, line: &str) -> Result<(), SseError> {
        if line.is_empty() {
            self.end_event();
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.data.len() + value.len() >= EVENT_LEN_MAX {
                    return Err(SseError::TooLong);
                }
                if mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // Comments (no field), `id` and `retry`: nothing here resumes a stream.
            _ => {}
        }
        Ok(())
    }

    fn end_event(&mut self) {
        let mut name = mem::take(&mut self.name);
        let data = mem::take(&mut self.data);
        if mem::take(&mut self.has_data) {
            if name.is_empty() {
                name.push_str("message");
            }
            self.events.push_back(Event { name, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<(String, String)> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for chunk in chunks {
            decoder.feed(chunk).unwrap();
            while let Some(event) = decoder.poll_event() {
                events.push((event.name, event.data));
            }
        }
        events
    }

    fn event(name: &str, data: &str) -> (String, String) {
        (name.to_owned(), data.to_owned())
    }

    #[test]
    fn an_event_has_a_name_and_data() {
        let stream =
            b"event: broadcast\ndata: {\"a\":1}\n\n: keep-alive\n\nid: 7\ndata:x\ndata\n\n";
        let expected = [event("broadcast", "{\"a\":1}"), event("message", "x\n")];
        assert_eq!(decode([&stream[..]]), expected);
    }

    #[test]
    fn an_event_without_data_or_without_its_end_is_none() {
        assert_eq!(decode([&b"event: a\n\nevent: b\ndata: 1\n"[..]]), []);
    }

    #[test]
    fn a_name_lasts_for_one_event() {
        let expected = [event("a", "1"), event("message", "2")];
        assert_eq!(decode([&b"event: a\ndata: 1\n\ndata: 2\n\n"[..]]), expected);
    }

    #[test]
    fn what_is_not_utf8_is_an_error() {
        assert_eq!(Decoder::default().feed(b"data: \xff\n"), Err(SseError::NotUtf8));
    }

    #[test]
    fn an_event_without_end_is_an_error_before_memory_runs_out() {
        let mut decoder = Decoder::default();
        let chunk = vec![b'x'; EVENT_LEN_MAX / 2];
        assert_eq!(decoder.feed(&chunk), Ok(()));
        assert_eq!(decoder.feed(&chunk), Ok(()));
        assert_eq!(decoder.feed(b"x"), Err(SseError::TooLong));
    }

    proptest! {
        #[test]
        fn events_are_the_same_wherever_the_stream_is_cut(
            events in prop::collection::vec(("[a-z]{1,9}", "[^\r\n\u{0}]{0,40}"), 0..6),
            end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
            chunk_len in 1_usize..20,
        ) {
            let mut stream = String::new();
            for (name, data) in &events {
                stream.push_str(&format!("event: {name}{end}data: {data}{end}{end}"));
            }
            prop_assert_eq!(decode(stream.as_bytes().chunks(chunk_len)), events);
        }

        #[test]
        fn no_stream_makes_it_panic(chunks in prop::collection::vec(any::<Vec<u8>>(), 0..9)) {
            let mut decoder = Decoder::default();
            for chunk in chunks {
                let _ = decoder.feed(&chunk);
            }
        }
    }
}

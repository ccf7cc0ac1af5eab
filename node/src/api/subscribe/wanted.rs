//! Which broadcasts the client of an event stream asked for: `?events=`.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};

use crate::{api::error::ApiError, tracker::push_json_string};

/// Names in one request.
const NAMES_MAX: usize = 100;

/// Bytes of the longest name of an event.
const NAME_LEN_MAX: usize = 255;

/// What a server-sent event of a broadcast begins with; its topic follows.
const BROADCAST: &[u8] = b"event: broadcast\ndata: {\"topic\":";

/// What stands between its topic and its event's name.
const EVENT: &[u8] = b",\"event\":";

/// What ends each.
const END: &[u8] = b"\n\n";

/// The names of the events that are wanted, as JSON writes them; all if there are none.
#[derive(Debug, Default)]
pub(super) struct Wanted(BTreeSet<Vec<u8>>);

impl Wanted {
    /// Takes names, with commas between them.
    pub(super) fn add(&mut self, names: &str) -> Result<(), ApiError> {
        for name in names.split(',') {
            if !(1..=NAME_LEN_MAX).contains(&name.len()) {
                let why = format!("a name has 1 to {NAME_LEN_MAX} bytes: ?events=a,b");
                return Err(ApiError::bad_request("bad_events", why));
            }
            let mut json = Vec::with_capacity(name.len() + 2);
            push_json_string(&mut json, name);
            self.0.insert(json);
        }
        if self.0.len() > NAMES_MAX {
            let why = format!("want at most {NAMES_MAX} events");
            return Err(ApiError::bad_request("bad_events", why));
        }
        Ok(())
    }

    /// Whether none are left out.
    pub(super) fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves out the broadcasts that are not wanted. What is told of presence stays.
    pub(super) fn pick(&self, events: Bytes) -> Bytes {
        if self.0.is_empty() {
            return events;
        }
        let mut picked = BytesMut::new();
        let mut rest = events.as_ref();
        while !rest.is_empty() {
            let end = rest.windows(END.len()).position(|bytes| bytes == END);
            let (event, behind) = rest.split_at(end.map_or(rest.len(), |at| at + END.len()));
            if self.wants(event) {
                picked.extend_from_slice(event);
            }
            rest = behind;
        }
        picked.freeze()
    }

    fn wants(&self, event: &[u8]) -> bool {
        let Some(broadcast) = event.strip_prefix(BROADCAST) else {
            return true;
        };
        let named = broadcast.get(string_len(broadcast)..).and_then(|it| it.strip_prefix(EVENT));
        named.is_some_and(|named| self.0.contains(&named[..string_len(named)]))
    }
}

/// Bytes of the JSON string that they begin with.
fn string_len(bytes: &[u8]) -> usize {
    let mut escaped = false;
    let end = bytes.iter().skip(1).position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    end.map_or(bytes.len(), |at| at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire_format::encode_sse;

    fn wanted(names: &str) -> Wanted {
        let mut wanted = Wanted::default();
        wanted.add(names).unwrap();
        wanted
    }

    #[test]
    fn broadcasts_of_other_events_are_left_out_and_presence_stays() {
        let topic = r#"room:"a",\"#;
        let [new, odd, other, diff] = [
            ("new", r#"{"event":"other"}"#),
            (r#"o"d\d"#, "1"),
            ("other", r#"",\"event\":\"new\"""#),
            ("presence_diff", r#"{"joins":{},"leaves":{}}"#),
        ]
        .map(|(event, payload)| encode_sse(topic, event, payload.as_bytes()));
        let all = Bytes::from([&new[..], &odd, &other, &diff].concat());
        assert_eq!(wanted(r#"new,o"d\d"#).pick(all.clone()), [&new[..], &odd, &diff].concat());
        assert_eq!(wanted("nothing").pick(all.clone()), diff);
        assert_eq!(Wanted::default().pick(all.clone()), all, "all, unless some are named");
    }

    #[test]
    fn names_are_bounded() {
        for names in ["", "a,", &"x".repeat(256), &"x".repeat(255).repeat(2)] {
            assert!(Wanted::default().add(names).is_err(), "{names}");
        }
        let many: Vec<String> = (0..=NAMES_MAX).map(|n| n.to_string()).collect();
        assert!(Wanted::default().add(&many[1..].join(",")).is_ok());
        assert!(Wanted::default().add(&many.join(",")).is_err());
    }
}

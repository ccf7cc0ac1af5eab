//! Phoenix V2 frames, read by scanning: a load generator that builds JSON values measures itself.

use std::borrow::Cow;

use memchr::memmem::{Finder, find};
use serde::Deserialize;

/// `[join_ref, ref, topic, event, payload]`, each as it stands in the frame, strings without quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    pub(super) reference: &'a [u8],
    pub(super) topic: &'a [u8],
    pub(super) event: &'a [u8],
    pub(super) payload: &'a [u8],
}

/// The payload of a reply.
#[derive(Debug, Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    response: &'a serde_json::value::RawValue,
}

impl<'a> Envelope<'a> {
    /// Takes a frame apart; `None` if it is no V2 frame.
    pub(super) fn scan(frame: &'a [u8]) -> Option<Self> {
        let rest = frame.trim_ascii().strip_prefix(b"[")?.strip_suffix(b"]")?;
        let (_join_ref, rest) = element(rest)?;
        let (reference, rest) = element(rest)?;
        let (topic, rest) = element(rest)?;
        let (event, rest) = element(rest)?;
        Some(Self { reference, topic, event, payload: rest.trim_ascii() })
    }

    /// Whether this is a reply, and what it says: the reason of a refusal as JSON.
    pub(super) fn reply(&self) -> Option<Result<(), String>> {
        if self.event != b"phx_reply" {
            return None;
        }
        let reply: Reply<'_> = serde_json::from_slice(self.payload).ok()?;
        Some(match &*reply.status {
            "ok" => Ok(()),
            _ => Err(reply.response.get().to_owned()),
        })
    }
}

/// Splits off a string or another scalar, and the comma behind it.
fn element(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = rest.trim_ascii_start();
    let (element, rest) = if let Some(text) = rest.strip_prefix(b"\"") {
        let end = string_end(text)?;
        (&text[..end], &text[end + 1..])
    } else {
        let end = rest.iter().position(|byte| *byte == b',')?;
        (rest[..end].trim_ascii_end(), &rest[end..])
    };
    Some((element, rest.trim_ascii_start().strip_prefix(b",")?))
}

/// Where the quote is that ends a string.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })
}

/// A push, ready to be sent.
pub(super) fn push(reference: &str, topic: &str, event: &str, payload: &str) -> String {
    let [reference, topic, event] = [reference, topic, event].map(quoted);
    format!("[{JOIN_REF},{reference},{topic},{event},{payload}]")
}

/// Asks for nothing but an answer.
pub(super) fn heartbeat(reference: &str) -> String {
    format!("[null,{},\"phoenix\",\"heartbeat\",{{}}]", quoted(reference))
}

/// The `join_ref` of all pushes: a socket of the bench joins a topic once.
const JOIN_REF: &str = "\"1\"";

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Digits of every number: the same for all, so that all messages of a run are of one size.
const DIGITS: usize = 10;

/// The first number; it has [`DIGITS`] digits.
pub(super) const FIRST_NUMBER: u64 = 1_000_000_000;

/// Bytes of the shortest payload that holds a number.
pub(super) const PAYLOAD_LEN_MIN: usize = NUMBER_KEY.len() + DIGITS + 2;

const NUMBER_KEY: &[u8] = b"\"s\":";

/// The pushes of a publisher: numbered, and alike otherwise.
#[derive(Debug)]
pub(super) struct Numbered {
    /// What stands before the `ref`, between it and the payload's number, and behind that.
    parts: [Vec<u8>; 3],
}

impl Numbered {
    /// `payload_len` is that of the JSON payload, at least [`PAYLOAD_LEN_MIN`].
    pub(super) fn new(topic: &str, event: &str, payload_len: usize) -> Self {
        let (topic, event) = (quoted(topic), quoted(event));
        let number = [b'{'].iter().chain(NUMBER_KEY).copied();
        let between = format!("\",{topic},{event},").into_bytes();
        let behind = match payload_len.saturating_sub(PAYLOAD_LEN_MIN) {
            0 => "}]".to_owned(),
            // The padding's key and quotes take 7 bytes; JSON may hold spaces where those do not fit.
            spare @ 1..7 => format!("{}}}]", " ".repeat(spare)),
            spare => format!(",\"p\":\"{}\"}}]", "x".repeat(spare - 7)),
        };
        Self {
            parts: [
                format!("[{JOIN_REF},\"").into_bytes(),
                between.into_iter().chain(number).collect(),
                behind.into_bytes(),
            ],
        }
    }

    /// Writes the push of a number over `out`.
    pub(super) fn write(&self, number: u64, out: &mut Vec<u8>) {
        let digits = number.to_string();
        let [before, between, behind] = &self.parts;
        out.clear();
        for part in [before, digits.as_bytes(), between, digits.as_bytes(), behind] {
            out.extend_from_slice(part);
        }
    }
}

/// Finds the numbers of one publisher's messages in frames.
#[derive(Clone, Debug)]
pub(super) struct NumberScanner {
    /// `[null,null,topic,event,`, how nearly every frame starts.
    head: Vec<u8>,
    /// As they stand in a frame, without quotes.
    names: [String; 2],
}

impl NumberScanner {
    pub(super) fn new(topic: &str, event: &str) -> Self {
        let [topic, event] = [topic, event].map(quoted);
        let head = format!("[null,null,{topic},{event},").into_bytes();
        let names = [topic, event].map(|name| name[1..name.len() - 1].to_owned());
        Self { head, names }
    }

    /// The number of a broadcast; `None` for any other frame.
    pub(super) fn number(&self, frame: &[u8]) -> Option<u64> {
        let payload = match frame.strip_prefix(self.head.as_slice()) {
            Some(payload) => payload,
            None => self.payload(frame)?,
        };
        let at = find(payload, NUMBER_KEY)? + NUMBER_KEY.len();
        digits(payload[at..].trim_ascii_start()).map(|(number, _)| number)
    }

    /// The slow way, for other frames and for servers that write their JSON otherwise.
    fn payload<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        let envelope = Envelope::scan(frame)?;
        let ours = [envelope.topic, envelope.event] == self.names.each_ref().map(String::as_bytes);
        ours.then_some(envelope.payload)
    }
}

/// Finds the numbers of a run's topics, `<prefix><number>`, in frames.
#[derive(Clone, Debug)]
pub(super) struct TopicScanner {
    /// `[null,null,"<prefix>`, how nearly every frame starts.
    head: Vec<u8>,
    prefix: String,
}

impl TopicScanner {
    /// The prefix must not need escapes in JSON.
    pub(super) fn new(prefix: &str) -> Self {
        let head = format!("[null,null,\"{prefix}").into_bytes();
        Self { head, prefix: prefix.to_owned() }
    }

    /// The number of a frame's topic; `None` if it is none of the run's.
    pub(super) fn number(&self, frame: &[u8]) -> Option<usize> {
        if let Some(rest) = frame.strip_prefix(self.head.as_slice()) {
            let (number, end) = digits(rest)?;
            return usize::try_from(number).ok().filter(|_| end == b'"');
        }
        let number = Envelope::scan(frame)?.topic.strip_prefix(self.prefix.as_bytes())?;
        std::str::from_utf8(number).ok()?.parse().ok()
    }
}

/// How replies end that are ok, and nearly all are.
const OK_ENDING: &[u8] = b"\"status\":\"ok\"}]";

/// The reason, as JSON, if a frame is the reply that refuses a push.
pub(super) fn refusal(frame: &[u8]) -> Option<String> {
    // Broadcasts have no refs, and are no replies.
    if frame.starts_with(b"[null,") || frame.ends_with(OK_ENDING) {
        return None;
    }
    Envelope::scan(frame)?.reply()?.err()
}

/// The number of the push that a frame is the ok reply to; `None` for any other frame.
pub(super) fn ok_reply_number(frame: &[u8]) -> Option<u64> {
    if frame.starts_with(b"[null,") {
        return None;
    }
    if let Some(rest) = frame.strip_prefix(b"[\"1\",\"")
        && frame.ends_with(OK_ENDING)
    {
        return digits(rest).map(|(number, _)| number);
    }
    let envelope = Envelope::scan(frame)?;
    envelope.reply()?.ok()?;
    std::str::from_utf8(envelope.reference).ok()?.parse().ok()
}

/// What a presence frame says of one of a run's clients, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyChange {
    /// Those that follow are all.
    Anew,
    Join(u64),
    Leave(u64),
}

/// Finds the keys of a run's clients, `<prefix><number>`, in presence frames.
#[derive(Clone, Debug)]
pub(super) struct KeyScanner {
    /// The prefix with the quote before it.
    finder: Finder<'static>,
}

impl KeyScanner {
    /// The prefix must not need escapes in JSON.
    pub(super) fn new(prefix: &str) -> Self {
        Self { finder: Finder::new(&format!("\"{prefix}")).into_owned() }
    }

    /// Calls `told` for what a `presence_state` or `presence_diff` says. Who leaves and joins in one
    /// diff has other metas than before, so leaves come first.
    pub(super) fn changes(&self, frame: &[u8], mut told: impl FnMut(KeyChange)) {
        let Some(envelope) = Envelope::scan(frame) else {
            return;
        };
        match envelope.event {
            b"presence_state" => {
                told(KeyChange::Anew);
                self.keys(envelope.payload, |key| told(KeyChange::Join(key)));
            }
            b"presence_diff" => {
                let (joins, leaves) = joins_and_leaves(envelope.payload);
                self.keys(leaves, |key| told(KeyChange::Leave(key)));
                self.keys(joins, |key| told(KeyChange::Join(key)));
            }
            _ => {}
        }
    }

    fn keys(&self, mut rest: &[u8], mut found: impl FnMut(u64)) {
        let needle = self.finder.needle();
        // From one key to the next: entries that follow each other are nearly always of one size.
        let mut stride = 0;
        loop {
            let again = rest.get(stride..).is_some_and(|rest| rest.starts_with(needle));
            let Some(at) = (if again { Some(stride) } else { self.finder.find(rest) }) else {
                return;
            };
            stride = at;
            rest = &rest[at + needle.len()..];
            if let Some((number, b'"')) = digits(rest) {
                found(number);
            }
        }
    }
}

/// The two parts of a diff; their order is the server's choice.
fn joins_and_leaves(diff: &[u8]) -> (&[u8], &[u8]) {
    let [joins, leaves] =
        [&b"\"joins\":"[..], b"\"leaves\":"].map(|name| find(diff, name).unwrap_or(diff.len()));
    if joins <= leaves {
        (&diff[joins..leaves], &diff[leaves..])
    } else {
        (&diff[joins..], &diff[leaves..joins])
    }
}

/// The decimal number that `bytes` starts with, and the byte behind it.
fn digits(bytes: &[u8]) -> Option<(u64, u8)> {
    let len = bytes.iter().position(|byte| !byte.is_ascii_digit())?;
    let digits = bytes[..len].iter().map(|byte| u64::from(byte - b'0'));
    // 18 digits always fit.
    (1..=18)
        .contains(&len)
        .then(|| (digits.fold(0, |number, digit| number * 10 + digit), bytes[len]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_frame_is_taken_apart_whatever_its_strings_hold() {
        let frame = br#" [null , "2","a\",b\\" ,"e",{"x":[1,"]"]} ] "#;
        let envelope = Envelope::scan(frame).unwrap();
        assert_eq!(text(envelope.reference), "2");
        assert_eq!(text(envelope.topic), r#"a\",b\\"#);
        assert_eq!(text(envelope.event), "e");
        assert_eq!(text(envelope.payload), r#"{"x":[1,"]"]}"#);
        for no_frame in ["", "[]", "[1,2]", "{}", r#"[null,null,"a"]"#, r#"["a"#] {
            assert_eq!(Envelope::scan(no_frame.as_bytes()), None, "{no_frame}");
        }
    }

    #[test]
    fn a_reply_is_ok_or_says_why_not() {
        let reply = |frame: &str| Envelope::scan(frame.as_bytes()).unwrap().reply();
        let ok = r#"["1","2","t","phx_reply",{"response":{},"status":"ok"}]"#;
        assert_eq!(reply(ok), Some(Ok(())));
        let refused = r#"["1","2","t","phx_reply",{"status":"error","response":{"reason":"no"}}]"#;
        assert_eq!(reply(refused), Some(Err(r#"{"reason":"no"}"#.to_owned())));
        assert_eq!(reply(r#"[null,null,"t","e",{"status":"ok","response":{}}]"#), None);
    }

    #[test]
    fn the_number_of_a_reply_is_found_however_it_is_written() {
        let number = |frame: &str| ok_reply_number(frame.as_bytes());
        let ours = r#"["1","1000000007","t","phx_reply",{"response":{},"status":"ok"}]"#;
        let others = r#"["1", "12", "t", "phx_reply", {"status": "ok", "response": {}}]"#;
        let refused = r#"["1","7","t","phx_reply",{"status":"error","response":{"reason":"no"}}]"#;
        assert_eq!((number(ours), number(others)), (Some(1_000_000_007), Some(12)));
        assert_eq!((number(refused), number(r#"[null,null,"t","e",{"s":7}]"#)), (None, None));
        let refusal = |frame: &str| refusal(frame.as_bytes());
        assert_eq!(refusal(refused).as_deref(), Some(r#"{"reason":"no"}"#));
        assert_eq!((refusal(ours), refusal(others)), (None, None));
    }

    #[test]
    fn pushes_have_the_payload_size_that_was_asked_for_and_hold_the_number() {
        for len in [16, 17, 20, 22, 23, 24, 100, 65_536] {
            let mut frame = Vec::new();
            Numbered::new("a\"b", "e", len).write(FIRST_NUMBER + 7, &mut frame);
            serde_json::from_slice::<serde_json::Value>(&frame).unwrap();
            let envelope = Envelope::scan(&frame).unwrap();
            assert_eq!(envelope.payload.len(), len);
            assert_eq!(text(envelope.reference), "1000000007");
            let broadcast = format!(r#"[null,null,"a\"b","e",{}]"#, text(envelope.payload));
            let scanner = NumberScanner::new("a\"b", "e");
            assert_eq!(scanner.number(broadcast.as_bytes()), Some(FIRST_NUMBER + 7));
        }
        assert_eq!(PAYLOAD_LEN_MIN, 16);
    }

    #[test]
    fn a_number_is_found_however_the_server_writes_its_json() {
        let scanner = NumberScanner::new("t", "e");
        let number = |frame: &str| scanner.number(frame.as_bytes());
        assert_eq!(number(r#"[null, null, "t", "e", {"p": "xx", "s": 12}]"#), Some(12));
        assert_eq!(number(r#"[null,null,"t","other",{"s":12}]"#), None);
        assert_eq!(number(r#"[null,null,"u","e",{"s":12}]"#), None);
        assert_eq!(number(r#"[null,null,"t","e",{"s":"x"}]"#), None);
        assert_eq!(number(r#"[null,null,"t","e",{}]"#), None);
    }

    #[test]
    fn the_topic_of_a_frame_is_told_by_its_number() {
        let scanner = TopicScanner::new("b:7:");
        let number = |frame: &str| scanner.number(frame.as_bytes());
        assert_eq!(number(r#"[null,null,"b:7:12","e",{"s":1}]"#), Some(12));
        assert_eq!(number(r#"["1", "2", "b:7:3", "phx_reply", {}]"#), Some(3));
        for other in ["b:7:", "b:7:1x", "b:8:1", "b:7:99999999999999999999"] {
            assert_eq!(number(&format!(r#"[null,null,"{other}","e",{{}}]"#)), None, "{other}");
        }
    }

    #[test]
    fn presence_keys_are_found_where_clients_join_and_where_they_leave() {
        let scanner = KeyScanner::new("b-7-");
        let found = |frame: &str| {
            let mut changes = Vec::new();
            scanner.changes(frame.as_bytes(), |change| changes.push(change));
            changes
        };
        let (anew, join, leave) = (KeyChange::Anew, KeyChange::Join, KeyChange::Leave);
        let state = r#"[null,null,"t","presence_state",{"b-7-1":{"metas":[{"phx_ref":"b"}]},"b-7-22":{},"b-8-3":{},"b-7-4x":{}}]"#;
        assert_eq!(found(state), [anew, join(1), join(22)]);
        let diff =
            r#"[null,null,"t","presence_diff",{"joins":{"b-7-1":{}},"leaves":{"b-7-2":{}}}]"#;
        assert_eq!(found(diff), [leave(2), join(1)]);
        let turned =
            r#"[null,null,"t","presence_diff",{"leaves":{"b-7-2":{}},"joins":{"b-7-1":{}}}]"#;
        assert_eq!(found(turned), [leave(2), join(1)]);
        let half = r#"[null,null,"t","presence_diff",{"leaves":{"b-7-2":{}}}]"#;
        assert_eq!(found(half), [leave(2)]);
        assert_eq!(found(r#"[null,null,"t","chat",{"b-7-1":{}}]"#), []);
    }

    proptest! {
        #[test]
        fn no_frame_makes_a_scanner_panic(frame in "[\\[\\]{}\",:a-c0-9 \\\\]{0,60}") {
            let scanner = NumberScanner::new("a", "b");
            scanner.number(frame.as_bytes());
            KeyScanner::new("a").changes(frame.as_bytes(), drop);
            TopicScanner::new("a").number(frame.as_bytes());
            if let Some(envelope) = Envelope::scan(frame.as_bytes()) {
                envelope.reply();
            }
        }
    }
}

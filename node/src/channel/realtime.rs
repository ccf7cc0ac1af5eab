//! Topics of realtime-style clients (`@supabase/realtime-js`, PyPI `realtime`): broadcasts and presence
//! as each join asks for them. Decisions only.

use std::borrow::Cow;

use presence::{InvalidTopic, Topic};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::relay::{PresenceRequest, Refusal, checked_meta};
use crate::{
    pubsub::{Payload, UserBroadcast},
    socket::{USER_EVENT, has_lone_surrogate},
};

/// What their topics begin with.
const TOPICS: &str = "realtime:";

/// The answer to a join: no changes of a database are told.
pub(crate) const JOINED: &[u8] = br#"{"postgres_changes":[]}"#;

/// Whether a topic is one of theirs.
pub(crate) fn is_realtime(topic: &str) -> bool {
    topic.len() > TOPICS.len() && topic.starts_with(TOPICS)
}

/// The topic that clients call by this name.
pub(crate) fn topic_of(name: &str) -> Result<Topic, InvalidTopic> {
    if name.is_empty() { Err(InvalidTopic::Empty) } else { format!("{TOPICS}{name}").parse() }
}

/// The name that clients call the topic by.
pub(crate) fn name_of(topic: &Topic) -> &str {
    topic.as_str().strip_prefix(TOPICS).unwrap_or_default()
}

/// What a client joins on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// It hears its own broadcasts.
    pub(crate) own: bool,
    /// Its broadcasts are answered.
    pub(crate) ack: bool,
    /// What it is listed under once it tracks itself.
    pub(crate) key: Box<str>,
    /// It is told who is there.
    pub(crate) presence: bool,
}

/// What a client asks of a topic that it joined.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Send the payload as it came to all.
    Broadcast,
    /// List it, or do so no more.
    Presence(PresenceRequest),
    /// Nothing: it has a new token.
    Token,
}

impl Terms {
    /// Reads the payload of a join, a JSON object. Whatever it leaves out is off.
    pub(crate) fn read(payload: &[u8]) -> Result<Self, Refusal> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Join<'a> {
            #[serde(borrow)]
            config: Option<Config<'a>>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Config<'a> {
            broadcast: Option<Broadcast>,
            #[serde(borrow)]
            presence: Option<Presence<'a>>,
            #[serde(borrow)]
            postgres_changes: Option<Vec<&'a RawValue>>,
            private: Option<bool>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Broadcast {
            #[serde(rename = "self")]
            own: Option<bool>,
            ack: Option<bool>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Presence<'a> {
            #[serde(borrow)]
            key: Option<Cow<'a, str>>,
            enabled: Option<bool>,
        }
        let join: Join<'_> = serde_json::from_slice(payload).map_err(|_| Refusal::InvalidJoin)?;
        let config = join.config.unwrap_or_default();
        if config.postgres_changes.is_some_and(|changes| !changes.is_empty()) {
            return Err(Refusal::NoDatabase);
        }
        if config.private == Some(true) {
            return Err(Refusal::NotPrivate);
        }
        let broadcast = config.broadcast.unwrap_or_default();
        let presence = config.presence.unwrap_or_default();
        let key = presence.key.filter(|key| !key.is_empty());
        Ok(Self {
            own: broadcast.own == Some(true),
            ack: broadcast.ack == Some(true),
            key: key.map_or_else(random_key, Into::into),
            presence: presence.enabled == Some(true),
        })
    }
}

impl Request {
    /// Reads an event of a client that joined.
    pub(crate) fn read(event: &str, payload: Payload<'_>) -> Result<Self, Refusal> {
        match (event, payload) {
            (USER_EVENT, Payload::User(user)) => check_user(&user).map(|()| Self::Broadcast),
            (USER_EVENT, Payload::Json(object)) => check_object(object).map(|()| Self::Broadcast),
            (USER_EVENT, Payload::Binary(_)) => Err(Refusal::InvalidBroadcast),
            ("presence", payload) => presence_request(payload).map(Self::Presence),
            ("access_token", _) => Ok(Self::Token),
            _ => Err(Refusal::InvalidEvent),
        }
    }
}

/// Checks what other clients will parse.
pub(crate) fn check_user(user: &UserBroadcast<'_>) -> Result<(), Refusal> {
    let whole = |json: &[u8]| {
        serde_json::from_slice::<&RawValue>(json).is_ok() && !has_lone_surrogate(json)
    };
    let metadata = user.metadata();
    let object = metadata.is_empty() || metadata.starts_with(b"{") && whole(metadata);
    let readable = !user.is_json() || whole(user.payload());
    if user.event().is_empty() || !object || !readable {
        return Err(Refusal::InvalidBroadcast);
    }
    Ok(())
}

/// A broadcast in a text frame: `{"type":"broadcast","event":…,"payload":…}`.
fn check_object(object: &[u8]) -> Result<(), Refusal> {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        event: Cow<'a, str>,
    }
    let read = serde_json::from_slice::<Object<'_>>(object);
    match read {
        Ok(Object { event }) if !event.is_empty() => Ok(()),
        Ok(_) | Err(_) => Err(Refusal::InvalidBroadcast),
    }
}

fn presence_request(payload: Payload<'_>) -> Result<PresenceRequest, Refusal> {
    #[derive(Deserialize)]
    struct Asked<'a> {
        #[serde(borrow)]
        event: Cow<'a, str>,
        #[serde(borrow)]
        payload: Option<&'a RawValue>,
    }
    let Payload::Json(json) = payload else {
        return Err(Refusal::InvalidPresence);
    };
    let asked: Asked<'_> = serde_json::from_slice(json).map_err(|_| Refusal::InvalidPresence)?;
    match &*asked.event {
        "track" => checked_meta(asked.payload).map(PresenceRequest::Track),
        "untrack" => Ok(PresenceRequest::Untrack),
        _ => Err(Refusal::InvalidPresence),
    }
}

/// A random UUID (RFC 9562, version 4).
fn random_key() -> Box<str> {
    let bits: u128 = rand::random();
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | 0x4 << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(config: &str) -> Result<Terms, Refusal> {
        Terms::read(format!(r#"{{"config":{config},"access_token":"t"}}"#).as_bytes())
    }

    fn user(event: &str, metadata: &str, payload: &[u8], encoding: u8) -> Vec<u8> {
        let len = |text: &str| u8::try_from(text.len()).expect("short");
        let head = [len(event), len(metadata), encoding];
        [&head, event.as_bytes(), metadata.as_bytes(), payload].concat()
    }

    fn asked(bytes: &[u8]) -> Result<Request, Refusal> {
        let payload = Payload::new(cluster::wire::PayloadKind::User, bytes).expect("whole");
        Request::read("broadcast", payload)
    }

    #[test]
    fn what_a_join_leaves_out_is_off() {
        for config in ["{}", "null", r#"{"broadcast":null,"presence":{"key":null}}"#] {
            let terms = terms(config).expect("a config");
            assert!(!terms.own && !terms.ack && !terms.presence, "{config}");
            assert_eq!(terms.key.len(), 36);
        }
        assert!(Terms::read(b"{}").is_ok());
        let all = r#"{"broadcast":{"self":true,"ack":true},"presence":{"key":"\u00e9","enabled":true},"postgres_changes":[],"private":false}"#;
        let key = "é".into();
        assert_eq!(terms(all), Ok(Terms { own: true, ack: true, key, presence: true }));
    }

    #[test]
    fn a_join_is_refused_what_a_node_cannot_give() {
        assert_eq!(terms(r#"{"postgres_changes":[{"event":"*"}]}"#), Err(Refusal::NoDatabase));
        assert_eq!(terms(r#"{"private":true}"#), Err(Refusal::NotPrivate));
        assert_eq!(terms(r#"{"presence":{"key":7}}"#), Err(Refusal::InvalidJoin));
        assert_eq!(terms("7"), Err(Refusal::InvalidJoin));
    }

    #[test]
    fn a_topic_has_a_name() {
        assert!(is_realtime("realtime:a") && !is_realtime("realtime:") && !is_realtime("room:a"));
        assert_eq!(topic_of(""), Err(InvalidTopic::Empty));
        assert_eq!(name_of(&topic_of("a b").expect("a topic")), "a b");
    }

    #[test]
    fn an_empty_key_is_a_uuid_of_its_own() {
        let (one, other) = (random_key(), random_key());
        assert_ne!(one, other);
        let at = |index: usize| one.as_bytes()[index];
        assert!([8, 13, 18, 23].iter().all(|index| at(*index) == b'-'), "{one}");
        assert_eq!(at(14), b'4', "{one}");
        assert!(b"89ab".contains(&at(19)), "{one}");
    }

    #[test]
    fn broadcasts_that_receivers_could_not_read_are_refused() {
        assert_eq!(asked(&user("e", "", b"{\"a\":1}", 1)), Ok(Request::Broadcast));
        assert_eq!(asked(&user("e", "{\"id\":1}", b"\xff", 0)), Ok(Request::Broadcast));
        let bad: [Vec<u8>; 6] = [
            user("e", "", b"{", 1),
            user("e", "", b"", 1),
            user("e", "", br#""\ud800""#, 1),
            user("e", "7", b"1", 1),
            user("e", "{", b"1", 1),
            user("", "", b"1", 1),
        ];
        for bytes in bad {
            assert_eq!(asked(&bytes), Err(Refusal::InvalidBroadcast), "{bytes:?}");
        }
    }

    #[test]
    fn a_text_frame_broadcasts_an_object_with_an_event() {
        let read = |json: &str| Request::read("broadcast", Payload::Json(json.as_bytes()));
        assert_eq!(
            read(r#"{"type":"broadcast","event":"e","payload":{}}"#),
            Ok(Request::Broadcast)
        );
        for bad in ["7", "{}", r#"{"event":7}"#, r#"{"event":""}"#] {
            assert_eq!(read(bad), Err(Refusal::InvalidBroadcast), "{bad}");
        }
    }

    #[test]
    fn presence_is_tracked_with_the_meta_as_it_is() {
        let read = |json: &str| Request::read("presence", Payload::Json(json.as_bytes()));
        let tracked = |meta: &str| Ok(Request::Presence(PresenceRequest::Track(meta.into())));
        assert_eq!(
            read(r#"{"type":"presence","event":"track","payload":{"a":1}}"#),
            tracked(r#"{"a":1}"#)
        );
        assert_eq!(
            read(r#"{"event":"track","payload":{"phx_ref":"f","b":2}}"#),
            tracked(r#"{"b":2}"#)
        );
        assert_eq!(read(r#"{"event":"track"}"#), tracked("{}"));
        assert_eq!(read(r#"{"event":"track","payload":[1]}"#), tracked("{}"));
        assert_eq!(read(r#"{"event":"untrack"}"#), Ok(Request::Presence(PresenceRequest::Untrack)));
        assert_eq!(read(r#"{"event":"dance"}"#), Err(Refusal::InvalidPresence));
        assert_eq!(read("7"), Err(Refusal::InvalidPresence));
    }

    #[test]
    fn a_token_is_taken_and_other_events_are_not() {
        let read = |event| Request::read(event, Payload::Json(b"{}"));
        assert_eq!(read("access_token"), Ok(Request::Token));
        assert_eq!(read("postgres_changes"), Err(Refusal::InvalidEvent));
        assert_eq!(read("system"), Err(Refusal::InvalidEvent));
    }
}

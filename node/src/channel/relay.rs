//! The built-in channel: passes messages on, as its configuration says. Decisions only.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use presence::Topic;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    config::{self, ChannelRule, Deliver, JoinRule, PresenceEvents, PresenceMode, PublishRule},
    pubsub::{Overflow, Payload},
    socket::{EVENT_LEN_MAX, reserved_event},
};

/// Bytes of the largest meta that a client may be listed with.
const META_LEN_MAX: usize = 4 * 1024;

/// Members of every meta in a list.
const NODE_MEMBERS: [&str; 2] = ["phx_ref", "phx_ref_prev"];

/// Start of the topics that name sockets; see [`socket_id`].
const SOCKET_TOPICS: &str = "users_socket:";

/// The topic that all sockets of a user are closed by.
pub(crate) fn socket_id(key: &str) -> String {
    format!("{SOCKET_TOPICS}{key}")
}

/// Why a relay does not do what a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not allowed to this client, or to any.
    Unauthorized,
    /// The meta is too large.
    PayloadTooLarge,
    /// The event belongs to the protocol.
    ReservedEvent,
    /// The event's name is empty or too long.
    InvalidEvent,
    /// The presence request is none.
    InvalidPresence,
    /// The node lists as many clients as it may.
    TooMany,
    /// What only realtime topics carry.
    NotRealtime,
    /// A realtime join whose configuration cannot be read.
    InvalidJoin,
    /// A realtime join that wants to hear of changes of a database.
    NoDatabase,
    /// A realtime join of a private topic.
    NotPrivate,
    /// A realtime broadcast that others could not read.
    InvalidBroadcast,
}

impl Refusal {
    /// In the words that the client reads; none needs an escape in JSON.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::PayloadTooLarge => "payload too large",
            Self::ReservedEvent => "reserved event",
            Self::InvalidEvent => "invalid event",
            Self::InvalidPresence => "invalid presence",
            Self::TooMany => "too many requests",
            Self::NotRealtime => "this topic takes no realtime broadcasts",
            Self::InvalidJoin => "invalid join payload",
            Self::NoDatabase => "postgres_changes are not served: this node has no database",
            Self::NotPrivate => "private topics are not served by this node",
            Self::InvalidBroadcast => "invalid broadcast",
        }
    }

    /// The response to the client.
    pub(crate) fn response(self) -> Vec<u8> {
        format!("{{\"reason\":\"{}\"}}", self.reason()).into_bytes()
    }
}

/// What a client asks of its presence, where it is tracked by hand.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PresenceRequest {
    /// List it with this meta, or replace the meta it is listed with.
    Track(Vec<u8>),
    /// List it no more.
    Untrack,
}

/// One rule of the configuration at work.
#[derive(Debug)]
pub(crate) struct Relay(ChannelRule);

/// How a rule's clients are served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// When they are listed.
    pub(crate) presence: PresenceMode,
    /// What they are told of who is listed.
    pub(crate) events: PresenceEvents,
    /// What happens to a broadcast that does not fit into a client's mailbox.
    pub(crate) overflow: Overflow,
    /// How long a client stays listed whose socket has ended.
    pub(crate) linger: Duration,
}

impl Relay {
    pub(crate) fn new(rule: ChannelRule) -> Self {
        Self(rule)
    }

    pub(crate) fn serves(&self, topic: &Topic) -> bool {
        self.0.topic.matches(topic.as_str())
    }

    /// Whether a client may join the topic.
    pub(crate) fn join(&self, topic: &Topic) -> Result<(), Refusal> {
        let JoinRule::Anyone = self.0.join;
        if is_reserved(topic) { Err(Refusal::Unauthorized) } else { Ok(()) }
    }

    /// Whether a client may publish the event.
    pub(crate) fn publish(&self, event: &str) -> Result<(), Refusal> {
        if event.is_empty() || event.len() > EVENT_LEN_MAX {
            return Err(Refusal::InvalidEvent);
        }
        if reserved_event(event) {
            return Err(Refusal::ReservedEvent);
        }
        match self.0.publish {
            PublishRule::Anyone => Ok(()),
            PublishRule::Nobody => Err(Refusal::Unauthorized),
        }
    }

    /// Whether the sender of a broadcast hears it too.
    pub(crate) fn delivers_to_sender(&self) -> bool {
        self.0.deliver == Deliver::All
    }

    /// Whether pushes are answered.
    pub(crate) fn acknowledges(&self) -> bool {
        self.0.ack
    }

    /// How its clients are served.
    pub(crate) fn terms(&self) -> Terms {
        let ChannelRule { presence, presence_events, overflow, linger, .. } = self.0;
        let overflow = match overflow {
            config::Overflow::Disconnect => Overflow::Disconnect,
            config::Overflow::DropOldest => Overflow::DropOldest,
            config::Overflow::Conflate => Overflow::Conflate,
        };
        Terms { presence, events: presence_events, overflow, linger }
    }

    /// What a client is listed with when it joins: the `meta` of its join payload.
    pub(crate) fn join_meta(payload: &[u8], online_at: u64) -> Result<Vec<u8>, Refusal> {
        #[derive(Deserialize)]
        struct Joined<'a> {
            #[serde(borrow)]
            meta: Option<&'a RawValue>,
        }
        // A payload with two metas is no reason to refuse the join.
        let meta = serde_json::from_slice::<Joined<'_>>(payload).ok().and_then(|p| p.meta);
        meta_with_time(meta, online_at)
    }

    /// Reads a `presence` event.
    pub(crate) fn presence_request(
        payload: Payload<'_>,
        online_at: u64,
    ) -> Result<PresenceRequest, Refusal> {
        #[derive(Deserialize)]
        struct Request<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
            #[serde(borrow)]
            meta: Option<&'a RawValue>,
        }
        let Payload::Json(json) = payload else {
            return Err(Refusal::InvalidPresence);
        };
        let request: Request<'_> =
            serde_json::from_slice(json).map_err(|_| Refusal::InvalidPresence)?;
        match &*request.kind {
            "track" => meta_with_time(request.meta, online_at).map(PresenceRequest::Track),
            "untrack" => Ok(PresenceRequest::Untrack),
            _ => Err(Refusal::InvalidPresence),
        }
    }
}

/// Topics of sockets, and the node's own.
fn is_reserved(topic: &Topic) -> bool {
    topic.as_str().starts_with('$') || topic.as_str().starts_with(SOCKET_TOPICS)
}

/// A client's meta, without what every meta gets from the node; an empty object if it is none.
pub(super) fn checked_meta(meta: Option<&RawValue>) -> Result<Vec<u8>, Refusal> {
    object_without(meta, &NODE_MEMBERS).map(|meta| meta.into_owned().into_bytes())
}

fn meta_with_time(meta: Option<&RawValue>, online_at: u64) -> Result<Vec<u8>, Refusal> {
    let [phx_ref, phx_ref_prev] = NODE_MEMBERS;
    let body = object_without(meta, &["online_at", phx_ref, phx_ref_prev])?;
    let body = body.strip_suffix('}').unwrap_or("{").trim_ascii_end();
    let comma = if body.ends_with('{') { "" } else { "," };
    Ok(format!("{body}{comma}\"online_at\":{online_at}}}").into_bytes())
}

fn object_without<'a>(meta: Option<&'a RawValue>, own: &[&str]) -> Result<Cow<'a, str>, Refusal> {
    let meta = meta.map_or("{}", RawValue::get);
    if meta.len() > META_LEN_MAX {
        return Err(Refusal::PayloadTooLarge);
    }
    if !meta.starts_with('{') {
        return Ok(Cow::Borrowed("{}"));
    }
    Ok(without_members(meta, own).map_or(Cow::Borrowed(meta), Cow::Owned))
}

/// The meta without members that are the node's to add; `None` when it has none of them.
fn without_members(meta: &str, own: &[&str]) -> Option<String> {
    let suspicious = meta.contains('\\') || own.iter().any(|name| meta.contains(name));
    if !suspicious {
        return None;
    }
    let mut members: BTreeMap<String, &RawValue> = serde_json::from_str(meta).ok()?;
    let before = members.len();
    members.retain(|name, _| !own.contains(&name.as_str()));
    (members.len() != before).then(|| serde_json::to_string(&members).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_joiners_meta_gets_the_time_of_joining() {
        let meta = |payload: &str| {
            let meta = Relay::join_meta(payload.as_bytes(), 7).expect("a meta");
            String::from_utf8(meta).expect("UTF-8")
        };
        assert_eq!(meta(r#"{"meta":{"name":"N"}}"#), r#"{"name":"N","online_at":7}"#);
        assert_eq!(meta(r#"{"meta":{ }}"#), r#"{"online_at":7}"#);
        assert_eq!(meta(r#"{"meta":[1]}"#), r#"{"online_at":7}"#);
        assert_eq!(meta("{}"), r#"{"online_at":7}"#);
        let forged =
            r#"{"meta":{"x":{"phx_ref":1},"phx_ref":"f","phx\u005fref_prev":2,"online_at":0}}"#;
        assert_eq!(meta(forged), r#"{"x":{"phx_ref":1},"online_at":7}"#);
    }

    #[test]
    fn a_meta_over_the_limit_is_refused() {
        let long = format!(r#"{{"meta":{{"x":"{}"}}}}"#, "y".repeat(META_LEN_MAX));
        assert_eq!(Relay::join_meta(long.as_bytes(), 7), Err(Refusal::PayloadTooLarge));
    }

    #[test]
    fn presence_can_be_tracked_and_untracked_by_hand() {
        let request = |payload: &str| Relay::presence_request(Payload::Json(payload.as_bytes()), 7);
        let tracked = PresenceRequest::Track(br#"{"a":1,"online_at":7}"#.to_vec());
        assert_eq!(request(r#"{"type":"track","meta":{"a":1}}"#), Ok(tracked));
        assert_eq!(request(r#"{"type":"untrack"}"#), Ok(PresenceRequest::Untrack));
        assert_eq!(request(r#"{"type":"dance"}"#), Err(Refusal::InvalidPresence));
        assert_eq!(request("7"), Err(Refusal::InvalidPresence));
        let bytes = Payload::Binary(br#"{"type":"untrack"}"#);
        assert_eq!(Relay::presence_request(bytes, 7), Err(Refusal::InvalidPresence));
    }

    #[test]
    fn clients_neither_forge_presence_nor_join_the_nodes_own_topics() {
        let relay = Relay::new(ChannelRule::default());
        assert_eq!(relay.publish("presence_diff"), Err(Refusal::ReservedEvent));
        assert_eq!(relay.publish("disconnect"), Err(Refusal::ReservedEvent));
        assert_eq!(relay.publish(""), Err(Refusal::InvalidEvent));
        assert_eq!(relay.publish("new_message"), Ok(()));
        for topic in ["$node", "users_socket:7"] {
            let topic = topic.parse().expect("a topic");
            assert_eq!(relay.join(&topic), Err(Refusal::Unauthorized));
        }
    }
}

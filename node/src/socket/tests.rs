//! The protocol's rules, told by what a client and a driver see.

mod binary;
mod joins;
mod limits;
mod model;
mod properties;
mod pushes;
mod wire;

use std::sync::Arc;

use presence::{Time, Topic};

use super::{Action, ChannelId, Close, Frame, Limits, Push, Socket, Version};
use crate::pubsub::Payload;

/// One client with its driver. What happens is told in lines: a frame to the client as it is, an
/// action as `join TOPIC PAYLOAD`, `leave TOPIC`, or `push TOPIC EVENT PAYLOAD REF JOIN_REF`.
struct Client {
    socket: Socket<()>,
    now: Time,
    /// Every channel asked to join, oldest first.
    ids: Vec<ChannelId>,
}

impl Client {
    fn new(version: Version, limits: Limits) -> Self {
        let now = Time::ZERO;
        Self { socket: Socket::new(version, &Arc::new(limits), now), now, ids: Vec::new() }
    }

    fn v2() -> Self {
        Self::new(Version::V2, Limits::default())
    }

    fn v1() -> Self {
        Self::new(Version::V1, Limits::default())
    }

    /// A V2 client that joined `room:x` with the refs `"1"`.
    fn joined() -> Self {
        let mut client = Self::v2();
        client.join("room:x", "1");
        client
    }

    /// Feeds one frame and tells what it caused.
    fn send(&mut self, frame: &str) -> Vec<String> {
        self.try_send(frame).expect("a frame that can be decoded")
    }

    fn try_send(&mut self, frame: &str) -> Result<Vec<String>, Close> {
        let push = self.socket.handle_text(frame, &route, self.now)?;
        let mut seen: Vec<String> = push.map(|push| self.pushed(&push)).into_iter().collect();
        seen.extend(self.drain());
        Ok(seen)
    }

    /// Feeds one binary frame and tells what it caused.
    fn send_bytes(&mut self, frame: &[u8]) -> Result<Vec<String>, Close> {
        let push = self.socket.handle_binary(frame, &route, self.now)?;
        let mut seen: Vec<String> = push.map(|push| self.pushed(&push)).into_iter().collect();
        seen.extend(self.drain());
        Ok(seen)
    }

    fn pushed(&self, push: &Push<'_>) -> String {
        let Push { id, event, payload, reference, .. } = push;
        let topic = self.socket.topic(*id).expect("a joined channel");
        let join_ref = self.socket.join_ref(*id).expect("a joined channel");
        let payload = match payload {
            Payload::Json(json) => string(json),
            Payload::Binary(data) => format!("binary {}", data.escape_ascii()),
            Payload::User(user) => format!(
                "{} {} {}",
                user.event(),
                user.metadata().escape_ascii(),
                user.payload().escape_ascii()
            ),
        };
        format!("push {topic} {event} {payload} {reference} {join_ref:?}")
    }

    /// Joins a topic with `reference` as both refs; the channel agrees.
    fn join(&mut self, topic: &str, reference: &str) -> ChannelId {
        self.send(&format!(r#"["{reference}","{reference}","{topic}","phx_join",{{}}]"#));
        let id = self.newest();
        self.join_ok(id);
        id
    }

    fn join_ok(&mut self, id: ChannelId) -> Vec<String> {
        self.socket.join_ok(id, b"{}");
        self.drain()
    }

    fn join_error(&mut self, id: ChannelId) -> Vec<String> {
        self.socket.join_error(id, br#"{"reason":"unauthorized"}"#);
        self.drain()
    }

    /// A message to this client alone.
    fn push(&self, id: ChannelId, event: &str, payload: &str) -> Option<String> {
        let (before, behind) = self.socket.push_around(id, event)?;
        Some(string(&before) + payload + &string(&behind))
    }

    /// A message to this client alone that its channel's task makes.
    fn say(&self, id: ChannelId, event: &str, payload: Payload<'_>) -> Option<String> {
        self.socket.letterhead(id)?.message(event, payload).map(shown)
    }

    fn newest(&self) -> ChannelId {
        *self.ids.last().expect("a join before this")
    }

    fn drain(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(action) = self.socket.poll_action() {
            seen.push(match action {
                Action::Send(frame) => shown(frame),
                Action::Join { id, topic, payload, .. } => {
                    self.ids.push(id);
                    format!("join {topic} {}", string(&payload))
                }
                Action::Leave { topic, .. } => format!("leave {topic}"),
                Action::Push { id, route, event, kind, payload, reference } => {
                    let payload = Payload::new(kind, &payload).expect("of its kind");
                    let (event, reference) = ((*event).into(), format!("{reference:?}").into());
                    self.pushed(&Push { id, route, event, payload, reference })
                }
            });
        }
        seen
    }
}

/// Channel 0 serves `room:*`, channel 1 `lobby`.
fn route(topic: &Topic) -> Option<usize> {
    match topic.as_str() {
        room if room.starts_with("room:") => Some(0),
        "lobby" => Some(1),
        _ => None,
    }
}

fn shown(frame: Frame) -> String {
    match frame {
        Frame::Text(frame) => string(frame.payload()),
        Frame::Binary(frame) => format!("binary {}", frame.payload().escape_ascii()),
    }
}

fn string(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// An error reply of V2.
fn refused(join_ref: &str, reference: &str, topic: &str, reason: &str) -> String {
    format!(
        r#"[{join_ref},{reference},"{topic}","phx_reply",{{"response":{{"reason":"{reason}"}},"status":"error"}}]"#
    )
}

/// An ok reply of V2 with an empty response.
fn replied(join_ref: &str, reference: &str, topic: &str) -> String {
    format!(r#"[{join_ref},{reference},"{topic}","phx_reply",{{"response":{{}},"status":"ok"}}]"#)
}

/// The close of a channel in V2.
fn closed(join_ref: &str, topic: &str) -> String {
    format!(r#"[{join_ref},{join_ref},"{topic}","phx_close",{{}}]"#)
}

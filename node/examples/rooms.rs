//! Rooms with presence, and every answer that a channel can give. It takes the flags of
//! `wingbeat serve`: `cargo run --example rooms -- --listen 127.0.0.1:4000`.
//!
//! | topic | join |
//! |---|---|
//! | `room:*` | `{"deny": true}` is refused; else answered `{"joined": topic}`, and the client is listed under its `user_id`, unless it says `{"track": false}` |
//! | `bench:*` | no presence |
//! | `pbench:*` | listed under the `user_id` of the join, else of the connect |

use std::{
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};
use wingbeat::{
    Accepted, App, Channel, Connect, Error, Joined, Outcome, Payload, Refused, Socket, Topic,
};

/// Who connected.
struct User {
    id: String,
}

async fn connect(connect: Connect) -> Result<Accepted<User>, Refused> {
    if connect.param("token") == Some("bad") {
        return Err(Refused::reason("bad token"));
    }
    match connect.param("user_id") {
        Some(id) => {
            let user = User { id: id.to_owned() };
            Ok(Accepted::new(user).id(format!("users_socket:{id}")))
        }
        None => Ok(Accepted::new(User { id: "guest".to_owned() })),
    }
}

struct Room {
    /// What the client is listed with, while it is.
    meta: Map<String, Value>,
}

impl Channel for Room {
    type Assigns = User;
    type Info = ();

    async fn join(
        topic: &Topic,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> Result<Joined<Self>, Refused> {
        let payload: Map<String, Value> = payload.parse()?;
        if payload.get("deny") == Some(&Value::Bool(true)) {
            return Err(Refused::reason("denied"));
        }
        if topic.as_str() == "room:crash" {
            panic!("this room crashes whoever joins it");
        }
        let name = payload.get("name").cloned().unwrap_or_default();
        let meta = Map::from_iter([online_at(), ("name".to_owned(), name)]);
        let joined =
            Joined::new(Self { meta: meta.clone() }).reply(json!({ "joined": topic.as_str() }));
        if payload.get("track") == Some(&Value::Bool(false)) {
            return Ok(joined.watch_changes());
        }
        Ok(joined.track(&socket.assigns().id, &meta)?)
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> Result<Outcome, Error> {
        if event.starts_with("bin") {
            return self.handle_bytes(event, payload, socket).await;
        }
        match event {
            "ping" => return Ok(Outcome::ok(object(payload)?)),
            "fail" => return Ok(Outcome::error(json!({ "reason": "fail" }))),
            "shout" => socket.broadcast("shout", object(payload)?).await?,
            "shout_ack" => {
                socket.broadcast("shout", object(payload)?).await?;
                return Ok(Outcome::ok(()));
            }
            "others" => socket.broadcast_from("others", object(payload)?).await?,
            "push_me" => socket.push("pushed", object(payload)?)?,
            "update_meta" => {
                self.meta.extend(payload.parse::<Map<String, Value>>()?);
                socket.update(&socket.assigns().id, &self.meta)?;
                return Ok(Outcome::ok(()));
            }
            "untrack" => {
                socket.untrack(&socket.assigns().id);
                return Ok(Outcome::ok(()));
            }
            "stop" => return Ok(Outcome::ok(()).and_stop()),
            "stop_noreply" => return Ok(Outcome::NoReply.and_stop()),
            "crash" => panic!("the client asked for it"),
            "noreply" => {}
            _ => return Err(Error::unhandled(event)),
        }
        Ok(Outcome::NoReply)
    }
}

impl Room {
    async fn handle_bytes(
        &self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Outcome, Error> {
        if !payload.is_binary() {
            return Err(Error::new("JSON where bytes are wanted"));
        }
        match event {
            "bin" => Ok(Outcome::ok(payload)),
            "bin_err" => Ok(Outcome::error(payload)),
            "bin_push" => {
                socket.push("bin_pushed", payload)?;
                Ok(Outcome::NoReply)
            }
            "bin_shout" => {
                socket.broadcast("bin_shout", payload).await?;
                Ok(Outcome::NoReply)
            }
            _ => Err(Error::unhandled(event)),
        }
    }
}

/// Messages without presence.
struct Bench;

impl Channel for Bench {
    type Assigns = User;
    type Info = ();

    async fn join(_: &Topic, _: Payload, _: &mut Socket<Self>) -> Result<Joined<Self>, Refused> {
        Ok(Joined::new(Self))
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> Result<Outcome, Error> {
        match event {
            "ping" => Ok(Outcome::ok(object(payload)?)),
            "shout" => {
                socket.broadcast("shout", object(payload)?).await?;
                Ok(Outcome::NoReply)
            }
            "shout_ack" => {
                socket.broadcast("shout", object(payload)?).await?;
                Ok(Outcome::ok(()))
            }
            _ => Err(Error::unhandled(event)),
        }
    }
}

/// Presence without messages.
struct PresenceBench;

impl Channel for PresenceBench {
    type Assigns = User;
    type Info = ();

    async fn join(
        _: &Topic,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> Result<Joined<Self>, Refused> {
        let payload: Map<String, Value> = payload.parse()?;
        let key = payload.get("user_id").and_then(Value::as_str);
        let key = key.unwrap_or(&socket.assigns().id);
        Ok(Joined::new(Self).track(key, &Map::from_iter([online_at()]))?)
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        _: &mut Socket<Self>,
    ) -> Result<Outcome, Error> {
        match event {
            "ping" => Ok(Outcome::ok(object(payload)?)),
            _ => Err(Error::unhandled(event)),
        }
    }
}

/// The payload, if it is a JSON object.
fn object(payload: Payload) -> Result<Payload, Error> {
    let is_object = !payload.is_binary() && payload.bytes().starts_with(b"{");
    if is_object { Ok(payload) } else { Err(Error::new("no object")) }
}

fn online_at() -> (String, Value) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ("online_at".to_owned(), since.as_secs().into())
}

fn main() -> ExitCode {
    let app = App::new(connect)
        .channel::<Room>("room:*")
        .channel::<Bench>("bench:*")
        .channel::<PresenceBench>("pbench:*");
    wingbeat::run_app(app)
}

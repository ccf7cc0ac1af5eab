//! Rooms: who is there, what they say, and reminders.

use std::{process::ExitCode, time::Duration};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use wingbeat::{
    Accepted, App, Channel, Connect, Error, Joined, Outcome, Payload, Refused, Socket, Topic,
};

struct User {
    id: String,
}

async fn connect(connect: Connect) -> Result<Accepted<User>, Refused> {
    match connect.param("user_id") {
        Some(id) if !id.is_empty() => {
            let user = User { id: id.to_owned() };
            Ok(Accepted::new(user).id(format!("users_socket:{id}")))
        }
        _ => Err(Refused::reason("who are you?")),
    }
}

/// What a client joins with.
#[derive(Deserialize)]
struct Hello {
    /// What others see of it.
    #[serde(default)]
    meta: Map<String, Value>,
}

#[derive(Default)]
struct Room {
    /// Messages of this client.
    said: u64,
    /// Reminders that are to come.
    waiting: usize,
}

impl Channel for Room {
    type Assigns = User;
    type Info = Reminder;

    async fn join(
        topic: &Topic,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> Result<Joined<Self>, Refused> {
        if topic.as_str() == "room:attic" {
            return Err(Refused::reason("nobody may go there"));
        }
        let Hello { meta } = payload.parse()?;
        let user = &socket.assigns().id;
        Ok(Joined::new(Self::default()).reply(json!({ "welcome": user })).track(user, &meta)?)
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> Result<Outcome, Error> {
        match event {
            "message" => {
                let mut message: Map<String, Value> = payload.parse()?;
                // Clients say what they like; who said it, they do not decide.
                message.insert("user_id".to_owned(), json!(socket.assigns().id));
                socket.broadcast("message", Value::Object(message)).await?;
                self.said += 1;
                Ok(Outcome::ok(json!({ "said": self.said })))
            }
            "remind_me" => self.remind(payload.parse()?, socket),
            _ => Err(Error::unhandled(event)),
        }
    }

    async fn handle_info(
        &mut self,
        Reminder(text): Reminder,
        socket: &mut Socket<Self>,
    ) -> Result<Outcome, Error> {
        self.waiting -= 1;
        socket.push("reminder", json!({ "text": text }))?;
        Ok(Outcome::NoReply)
    }
}

/// A time has come.
struct Reminder(String);

#[derive(Deserialize)]
struct Wish {
    after_ms: u64,
    text: String,
}

/// Reminders that one client may wait for, in one room.
const WAITING_MAX: usize = 10;

impl Room {
    fn remind(&mut self, wish: Wish, socket: &Socket<Self>) -> Result<Outcome, Error> {
        if self.waiting == WAITING_MAX {
            return Ok(Outcome::error(json!({ "reason": "too many reminders" })));
        }
        self.waiting += 1;
        let channel = socket.handle();
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wish.after_ms)) => {
                    // An error means that the client has left.
                    let _ = channel.send(Reminder(wish.text)).await;
                }
                () = channel.ended() => {}
            }
        });
        Ok(Outcome::ok(()))
    }
}

fn app() -> App<User> {
    App::new(connect).channel::<Room>("room:*")
}

fn main() -> ExitCode {
    wingbeat::run_app(app())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };
    use wingbeat::{Config, Node};

    use super::*;

    async fn node() -> Node {
        let mut config = Config::default();
        config.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.tcp.listen = Some(config.http.listen);
        Node::start_app(config, app()).await.unwrap()
    }

    /// A client whose messages go behind their lengths.
    struct Client(TcpStream);

    impl Client {
        async fn connect(node: &Node, user: &str) -> Self {
            let stream = TcpStream::connect(node.tcp_address().unwrap()).await.unwrap();
            let mut client = Self(stream);
            let params = json!({ "user_id": user });
            client.send(json!({ "path": "/socket", "vsn": "2.0.0", "params": params })).await;
            assert_eq!(client.next().await, json!({ "status": "ok" }));
            client
        }

        async fn send(&mut self, message: Value) {
            let text = message.to_string();
            self.0.write_u32(text.len().try_into().unwrap()).await.unwrap();
            self.0.write_all(text.as_bytes()).await.unwrap();
        }

        async fn next(&mut self) -> Value {
            let mut message = vec![0; self.0.read_u32().await.unwrap().try_into().unwrap()];
            self.0.read_exact(&mut message).await.unwrap();
            serde_json::from_slice(&message).unwrap()
        }

        /// The payload of the next event of this name.
        async fn hears(&mut self, event: &str) -> Value {
            loop {
                let message = self.next().await;
                if message[3] == event {
                    return message[4].clone();
                }
            }
        }
    }

    #[tokio::test]
    async fn people_of_a_room_see_and_hear_each_other() {
        let node = node().await;
        let mut ann = Client::connect(&node, "ann").await;
        ann.send(json!(["1", "1", "room:lobby", "phx_join", { "meta": { "name": "Ann" } }])).await;
        let welcome = json!({ "status": "ok", "response": { "welcome": "ann" } });
        assert_eq!(ann.hears("phx_reply").await, welcome);
        let state = ann.hears("presence_state").await;
        assert_eq!(state["ann"]["metas"][0]["name"], "Ann");

        ann.send(json!(["1", "2", "room:lobby", "message", { "text": "hello" }])).await;
        let message = ann.hears("message").await;
        assert_eq!(message, json!({ "user_id": "ann", "text": "hello" }));

        node.handle().broadcast("room:lobby", "news", json!({ "n": 1 })).await.unwrap();
        assert_eq!(ann.hears("news").await, json!({ "n": 1 }));
        // A node that stops waits a while for clients to close their side.
        drop(ann);
        node.stop().await;
    }

    #[tokio::test]
    async fn the_attic_is_closed() {
        let node = node().await;
        let mut ann = Client::connect(&node, "ann").await;
        ann.send(json!(["1", "1", "room:attic", "phx_join", {}])).await;
        assert_eq!(ann.hears("phx_reply").await["response"]["reason"], "nobody may go there");
        drop(ann);
        node.stop().await;
    }
}

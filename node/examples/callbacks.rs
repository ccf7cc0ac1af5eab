//! Every callback of a channel, at work and failing: what a client asks for is done to it.

use std::{process::ExitCode, time::Duration};

use serde::Deserialize;
use serde_json::json;
use wingbeat::{
    Accepted, App, Channel, Connect, Error, Joined, Outcome, Payload, Reason, Refused, Reply,
    Socket, Topic,
};

/// The client has a name, which decides what it sees of a price.
async fn connect(connect: Connect) -> Result<Accepted<String>, Refused> {
    assert_eq!(connect.param("panic"), None, "the connect was asked to panic");
    let token = connect.auth_token().or_else(|| connect.param("name"));
    let name = token.ok_or_else(|| Refused::reason("who are you?"))?;
    Ok(Accepted::new(name.to_owned()).id(format!("named:{name}")))
}

/// What the client wants to happen.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wish {
    /// Milliseconds to wait before the join is answered.
    slow: u64,
    /// The join fails, which is no decision.
    fail: bool,
    /// The join lists the client under this key.
    key: Option<String>,
    /// `terminate` panics.
    panic_at_end: bool,
}

struct Callbacks {
    panic_at_end: bool,
    ticks: u64,
}

/// What a task of the application's tells the channel.
enum Info {
    Tick,
    Panic,
    Stop,
}

impl Channel for Callbacks {
    type Assigns = String;
    type Info = Info;
    const INTERCEPT: &'static [&'static str] = &["price"];

    async fn join(
        _: &Topic,
        payload: Payload,
        _: &mut Socket<Self>,
    ) -> Result<Joined<Self>, Refused> {
        let wish: Wish = payload.parse()?;
        tokio::time::sleep(Duration::from_millis(wish.slow)).await;
        if wish.fail {
            return Err(Error::new("the join was asked to fail").into());
        }
        let joined = Joined::new(Self { panic_at_end: wish.panic_at_end, ticks: 0 });
        match wish.key {
            Some(key) => Ok(joined.track(key, &json!({}))?),
            None => Ok(joined),
        }
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> Result<Outcome, Error> {
        let handle = socket.handle();
        match event {
            "now" => return Ok(Outcome::ok(payload)),
            // The answer comes from a task, after the handler is done.
            "later" => {
                if let Some(reply) = socket.reply_later() {
                    tokio::spawn(async move { reply.ok(payload) });
                }
            }
            "never" => drop(socket.reply_later()),
            "slow" => {
                tokio::time::sleep(Duration::from_millis(payload.parse()?)).await;
                return Ok(Outcome::ok(()));
            }
            // As nobody should: the thread has others to serve.
            "block" => {
                std::thread::sleep(Duration::from_millis(payload.parse()?));
                return Ok(Outcome::ok(()));
            }
            "slow_push" => {
                tokio::time::sleep(Duration::from_millis(payload.parse()?)).await;
                socket.push("pushed", ())?;
                socket.track("late", &json!({}))?;
            }
            "tick" => handle.try_send(Info::Tick)?,
            "panic_in_info" => handle.try_send(Info::Panic)?,
            "stop_in_info" => handle.try_send(Info::Stop)?,
            "price" => socket.broadcast("price", payload).await?,
            "track" => socket.track(socket.assigns(), &payload.parse::<serde_json::Value>()?)?,
            "watch" => socket.watch()?,
            "presences" => return Ok(Outcome::ok(socket.presences())),
            "error" => return Err(Error::new("the handler was asked to fail")),
            "panic" => panic!("the handler was asked to panic"),
            _ => return Err(Error::unhandled(event)),
        }
        Ok(Outcome::NoReply)
    }

    /// Who is no member sees no price.
    async fn handle_out(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> Result<Outcome, Error> {
        match socket.assigns().as_str() {
            "panic" => panic!("{event} was asked to panic"),
            "member" => socket.push(event, payload)?,
            _ => socket.push(event, json!({ "for": "members" }))?,
        }
        Ok(Outcome::NoReply)
    }

    async fn handle_info(
        &mut self,
        info: Info,
        socket: &mut Socket<Self>,
    ) -> Result<Outcome, Error> {
        match info {
            Info::Tick => {
                self.ticks += 1;
                socket.push("ticked", json!({ "ticks": self.ticks }))?;
                Ok(Outcome::NoReply)
            }
            Info::Panic => panic!("handle_info was asked to panic"),
            Info::Stop => Ok(Outcome::Stop(Some(Reply::ok(())))),
        }
    }

    /// The others on the topic hear why.
    async fn terminate(self, reason: &Reason, socket: &mut Socket<Self>) {
        let ended = json!({ "name": socket.assigns(), "reason": format!("{reason:?}") });
        // Only an event without a name fails.
        let _ = socket.broadcast("ended", ended).await;
        assert!(!self.panic_at_end, "terminate was asked to panic");
    }
}

fn main() -> ExitCode {
    let app = App::new(connect)
        .channel::<Callbacks>("callbacks:*")
        .with_relay()
        .slow_after(Duration::from_millis(200));
    wingbeat::run_app(app)
}

//! A chat: `cargo run --example chat`, then join `room:lobby` with any Phoenix client.

use std::process::ExitCode;

use wingbeat::{
    Accepted, App, Channel, Connect, Error, Joined, Outcome, Payload, Refused, Socket, Topic,
};

struct Room;

impl Channel for Room {
    /// The name that the client connected with.
    type Assigns = String;
    type Info = ();

    async fn join(
        _: &Topic,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> Result<Joined<Self>, Refused> {
        let name = socket.assigns();
        // Whoever is in the room is listed, and sees who else is.
        Ok(Joined::new(Self).track(name, &payload.parse::<serde_json::Value>()?)?)
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> Result<Outcome, Error> {
        match event {
            "message" => socket.broadcast("message", payload).await?,
            _ => return Err(Error::unhandled(event)),
        }
        Ok(Outcome::ok(()))
    }
}

async fn connect(connect: Connect) -> Result<Accepted<String>, Refused> {
    let name = connect.param("name").ok_or_else(|| Refused::reason("what is your name?"))?;
    Ok(Accepted::new(name.to_owned()))
}

fn main() -> ExitCode {
    wingbeat::run_app(App::new(connect).channel::<Room>("room:*"))
}

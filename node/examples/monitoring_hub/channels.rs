//! What applications and pages join.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use wingbeat::{
    Accepted, Channel, ChannelHandle, Connect, Error, Joined, Outcome, Payload, Reason, Refused,
    SendError, Socket, Topic, TrackError,
};

use crate::{
    history::{History, Point},
    samples::{Samples, is_name},
    second::Second,
};

const SECOND: Duration = Duration::from_secs(1);

/// Who connected.
pub(crate) struct Client {
    history: History,
    /// `None` for a page.
    source: Option<Source>,
}

/// An application that pushes samples, as it names itself.
struct Source {
    app: String,
    instance: String,
}

pub(crate) async fn connect(
    connect: Connect,
    history: History,
) -> Result<Accepted<Client>, Refused> {
    let Some(app) = connect.param("app") else {
        return Ok(Accepted::new(Client { history, source: None }));
    };
    let instance = connect.param("instance").unwrap_or(app);
    if !is_name(app) || !is_name(instance) {
        return Err(Refused::reason("a name has 1 to 64 letters, digits, '-', '_' or '.'"));
    }
    let source = Some(Source { app: app.to_owned(), instance: instance.to_owned() });
    Ok(Accepted::new(Client { history, source }))
}

/// `metrics`: applications push their samples, pages see who is there.
#[derive(Default)]
pub(crate) struct Metrics {
    second: Second,
    /// How many components presence tells of; `None` before it tells of the application.
    told: Option<usize>,
}

/// A second is over: which, since 1970.
pub(crate) struct Tick(u64);

impl Channel for Metrics {
    type Assigns = Client;
    type Info = Tick;

    async fn join(
        _: &Topic,
        _: Payload,
        socket: &mut Socket<Self>,
    ) -> Result<Joined<Self>, Refused> {
        let Client { history, source } = socket.assigns();
        if source.is_some() {
            tokio::spawn(tick(socket.handle()));
            return Ok(Joined::new(Self::default()));
        }
        Ok(Joined::new(Self::default()).reply(json!({ "topics": history.topics() })).watch())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> Result<Outcome, Error> {
        if event != "samples" || socket.assigns().source.is_none() {
            return Err(Error::unhandled(event));
        }
        let taken = Samples::read(&payload).and_then(|samples| self.second.take(&samples));
        Ok(match taken {
            Ok(()) => Outcome::ok(()),
            Err(refused) => Outcome::error(json!({ "reason": refused.to_string() })),
        })
    }

    async fn handle_info(
        &mut self,
        Tick(t): Tick,
        socket: &mut Socket<Self>,
    ) -> Result<Outcome, Error> {
        self.tell_who(socket)?;
        self.close_second(t, socket).await?;
        Ok(Outcome::NoReply)
    }

    /// The last second counts too, however short.
    async fn terminate(mut self, _: &Reason, socket: &mut Socket<Self>) {
        let t = since_1970().as_secs() + 1;
        // It fails for no name of ours.
        let _ = self.close_second(t, socket).await;
    }
}

impl Metrics {
    /// Lists the application, unlike a join without the lists of others in return: it may not read.
    fn tell_who(&mut self, socket: &Socket<Self>) -> Result<(), TrackError> {
        let Some(Source { app, instance }) = &socket.assigns().source else {
            return Ok(());
        };
        let components = self.second.components();
        let (before, now) = (self.told, Some(components.len()));
        if before != now {
            let node = socket.node().name().to_string();
            let meta = json!({ "instance": instance, "node": node, "components": components });
            match before {
                None => socket.track(app, &meta)?,
                Some(_) => socket.update(app, &meta)?,
            }
            self.told = now;
        }
        Ok(())
    }

    async fn close_second(&mut self, t: u64, socket: &Socket<Self>) -> Result<(), SendError> {
        let Client { history, source: Some(Source { app, instance }) } = socket.assigns() else {
            return Ok(());
        };
        for (component, point) in self.second.close(t, instance) {
            let topic = format!("metrics:{app}:{component}");
            // Before it is sent, so that a page that comes now has it from one of the two.
            history.keep(&topic, &point);
            socket.node().broadcast(&topic, "point", json!(point)).await?;
        }
        Ok(())
    }
}

/// Tells a channel of the seconds as long as it lives: of the last one at once, then of each at its end,
/// so that those of all instances end together.
async fn tick(channel: ChannelHandle<Tick>) {
    let now = since_1970();
    let first = Instant::now() + SECOND - Duration::from_nanos(now.subsec_nanos().into());
    let mut ends = interval_at(first, SECOND);
    ends.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut t = now.as_secs();
    while channel.send(Tick(t)).await.is_ok() {
        let end = ends.tick().await;
        // By a clock that nobody sets.
        t = now.as_secs() + 1 + end.duration_since(first).as_secs();
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `metrics:<app>:<component>`: points of one component, for a page.
pub(crate) struct Component {
    /// What the page got with its join.
    told: Vec<Point>,
}

/// The page is joined: it hears all that comes.
pub(crate) struct Listening;

impl Channel for Component {
    type Assigns = Client;
    type Info = Listening;
    const INTERCEPT: &'static [&'static str] = &["point"];

    async fn join(
        topic: &Topic,
        _: Payload,
        socket: &mut Socket<Self>,
    ) -> Result<Joined<Self>, Refused> {
        let told = socket.assigns().history.points(topic.as_str());
        let reply = json!({ "points": told });
        socket.handle().try_send(Listening)?;
        Ok(Joined::new(Self { told }).reply(reply))
    }

    async fn handle_in(
        &mut self,
        event: &str,
        _: Payload,
        _: &mut Socket<Self>,
    ) -> Result<Outcome, Error> {
        Err(Error::unhandled(event))
    }

    /// Hands on what came between the history and the first point that the page heard by itself. It knows
    /// points that it has.
    async fn handle_info(
        &mut self,
        Listening: Listening,
        socket: &mut Socket<Self>,
    ) -> Result<Outcome, Error> {
        let told = std::mem::take(&mut self.told);
        for point in socket.assigns().history.points(socket.topic().as_str()) {
            if told.binary_search(&point).is_err() {
                socket.push("point", json!(point))?;
            }
        }
        Ok(Outcome::NoReply)
    }

    /// Keeps what other nodes broadcast, for the next page.
    async fn handle_out(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &mut Socket<Self>,
    ) -> Result<Outcome, Error> {
        socket.assigns().history.keep(socket.topic().as_str(), &payload.parse()?);
        socket.push(event, payload)?;
        Ok(Outcome::NoReply)
    }
}

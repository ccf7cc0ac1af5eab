//! The session against a naive model of it, over random histories.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    channels_max: 2,
    pending_max: 2,
    joins_per_second: None,
    events_per_second: None,
    user_broadcasts: false,
};
const TOPICS: [&str; 3] = ["room:a", "room:b", "lobby"];
const PUSH_EVENTS: [&str; 3] = [r#""say""#, r#""phx_x""#, "7"];

/// Which `join_ref` a frame carries.
#[derive(Clone, Copy, Debug)]
enum By {
    Current,
    Null,
    Former,
}

/// What kind of frame it is. In a binary one no ref is null: it is empty.
#[derive(Clone, Copy, Debug, PartialEq)]
enum As {
    Text,
    Bytes,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Join { topic: usize, null: bool, kind: As },
    Leave { topic: usize, by: By, kind: As },
    Push { topic: usize, by: By, event: usize, kind: As },
    Answer { topic: usize, ok: bool },
    Crash { topic: usize },
    Stop { topic: usize },
    LateAnswer { ok: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let topic = || 0..TOPICS.len();
    let by = || prop_oneof![4 => Just(By::Current), 1 => Just(By::Null), 1 => Just(By::Former)];
    let kind = || prop_oneof![3 => Just(As::Text), 1 => Just(As::Bytes)];
    prop_oneof![
        4 => (topic(), any::<bool>(), kind())
            .prop_map(|(topic, null, kind)| Step::Join { topic, null, kind }),
        2 => (topic(), by(), kind())
            .prop_map(|(topic, by, kind)| Step::Leave { topic, by, kind }),
        8 => (topic(), by(), 0..PUSH_EVENTS.len(), kind())
            .prop_map(|(topic, by, event, kind)| Step::Push { topic, by, event, kind }),
        6 => (topic(), any::<bool>()).prop_map(|(topic, ok)| Step::Answer { topic, ok }),
        1 => topic().prop_map(|topic| Step::Crash { topic }),
        1 => topic().prop_map(|topic| Step::Stop { topic }),
        1 => any::<bool>().prop_map(|ok| Step::LateAnswer { ok }),
    ]
}

/// One topic's channel, as the client may think of it.
#[derive(Default)]
struct Joined {
    join_ref: String,
    reference: String,
    carried: String,
    answered: bool,
    waiting: Vec<Said>,
    closes: Vec<String>,
}

/// A push.
#[derive(Clone)]
struct Said {
    reference: String,
    event: &'static str,
    kind: As,
}

/// The rules once more, without ids, bytes or sharing.
#[derive(Default)]
struct Model {
    channels: BTreeMap<&'static str, Joined>,
    seen: Vec<String>,
}

impl Model {
    fn say(&mut self, line: String) {
        self.seen.push(line);
    }

    fn unmatched(&mut self, topic: &str, reference: &str) {
        self.say(refused("null", reference, topic, "unmatched topic"));
    }

    fn join(&mut self, topic: &'static str, join_ref: &str, reference: &str) {
        let mut closes = Vec::new();
        if let Some(former) = self.channels.remove(topic) {
            self.say(format!("leave {topic}"));
            for said in former.waiting {
                self.unmatched(topic, &said.reference);
            }
            closes = former.closes;
            closes.push(former.join_ref);
            if closes.len() > 8 {
                let oldest = closes.remove(0);
                self.say(closed(&oldest, topic));
            }
        }
        if self.channels.len() == LIMITS.channels_max {
            return self.say(refused(join_ref, reference, topic, "too many channels joined"));
        }
        self.say(format!("join {topic} {{}}"));
        let carried = if join_ref == "null" { reference } else { join_ref };
        let [join_ref, reference, carried] = [join_ref, reference, carried].map(str::to_owned);
        let joined = Joined { join_ref, reference, carried, closes, ..Joined::default() };
        self.channels.insert(topic, joined);
    }

    fn leave(&mut self, topic: &'static str, join_ref: &str, reference: &str) {
        let Some(joined) = self.channels.get(topic) else {
            return self.say(replied(join_ref, reference, topic));
        };
        if join_ref != "null" && join_ref != joined.join_ref {
            return;
        }
        let Some(joined) = self.channels.remove(topic) else {
            return;
        };
        self.say(format!("leave {topic}"));
        for said in joined.waiting {
            self.unmatched(topic, &said.reference);
        }
        self.say(replied(&joined.carried, reference, topic));
        for join_ref in joined.closes.iter().chain([&joined.join_ref]) {
            self.say(closed(join_ref, topic));
        }
    }

    fn push(&mut self, topic: &'static str, join_ref: &str, said: Said) {
        let Some(joined) = self.channels.get_mut(topic) else {
            return self.unmatched(topic, &said.reference);
        };
        if join_ref != "null" && join_ref != joined.join_ref {
            return;
        }
        if joined.answered {
            return self.deliver(topic, &said);
        }
        if joined.waiting.len() < LIMITS.pending_max {
            joined.waiting.push(said);
        } else {
            let carried = joined.carried.clone();
            self.say(refused(&carried, &said.reference, topic, "too many requests"));
        }
    }

    fn deliver(&mut self, topic: &'static str, said: &Said) {
        let Said { reference, event, kind } = said;
        let Some(joined) = self.channels.get(topic) else {
            return self.unmatched(topic, reference);
        };
        let carried = joined.carried.clone();
        let payload = match kind {
            As::Text => "{}",
            As::Bytes => "binary {}",
        };
        match *event {
            "7" => self.crash(topic),
            r#""phx_x""# => self.say(refused(&carried, reference, topic, "reserved event")),
            _ => self.say(format!("push {topic} say {payload} {reference} {carried}")),
        }
    }

    fn answer(&mut self, topic: &'static str, ok: bool) {
        let Some(joined) = self.channels.get_mut(topic).filter(|joined| !joined.answered) else {
            return;
        };
        joined.answered = true;
        let waiting = std::mem::take(&mut joined.waiting);
        let closes = std::mem::take(&mut joined.closes);
        let (join_ref, reference) = (joined.join_ref.clone(), joined.reference.clone());
        if ok {
            self.say(replied(&join_ref, &reference, topic));
        } else {
            self.channels.remove(topic);
            self.say(refused(&join_ref, &reference, topic, "unauthorized"));
        }
        closes.iter().for_each(|former| self.say(closed(former, topic)));
        waiting.iter().for_each(|said| self.deliver(topic, said));
    }

    fn crash(&mut self, topic: &'static str) {
        let Some(joined) = self.channels.remove(topic) else {
            return;
        };
        self.say(format!("leave {topic}"));
        let join_ref = joined.join_ref;
        if !joined.answered {
            self.say(refused(&join_ref, &joined.reference, topic, "join crashed"));
            joined.closes.iter().for_each(|former| self.say(closed(former, topic)));
            joined.waiting.iter().for_each(|said| self.unmatched(topic, &said.reference));
        } else {
            let reason = r#"{"reason":"channel_crash"}"#;
            self.say(format!(r#"[{join_ref},{join_ref},"{topic}","phx_error",{reason}]"#));
        }
    }

    fn stop(&mut self, topic: &'static str) {
        let Some(joined) = self.channels.remove(topic) else {
            return;
        };
        self.say(format!("leave {topic}"));
        joined.waiting.iter().for_each(|said| self.unmatched(topic, &said.reference));
        for join_ref in joined.closes.iter().chain([&joined.join_ref]) {
            self.say(closed(join_ref, topic));
        }
    }

    /// The `join_ref` that a frame for `topic` carries.
    fn join_ref(&self, topic: &str, by: By, kind: As) -> String {
        let join_ref = match (by, self.channels.get(topic)) {
            (By::Current, Some(joined)) => &joined.join_ref,
            (By::Null, _) => "null",
            (By::Former, _) | (By::Current, None) => r#""former""#,
        };
        nullable(join_ref, kind)
    }
}

/// What a ref is in a frame of that kind.
fn nullable(join_ref: &str, kind: As) -> String {
    let empty = join_ref == "null" && kind == As::Bytes;
    if empty { r#""""#.to_owned() } else { join_ref.to_owned() }
}

/// Sends a frame of raw JSON parts.
fn send(client: &mut Client, parts: [&str; 4], kind: As) -> Vec<String> {
    if kind == As::Text {
        let [join_ref, reference, topic, event] = parts;
        return client.send(&format!(r#"[{join_ref},{reference},{topic},{event},{{}}]"#));
    }
    let frame = binary::frame(parts.map(|part| part.trim_matches('"')), b"{}");
    client.send_bytes(&frame).expect("a frame that can be decoded")
}

/// Does one step to both; `n` is its fresh ref.
fn take(model: &mut Model, client: &mut Client, step: Step, n: usize) -> Vec<String> {
    let reference = format!(r#""{n}""#);
    match step {
        Step::Join { topic, null, kind } => {
            let topic = TOPICS[topic];
            let join_ref = nullable(if null { "null" } else { &reference }, kind);
            model.join(topic, &join_ref, &reference);
            let topic = format!(r#""{topic}""#);
            send(client, [&join_ref, &reference, &topic, r#""phx_join""#], kind)
        }
        Step::Leave { topic, by, kind } => {
            let topic = TOPICS[topic];
            let join_ref = model.join_ref(topic, by, kind);
            model.leave(topic, &join_ref, &reference);
            let topic = format!(r#""{topic}""#);
            send(client, [&join_ref, &reference, &topic, r#""phx_leave""#], kind)
        }
        Step::Push { topic, by, event, kind } => {
            let (topic, event) = (TOPICS[topic], PUSH_EVENTS[event]);
            // A binary frame has no event but a string.
            let kind = if event == "7" { As::Text } else { kind };
            let join_ref = model.join_ref(topic, by, kind);
            let said = Said { reference: reference.clone(), event, kind };
            model.push(topic, &join_ref, said);
            send(client, [&join_ref, &reference, &format!(r#""{topic}""#), event], kind)
        }
        Step::Answer { topic, ok } => {
            model.answer(TOPICS[topic], ok);
            match find(client, TOPICS[topic]) {
                Some(id) if ok => client.join_ok(id),
                Some(id) => client.join_error(id),
                None => Vec::new(),
            }
        }
        Step::Crash { topic } => {
            model.crash(TOPICS[topic]);
            if let Some(id) = find(client, TOPICS[topic]) {
                client.socket.crash_channel(id);
            }
            client.drain()
        }
        Step::Stop { topic } => {
            model.stop(TOPICS[topic]);
            if let Some(id) = find(client, TOPICS[topic]) {
                client.socket.close_channel(id);
            }
            client.drain()
        }
        Step::LateAnswer { ok } => {
            let gone = client.ids.iter().copied().find(|id| client.socket.state(*id).is_none());
            match gone {
                Some(id) if ok => client.join_ok(id),
                Some(id) => client.join_error(id),
                None => Vec::new(),
            }
        }
    }
}

fn find(client: &Client, topic: &str) -> Option<ChannelId> {
    let named = |id: &ChannelId| client.socket.topic(*id).is_some_and(|own| own.as_str() == topic);
    client.socket.channels().find(named)
}

proptest! {
    #[test]
    fn every_history_is_answered_as_the_model_does(steps in prop::collection::vec(step(), 1..80)) {
        let mut model = Model::default();
        let mut client = Client::new(Version::V2, LIMITS);
        for (n, step) in steps.into_iter().enumerate() {
            let seen = take(&mut model, &mut client, step, n);
            prop_assert_eq!(seen, std::mem::take(&mut model.seen), "after {:?}", step);
            prop_assert_eq!(client.socket.channels().count(), model.channels.len());
        }
    }
}

//! The session against a naive model of it, over random histories.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits =
    Limits { channels_max: 2, pending_max: 2, joins_per_second: None, events_per_second: None };
const TOPICS: [&str; 3] = ["room:a", "room:b", "lobby"];
const PUSH_EVENTS: [&str; 3] = [r#""say""#, r#""phx_x""#, "7"];

/// Which `join_ref` a frame carries.
#[derive(Clone, Copy, Debug)]
enum By {
    Current,
    Null,
    Former,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Join { topic: usize, null: bool },
    Leave { topic: usize, by: By },
    Push { topic: usize, by: By, event: usize },
    Answer { topic: usize, ok: bool },
    Crash { topic: usize },
    LateAnswer { ok: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let topic = || 0..TOPICS.len();
    let by = || prop_oneof![4 => Just(By::Current), 1 => Just(By::Null), 1 => Just(By::Former)];
    prop_oneof![
        4 => (topic(), any::<bool>()).prop_map(|(topic, null)| Step::Join { topic, null }),
        2 => (topic(), by()).prop_map(|(topic, by)| Step::Leave { topic, by }),
        8 => (topic(), by(), 0..PUSH_EVENTS.len())
            .prop_map(|(topic, by, event)| Step::Push { topic, by, event }),
        6 => (topic(), any::<bool>()).prop_map(|(topic, ok)| Step::Answer { topic, ok }),
        1 => topic().prop_map(|topic| Step::Crash { topic }),
        1 => any::<bool>().prop_map(|ok| Step::LateAnswer { ok }),
    ]
}

/// One topic's channel, as the client may think of it.
#[derive(Default)]
struct Joined {
    join_ref: String,
    carried: String,
    answered: bool,
    waiting: Vec<(String, String)>,
    closes: Vec<String>,
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
            for (reference, _) in former.waiting {
                self.unmatched(topic, &reference);
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
        let join_ref = join_ref.to_owned();
        let joined =
            Joined { join_ref, carried: reference.to_owned(), closes, ..Joined::default() };
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
        for (reference, _) in joined.waiting {
            self.unmatched(topic, &reference);
        }
        self.say(replied(&joined.carried, reference, topic));
        for join_ref in joined.closes.iter().chain([&joined.join_ref]) {
            self.say(closed(join_ref, topic));
        }
    }

    fn push(&mut self, topic: &'static str, join_ref: &str, reference: &str, event: &str) {
        let Some(joined) = self.channels.get_mut(topic) else {
            return self.unmatched(topic, reference);
        };
        if join_ref != "null" && join_ref != joined.join_ref {
            return;
        }
        if joined.answered {
            return self.deliver(topic, reference, event);
        }
        if joined.waiting.len() < LIMITS.pending_max {
            joined.waiting.push((reference.to_owned(), event.to_owned()));
        } else {
            let carried = joined.carried.clone();
            self.say(refused(&carried, reference, topic, "too many requests"));
        }
    }

    fn deliver(&mut self, topic: &'static str, reference: &str, event: &str) {
        let Some(joined) = self.channels.get(topic) else {
            return self.unmatched(topic, reference);
        };
        let carried = joined.carried.clone();
        match event {
            "7" => self.crash(topic),
            r#""phx_x""# => self.say(refused(&carried, reference, topic, "reserved event")),
            _ => self.say(format!("push {topic} say {{}} {reference} {carried}")),
        }
    }

    fn answer(&mut self, topic: &'static str, ok: bool) {
        let Some(joined) = self.channels.get_mut(topic).filter(|joined| !joined.answered) else {
            return;
        };
        joined.answered = true;
        let waiting = std::mem::take(&mut joined.waiting);
        let closes = std::mem::take(&mut joined.closes);
        let (join_ref, reference) = (joined.join_ref.clone(), joined.carried.clone());
        if ok {
            self.say(replied(&join_ref, &reference, topic));
        } else {
            self.channels.remove(topic);
            self.say(refused(&join_ref, &reference, topic, "unauthorized"));
        }
        closes.iter().for_each(|former| self.say(closed(former, topic)));
        for (reference, event) in waiting {
            self.deliver(topic, &reference, &event);
        }
    }

    fn crash(&mut self, topic: &'static str) {
        let Some(joined) = self.channels.remove(topic) else {
            return;
        };
        self.say(format!("leave {topic}"));
        let join_ref = joined.join_ref;
        if !joined.answered {
            self.say(refused(&join_ref, &joined.carried, topic, "join crashed"));
            joined.closes.iter().for_each(|former| self.say(closed(former, topic)));
            joined.waiting.iter().for_each(|(reference, _)| self.unmatched(topic, reference));
        } else {
            let reason = r#"{"reason":"channel_crash"}"#;
            self.say(format!(r#"[{join_ref},{join_ref},"{topic}","phx_error",{reason}]"#));
        }
    }

    /// The `join_ref` that a frame for `topic` carries.
    fn join_ref(&self, topic: &str, by: By) -> String {
        match (by, self.channels.get(topic)) {
            (By::Current, Some(joined)) => joined.join_ref.clone(),
            (By::Null, _) => "null".to_owned(),
            (By::Former, _) | (By::Current, None) => r#""former""#.to_owned(),
        }
    }
}

/// Does one step to both; `n` is its fresh ref.
fn take(model: &mut Model, client: &mut Client, step: Step, n: usize) -> Vec<String> {
    let reference = format!(r#""{n}""#);
    match step {
        Step::Join { topic, null } => {
            let (topic, join_ref) = (TOPICS[topic], if null { "null" } else { &reference });
            model.join(topic, join_ref, &reference);
            client.send(&format!(r#"[{join_ref},{reference},"{topic}","phx_join",{{}}]"#))
        }
        Step::Leave { topic, by } => {
            let (topic, join_ref) = (TOPICS[topic], model.join_ref(TOPICS[topic], by));
            model.leave(topic, &join_ref, &reference);
            client.send(&format!(r#"[{join_ref},{reference},"{topic}","phx_leave",{{}}]"#))
        }
        Step::Push { topic, by, event } => {
            let (topic, join_ref) = (TOPICS[topic], model.join_ref(TOPICS[topic], by));
            let event = PUSH_EVENTS[event];
            model.push(topic, &join_ref, &reference, event);
            client.send(&format!(r#"[{join_ref},{reference},"{topic}",{event},{{}}]"#))
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

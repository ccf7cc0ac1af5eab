//! Clients that do nothing wrong.

use super::*;
use crate::config::{PresenceEvents, PresenceMode};

/// `phoenix.js` sends all its joins when it connects. What the first brings must not make a slow
/// client of one that reads all the time.
#[tokio::test]
async fn a_client_that_joins_two_topics_at_once_gets_both_states_however_large() {
    let world = World::with(PresenceMode::Join);
    let topic: presence::Topic = "room:a".parse().unwrap();
    let meta = format!(r#"{{"x":"{}"}}"#, "y".repeat(4000));
    let _members: Vec<_> = (0..2000)
        .map(|n| world.shared.tracker.track(&topic, &format!("user{n}"), meta.as_bytes()).unwrap())
        .collect();
    let mut guest = world.plain().await;
    let joins = [
        masked(JOIN),
        masked(r#"["2","2","room:b","phx_join",{}]"#),
        masked(r#"[null,"3","phoenix","heartbeat",{}]"#),
    ]
    .concat();
    guest.client.get_mut().write_all(&joins).await.unwrap();
    let mut heard = Vec::new();
    within(async {
        while heard.len() < 5 {
            match guest.client.next().await {
                Some(Ok(Said::Text(text))) => heard.push(text.chars().take(40).collect::<String>()),
                other => panic!("after {heard:?}: {:.80}", format!("{other:?}")),
            }
        }
    })
    .await;
}

/// Who is on a topic need not be told to those who are: the rule says what is.
#[tokio::test]
async fn a_rule_says_whether_clients_hear_who_is_there_or_how_many_or_nothing() {
    let heard = async |events| {
        let world = World::configured(|config| {
            config.channels[0].presence = PresenceMode::Join;
            config.channels[0].presence_events = events;
        });
        let topic: presence::Topic = "room:a".parse().unwrap();
        let tabs = [(); 2].map(|()| world.shared.tracker.track(&topic, "ann", b"{}").unwrap());
        let mut guest = world.plain().await;
        let heartbeat = masked(r#"[null,"3","phoenix","heartbeat",{}]"#);
        guest.client.get_mut().write_all(&[masked(JOIN), heartbeat].concat()).await.unwrap();
        let mut heard = Vec::new();
        within(async {
            while !heard.last().is_some_and(|text: &String| text.contains(r#""phoenix""#)) {
                match guest.client.next().await {
                    Some(Ok(Said::Text(text))) => heard.push(text.to_string()),
                    other => panic!("after {heard:?}: {:.80}", format!("{other:?}")),
                }
            }
        })
        .await;
        assert_eq!(world.shared.tracker.count(&topic).keys, 2, "it is listed, whatever it hears");
        drop(tabs);
        heard.pop();
        assert!(heard.remove(0).contains("phx_reply"), "the reply comes first");
        heard
    };
    let count = r#"["1",null,"room:a","presence_count",{"count":2,"entries":3}]"#;
    assert_eq!(heard(PresenceEvents::Count).await, [count]);
    assert_eq!(heard(PresenceEvents::Off).await, [""; 0]);
    let full = heard(PresenceEvents::Full).await;
    assert!(full[0].contains("presence_state"), "{full:?}");
}

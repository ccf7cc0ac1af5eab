//! Clients that do nothing wrong.

use super::*;
use crate::config::PresenceMode;

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

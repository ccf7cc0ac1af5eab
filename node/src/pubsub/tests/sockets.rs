//! Broadcasts to real connections.

use std::future::poll_fn;

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    task::JoinSet,
};

use super::*;

const PUBLISHERS: usize = 3;
const MESSAGES: usize = 500;

/// Reads numbered lines until all publishers' have come.
async fn hear_all(client: TcpStream) {
    let mut lines = BufReader::new(client).lines();
    let mut next = [0; PUBLISHERS];
    while next != [MESSAGES; PUBLISHERS] {
        let line = lines.next_line().await.unwrap().expect("more is to come");
        let (name, n) = line.strip_prefix("V2 room:a e ").unwrap().split_once(' ').unwrap();
        let next = &mut next[name.parse::<usize>().unwrap()];
        assert_eq!(n, next.to_string(), "in order, and once");
        *next += 1;
    }
}

/// Publishes numbered lines, and writes them after inputs of one to seven.
fn publish_all(registry: &Arc<Registry>, here: &Topic, name: usize) {
    let mut flush = Flush::new();
    for n in 0..MESSAGES {
        registry.publish(&message(here, &format!("{name} {n}\n")), None, &mut flush);
        if n % (1 + n % 7) == 0 {
            drop(std::mem::take(&mut flush));
        }
    }
}

/// Threads publish to the same sockets at the same time: each hears every publisher in order, and
/// misses nothing, whoever wrote.
#[tokio::test]
async fn sockets_hear_all_publishers_in_order_and_once() {
    let (registry, here) = (Registry::new(), topic("room:a"));
    let (mut clients, mut subscriptions) = (JoinSet::new(), Vec::new());
    for _ in 0..5 {
        let (mailbox, client) = pair(1 << 30).await;
        subscriptions.push(registry.subscribe(&here, subscriber(&mailbox, Format::V2)));
        clients.spawn(hear_all(client));
        tokio::spawn(poll_fn(move |cx| {
            let control = mailbox.poll_control(cx).map(drop);
            let _ = mailbox.poll_write(cx, 1);
            control
        }));
    }
    let publishers = tokio::task::spawn_blocking(move || {
        thread::scope(|scope| {
            for name in 0..PUBLISHERS {
                let (registry, here) = (&registry, &here);
                scope.spawn(move || publish_all(registry, here, name));
            }
        });
    });
    clients.join_all().await;
    publishers.await.unwrap();
}

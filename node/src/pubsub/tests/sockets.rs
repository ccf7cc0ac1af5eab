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

/// Many clients speak at the same time, none of them more than one read: what one thread takes in
/// before the writers' tasks get on must not fill the mailboxes of those who read.
#[tokio::test]
async fn a_burst_of_many_publishers_does_not_end_those_who_read() {
    let (registry, here) = (Registry::new(), topic("room:a"));
    let (mut clients, mut subscriptions, mut mailboxes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..200 {
        let (mailbox, client) = pair(256 << 10).await;
        // Their connections take all of it at once.
        SockRef::from(mailbox.socket().unwrap()).set_send_buffer_size(4 << 20).unwrap();
        subscriptions.push(registry.subscribe(&here, subscriber(&mailbox, Format::V2)));
        clients.push(client);
        mailboxes.push(mailbox);
    }
    let long = "x".repeat(16 << 10);
    let mut publishers = JoinSet::new();
    for _ in 0..40 {
        let (registry, here, long) = (Arc::clone(&registry), here.clone(), long.clone());
        publishers.spawn(async move {
            let mut flush = Flush::new();
            registry.publish(&message(&here, &long), None, &mut flush);
            flush.write().await;
        });
    }
    publishers.join_all().await;
    let closed = mailboxes.iter().filter(|mailbox| mailbox.closed().is_some()).count();
    assert_eq!(closed, 0, "of 200 whose connections would take all");
    for client in &mut clients {
        let mut all = vec![0; 40 * ("V2 room:a e ".len() + (16 << 10))];
        tokio::io::AsyncReadExt::read_exact(client, &mut all).await.unwrap();
    }
}

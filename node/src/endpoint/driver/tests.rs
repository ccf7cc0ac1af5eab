//! What one client sees of its socket, over plain TCP and over any other stream.

mod healthy;
mod streamed;
pub(in crate::endpoint) mod world;

use std::future::poll_fn;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{
    Message as Said,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::*;
use crate::pubsub::{CloseReason, UNREAD_MAX};
use world::{Guest, World, masked, within};

const JOIN: &str = r#"["1","1","room:a","phx_join",{}]"#;
const JOINED: &str = r#"["1","1","room:a","phx_reply",{"response":{},"status":"ok"}]"#;

/// Runs a story on both kinds of streams, each in a world of its own.
macro_rules! on_both_streams {
    ($($name:ident)*) => {
        mod plain {
            $(#[tokio::test]
            async fn $name() {
                let world = super::World::new();
                let guest = world.plain().await;
                super::within(super::$name(world, guest)).await;
            })*
        }
        mod wrapped {
            $(#[tokio::test]
            async fn $name() {
                let world = super::World::new();
                let guest = world.wrapped();
                super::within(super::$name(world, guest)).await;
            })*
        }
    };
}

on_both_streams! {
    a_client_joins_and_hears_what_it_and_others_say
    answers_come_before_the_next_question_is_taken
    a_ping_is_answered
    a_client_that_closes_is_answered_and_leaves_its_topics
    a_client_that_breaks_a_rule_is_told_which
    a_frame_that_cannot_be_decoded_closes_the_socket
    a_client_that_goes_away_leaves_nothing_behind
    an_idle_client_is_told_at_once
    a_stopping_node_says_so
}

async fn a_client_joins_and_hears_what_it_and_others_say<S: AsyncRead + AsyncWrite + Unpin>(
    world: World,
    mut guest: Guest<S>,
) {
    guest.say(JOIN).await;
    assert_eq!(guest.hear().await, JOINED);
    guest.say(r#"["1","2","room:a","new",{"n":1}]"#).await;
    assert_eq!(guest.hear().await, r#"[null,null,"room:a","new",{"n":1}]"#);
    let acknowledged = r#"["1","2","room:a","phx_reply",{"response":{},"status":"ok"}]"#;
    assert_eq!(guest.hear().await, acknowledged);
    for n in 2..100 {
        world.publish("room:a", &n.to_string());
    }
    for n in 2..100 {
        assert_eq!(guest.hear().await, format!(r#"[null,null,"room:a","new",{n}]"#));
    }
}

async fn answers_come_before_the_next_question_is_taken<S: AsyncRead + AsyncWrite + Unpin>(
    _: World,
    mut guest: Guest<S>,
) {
    for n in 0..50 {
        guest
            .client
            .feed(Said::text(format!(r#"[null,"{n}","phoenix","heartbeat",{{}}]"#)))
            .await
            .unwrap();
    }
    guest.client.flush().await.unwrap();
    for n in 0..50 {
        let reply =
            format!(r#"[null,"{n}","phoenix","phx_reply",{{"response":{{}},"status":"ok"}}]"#);
        assert_eq!(guest.hear().await, reply);
    }
}

async fn a_ping_is_answered<S: AsyncRead + AsyncWrite + Unpin>(_: World, mut guest: Guest<S>) {
    guest.client.send(Said::Ping("hi".into())).await.unwrap();
    assert_eq!(guest.client.next().await.unwrap().unwrap(), Said::Pong("hi".into()));
}

async fn a_client_that_closes_is_answered_and_leaves_its_topics<
    S: AsyncRead + AsyncWrite + Unpin,
>(
    world: World,
    mut guest: Guest<S>,
) {
    guest.say(JOIN).await;
    assert_eq!(guest.hear().await, JOINED);
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    guest.client.close(Some(close)).await.unwrap();
    assert_eq!(guest.closed().await, (1000, String::new()));
    guest.driver.await.unwrap();
    world.assert_empty();
}

async fn a_client_that_breaks_a_rule_is_told_which<S: AsyncRead + AsyncWrite + Unpin>(
    world: World,
    mut guest: Guest<S>,
) {
    guest.client.get_mut().write_all(b"\x81\x02hi").await.unwrap();
    let (code, _) = guest.closed().await;
    assert_eq!(code, 1002, "not masked");
    drop(guest.client);
    guest.driver.await.unwrap();
    world.assert_empty();
}

async fn a_frame_that_cannot_be_decoded_closes_the_socket<S: AsyncRead + AsyncWrite + Unpin>(
    _: World,
    mut guest: Guest<S>,
) {
    guest.say(r#"[null,"1","phoenix","heartbeat",{}]"#).await;
    guest.say("no JSON").await;
    let reply = r#"[null,"1","phoenix","phx_reply",{"response":{},"status":"ok"}]"#;
    assert_eq!(guest.hear().await, reply, "what came before it is answered");
    assert_eq!(guest.closed().await.0, Close::UNDECODABLE.code);
}

async fn a_client_that_goes_away_leaves_nothing_behind<S: AsyncRead + AsyncWrite + Unpin>(
    world: World,
    mut guest: Guest<S>,
) {
    guest.say(JOIN).await;
    assert_eq!(guest.hear().await, JOINED);
    assert_eq!(world.shared.registry.size().subscriptions, 1);
    drop(guest.client);
    guest.driver.await.unwrap();
    world.assert_empty();
    assert_eq!(std::sync::Arc::strong_count(&guest.mailbox), 1);
}

async fn an_idle_client_is_told_at_once<S: AsyncRead + AsyncWrite + Unpin>(
    _: World,
    mut guest: Guest<S>,
) {
    guest.mailbox.expire(u32::MAX, 1);
    assert_eq!(guest.closed().await.0, 1002);
}

async fn a_stopping_node_says_so<S: AsyncRead + AsyncWrite + Unpin>(
    world: World,
    mut guest: Guest<S>,
) {
    guest.say(JOIN).await;
    assert_eq!(guest.hear().await, JOINED);
    world.shared.mailboxes.close(CloseReason::Shutdown).await;
    assert_eq!(guest.closed().await, (1012, "the node is stopping".into()));
    drop(guest.client);
    guest.driver.await.unwrap();
    world.assert_empty();
}

#[tokio::test]
async fn what_was_read_with_the_handshake_is_taken_first() {
    let world = World::new();
    let mut guest = world.wrapped_after(&masked(JOIN));
    guest.say(r#"["1","2","room:a","phx_leave",{}]"#).await;
    assert_eq!(within(guest.hear()).await, JOINED);
    let left = r#"["1","2","room:a","phx_reply",{"response":{},"status":"ok"}]"#;
    assert_eq!(within(guest.hear()).await, left);
}

/// A ping whose pong is as long as can be, and that pong.
const PING: [u8; 131] = framed([0x89, 0xfd, 0, 0, 0, 0]);
const PONG: [u8; 127] = framed([0x8a, 0x7d]);

/// A header and 125 bytes.
const fn framed<const H: usize, const N: usize>(header: [u8; H]) -> [u8; N] {
    let mut frame = [b'p'; N];
    let mut at = 0;
    while at < H {
        frame[at] = header[at];
        at += 1;
    }
    frame
}

/// Writes pings until the node takes no more, or `most`; says how many bytes it took.
async fn flood(client: &TcpStream, most: usize) -> usize {
    let pings = PING.repeat(64);
    let (mut written, mut refused) = (0, 0);
    while written < most * PING.len() && refused < 200 {
        match client.try_write(&pings[written % pings.len()..]) {
            Ok(bytes) => (written, refused) = (written + bytes, 0),
            Err(_) => refused += 1,
        }
        tokio::task::yield_now().await;
    }
    written
}

#[tokio::test]
async fn a_client_that_asks_without_reading_waits_until_it_has_read() {
    const MOST: usize = 100_000;
    let world = World::new();
    let guest = world.plain().await;
    let mut client = guest.client.into_inner();
    let pings = within(flood(&client, MOST)).await / PING.len();
    assert!(pings < MOST, "it is not read for ever");
    assert!(pings > UNREAD_MAX / PING.len(), "only once it has some to read");
    let unread = guest.mailbox.bytes();
    assert!(unread < 2 * (UNREAD_MAX + SCRATCH), "{unread} bytes wait for it");
    assert_eq!(guest.mailbox.closed(), None);

    let mut pongs = vec![0; pings * PONG.len()];
    within(client.read_exact(&mut pongs)).await.unwrap();
    assert!(pongs.chunks(PONG.len()).all(|pong| pong == PONG), "each is answered");
}

#[tokio::test]
async fn a_slow_client_is_told_so_and_told_of_to_the_operator() {
    let world = World::new();
    let mut guest = world.plain().await;
    guest.say(JOIN).await;
    assert_eq!(within(guest.hear()).await, JOINED);
    let long = format!("\"{}\"", "x".repeat(64 << 10));
    while guest.mailbox.closed().is_none() {
        world.publish("room:a", &long);
        tokio::task::yield_now().await;
    }
    assert_eq!(guest.mailbox.closed(), Some(CloseReason::Slow));
    let last = within(async {
        loop {
            match guest.client.next().await {
                Some(Ok(Said::Close(frame))) => break frame.unwrap(),
                said => assert!(said.unwrap().unwrap().is_text(), "frames are whole to the last"),
            }
        }
    });
    assert_eq!(u16::from(last.await.code), 1013);
    assert_eq!(world.shared.stats.slow.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_driver_that_has_nothing_to_do_waits() {
    let world = World::new();
    let guest = world.plain().await;
    let mut driver = guest.driver;
    let mut polls = 0;
    poll_fn(|cx| {
        polls += 1;
        if polls < 100 {
            cx.waker().wake_by_ref();
            assert!(Pin::new(&mut driver).poll(cx).is_pending());
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
    assert_eq!(guest.mailbox.closed(), None);
}

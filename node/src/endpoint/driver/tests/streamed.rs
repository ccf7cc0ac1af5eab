//! What a client over any other stream may expect as well as one over TCP.

use super::*;

#[tokio::test]
async fn an_end_comes_after_what_waits_and_without_the_client_saying_anything() {
    let world = World::new();
    let mut guest = world.wrapped();
    guest.say(JOIN).await;
    assert_eq!(within(guest.hear()).await, JOINED);
    world.publish("room:a", "1");
    guest.mailbox.close(CloseReason::Shutdown);
    assert_eq!(within(guest.hear()).await, r#"[null,null,"room:a","new",1]"#);
    assert_eq!(within(guest.closed()).await.0, 1012);
}

#[tokio::test]
async fn a_client_that_asks_without_reading_waits_until_it_has_read() {
    const PINGS: usize = 50_000;
    let world = World::new();
    let guest = world.wrapped();
    let (mut read, mut write) = tokio::io::split(guest.client.into_inner());
    let asked = tokio::spawn(async move {
        for _ in 0..PINGS {
            write.write_all(&PING).await.unwrap();
        }
    });
    // It asks as long as the node takes questions.
    for _ in 0..2000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(guest.mailbox.closed(), None, "it waits, and is not given up");
    let unread = guest.mailbox.bytes();
    assert!(unread < 2 * (UNREAD_MAX + SCRATCH), "{unread} bytes wait for it");
    let mut pongs = vec![0; PINGS * PONG.len()];
    within(read.read_exact(&mut pongs)).await.unwrap();
    assert!(pongs.chunks(PONG.len()).all(|pong| pong == PONG), "each is answered");
    asked.await.unwrap();
}

/// A stream that takes nothing any more, and says nothing of it when it is read.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Broken {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_stream_that_cannot_be_written_ends_its_socket() {
    let world = World::new();
    let (mailbox, driver) = world.served(Broken, &masked(JOIN));
    within(driver).await.unwrap();
    assert_eq!(mailbox.closed(), Some(CloseReason::Gone));
    world.assert_empty();
}

#[tokio::test]
async fn a_client_over_a_stream_hears_why_it_is_closed_once_it_reads() {
    let world = World::new();
    let mut guest = world.wrapped();
    guest.say(JOIN).await;
    assert_eq!(within(guest.hear()).await, JOINED);
    world.publish("room:a", &format!("\"{}\"", "x".repeat(100 << 10)));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    // More than the pipe holds is on its way.
    guest.mailbox.close(CloseReason::Shutdown);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(within(guest.hear()).await.len() > 100 << 10);
    assert_eq!(within(guest.closed()).await.0, 1012);
}

//! What one client sees of its session, whatever HTTP does.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use cluster::wire::SessionId;
use futures_util::FutureExt as _;

use super::{
    answer::{HOLD, Receipt},
    door::{Batch, Polled},
    *,
};
use crate::{
    endpoint::{
        driver::tests::world::{World, within},
        upgrade::Client,
    },
    pubsub::CloseReason,
    socket::Version,
};

const JOIN: &str = r#"["1","1","room:a","phx_join",{}]"#;
const JOINED: &str = r#"["1","1","room:a","phx_reply",{"response":{},"status":"ok"}]"#;

/// A session that has joined a room, and its client's view of it.
struct Guest {
    world: World,
    session: SessionId,
}

fn new(n: usize) -> String {
    format!(r#"[null,null,"room:a","new",{n}]"#)
}

impl Guest {
    async fn joined() -> Self {
        Self::configured(|_| {}).await
    }

    async fn configured(change: impl FnOnce(&mut Config)) -> Self {
        let world = World::configured(change);
        let session = open(&world).expect("there is room");
        let guest = Self { world, session };
        assert_eq!(guest.post(&[JOIN]).await, Posted::Taken);
        assert_eq!(guest.hear().await, [JOINED]);
        guest
    }

    fn sessions(&self) -> &Sessions {
        &self.world.shared.longpoll.sessions
    }

    async fn poll(&self) -> Polled {
        within(self.sessions().poll(self.session)).await
    }

    async fn batch(&self) -> Batch {
        let polled = self.poll().await;
        let Polled::Messages(batch) = polled else {
            panic!("messages are expected, not {polled:?}");
        };
        batch
    }

    /// The next messages, which reach the client.
    async fn hear(&self) -> Vec<String> {
        let batch = self.batch().await;
        let texts = texts(batch.messages());
        batch.take();
        texts
    }

    async fn post(&self, frames: &[&str]) -> Posted {
        let frames = frames.iter().map(|text| ClientFrame::Text((*text).to_owned().into()));
        within(self.sessions().post(self.session, frames.collect())).await
    }

    fn say(&self, n: usize) {
        self.world.publish("room:a", &n.to_string());
    }

    /// Waits for the session's end, of which nothing is left.
    async fn ended(&self) {
        self.world.shared.tasks.close();
        within(self.world.shared.tasks.wait()).await;
        assert!(matches!(self.poll().await, Polled::Gone));
        assert_eq!(self.post(&[JOIN]).await, Posted::Gone);
        assert_eq!(self.sessions().len(), 0);
        self.world.assert_empty();
    }
}

fn open(world: &World) -> Option<SessionId> {
    let client = Client {
        key: "guest".into(),
        socket_id: Some("user_socket:guest".into()),
        assigns: None,
        version: Version::V2,
        framing: Framing::Poll,
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
    };
    world.shared.longpoll.sessions.open(&world.shared, client)
}

fn texts(messages: &[u8]) -> Vec<String> {
    serde_json::from_slice(&[b"[", messages, b"]"].concat()).expect("elements of an array")
}

#[tokio::test]
async fn a_client_hears_its_own_copy_and_then_the_reply() {
    let guest = Guest::joined().await;
    let push = r#"["1","2","room:a","new",1]"#;
    assert_eq!(guest.post(&[push, push]).await, Posted::Taken);
    let reply = r#"["1","2","room:a","phx_reply",{"response":{},"status":"ok"}]"#;
    assert_eq!(guest.hear().await, [&new(1), &new(1), reply, reply]);
}

#[tokio::test]
async fn a_poll_waits_for_its_window() {
    let window = Duration::from_millis(20);
    let guest = Guest::configured(|config| config.http.longpoll_window = window).await;
    assert!(matches!(guest.poll().await, Polled::Nothing));
    assert!(matches!(guest.poll().await, Polled::Nothing));
    guest.say(1);
    assert_eq!(guest.hear().await, [new(1)]);
}

#[tokio::test]
async fn of_two_polls_the_later_gets_the_messages() {
    let guest = Guest::joined().await;
    let mut former = pin!(guest.poll());
    assert!(former.as_mut().now_or_never().is_none());
    let mut later = pin!(guest.batch());
    assert!(later.as_mut().now_or_never().is_none());
    assert!(matches!(former.await, Polled::Nothing));
    guest.say(1);
    assert_eq!(texts(later.await.messages()), [new(1)]);
}

#[tokio::test]
async fn a_poll_that_is_given_up_takes_nothing_with_it() {
    let guest = Guest::joined().await;
    for n in 0..50 {
        let mut poll = Box::pin(guest.poll());
        assert!(poll.as_mut().now_or_never().is_none());
        if n % 2 == 0 {
            guest.say(n);
            // Its answer may be on its way, or not.
            for _ in 0..n % 5 {
                tokio::task::yield_now().await;
            }
            drop(poll);
        } else {
            drop(poll);
            guest.say(n);
        }
    }
    let mut heard = Vec::new();
    while heard.len() < 50 {
        heard.extend(guest.hear().await);
    }
    assert_eq!(heard, (0..50).map(new).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_did_not_reach_the_client_comes_again_before_all_else() {
    let guest = Guest::joined().await;
    guest.say(1);
    let batch = guest.batch().await;
    guest.say(2);
    let mut next = pin!(guest.batch());
    assert!(next.as_mut().now_or_never().is_none(), "what comes after it has to wait");
    drop(batch);
    let again = next.await;
    assert_eq!(texts(again.messages()), [new(1)]);
    again.take();
    assert_eq!(guest.hear().await, [new(2)]);
}

#[tokio::test]
async fn an_answer_is_taken_when_its_last_bytes_are_written() {
    let guest = Guest::joined().await;
    let body = |batch: Batch| {
        let messages = batch.messages().clone();
        let answered = guest.world.shared.tasks.token();
        Messages::new("[".into(), messages, "]", Receipt::Own(batch), answered)
    };
    guest.say(1);
    let mut cut = body(guest.batch().await);
    for piece in ["[".to_owned(), serde_json::to_string(&new(1)).unwrap(), "]".to_owned()] {
        let frame = cut.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    assert!(cut.frame().now_or_never().is_none(), "the connection is to flush");
    drop(cut);

    let whole = body(guest.batch().await);
    let bytes = whole.collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Vec<String>>(&bytes).unwrap(), [new(1)]);
    guest.say(2);
    assert_eq!(guest.hear().await, [new(2)]);
}

#[tokio::test]
async fn the_last_bytes_wait_for_word_of_a_client_that_has_gone() {
    let guest = Guest::joined().await;
    guest.say(1);
    let batch = guest.batch().await;
    let messages = batch.messages().clone();
    let answered = guest.world.shared.tasks.token();
    let mut body = Messages::new("[".into(), messages, "]", Receipt::Own(batch), answered);
    let begun = tokio::time::Instant::now();
    for _ in 0..2 {
        assert!(body.frame().now_or_never().is_some());
    }
    assert!(body.frame().await.is_some());
    assert!(begun.elapsed() >= HOLD);
}

#[tokio::test]
async fn a_session_ends_whose_messages_nobody_knows_the_fate_of() {
    let guest = Guest::joined().await;
    guest.say(1);
    let batch = guest.batch().await;
    let mut next = pin!(guest.poll());
    assert!(next.as_mut().now_or_never().is_none());
    batch.lose();
    assert!(matches!(next.await, Polled::Gone), "neither lost in silence nor doubled");
    guest.ended().await;
}

#[tokio::test]
async fn a_large_message_has_an_answer_of_its_own() {
    let guest = Guest::joined().await;
    let large = format!("\"{}\"", "x".repeat(300 << 10));
    let payloads = ["1", "2", &large, "3", &large, &large, "4"];
    for payload in payloads {
        guest.world.publish("room:a", payload);
    }
    let mut answers = Vec::new();
    while answers.iter().sum::<usize>() < payloads.len() {
        answers.push(guest.hear().await.len());
    }
    assert_eq!(answers, [2, 1, 1, 1, 1, 1]);
}

#[tokio::test]
async fn what_comes_between_two_polls_may_be_far_more_than_a_connection_could_leave_unread() {
    let guest = Guest::joined().await;
    let limit = guest.world.shared.config.limits.mailbox_bytes.bytes();
    let payload = format!("\"{}\"", "x".repeat(2000));
    let count = 15 * limit / 2200;
    for _ in 0..count {
        guest.world.publish("room:a", &payload);
    }
    let mut heard = 0;
    while heard < count {
        heard += guest.hear().await.len();
    }
    for _ in 0..2 * count {
        guest.world.publish("room:a", &payload);
    }
    guest.ended().await;
}

#[tokio::test]
async fn a_client_has_to_read_before_more_is_taken_of_it() {
    let guest = Guest::joined().await;
    let push = format!(r#"["1","2","room:a","new","{}"]"#, "x".repeat(8 << 10));
    let pushes = vec![push.as_str(); 100];
    let mut post = pin!(guest.post(&pushes));
    assert!(post.as_mut().now_or_never().is_none());
    let (mut copies, mut replies) = (0, 0);
    let mut polls = 0;
    while copies < 100 || replies < 100 {
        for text in guest.hear().await {
            if text.contains("phx_reply") { replies += 1 } else { copies += 1 }
        }
        polls += 1;
    }
    assert_eq!(post.await, Posted::Taken);
    assert!(polls > 3, "{polls} polls");
}

#[tokio::test]
async fn posts_are_taken_in_the_order_of_their_coming() {
    let guest = Guest::joined().await;
    let pushes: Vec<String> =
        (0..20).map(|n| format!(r#"["1","{n}","room:a","new",{n}]"#)).collect();
    let mut posts: Vec<_> = pushes
        .iter()
        .map(|push| {
            Box::pin(
                guest.sessions().post(guest.session, vec![ClientFrame::Text(push.clone().into())]),
            )
        })
        .collect();
    for post in &mut posts {
        assert!(post.as_mut().now_or_never().is_none());
    }
    for post in posts {
        assert_eq!(within(post).await, Posted::Taken);
    }
    let mut heard = Vec::new();
    while heard.len() < 40 {
        heard.extend(guest.hear().await);
    }
    heard.retain(|text| !text.contains("phx_reply"));
    assert_eq!(heard, (0..20).map(new).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_cannot_be_decoded_ends_the_session() {
    for bad in ["", "[1]", "\u{feff}[]"] {
        let guest = Guest::joined().await;
        let mut poll = pin!(guest.poll());
        assert!(poll.as_mut().now_or_never().is_none());
        assert_eq!(guest.post(&[bad]).await, Posted::Undecodable);
        assert!(matches!(poll.await, Polled::Gone));
        guest.ended().await;
    }
}

#[tokio::test]
async fn a_session_that_is_closed_from_within_tells_its_poll() {
    let guest = Guest::joined().await;
    let mut poll = pin!(guest.poll());
    assert!(poll.as_mut().now_or_never().is_none());
    assert_eq!(guest.world.shared.sockets.disconnect("user_socket:guest"), 1);
    assert!(matches!(poll.await, Polled::Gone));
    guest.ended().await;

    let guest = Guest::joined().await;
    guest.say(1);
    within(guest.world.shared.mailboxes.close(CloseReason::Shutdown)).await;
    guest.ended().await;
}

#[tokio::test]
async fn there_are_no_more_sessions_than_connections_may_be() {
    let world = World::configured(|config| config.http.max_connections = 2);
    assert!(open(&world).is_some() && open(&world).is_some());
    assert!(open(&world).is_none());
    assert_eq!(world.shared.longpoll.sessions.len(), 2);
}

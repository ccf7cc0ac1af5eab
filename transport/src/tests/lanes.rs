//! What goes over a link: frames, datagrams, requests; bounds and their policies.

use super::*;

#[tokio::test]
async fn frames_of_each_lane_come_whole_and_in_order() {
    const FRAMES: usize = 2000;
    let len = |n: usize| if n % 200 == 7 { 300_000 + n } else { n % 1500 };
    let (_a, to_b, mut b, _) = pair().await;
    let sender = tokio::spawn(async move {
        for n in 0..FRAMES {
            for lane in [CONTROL, DATA] {
                let (head, body) =
                    (Bytes::copy_from_slice(&n.to_le_bytes()), vec![n as u8; len(n)]);
                while to_b.room(lane) < body.len() + 100 {
                    tokio::task::yield_now().await;
                }
                to_b.send_parts(lane, head, body.into()).expect("there is room");
            }
        }
    });
    for n in 0..FRAMES {
        let wanted = [n.to_le_bytes().as_slice(), &vec![n as u8; len(n)]].concat();
        let (lane, frame) = b.frame().await;
        assert_eq!(lane, CONTROL);
        assert!(frame == wanted, "frame {n} of the queued lane");
        assert!(b.direct().await == wanted, "frame {n} of the direct lane");
    }
    sender.await.expect("no panic");
}

/// A node that takes one event at a time and lets all else wait.
async fn slow(name: &str) -> Node {
    Node::configured(name, |c| {
        c.events_max = 1;
        c.events_bytes_max = SMALL;
    })
    .await
}

#[tokio::test]
async fn a_full_lane_that_drops_counts_and_later_tells_of_room() {
    let (mut a, to_b, mut b, _) = linked(Node::start("a", 1).await, slow("b").await).await;
    let frame = Bytes::from(vec![0; 8 * 1024]);
    let mut sent = 0u64;
    // QUIC takes its windows' worth; the writer needs turns to hand it over.
    let mut refused_in_a_row = 0;
    while refused_in_a_row < 200 {
        match to_b.send(BULK, frame.clone()) {
            Ok(()) => (sent, refused_in_a_row) = (sent + 1, 0),
            Err(SendError::Full) => {
                refused_in_a_row += 1;
                tokio::task::yield_now().await;
            }
            Err(other) => panic!("the link stays: {other}"),
        }
    }
    assert!(to_b.room(BULK) < frame.len() + 4);
    assert!(to_b.room(CONTROL) > 0, "the other lanes are not touched");
    let lane = &to_b.stats().lanes[usize::from(BULK.0)];
    assert!(lane.dropped_frames >= 200);

    for _ in 0..sent {
        assert_eq!(b.frame().await.1.len(), frame.len());
    }
    let event = a.next().await;
    assert!(matches!(&event, Event::Room { link, lane: BULK } if *link == to_b), "{event:?}");
    assert!(!to_b.is_closed());
}

#[tokio::test]
async fn a_full_lane_that_cuts_ends_the_link_and_says_which() {
    let (mut a, to_b, mut b, _) = linked(Node::start("a", 1).await, slow("b").await).await;
    let frame = Bytes::from(vec![0; 1 << 20]);
    let end = loop {
        match to_b.send(CONTROL, frame.clone()) {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(end, SendError::Cut);
    assert_eq!(to_b.send(CONTROL, frame), Err(SendError::Closed));
    assert_eq!(a.down().await, DownReason::Overflow { lane: "control" });
    // The close may be lost in the crowd; then the next link tells of it.
    let full = DownReason::ClosedByPeer("lane control is full".into());
    let reason = b.down().await;
    assert!(reason == full || reason == DownReason::Replaced, "{reason:?}");
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_here_and_ends_the_link_there() {
    let strict = Node::configured("b", |c| c.frame_len_max = 1000).await;
    let (_a, to_b, mut b, to_a) = linked(Node::start("a", 1).await, strict).await;
    assert_eq!(to_a.send(CONTROL, Bytes::from(vec![0; 1001])), Err(SendError::TooLong));
    to_b.send(CONTROL, Bytes::from(vec![0; 1001])).expect("its own limit is higher");
    assert_eq!(b.down().await, DownReason::Protocol("a frame is too long"));
}

#[tokio::test]
async fn a_lane_that_does_not_exist_is_refused() {
    let (_a, to_b, ..) = pair().await;
    assert_eq!(to_b.send(Lane(3), Bytes::new()), Err(SendError::NoLane));
    assert_eq!(to_b.room(Lane(3)), 0);
}

#[tokio::test]
async fn a_peer_that_opens_a_lane_twice_or_one_that_is_not_is_cut_off() {
    for (first, reason) in [(0, "a lane was opened twice"), (9, "a lane that does not exist")] {
        let (_a, to_b, mut b, _) = pair().await;
        to_b.send(CONTROL, Bytes::from_static(b"takes the lane")).expect("the link is up");
        b.frame().await;
        let mut stream = to_b.connection().open_uni().await.expect("the link is up");
        stream.write_all(&[first]).await.expect("the link is up");
        assert_eq!(b.down().await, DownReason::Protocol(reason));
    }
}

#[tokio::test]
async fn a_panic_in_the_direct_handler_ends_its_link_only() {
    let (mut a, to_b, mut b, _) = pair().await;
    let mut c = Node::start("c", 1).await;
    c.keep(&b);
    let c_to_b = c.up().await;
    b.up().await;
    to_b.send(DATA, Bytes::from_static(b"poison")).expect("the link is up");
    assert_eq!(b.down().await, DownReason::Internal("a task panicked: poisoned".into()));
    assert_eq!(a.down().await, DownReason::ClosedByPeer("internal failure".into()));
    c_to_b.send(DATA, Bytes::from_static(b"fine")).expect("the link is up");
    assert_eq!(b.direct().await, "fine");
}

#[tokio::test]
async fn a_datagram_crosses_and_a_long_one_is_refused() {
    let (_a, to_b, mut b, _) = pair().await;
    let data = Bytes::from(vec![5; to_b.datagram_max()]);
    assert!(data.len() > 1000);
    to_b.datagram(data.clone()).expect("it is not too long");
    let got = b.wait(|e| if let Event::Datagram { data, .. } = e { Some(data) } else { None });
    assert_eq!(got.await, data);
    let long = Bytes::from(vec![0; 65536]);
    assert_eq!(to_b.datagram(long), Err(DatagramError::TooLong));
    to_b.close("enough");
    assert_eq!(to_b.datagram(data), Err(DatagramError::Closed));
}

/// Answers each request with what `answer` makes of it.
fn serve(node: Node, answer: impl Fn(Bytes, Responder) + Send + 'static) {
    tokio::spawn(async move {
        let mut node = node;
        while let Some(event) = node.events.next().await {
            if let Event::Request { body, reply, .. } = event {
                answer(body, reply);
            }
        }
    });
}

#[tokio::test]
async fn many_requests_get_each_its_own_answer() {
    let (_a, to_b, b, _) = pair().await;
    serve(b, |body, reply| drop(reply.send(body).expect("not too long")));
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..200u32 {
        let link = to_b.clone();
        asked.spawn(async move {
            let body = Bytes::copy_from_slice(&n.to_le_bytes());
            assert_eq!(link.request(body.clone(), PATIENCE).await, Ok(body));
        });
    }
    while let Some(done) = asked.join_next().await {
        done.expect("answered");
    }
    let large = Bytes::from(vec![3; REQUEST_LEN_MAX]);
    assert_eq!(to_b.request(large.clone(), PATIENCE).await, Ok(large));
}

#[tokio::test]
async fn a_request_without_an_answer_says_why() {
    let (_a, to_b, b, _) = pair().await;
    let (hold, held) = std::sync::mpsc::channel();
    serve(b, move |body, reply| match body.as_ref() {
        b"hold" => hold.send(reply).expect("the test goes on"),
        b"too long" => {
            let answer = Bytes::from(vec![0; REQUEST_LEN_MAX + 1]);
            assert_eq!(reply.send(answer).map(drop), Err(SendError::TooLong));
        }
        _ => drop(reply),
    });
    let ask = |body: &'static str, limit| to_b.request(Bytes::from(body), limit);
    assert_eq!(ask("drop", PATIENCE).await, Err(RequestError::Unanswered));
    assert_eq!(ask("too long", PATIENCE).await, Err(RequestError::Unanswered));
    assert_eq!(ask("hold", Duration::from_millis(50)).await, Err(RequestError::TimedOut));
    let too_long = Bytes::from(vec![0; REQUEST_LEN_MAX + 1]);
    assert_eq!(to_b.request(too_long, PATIENCE).await, Err(RequestError::TooLong));
    let (answer, ()) = tokio::join!(ask("hold", PATIENCE), async { to_b.close("enough") });
    assert_eq!(answer, Err(RequestError::Closed));
    drop(held);
}

/// Hands the requests of the peer to the test.
fn requests(node: Node) -> mpsc::UnboundedReceiver<Responder> {
    let (sender, receiver) = mpsc::unbounded_channel();
    serve(node, move |_, reply| drop(sender.send(reply)));
    receiver
}

#[tokio::test]
async fn far_more_requests_may_wait_than_a_new_link_has_room_for() {
    const MANY: usize = 1000;
    let (_a, to_b, b, _) = pair().await;
    let mut requests = requests(b);
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..MANY {
        let link = to_b.clone();
        asked.spawn(async move { link.ask(Bytes::new()).await.map(Answer::take) });
    }
    let mut held = Vec::new();
    while held.len() < MANY {
        let next = timeout(PATIENCE, requests.recv()).await.expect("all of them come");
        held.push(next.expect("the node lives"));
    }
    for reply in held {
        drop(reply.send(Bytes::from_static(b"late")).expect("not too long"));
    }
    while let Some(answer) = asked.join_next().await {
        assert_eq!(answer.expect("no panic"), Ok(Bytes::from_static(b"late")));
    }
}

#[tokio::test]
async fn who_answers_learns_that_the_asker_has_gone() {
    let (_a, to_b, b, _) = pair().await;
    let mut requests = requests(b);
    let (link, other) = (to_b.clone(), to_b.clone());
    let asker = tokio::spawn(async move { link.ask(Bytes::new()).await.map(drop) });
    let mut reply = requests.recv().await.expect("a request");
    asker.abort();
    timeout(PATIENCE, reply.abandoned()).await.expect("the asker gave up");

    let asker = tokio::spawn(async move { other.ask(Bytes::new()).await.map(drop) });
    let mut reply = requests.recv().await.expect("a request");
    to_b.close("enough");
    timeout(PATIENCE, reply.abandoned()).await.expect("the link is down");
    assert_eq!(asker.await.expect("no panic"), Err(RequestError::Closed));
}

#[tokio::test]
async fn who_answers_learns_whether_the_answer_was_taken() {
    let (_a, to_b, b, _) = pair().await;
    let mut requests = requests(b);
    for taken in [true, false] {
        let link = to_b.clone();
        let asker = tokio::spawn(async move {
            let answer = link.ask(Bytes::new()).await.expect("an answer");
            if taken { answer.take() } else { answer.body().clone() }
        });
        let reply = requests.recv().await.expect("a request");
        let sent = reply.send(Bytes::from_static(b"answer")).expect("not too long");
        assert_eq!(asker.await.expect("no panic"), "answer");
        let fate = timeout(PATIENCE, sent.fate()).await.expect("the asker says so");
        assert_eq!(fate, if taken { Fate::Taken } else { Fate::NotTaken });
    }
}

#[tokio::test]
async fn what_became_of_an_answer_is_unknown_once_the_link_is_down() {
    let (_a, to_b, b, _) = pair().await;
    let mut requests = requests(b);
    let link = to_b.clone();
    let asker = tokio::spawn(async move { link.ask(Bytes::new()).await });
    let reply = requests.recv().await.expect("a request");
    let sent = reply.send(Bytes::from_static(b"answer")).expect("not too long");
    let answer = asker.await.expect("no panic").expect("an answer");
    assert!(answer.is_linked());
    to_b.close("enough");
    assert!(!answer.is_linked());
    let fate = timeout(PATIENCE, sent.fate()).await.expect("the link is down");
    assert_eq!(fate, Fate::Unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_says_of_each_answer_that_it_was_not_taken() {
    const MANY: usize = 300;
    for _ in 0..10 {
        let (a, to_b, b, _) = pair().await;
        let mut requests = requests(b);
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..MANY {
            let link = to_b.clone();
            asked.spawn(async move { link.ask(Bytes::new()).await.map(drop) });
        }
        let mut held = Vec::new();
        while held.len() < MANY {
            held.push(requests.recv().await.expect("a request"));
        }
        let leaving = tokio::spawn(async move {
            asked.shutdown().await;
            a.transport.close("stopping", PATIENCE).await;
        });
        // Some answers go before the peer hears that nobody wants them, some while it leaves, some after.
        let mut sent = Vec::new();
        for reply in held {
            sent.push(reply.send(Bytes::from_static(b"answer")).expect("not too long"));
            tokio::task::yield_now().await;
        }
        for sent in sent {
            let fate = timeout(PATIENCE, sent.fate()).await.expect("the asker says so");
            assert_eq!(fate, Fate::NotTaken);
        }
        leaving.await.expect("no panic");
    }
}

#[tokio::test]
async fn who_leaves_says_of_each_answer_that_it_was_taken() {
    for _ in 0..20 {
        let (a, to_b, b, _) = pair().await;
        let mut requests = requests(b);
        let asker = tokio::spawn(async move {
            to_b.ask(Bytes::new()).await.expect("an answer").take();
            a.transport.close("stopping", PATIENCE).await;
        });
        let reply = requests.recv().await.expect("a request");
        let sent = reply.send(Bytes::from_static(b"answer")).expect("not too long");
        let fate = timeout(PATIENCE, sent.fate()).await.expect("the asker says so");
        assert_eq!(fate, Fate::Taken);
        asker.await.expect("no panic");
    }
}

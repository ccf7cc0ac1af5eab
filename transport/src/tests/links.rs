//! How links come, replace each other and go.

use tokio::{net::UdpSocket, sync::watch};

use super::*;

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let (a, to_b, b, to_a) = pair().await;
    assert_eq!(to_b.peer().name, "b");
    assert_eq!(to_a.peer().name, "a");
    assert_eq!(to_a.peer().incarnation, 1);
    assert_eq!(to_a.peer().wire, 1);
    assert_eq!(to_a.peer().hello, "hello of a");
    assert_eq!(to_a.peer().address, a.address());
    assert_eq!(to_b.dialed(), Some(b.address()));
    assert_eq!(to_a.dialed(), None);
    assert_eq!(a.transport.links(), [to_b]);
    assert_eq!(a.transport.stats().links_up, 1);
}

/// Frames that crossed both ways prove that each side uses the link that the other uses.
async fn talk(a: &mut Node, to_b: &Link, b: &mut Node, to_a: &Link) {
    to_b.send(CONTROL, Bytes::from_static(b"to b")).expect("the link is up");
    to_a.send(CONTROL, Bytes::from_static(b"to a")).expect("the link is up");
    for (node, wanted) in [(b, "to b"), (a, "to a")] {
        match node.next().await {
            Event::Frame { frame, .. } => assert_eq!(frame, wanted),
            other => panic!("the one link stays, instead of {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_simultaneous_dials_one_link_comes_up_once_on_both_sides() {
    for _ in 0..50 {
        let (mut a, mut b) = (Node::start("a", 1).await, Node::start("b", 1).await);
        a.keep(&b);
        b.keep(&a);
        let (Event::Up(to_b), Event::Up(to_a)) = (a.next().await, b.next().await) else {
            panic!("a link comes up first");
        };
        talk(&mut a, &to_b, &mut b, &to_a).await;
        // Any losing dial is over before the link is: nothing of it is to be heard.
        to_b.close("seen enough");
        assert!(matches!(a.next().await, Event::Down { .. }));
        assert!(matches!(b.next().await, Event::Down { .. }));
    }
}

#[tokio::test]
async fn an_address_that_leads_to_a_linked_peer_is_not_dialled_again_and_again() {
    // On Linux all of 127/8 leads to a socket that is bound to the wildcard.
    for (name, other) in [("a", "b"), ("b", "a")] {
        let wildcard = Node::configured(other, |c| c.listen = ([0, 0, 0, 0], 0).into()).await;
        let (mut a, mut b) = (Node::start(name, 1).await, wildcard);
        let port = b.address().port();
        a.transport.keep(([127, 0, 0, 1], port).into());
        let (to_b, to_a) = (a.up().await, b.up().await);
        a.transport.keep(([127, 0, 0, 2], port).into());
        for _ in 0..200 {
            talk(&mut a, &to_b, &mut b, &to_a).await;
        }
        assert_eq!(a.transport.stats().dials, 2, "the second address was dialled once");
        assert!(!to_b.is_closed());
    }
}

#[tokio::test]
async fn a_newer_run_replaces_the_older_one_at_once() {
    let (mut old, _, mut b, _) = pair().await;
    let mut new = Node::start("a", 2).await;
    new.keep(&b);
    let to_b = new.up().await;
    assert!(matches!(b.next().await, Event::Down { reason: DownReason::Replaced, .. }));
    let Event::Up(to_new) = b.next().await else { panic!("the new link comes after") };
    assert_eq!(to_new.peer().incarnation, 2);
    talk(&mut new, &to_b, &mut b, &to_new).await;

    assert_eq!(old.down().await, DownReason::Replaced);
    let stale = old.wait(|event| match event {
        Event::Stale { seen, by, fresh } => Some((seen, by, fresh)),
        _ => None,
    });
    assert_eq!(stale.await, (2, "b".to_owned(), false), "the old run is told, when it dials again");
}

#[tokio::test]
async fn a_stale_replica_is_told_what_was_seen_and_may_come_back_with_more() {
    let mut b = Node::with(
        "b",
        1,
        |_| {},
        |_, incarnation| {
            if incarnation < 7 { Admit::Stale { seen: 7 } } else { Admit::Yes }
        },
    )
    .await;
    let mut a = Node::start("a", 1).await;
    a.keep(&b);
    match a.next().await {
        Event::Stale { seen: 7, by, fresh: true } => assert_eq!(by, "b"),
        other => panic!("expected to be stale, got {other:?}"),
    }
    a.transport.set_identity(identity("a", 8)).expect("sound");
    a.up().await;
    assert_eq!(b.up().await.peer().incarnation, 8);
}

#[tokio::test]
async fn an_acceptor_that_is_stale_is_told_as_well() {
    let stale = |_: &str, _| Admit::Stale { seen: 7 };
    let mut a = Node::with("a", 1, |_| {}, stale).await;
    let mut b = Node::start("b", 1).await;
    a.keep(&b);
    let event = b.next().await;
    assert!(matches!(event, Event::Stale { seen: 7, .. }), "{event:?}");
    let failed = a.wait(|event| match event {
        Event::DialFailed { error, attempt: 1, .. } => Some(error),
        _ => None,
    });
    assert_eq!(failed.await, DialError::OlderPeer("b".into()));
}

#[tokio::test]
async fn a_new_identity_ends_all_links_and_dials_anew() {
    let (mut a, _, mut b, _) = pair().await;
    a.transport.set_identity(identity("a", 5)).expect("sound");
    assert_eq!(a.down().await, DownReason::Renewed);
    a.up().await;
    b.down().await;
    assert_eq!(b.up().await.peer().incarnation, 5);
}

#[tokio::test]
async fn a_node_that_dials_itself_notices_and_stops() {
    let mut a = Node::start("a", 1).await;
    a.keep(&a);
    let event = a.next().await;
    assert!(matches!(event, Event::DialedSelf { address } if address == a.address()), "{event:?}");
    assert_eq!(a.transport.stats().kept, 0);
}

#[tokio::test]
async fn of_two_nodes_of_one_name_the_older_run_is_told() {
    for older_dials in [true, false] {
        let (mut older, newer) = (Node::start("a", 1).await, Node::start("a", 2).await);
        if older_dials {
            older.keep(&newer)
        } else {
            newer.keep(&older)
        }
        let event = older.next().await;
        assert!(matches!(event, Event::Stale { seen: 2, fresh: true, .. }), "{event:?}");
    }
}

#[tokio::test]
async fn a_peer_that_restarts_on_its_port_is_found_again() {
    let (mut a, _, b, _) = pair().await;
    let address = b.address();
    b.transport.close("restart", PATIENCE).await;
    drop(b);
    assert_eq!(a.down().await, DownReason::ClosedByPeer("restart".into()));
    let mut b = Node::with("b", 2, |c| c.listen = address, |_, _| Admit::Yes).await;
    assert_eq!(a.up().await.peer().incarnation, 2);
    b.up().await;
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_told_of_once() {
    let nobody = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = nobody.local_addr().expect("bound");
    let mut a = Node::configured("a", |c| c.handshake_timeout = Duration::from_millis(100)).await;
    a.transport.keep(address);
    match a.next().await {
        Event::DialFailed { address: at, error: DialError::TimedOut, attempt: 1, .. } => {
            assert_eq!(at, address);
        }
        other => panic!("expected a failed dial, got {other:?}"),
    }
    // The next failures are the same: what is heard next is that a node came there.
    drop(nobody);
    let mut b = Node::configured("b", |c| c.listen = address).await;
    let event = a.next().await;
    assert!(matches!(event, Event::Up(_)), "{event:?}");
    b.up().await;
}

#[tokio::test]
async fn a_forgotten_address_keeps_its_link_but_is_not_dialled_again() {
    let (mut a, to_b, mut b, to_a) = pair().await;
    a.transport.forget(b.address());
    talk(&mut a, &to_b, &mut b, &to_a).await;
    to_a.close("enough");
    assert_eq!(a.down().await, DownReason::ClosedByPeer("enough".into()));
    assert_eq!(b.down().await, DownReason::Closed("enough".into()));
    assert_eq!(a.transport.stats().kept, 0);
}

#[tokio::test]
async fn closing_delivers_what_is_queued_and_ends_the_events() {
    let (mut a, to_b, mut b, _) = pair().await;
    for n in 0..1000u32 {
        to_b.send(CONTROL, Bytes::from(vec![0; 1000 + n as usize])).expect("fits");
    }
    let closing = a.transport.clone();
    let closing = tokio::spawn(async move { closing.close("bye", PATIENCE).await });
    for n in 0..1000 {
        assert_eq!(b.frame().await.1.len(), 1000 + n);
    }
    assert_eq!(b.down().await, DownReason::ClosedByPeer("bye".into()));
    assert_eq!(a.down().await, DownReason::Closed("bye".into()));
    closing.await.expect("no panic");
    assert!(a.events.next().await.is_none());
    assert_eq!(to_b.send(CONTROL, Bytes::new()), Err(SendError::Closed));
}

#[tokio::test]
async fn a_dropped_transport_lets_go_of_everything() {
    let (a, to_b, mut b, _) = pair().await;
    let Node { transport, mut events, .. } = a;
    drop(transport);
    assert!(matches!(b.down().await, DownReason::ClosedByPeer(_)));
    let rest = async { while events.next().await.is_some() {} };
    timeout(PATIENCE, rest).await.expect("the events end");
    assert!(to_b.is_closed());
}

/// Passes datagrams on between a dialler and `target`; stops those towards the dialler when told.
async fn one_way_cut(target: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let (cut, is_cut) = watch::channel(false);
    tokio::spawn(async move {
        let (mut dialler, mut packet) = (target, vec![0; 65536]);
        while let Ok((len, from)) = socket.recv_from(&mut packet).await {
            let to = if from == target { dialler } else { target };
            if from != target {
                dialler = from;
            } else if *is_cut.borrow() {
                continue;
            }
            socket.send_to(&packet[..len], to).await.expect("loopback takes it");
        }
    });
    (address, cut)
}

/// The dialler stops hearing the acceptor and gives its link up; the acceptor heard it until then
/// and believes the link alive. The names decide which of the two chooses.
async fn redial_after_a_one_way_cut(dialler: &str, acceptor: &str) {
    let short = |c: &mut Config| {
        c.idle_timeout = Duration::from_secs(1);
        c.keep_alive = Duration::from_millis(200);
    };
    let mut d = Node::configured(dialler, short).await;
    let mut a = Node::configured(acceptor, short).await;
    let (proxy, cut) = one_way_cut(a.address()).await;
    d.transport.keep(proxy);
    d.up().await;
    a.up().await;
    cut.send_replace(true);
    d.transport.forget(proxy);
    assert_eq!(d.down().await, DownReason::TimedOut);
    d.keep(&a);
    d.up().await;
    assert_eq!(a.down().await, DownReason::Replaced);
    a.up().await;
}

#[tokio::test]
async fn who_lost_a_link_gets_a_new_one_while_the_peer_still_believes_in_the_old() {
    tokio::join!(redial_after_a_one_way_cut("a", "b"), redial_after_a_one_way_cut("b", "a"));
}

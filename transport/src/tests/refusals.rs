//! Who does not belong is turned away, both sides hear why, and nobody else is disturbed.

use super::*;

/// `a` dials `b`, which is linked with `c`; both hear of a refusal, and `c` of nothing.
async fn refusal(change: impl FnOnce(&mut Config)) -> (Refusal, Refusal) {
    let (mut c, to_b, mut b, to_c) =
        linked(Node::start("c", 1).await, Node::start("b", 1).await).await;
    let mut a = Node::configured("a", change).await;
    a.keep(&b);
    let (at_a, at_b) = (a.refused().await, b.refused().await);
    assert_eq!((at_a.address, at_a.inbound, at_a.by_us), (b.address(), false, false));
    assert_eq!((at_b.address, at_b.inbound, at_b.by_us), (a.address(), true, true));
    assert!(a.transport.links().is_empty());

    to_b.send(CONTROL, Bytes::from_static(b"still there")).expect("the link is up");
    let event = b.next().await;
    assert!(matches!(event, Event::Frame { .. }), "a refusal is told once, then: {event:?}");
    to_c.send(CONTROL, Bytes::from_static(b"still there")).expect("the link is up");
    let event = c.next().await;
    assert!(matches!(event, Event::Frame { .. }), "nothing else happened to c: {event:?}");
    (at_a, at_b)
}

#[tokio::test]
async fn another_secret() {
    let (at_a, at_b) = refusal(|c| c.secrets = vec![secret(2)]).await;
    assert_eq!(
        at_a.to_string(),
        format!(
            "{} refused us: the cluster secret differs (set the same WINGBEAT_CLUSTER_SECRET on both)",
            at_a.address
        )
    );
    assert_eq!((at_a.cause, at_b.cause), (RefusalCause::Secret, RefusalCause::Secret));
}

#[tokio::test]
async fn another_cluster_name() {
    let (at_a, at_b) = refusal(|c| c.cluster = "other".into()).await;
    assert_eq!(at_a.cause, RefusalCause::Cluster { ours: "other".into(), theirs: None });
    let theirs = Some("other".to_owned());
    assert_eq!(at_b.cause, RefusalCause::Cluster { ours: "test".into(), theirs });
}

#[tokio::test]
async fn no_common_wire_version() {
    let (at_a, at_b) = refusal(|c| c.wire = 2..=3).await;
    assert_eq!(at_a.cause, RefusalCause::Wire { ours: (2, 3), theirs: Some((1, 1)) });
    assert_eq!(at_b.cause, RefusalCause::Wire { ours: (1, 1), theirs: Some((2, 3)) });
}

#[tokio::test]
async fn the_highest_common_wire_version_is_spoken() {
    let a = Node::configured("a", |c| c.wire = 1..=3).await;
    let b = Node::configured("b", |c| c.wire = 2..=5).await;
    let (_a, to_b, _b, to_a) = linked(a, b).await;
    assert_eq!((to_b.peer().wire, to_a.peer().wire), (3, 3));
}

#[tokio::test]
async fn during_a_rotation_either_secret_is_taken() {
    for (dialler, acceptor) in [
        (vec![secret(1), secret(2)], vec![secret(2), secret(1)]),
        (vec![secret(2), secret(1)], vec![secret(1), secret(2)]),
        (vec![secret(1)], vec![secret(2), secret(1)]),
        (vec![secret(2)], vec![secret(2), secret(1)]),
    ] {
        let a = Node::configured("a", |c| c.secrets = dialler).await;
        let b = Node::configured("b", |c| c.secrets = acceptor).await;
        linked(a, b).await;
    }
}

#[tokio::test]
async fn a_full_node_says_so_and_keeps_the_links_it_has() {
    let full = Node::configured("b", |c| c.links_max = 1).await;
    let (_a, to_b, mut b, _) = linked(Node::start("a", 1).await, full).await;
    let mut c = Node::start("c", 1).await;
    c.keep(&b);
    assert_eq!(c.refused().await.cause, RefusalCause::Full);
    assert_eq!(b.refused().await.cause, RefusalCause::Full);
    assert!(!to_b.is_closed());
}

#[tokio::test]
async fn unsound_configurations_and_identities_are_refused() {
    let handlers =
        Handlers { direct: Arc::new(|_, _, _| None), admit: Arc::new(|_, _| Admit::Yes) };
    let changes: [fn(&mut Config); 6] = [
        |c| c.secrets.clear(),
        |c| c.secrets = vec![secret(1); 3],
        |c| c.cluster.clear(),
        |c| c.lanes.clear(),
        |c| c.idle_timeout = c.keep_alive,
        |c| c.backoff_max = Duration::ZERO,
    ];
    for change in changes {
        let mut config = config();
        change(&mut config);
        let bound = Transport::bind(config, identity("a", 1), handlers.clone()).await;
        assert!(matches!(bound, Err(BindError::Config(_))));
    }
    for (name, hello) in [(String::new(), 0), ("n".repeat(256), 0), ("a".into(), HELLO_LEN_MAX + 1)]
    {
        let identity = Identity { name, incarnation: 1, hello: Bytes::from(vec![0; hello]) };
        let bound = Transport::bind(config(), identity, handlers.clone()).await;
        assert!(matches!(bound, Err(BindError::Identity(_))));
    }
    let taken = Node::start("a", 1).await;
    let again = Config { listen: taken.address(), ..config() };
    let bound = Transport::bind(again, identity("a", 1), handlers).await;
    assert!(matches!(bound, Err(BindError::Socket { .. })));
}

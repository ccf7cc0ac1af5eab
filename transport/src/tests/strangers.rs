//! What does not belong to the cluster, and does not even try: garbage, silence, other programs.

use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use tokio::net::UdpSocket;

use super::*;
use crate::{close, tls};

/// A client that speaks our TLS but is nobody.
async fn stranger(to: SocketAddr) -> (Endpoint, Connection) {
    let (_, client): (_, ClientConfig) = tls::quic(&config()).expect("sound");
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a port");
    let connecting = endpoint.connect_with(client, to, tls::SERVER_NAME).expect("an address");
    let connection = timeout(PATIENCE, connecting).await.expect("in time").expect("TLS agrees");
    (endpoint, connection)
}

async fn end(connection: &Connection) -> ConnectionError {
    timeout(PATIENCE, connection.closed()).await.expect("it is closed")
}

#[tokio::test]
async fn garbage_disturbs_nobody() {
    let (_a, to_b, mut b, _) = pair().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    for n in 0..300usize {
        let mut garbage: Vec<u8> = (0..n * 4).map(|i| (i * 31 + n * 17) as u8).collect();
        // Every other one looks like the first packet of a QUIC connection.
        if let Some(first) = garbage.first_mut().filter(|_| n % 2 == 0) {
            *first |= 0xc0;
        }
        socket.send_to(&garbage, b.address()).await.expect("loopback takes it");
    }
    to_b.send(CONTROL, Bytes::from_static(b"still there")).expect("the link is up");
    let event = b.next().await;
    assert!(matches!(event, Event::Frame { .. }), "{event:?}");
}

#[tokio::test]
async fn a_client_that_proves_nothing_is_closed_in_time_and_nothing_is_read() {
    let mut b = Node::configured("b", |c| c.handshake_timeout = Duration::from_millis(300)).await;
    let (_endpoint, silent) = stranger(b.address()).await;
    let (_endpoint, slow) = stranger(b.address()).await;
    let (mut send, _receive) = slow.open_bi().await.expect("one stream is allowed");
    send.write_all(b"wing").await.expect("it is open");
    assert!(matches!(end(&silent).await, ConnectionError::ApplicationClosed(_)));
    assert!(matches!(end(&slow).await, ConnectionError::ApplicationClosed(_)));

    let mut a = Node::start("a", 1).await;
    a.keep(&b);
    a.up().await;
    let event = b.next().await;
    assert!(matches!(event, Event::Up(_)), "strangers make no events: {event:?}");
    assert_eq!(b.transport.stats().handshakes, 0);
}

#[tokio::test]
async fn a_client_that_talks_nonsense_is_refused_at_once() {
    let mut b = Node::start("b", 1).await;
    let (_endpoint, client) = stranger(b.address()).await;
    let (mut send, _receive) = client.open_bi().await.expect("one stream is allowed");
    send.write_all(&[b'x'; 1000]).await.expect("it is open");
    let ConnectionError::ApplicationClosed(closed) = end(&client).await else {
        panic!("closed by the application");
    };
    assert_eq!(closed.error_code, close::NOT_A_PEER);
    assert_eq!(b.refused().await.cause, RefusalCause::NotAPeer);
}

#[tokio::test]
async fn handshakes_in_progress_are_limited() {
    let b = Node::configured("b", |c| c.incoming_max = 4).await;
    let (_endpoint, _first) = stranger(b.address()).await;
    // One address may have a quarter of the places: the second is turned away.
    let (_, client) = tls::quic(&config()).expect("sound");
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a port");
    let second = endpoint.connect_with(client, b.address(), tls::SERVER_NAME).expect("an address");
    let second = timeout(PATIENCE, second).await.expect("in time");
    assert!(matches!(second, Err(ConnectionError::ConnectionClosed(_))), "{second:?}");
    assert_eq!(b.transport.stats().crowded_out, 1);
}

#[tokio::test]
async fn a_dial_to_something_else_says_so() {
    // A QUIC server of another protocol: its certificate is fine, its ALPN is not ours.
    let made = rcgen::generate_simple_self_signed(["x".to_owned()]).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("supported")
        .with_no_client_auth()
        .with_single_cert(
            vec![made.cert.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into(),
        )
        .expect("fits");
    server.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(server).expect("TLS 1.3");
    let server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let server = Endpoint::server(server, ([127, 0, 0, 1], 0).into()).expect("a port");
    let address = server.local_addr().expect("bound");
    let accepting = server.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            // It fails: that is the point.
            let _ = incoming.await;
        }
    });

    let mut a = Node::start("a", 1).await;
    a.transport.keep(address);
    let event = a.next().await;
    assert!(
        matches!(event, Event::DialFailed { error: DialError::Tls(_), attempt: 1, .. }),
        "{event:?}"
    );
}

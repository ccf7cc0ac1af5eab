//! The floor as a peer of the bench's own client, and of the library's.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
};

use serde_json::Value;
use tokio_tungstenite::tungstenite::{
    Message, client,
    protocol::{CloseFrame, WebSocket, frame::coding::CloseCode},
};

use super::{Manners, server::Server};
use crate::cli::bench::tests::run_against;

/// Starts a floor that lives as long as the test's process, and gives its URL.
fn floor(joined: bool, manners: Manners) -> String {
    let mut server = Server::bind(joined, manners).unwrap();
    let port = server.port().unwrap();
    thread::spawn(move || server.serve());
    format!("http://127.0.0.1:{port}")
}

const POLITE: Manners = Manners { acks: true, copies: true };
const CURT: Manners = Manners { acks: true, copies: false };

#[test]
fn scenarios_run_on_it_without_a_fault() {
    let short = "--seconds 0.05 --warmup 20ms";
    for (joined, manners) in [(false, POLITE), (true, POLITE), (true, CURT)] {
        let url = floor(joined, manners);
        for scenario in [
            "fanout --subscribers 5 --in-flight 8 --payload 70000",
            "rooms --topics 6 --members 3",
            "rooms --topics 6 --members 3 --topics-each-socket 4",
            "echo --sockets 5",
            "churn --sockets 3",
        ] {
            let ended = run_against(&format!("{scenario} {short} --url {url}"));
            assert_eq!(ended.failure, None, "{scenario} {joined} {manners:?}");
            let done = &ended.json["deliveries"];
            let done = done.as_u64().or(ended.json["cycles"].as_u64());
            assert!(done.unwrap() > 0, "{scenario}");
        }
    }
}

fn connect(url: &str) -> WebSocket<TcpStream> {
    let address = url.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).unwrap();
    client(format!("ws://{address}/socket/websocket?vsn=2.0.0"), stream).unwrap().0
}

fn say(socket: &mut WebSocket<TcpStream>, frame: &str) {
    socket.send(Message::text(frame)).unwrap();
}

fn hear(socket: &mut WebSocket<TcpStream>) -> Value {
    serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap()
}

#[test]
fn it_speaks_to_another_client_as_a_node_does() {
    let url = floor(false, CURT);
    let [mut one, mut two] = [connect(&url), connect(&url)];
    let reply = |reference: Option<&str>, to: &str, topic: &str| serde_json::json!([reference, to, topic, "phx_reply", {"response": {}, "status": "ok"}]);
    for socket in [&mut one, &mut two] {
        say(socket, r#"["1","1","t","phx_join",{}]"#);
        assert_eq!(hear(socket), reply(Some("1"), "1", "t"));
    }
    say(&mut one, r#"["1","7","t","e",{"x":[1]}]"#);
    assert_eq!(hear(&mut one), reply(Some("1"), "7", "t"));
    assert_eq!(hear(&mut two), serde_json::json!([null, null, "t", "e", {"x": [1]}]));
    say(&mut one, r#"[null,"8","phoenix","heartbeat",{}]"#);
    assert_eq!(hear(&mut one), reply(None, "8", "phoenix"));
    say(&mut one, r#"["1","9","t","phx_leave",{}]"#);
    assert_eq!(hear(&mut one), reply(Some("1"), "9", "t"));
    assert_eq!(hear(&mut one), serde_json::json!(["1", "1", "t", "phx_close", {}]));
    one.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).unwrap();
    assert!(
        matches!(one.read().unwrap(), Message::Close(Some(frame)) if frame.code == CloseCode::Normal)
    );
}

#[test]
fn what_a_slow_subscriber_has_not_read_is_kept_for_it() {
    const MESSAGES: usize = 400;
    let url = floor(false, CURT);
    let [mut publisher, mut subscriber] = [connect(&url), connect(&url)];
    for socket in [&mut publisher, &mut subscriber] {
        say(socket, r#"["1","1","t","phx_join",{}]"#);
        hear(socket);
    }
    // More than the kernel takes for one socket.
    let padding = "x".repeat(60_000);
    for number in 0..MESSAGES {
        say(&mut publisher, &format!(r#"["1","{number}","t","e",["{padding}",{number}]]"#));
        hear(&mut publisher);
    }
    for number in 0..MESSAGES {
        assert_eq!(hear(&mut subscriber)[4][1], number);
    }
}

#[test]
fn what_is_no_upgrade_is_not_found() {
    let url = floor(false, POLITE);
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

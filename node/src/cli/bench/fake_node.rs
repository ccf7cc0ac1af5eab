//! A node that serves the bench in tests, faults on request. Its WebSockets are another codec's.

use std::{
    cell::{Cell, RefCell},
    io::Read as _,
    pin::pin,
    process::{Command, Stdio},
    rc::Rc,
    thread,
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{
        mpsc::{UnboundedSender, unbounded_channel},
        watch,
    },
    task::spawn_local,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    Nothing,
    /// The first joined client does not get its third broadcast.
    Loses,
    /// It gets it twice.
    Doubles,
    /// It gets it behind the next.
    Swaps,
    /// It is closed in place of it.
    Cuts,
    /// Joins are refused.
    RefusesJoins,
    /// Messages are refused.
    RefusesMessages,
    /// Messages are not answered.
    AnswersNoMessages,
    /// Who sends a message gets no copy of it.
    KeepsOwnCopies,
    /// Close frames are ignored.
    NeverCloses,
    /// Nobody is told who is present.
    HidesPresence,
    /// There is no page of metrics.
    HidesMetrics,
    /// Upgrades are answered with 403.
    RefusesUpgrades,
    /// The last listener stands for a process of its own, and closes its sockets when that ends.
    Stops,
    /// The last listener names a process that is none of this machine.
    IsElsewhere,
}

/// A process that stands for a listener.
#[derive(Clone, Debug)]
struct Process {
    id: u32,
    /// Closed when it has ended.
    ended: watch::Receiver<()>,
}

impl Process {
    fn start() -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "echo; read line", "sh", "serve"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Its arguments can be read a moment after it was spawned, and when it runs for sure.
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let (id, (running, ended)) = (child.id(), watch::channel(()));
        thread::spawn(move || {
            // It reads this, and ends with this process at the latest.
            let input = child.stdin.take();
            child.wait().unwrap();
            drop((input, running));
        });
        Self { id, ended }
    }

    async fn ended(process: Option<Self>) {
        match process {
            Some(mut process) => drop(process.ended.changed().await),
            None => std::future::pending().await,
        }
    }
}

/// Nodes of one process that share all topics.
#[derive(Debug)]
pub(super) struct FakeNode {
    pub(super) urls: Vec<String>,
    state: Rc<State>,
}

#[derive(Debug, Default)]
struct State {
    fault: Fault,
    clients: RefCell<Vec<Client>>,
    /// What it tells as its CPU time: one second more each time.
    asked: Cell<u32>,
    heartbeats: Cell<u64>,
}

#[derive(Debug)]
struct Client {
    topic: String,
    user: String,
    out: UnboundedSender<Message>,
    broadcasts: usize,
    held: Option<Message>,
}

impl FakeNode {
    /// Listens on so many ports, until the runtime ends.
    pub(super) async fn start(listeners: usize, fault: Fault) -> Self {
        let state = Rc::new(State { fault, ..State::default() });
        let mut urls = Vec::new();
        let process = if fault == Fault::Stops {
            Some(Process::start())
        } else if fault == Fault::IsElsewhere {
            Some(Process { id: u32::MAX, ended: watch::channel(()).1 })
        } else {
            None
        };
        for listener in 1..=listeners {
            let process = process.clone().filter(|_| listener == listeners);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            urls.push(format!("http://{}", listener.local_addr().unwrap()));
            let state = Rc::clone(&state);
            spawn_local(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    spawn_local(Rc::clone(&state).serve(stream, process.clone()));
                }
            });
        }
        Self { urls, state }
    }

    pub(super) fn heartbeats(&self) -> u64 {
        self.state.heartbeats.get()
    }

    /// The topics of all joined clients.
    pub(super) fn topics(&self) -> Vec<String> {
        self.state.clients.borrow().iter().map(|client| client.topic.clone()).collect()
    }
}

impl State {
    async fn serve(self: Rc<Self>, stream: TcpStream, process: Option<Process>) {
        let mut head = [0; 12];
        while stream.peek(&mut head).await.unwrap() < head.len() {}
        if head.starts_with(b"GET /metrics") {
            stream.writable().await.unwrap();
            let id = process.map_or(7, |process| process.id);
            stream.try_write(self.metrics(id).as_bytes()).unwrap();
        } else {
            self.socket(stream, process).await;
        }
    }

    fn metrics(&self, process: u32) -> String {
        if self.fault == Fault::HidesMetrics {
            return "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                .into();
        }
        self.asked.set(self.asked.get() + 1);
        let resident = 1_000_000 + 500 * self.clients.borrow().len();
        let page = format!(
            "process_cpu_seconds_total {}.0\nprocess_resident_memory_bytes {resident}\n\
             wingbeat_process_id {process}\n\
             wingbeat_fanout_seconds_bucket{{le=\"0.001\"}} 0\n\
             wingbeat_fanout_seconds_bucket{{le=\"0.005\"}} {asked}\n\
             wingbeat_fanout_seconds_bucket{{le=\"+Inf\"}} {asked}\n",
            self.asked.get(),
            asked = self.asked.get(),
        );
        let len = page.len();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{page}")
    }

    #[expect(clippy::result_large_err, reason = "the library's callback has this type")]
    async fn socket(&self, stream: TcpStream, process: Option<Process>) {
        let mut query = String::new();
        let accepted = accept_hdr_async(stream, |request: &Request, response: Response| {
            query = request.uri().query().unwrap_or_default().to_owned();
            if self.fault == Fault::RefusesUpgrades {
                let mut refusal = ErrorResponse::new(None);
                *refusal.status_mut() = hyper::StatusCode::FORBIDDEN;
                return Err(refusal);
            }
            Ok(response)
        });
        let Ok(mut socket) = accepted.await else {
            return;
        };
        assert!(query.contains("vsn=2.0.0"), "{query}");
        let user = query.split("user_id=").nth(1).unwrap_or("someone").to_owned();
        let (out, mut queued) = unbounded_channel();
        // Clients answer these, and that must not confuse what they measure.
        out.send(Message::Ping(b"are you there"[..].into())).unwrap();
        let mut ended = pin!(Process::ended(process));
        loop {
            tokio::select! {
                () = &mut ended => {
                    let (code, reason) = (CloseCode::Restart, "stopping".into());
                    drop(socket.close(Some(CloseFrame { code, reason })).await);
                    return;
                }
                message = queued.recv() => if socket.send(message.unwrap()).await.is_err() {
                    return;
                },
                received = socket.next() => match received {
                    Some(Ok(Message::Text(text))) => {
                        let frame: [Value; 5] = serde_json::from_str(&text).unwrap();
                        self.handle(frame, &user, &out);
                    }
                    // The library answers it when it is asked for more.
                    Some(Ok(Message::Close(_))) if self.fault != Fault::NeverCloses => {}
                    Some(Ok(Message::Close(_))) => std::future::pending().await,
                    Some(Ok(Message::Pong(data))) => assert_eq!(&data[..], b"are you there"),
                    _ => return,
                },
            }
        }
    }

    fn handle(&self, frame: [Value; 5], user: &str, out: &UnboundedSender<Message>) {
        let [join_ref, reference, topic, event, payload] = frame;
        let refused = match event.as_str().unwrap() {
            "heartbeat" => {
                self.heartbeats.set(self.heartbeats.get() + 1);
                false
            }
            "phx_join" => self.fault == Fault::RefusesJoins,
            _ => self.fault == Fault::RefusesMessages,
        };
        let reply = if refused {
            json!({"status": "error", "response": {"reason": "no"}})
        } else {
            json!({"status": "ok", "response": {}})
        };
        let reply = json!([&join_ref, reference, &topic, "phx_reply", reply]);
        let unanswered = !matches!(event.as_str(), Some("phx_join" | "heartbeat"))
            && self.fault == Fault::AnswersNoMessages;
        if !unanswered {
            out.send(text(&reply)).unwrap();
        }
        let topic = topic.as_str().unwrap();
        match event.as_str().unwrap() {
            _ if refused => {}
            "heartbeat" => {}
            "phx_join" => self.join(topic, user, out),
            "phx_leave" => {
                self.clients.borrow_mut().retain(|client| !client.out.same_channel(out));
                out.send(text(&json!([join_ref, join_ref, topic, "phx_close", {}]))).unwrap();
            }
            _ => self.broadcast(&json!([null, null, topic, event, payload]), topic, out),
        }
    }

    fn join(&self, topic: &str, user: &str, out: &UnboundedSender<Message>) {
        let mut clients = self.clients.borrow_mut();
        clients.push(Client {
            topic: topic.to_owned(),
            user: user.to_owned(),
            out: out.clone(),
            broadcasts: 0,
            held: None,
        });
        if self.fault == Fault::HidesPresence {
            return;
        }
        let metas = json!({"metas": [{"phx_ref": "r"}]});
        let here = clients.iter().filter(|client| client.topic == topic);
        let state: Value =
            here.clone().map(|client| (client.user.clone(), metas.clone())).collect::<_>();
        out.send(text(&json!([null, null, topic, "presence_state", state]))).unwrap();
        let diff = json!({"joins": {user: metas}, "leaves": {}});
        for client in here {
            // Clients of other runs may be gone.
            drop(client.out.send(text(&json!([null, null, topic, "presence_diff", diff]))));
        }
    }

    fn broadcast(&self, frame: &Value, topic: &str, from: &UnboundedSender<Message>) {
        let mut clients = self.clients.borrow_mut();
        let mut first = true;
        for client in clients.iter_mut().filter(|client| client.topic == topic) {
            let own = client.out.same_channel(from);
            if self.fault == Fault::KeepsOwnCopies && own {
                continue;
            }
            client.broadcasts += 1;
            // What its sender misses may be nobody's concern.
            let faulty = !own && std::mem::take(&mut first) && client.broadcasts == 3;
            let message = text(frame);
            let fault = if faulty { self.fault } else { Fault::Nothing };
            let copies = if fault == Fault::Loses {
                vec![]
            } else if fault == Fault::Doubles {
                vec![message.clone(), message]
            } else if fault == Fault::Swaps {
                client.held = Some(message);
                vec![]
            } else if fault == Fault::Cuts {
                let (code, reason) = (CloseCode::Again, "slow client".into());
                vec![Message::Close(Some(CloseFrame { code, reason }))]
            } else {
                [Some(message), client.held.take()].into_iter().flatten().collect()
            };
            for message in copies {
                drop(client.out.send(message));
            }
        }
    }
}

fn text(frame: &Value) -> Message {
    Message::Text(frame.to_string().into())
}

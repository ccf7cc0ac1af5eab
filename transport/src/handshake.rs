//! From a TLS connection to an agreed link.
//!
//! One stream, opened by the dialler. Nothing after the opening is read before its proof is checked.
//! ```text
//! dialler                                   acceptor
//! opening: wire versions, proof, cluster ─▶ checks
//! checks                                 ◀─ answer: wire version, proof
//! hello: who                             ─▶ checks
//! checks                                 ◀─ hello: who, choice lost
//! go (if it is lower)                    ─▶ up
//! ready: choice lost (else)              ─▶ chooses
//! up                                     ◀─ go
//! ```
//! Each refusal is a close code. The lower replica chooses: see [`registry`](crate::registry).

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use quinn::{
    Connection, ConnectionError, ReadExactError, RecvStream, SendStream, TransportErrorCode, VarInt,
};

use crate::{
    close,
    config::Config,
    error::{DialError, RefusalCause},
    handlers::{Admit, Handlers},
    hello::{
        ANSWER_LEN, Answer, HELLO_BYTES_MAX, Hello, Malformed, OPENING_HEAD_LEN, Opening,
        VERDICT_LEN, Verdict,
    },
    link::Peer,
    proof::{BINDING_LEN, Role, Secret},
    registry::{Candidate, Choice, Ourselves, Registry, Unlinked},
    session::Session,
};

/// The label that the keying material of proofs is exported under.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-wingbeat-belonging";

/// Why a connection did not become a link.
#[derive(Debug)]
pub(crate) enum Failure {
    /// One side turned the other away.
    Refused { cause: RefusalCause, by_us: bool },
    /// The peer, or this node in its name, knows a newer run of this node.
    Stale { seen: u64, by: String },
    /// The pair has a link.
    Duplicate { with: Replica },
    /// The dialler reached itself.
    Ourselves,
    /// This node has another identity by now, or is closing.
    Renewed,
    /// Anything else.
    Failed(DialError),
}

/// One run of one node; in a close reason, `incarnation name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) incarnation: u64,
}

impl Replica {
    fn parse(text: &str) -> Option<Self> {
        let (incarnation, name) = text.split_once(' ')?;
        Some(Self { name: name.to_owned(), incarnation: incarnation.parse().ok()? })
    }
}

/// What both sides of a handshake need to know.
pub(crate) struct Handshaker {
    pub(crate) config: Arc<Config>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) handlers: Handlers,
}

/// One handshake in progress.
struct Handshake<'a> {
    parent: &'a Handshaker,
    connection: &'a Connection,
    ourselves: &'a Ourselves,
    dialed: Option<SocketAddr>,
    send: SendStream,
    receive: RecvStream,
}

impl Handshaker {
    /// The dialler's side.
    pub(crate) async fn dial(
        &self,
        connection: &Connection,
        ourselves: &Ourselves,
        address: SocketAddr,
    ) -> Result<Session, Failure> {
        let (send, receive) = connection.open_bi().await.map_err(|e| self.lost(&e))?;
        let dialed = Some(address);
        Handshake { parent: self, connection, ourselves, dialed, send, receive }.dial().await
    }

    /// The acceptor's side.
    pub(crate) async fn accept(
        &self,
        connection: &Connection,
        ourselves: &Ourselves,
    ) -> Result<Session, Failure> {
        let (send, receive) = connection.accept_bi().await.map_err(|e| self.lost(&e))?;
        let dialed = None;
        Handshake { parent: self, connection, ourselves, dialed, send, receive }.accept().await
    }

    /// What the end of a connection during its handshake means.
    pub(crate) fn lost(&self, error: &ConnectionError) -> Failure {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                self.turned_away(close.error_code, &close.reason)
            }
            ConnectionError::ConnectionClosed(close)
                if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
            {
                Failure::Failed(DialError::Closed(
                    "too many connections at once there, or it is stopping".into(),
                ))
            }
            ConnectionError::TimedOut | ConnectionError::Reset => {
                Failure::Failed(DialError::TimedOut)
            }
            ConnectionError::LocallyClosed => Failure::Renewed,
            ConnectionError::VersionMismatch
            | ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::CidsExhausted => Failure::Failed(DialError::Tls(error.to_string())),
        }
    }

    fn turned_away(&self, code: VarInt, reason: &[u8]) -> Failure {
        let refused = |cause| Failure::Refused { cause, by_us: false };
        let text = close::reason_text(reason);
        match code {
            close::SECRET => refused(RefusalCause::Secret),
            close::CLUSTER => {
                refused(RefusalCause::Cluster { ours: self.config.cluster.clone(), theirs: None })
            }
            close::WIRE => {
                let theirs = text
                    .split_once('-')
                    .and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
                refused(RefusalCause::wire(&self.config.wire, theirs))
            }
            close::FULL => refused(RefusalCause::Full),
            close::NOT_A_PEER => refused(RefusalCause::NotAPeer),
            close::STALE | close::DUPLICATE => match Replica::parse(&text) {
                Some(with) if code == close::DUPLICATE => Failure::Duplicate { with },
                Some(Replica { name, incarnation }) => {
                    Failure::Stale { seen: incarnation, by: name }
                }
                None => Failure::Failed(DialError::Protocol("a refusal that cannot be read")),
            },
            close::OURSELVES => Failure::Ourselves,
            close::OLDER => Failure::Failed(DialError::OlderSelf),
            _ => Failure::Failed(DialError::Closed(text)),
        }
    }
}

impl Handshake<'_> {
    async fn dial(mut self) -> Result<Session, Failure> {
        let config = &*self.parent.config;
        let binding = self.binding()?;
        let opening = Opening {
            wire: (*config.wire.start(), *config.wire.end()),
            proof: self.first_secret()?.prove(Role::Dialler, &binding, &config.cluster),
            cluster: config.cluster.clone(),
        };
        self.write(&opening.encode()).await?;

        let answer = Answer::decode(&self.read::<ANSWER_LEN>().await?);
        let proves =
            |s: &&Secret| s.verify(Role::Acceptor, &binding, &config.cluster, &answer.proof);
        if config.secrets.iter().find(proves).is_none() {
            return Err(self.refuse(RefusalCause::Secret));
        }
        if !config.wire.contains(&answer.wire) {
            return Err(
                self.refuse(RefusalCause::wire(&config.wire, Some((answer.wire, answer.wire))))
            );
        }

        self.write_hello(0).await?;
        let hello = self.read_hello().await?;
        self.check(&hello)?;
        self.conclude(hello, answer.wire).await
    }

    async fn accept(mut self) -> Result<Session, Failure> {
        let config = &*self.parent.config;
        let opening = self.read_opening().await?;
        if opening.cluster != config.cluster {
            let ours = config.cluster.clone();
            return Err(self.refuse(RefusalCause::Cluster { ours, theirs: Some(opening.cluster) }));
        }
        let wire = opening.wire.1.min(*config.wire.end());
        if wire < opening.wire.0.max(*config.wire.start()) {
            return Err(self.refuse(RefusalCause::wire(&config.wire, Some(opening.wire))));
        }
        let binding = self.binding()?;
        let proves =
            |s: &&Secret| s.verify(Role::Dialler, &binding, &config.cluster, &opening.proof);
        let Some(secret) = config.secrets.iter().find(proves) else {
            return Err(self.refuse(RefusalCause::Secret));
        };

        let proof = secret.prove(Role::Acceptor, &binding, &config.cluster);
        self.write(&Answer { wire, proof }.encode()).await?;
        let hello = self.read_hello().await?;
        self.check(&hello)?;
        self.write_hello(self.parent.registry.lost(&hello.name, hello.incarnation)).await?;
        self.conclude(hello, wire).await
    }

    /// The last step, the same on both sides: the lower replica chooses, the other follows.
    async fn conclude(&mut self, hello: Hello, wire: u16) -> Result<Session, Failure> {
        let identity = &*self.ourselves.identity;
        let we_choose = (identity.name.as_str(), identity.incarnation)
            < (hello.name.as_str(), hello.incarnation);
        let dialler = self.dialed.is_some();
        let theirs = hello.lost;
        let peer = Peer {
            name: hello.name,
            incarnation: hello.incarnation,
            wire,
            hello: hello.payload,
            address: canonical(self.connection.remote_address()),
            advertise: hello.advertise,
        };
        if we_choose {
            let lost = if dialler { theirs } else { self.read_ready().await? };
            let (session, turn) = self.link(peer, Choice::Ours { lost })?;
            self.write(&Verdict::Go { turn }.encode()).await?;
            return Ok(session);
        }
        if dialler {
            let lost = self.parent.registry.lost(&peer.name, peer.incarnation);
            self.write(&Verdict::Ready { lost }.encode()).await?;
        }
        let turn = self.read_go().await?;
        Ok(self.link(peer, Choice::Theirs { turn })?.0)
    }

    fn link(&self, peer: Peer, choice: Choice) -> Result<(Session, u64), Failure> {
        let with = Replica { name: peer.name.clone(), incarnation: peer.incarnation };
        let candidate = Candidate {
            generation: self.ourselves.generation,
            peer,
            dialed: self.dialed,
            connection: self.connection.clone(),
        };
        self.parent.registry.link(candidate, choice).map_err(|unlinked| match unlinked {
            Unlinked::Stale { seen } => self.outdated(with.name, seen),
            Unlinked::Duplicate => {
                let ours = &*self.ourselves.identity;
                self.close(close::DUPLICATE, &format!("{} {}", ours.incarnation, ours.name));
                Failure::Duplicate { with }
            }
            Unlinked::Full => self.refuse(RefusalCause::Full),
            Unlinked::Renewed => {
                self.close(close::CLOSED, "the node is closing or took a new identity");
                Failure::Renewed
            }
        })
    }

    /// Whether a link to this replica may be.
    fn check(&self, hello: &Hello) -> Result<(), Failure> {
        let ours = &*self.ourselves.identity;
        if hello.name == ours.name {
            return Err(self.namesake(hello));
        }
        let seen = match (self.parent.handlers.admit)(&hello.name, hello.incarnation) {
            Admit::Yes => self.parent.registry.linked(&hello.name),
            Admit::Stale { seen } => Some(seen),
        };
        match seen.filter(|seen| *seen > hello.incarnation) {
            Some(seen) => Err(self.outdated(hello.name.clone(), seen)),
            None => Ok(()),
        }
    }

    /// The other side has our name: it is this node, or one of the two is too much.
    fn namesake(&self, hello: &Hello) -> Failure {
        let ours = &*self.ourselves.identity;
        if hello.incarnation == ours.incarnation {
            self.close(close::OURSELVES, "");
            return Failure::Ourselves;
        }
        if hello.incarnation < ours.incarnation {
            self.close(close::STALE, &format!("{} {}", ours.incarnation, ours.name));
            return Failure::Failed(DialError::OlderSelf);
        }
        self.close(close::OLDER, "a newer run has this name");
        Failure::Stale { seen: hello.incarnation, by: hello.name.clone() }
    }

    /// Tells the other side that a newer run of it is known.
    fn outdated(&self, name: String, seen: u64) -> Failure {
        self.close(close::STALE, &format!("{seen} {}", self.ourselves.identity.name));
        Failure::Failed(DialError::OlderPeer(name))
    }

    fn refuse(&self, cause: RefusalCause) -> Failure {
        let (code, reason) = match &cause {
            RefusalCause::Secret => (close::SECRET, "the cluster secret differs".to_owned()),
            RefusalCause::Cluster { .. } => (close::CLUSTER, "the cluster name differs".to_owned()),
            RefusalCause::Wire { ours: (min, max), .. } => (close::WIRE, format!("{min}-{max}")),
            RefusalCause::Full => (close::FULL, "as many links as allowed".to_owned()),
            RefusalCause::NotAPeer => (close::NOT_A_PEER, "not a node's hello".to_owned()),
        };
        self.close(code, &reason);
        Failure::Refused { cause, by_us: true }
    }

    fn close(&self, code: VarInt, reason: &str) {
        self.connection.close(code, reason.as_bytes());
    }

    /// The other side, which has proved itself or is what we dialled, talks nonsense.
    fn broken(&self, what: &'static str) -> Failure {
        self.close(close::PROTOCOL, what);
        Failure::Failed(DialError::Protocol(what))
    }

    fn first_secret(&self) -> Result<&Secret, Failure> {
        // The configuration was checked to have one.
        let secrets = &self.parent.config.secrets;
        secrets.first().ok_or(Failure::Failed(DialError::Protocol("there is no secret")))
    }

    fn binding(&self) -> Result<[u8; BINDING_LEN], Failure> {
        let mut binding = [0; BINDING_LEN];
        match self.connection.export_keying_material(&mut binding, EXPORTER_LABEL, b"") {
            Ok(()) => Ok(binding),
            Err(_) => Err(self.broken("there is no keying material")),
        }
    }

    async fn read_opening(&mut self) -> Result<Opening, Failure> {
        let head = self.read::<OPENING_HEAD_LEN>().await?;
        let Ok(len) = Opening::name_len(&head) else {
            return Err(self.refuse(RefusalCause::NotAPeer));
        };
        let name = self.read_vec(len).await?;
        Opening::decode(&head, &name).map_err(|Malformed| self.refuse(RefusalCause::NotAPeer))
    }

    async fn write_hello(&mut self, lost: u64) -> Result<(), Failure> {
        let advertise = self.parent.config.advertise;
        let hello = Hello::new(&self.ourselves.identity, advertise, lost);
        self.write(&hello.encode()).await
    }

    async fn read_hello(&mut self) -> Result<Hello, Failure> {
        let len = u32::from_le_bytes(self.read::<4>().await?) as usize;
        if len > HELLO_BYTES_MAX {
            return Err(self.broken("a hello is too long"));
        }
        let bytes = self.read_vec(len).await?;
        Hello::decode(Bytes::from(bytes)).map_err(|Malformed| self.broken("a hello makes no sense"))
    }

    async fn read_ready(&mut self) -> Result<u64, Failure> {
        match Verdict::decode(&self.read::<VERDICT_LEN>().await?) {
            Ok(Verdict::Ready { lost }) => Ok(lost),
            Ok(Verdict::Go { .. }) | Err(Malformed) => Err(self.broken("it was to be ready")),
        }
    }

    async fn read_go(&mut self) -> Result<u64, Failure> {
        match Verdict::decode(&self.read::<VERDICT_LEN>().await?) {
            Ok(Verdict::Go { turn }) => Ok(turn),
            Ok(Verdict::Ready { .. }) | Err(Malformed) => Err(self.broken("it was to choose")),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.send.write_all(bytes).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended()),
        }
    }

    async fn read<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let mut bytes = [0; N];
        self.read_into(&mut bytes).await?;
        Ok(bytes)
    }

    /// `len` is limited by the caller.
    async fn read_vec(&mut self, len: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; len];
        self.read_into(&mut bytes).await?;
        Ok(bytes)
    }

    async fn read_into(&mut self, bytes: &mut [u8]) -> Result<(), Failure> {
        match self.receive.read_exact(bytes).await {
            Ok(()) => Ok(()),
            Err(ReadExactError::FinishedEarly(_) | ReadExactError::ReadError(_)) => {
                Err(self.ended())
            }
        }
    }

    /// The stream ended: with the connection, which says why, or alone, which it must not.
    fn ended(&self) -> Failure {
        match self.connection.close_reason() {
            Some(error) => self.parent.lost(&error),
            None => self.broken("the hello ended early"),
        }
    }
}

/// An address as people write it, whatever the socket's family.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

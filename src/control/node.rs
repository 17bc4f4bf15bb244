//! A connection of the control thread to one node, in RESP2, for the commands that slotway needs
//! itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::wire::{Wire, WireError};
use crate::cluster::{
    Info, NodeAddr, ParseError, Replies, Snapshot, UpstreamId, is_node_id, parse_info,
    parse_replies, parse_shards, parse_shards_tls, parse_slots, trust::View,
};
use crate::config::Config;
use crate::resp::reply::{error_text, text};
use crate::resp::write;
use crate::tls::Tls;
use crate::upstream::{Handshake, HandshakeError, verify_node_id};

/// What connecting to the nodes of one upstream requires: its logins and its TLS, which are for no
/// other's nodes. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// The upstream.
    pub(super) upstream: UpstreamId,
    /// The configuration as it would be with this upstream alone.
    pub(super) config: Arc<Config>,
    /// TLS of all upstreams.
    pub(super) tls: Arc<Tls>,
}

/// Why a node could not be asked, for the log and for `/readyz`.
#[derive(Debug, Error)]
pub(super) enum AskError {
    /// Connecting failed, or the connection was lost.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// `timeouts.connect` was exceeded.
    #[error("no answer within {} ms (timeouts.connect)", .0.as_millis())]
    Timeout(Duration),
    /// `timeouts.connect` was exceeded during the TLS handshake.
    #[error(
        "TLS, name {name}: no handshake within {limit} ms (timeouts.connect); does this port speak \
         TLS?"
    )]
    NoTls {
        /// The limit, milliseconds.
        limit: u128,
        /// The node's name.
        name: String,
    },
    /// AUTH was refused: the node's error.
    #[error("authentication refused, see upstream.user and upstream.password: {0}")]
    Auth(String),
    /// The reply is an error or does not have the expected form.
    #[error(transparent)]
    Answer(#[from] ParseError),
    /// No reply was received.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The handshake has failed otherwise: another node answered.
    #[error(transparent)]
    Handshake(HandshakeError),
}

impl From<HandshakeError> for AskError {
    fn from(error: HandshakeError) -> Self {
        match error {
            // Only a refusal of AUTH ends a handshake of the control thread.
            HandshakeError::Refused(error) => AskError::Auth(error),
            other => AskError::Handshake(other),
        }
    }
}

/// A node's view of the cluster.
#[derive(Debug)]
pub struct Answer {
    /// CLUSTER INFO: how far the view can be trusted.
    pub info: Info,
    /// The topology, host names not resolved.
    pub snapshot: Snapshot,
    /// The node's ID. If the ACL forbids CLUSTER MYID, the ID that the view has at the node's
    /// address, or else that address.
    pub witness: Box<str>,
}

impl Answer {
    /// The answer as evidence for [`crate::cluster::trust`].
    pub(super) fn as_view(&self) -> View<'_> {
        View { witness: &self.witness, info: self.info, snapshot: &self.snapshot }
    }
}

/// A connection to one node, kept between refreshes.
#[derive(Debug)]
pub(super) struct NodeConn {
    wire: Wire,
    /// The connection has TLS, so the TLS ports of nodes are used.
    tls: bool,
    asked: NodeAddr,
    /// Time limit of connecting, and of each command: `timeouts.connect`.
    limit: Duration,
    /// The node refuses CLUSTER SHARDS.
    by_slots: bool,
    /// A reply is outstanding that nobody waits for any more: the next one would be taken for it.
    out_of_step: bool,
}

impl NodeConn {
    /// Connects to the node called `name` and performs the handshake as slotway's own user. `id` is
    /// the ID that the node must have; empty: any.
    pub async fn connect(
        addr: SocketAddr,
        name: &str,
        id: &str,
        access: &Access,
    ) -> Result<Self, AskError> {
        let upstream = &access.config.upstream;
        let password = upstream.password.reveal();
        let credentials = (upstream.user.as_bytes(), password.as_bytes());
        let handshake = Handshake::for_control(credentials, &upstream.client_name, id);
        Self::open(addr, name, access, handshake).await
    }

    /// Connects to the Sentinel called `name` as `upstream.sentinel_user`.
    pub(super) async fn connect_to_sentinel(
        addr: SocketAddr,
        name: &str,
        access: &Access,
    ) -> Result<Self, AskError> {
        let upstream = &access.config.upstream;
        let password = upstream.sentinel_password.reveal();
        let credentials = (upstream.sentinel_user.as_bytes(), password.as_bytes());
        let handshake = Handshake::for_control(credentials, &upstream.client_name, "");
        Self::open(addr, name, access, handshake).await
    }

    /// Connects without a handshake, so that another user can log in.
    pub(super) async fn connect_without_handshake(
        addr: SocketAddr,
        name: &str,
        access: &Access,
    ) -> Result<Self, AskError> {
        Self::open(addr, name, access, Handshake::default()).await
    }

    async fn open(
        addr: SocketAddr,
        name: &str,
        access: &Access,
        handshake: Handshake,
    ) -> Result<Self, AskError> {
        let limit = access.config.timeouts.connect;
        let Access { upstream, tls, .. } = access;
        let has_tls = tls.is_upstream(*upstream);
        let mut securing = false;
        let connect = async {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            securing = has_tls;
            let wire = Wire::over(stream, name, *upstream, tls).await?;
            securing = false;
            let asked = NodeAddr { host: addr.ip().to_string().into(), port: addr.port() };
            let mut conn =
                NodeConn { wire, tls: has_tls, asked, limit, by_slots: false, out_of_step: false };
            conn.shake_hands(handshake).await?;
            Ok(conn)
        };
        match timeout(limit, connect).await {
            Ok(outcome) => outcome,
            Err(_) if securing => {
                Err(AskError::NoTls { limit: limit.as_millis(), name: name.to_owned() })
            }
            Err(_) => Err(AskError::Timeout(limit)),
        }
    }

    async fn shake_hands(&mut self, mut handshake: Handshake) -> Result<(), AskError> {
        if handshake.is_done() {
            return Ok(());
        }
        let mut commands = Vec::new();
        handshake.out.write_to(&mut commands)?;
        self.wire.write_all(&commands).await?;
        while !handshake.reply(&self.wire.reply().await?)? {}
        Ok(())
    }

    /// Whether the connection can be used for another command.
    pub(super) fn is_usable(&self) -> bool {
        !self.out_of_step
    }

    /// Sends one command and returns its reply.
    pub async fn ask<W: AsRef<[u8]>>(&mut self, command: &[W]) -> Result<Bytes, AskError> {
        let limit = self.limit;
        timeout(limit, self.exchange(command)).await.map_err(|_| AskError::Timeout(limit))?
    }

    async fn exchange<W: AsRef<[u8]>>(&mut self, command: &[W]) -> Result<Bytes, AskError> {
        let mut request = Vec::new();
        write::array_header(&mut request, command.len());
        command.iter().for_each(|word| write::bulk(&mut request, word.as_ref()));
        self.out_of_step = true;
        self.wire.write_all(&request).await?;
        let reply = self.wire.reply().await?;
        self.out_of_step = false;
        Ok(reply)
    }

    /// Subscribes to `channels`. No other commands may be sent any more.
    pub(super) async fn subscribe(&mut self, channels: &[&str]) -> Result<(), AskError> {
        let command: Vec<&str> = ["SUBSCRIBE"].iter().chain(channels).copied().collect();
        let confirmed = self.ask(&command).await?;
        if let Some(error) = error_text(&confirmed) {
            let said = String::from_utf8_lossy(error).into_owned();
            return Err(ParseError::Refused(said).into());
        }
        self.out_of_step = true;
        Ok(())
    }

    /// Waits for what a subscription brings: `true`, a message; `false`, something else. After
    /// `silence` the node is asked whether it is still there.
    ///
    /// # Errors
    /// The connection is lost, or the node does not answer.
    pub(super) async fn message(&mut self, silence: Duration) -> Result<bool, AskError> {
        let reply = match timeout(silence, self.wire.reply()).await {
            Ok(reply) => reply?,
            Err(_) => {
                let mut ping = Vec::new();
                write::request(&mut ping, &[b"PING"]);
                self.wire.write_all(&ping).await?;
                let limit = self.limit;
                timeout(limit, self.wire.reply()).await.map_err(|_| AskError::Timeout(limit))??
            }
        };
        Ok(reply.starts_with(b"*3\r\n$7\r\nmessage\r\n"))
    }

    /// Asks for the node's view of the cluster.
    pub async fn topology(&mut self) -> Result<Answer, AskError> {
        let id = self.node_id().await?;
        let info = parse_info(&self.ask(&["CLUSTER", "INFO"]).await?)?;
        let snapshot = self.view(&info).await?;
        let at_address = || snapshot.nodes.iter().find(|n| n.addr == self.asked).map(|n| &n.id);
        let witness = id.or_else(|| at_address().filter(|id| !id.is_empty()).cloned());
        let witness = witness.unwrap_or_else(|| self.asked.to_string().into());
        Ok(Answer { info, snapshot, witness })
    }

    async fn view(&mut self, info: &Info) -> Result<Snapshot, AskError> {
        let mut shards = None;
        if !self.by_slots {
            let reply = self.ask(&["CLUSTER", "SHARDS"]).await?;
            let parse = if self.tls { parse_shards_tls } else { parse_shards };
            match parse(&reply, &self.asked) {
                Ok(snapshot) if info.contradicts(&snapshot) => shards = Some(reply),
                Ok(snapshot) => return Ok(snapshot),
                Err(ParseError::Refused(_)) => self.by_slots = true,
                Err(error) => return Err(error.into()),
            }
        }
        let slots = self.ask(&["CLUSTER", "SLOTS"]).await?;
        let Some(shards) = shards else { return Ok(parse_slots(&slots, &self.asked)?) };
        let mut replies = Replies { shards: &shards, slots: &slots, nodes: b"" };
        let snapshot = parse_replies(&replies, &self.asked, self.tls)?;
        if !info.contradicts(&snapshot) {
            return Ok(snapshot);
        }
        let nodes = self.ask(&["CLUSTER", "NODES"]).await?;
        replies.nodes = &nodes;
        match parse_replies(&replies, &self.asked, self.tls) {
            // The ACL forbids CLUSTER NODES: nothing can complete the view.
            Err(ParseError::Refused(_)) => Ok(snapshot),
            complete => Ok(complete?),
        }
    }

    /// Asks for the node's ID; `None` if the node refuses.
    async fn node_id(&mut self) -> Result<Option<Box<str>>, AskError> {
        let reply = self.ask(&["CLUSTER", "MYID"]).await?;
        Ok(text(&reply).and_then(|id| std::str::from_utf8(id).ok()).map(Into::into))
    }

    /// Verifies that the node has the ID `expected`; without effect where that is no ID.
    ///
    /// # Errors
    /// It has another, or gave no reply.
    pub async fn verify(&mut self, expected: &str) -> Result<(), AskError> {
        if is_node_id(expected) {
            verify_node_id(&self.ask(&["CLUSTER", "MYID"]).await?, expected)?;
        }
        Ok(())
    }
}

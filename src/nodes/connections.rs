//! Connections to nodes: made, and given up.

use crate::cluster::UpstreamId;
use crate::common::{Core, Source};
use crate::dest::{ConnId, NodeId};
use crate::nodes::Nodes;
use crate::resp::Protocol;
use crate::sparsely;
use crate::stream::{Stream, keep_alive, retransmit_soon};
use crate::upstream::{ConnectionEnd, ConnectionState, Upstream};

/// So many pushes that nobody asked for are no accident: the connection is given up.
const MOST_STRANGE: u32 = 10_000;

/// Connections to nodes: how they are made, and why they are given up.
pub(crate) struct Connections<'a> {
    nodes: &'a mut Nodes,
}

impl Nodes {
    /// The methods about making connections and giving them up.
    #[inline]
    pub(crate) fn connections(&mut self) -> Connections<'_> {
        Connections { nodes: self }
    }
}

impl Connections<'_> {
    /// Gives the connection up if it has been in the making for too long.
    pub(crate) fn check_timeout(&mut self, conn: ConnId, core: &mut Core) {
        let Some(up) = self.nodes.upstreams.get(conn) else { return };
        if let ConnectionState::Connecting { until }
        | ConnectionState::Securing { until }
        | ConnectionState::Handshake { until } = up.state
            && until <= core.now
        {
            let why = match up.state {
                ConnectionState::Securing { .. } => ConnectionEnd::NoTlsHandshake,
                _ => ConnectionEnd::NoAnswer,
            };
            self.end_securing(conn);
            core.lose(conn, why);
        }
    }

    /// The node sent something that nobody asked for. `Err`: too often.
    #[cold]
    pub(crate) fn strange_push(
        &mut self,
        conn: ConnId,
        core: &mut Core,
    ) -> Result<(), ConnectionEnd> {
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return Ok(()) };
        up.unexpected_pushes += 1;
        if up.unexpected_pushes > MOST_STRANGE {
            return Err(ConnectionEnd::UnexpectedPushes);
        }
        let node = self.nodes.list.get(up.node.at()).map(|n| n.addr.to_string());
        sparsely!(core.lines.pushes, warn, node, "a node sends messages that nobody asked for");
        Ok(())
    }

    /// The connection is not among its node's any more.
    pub(crate) fn leave_node(&mut self, node: NodeId, conn: ConnId) {
        if let Some(node) = self.nodes.list.get_mut(node.at()) {
            let all = node.shared.iter_mut().chain(&mut node.replica).flatten();
            for slot in all.filter(|s| **s == Some(conn)) {
                *slot = None;
            }
        }
    }

    /// Why a node's connection is lost, in words.
    #[cold]
    pub(crate) fn tls_why(
        &self,
        conn: ConnId,
        error: &std::io::Error,
        core: &Core,
    ) -> ConnectionEnd {
        let up = self.nodes.upstreams.get(conn);
        let node = up.and_then(|up| self.nodes.list.get(up.node.at()));
        let upstream = node.map_or(UpstreamId::FIRST, |node| node.upstream);
        ConnectionEnd::Tls(core.shared.tls.why(upstream, error, node.map_or("", |node| &node.name)))
    }

    /// The connection is given up; a TLS handshake on it has taken too long.
    fn end_securing(&mut self, conn: ConnId) {
        let stream = self.nodes.upstreams.get_mut(conn).and_then(|up| up.stream.as_mut());
        if let Some(tls) = stream.and_then(Stream::tls) {
            tls.timed_out();
        }
    }

    /// A new shared connection to `node`, for its place `which`; gives its index.
    #[cold]
    pub(crate) fn add(
        &mut self,
        node: NodeId,
        protocol: Protocol,
        which: usize,
        core: &mut Core,
    ) -> ConnId {
        let mut up = Upstream::new(node, protocol);
        up.bulk = which >= core.settings.connections;
        let conn = self.nodes.upstreams.insert(up);
        let shared = self.nodes.list.get_mut(node.at()).map(|n| &mut n.shared);
        if let Some(slot) = shared.and_then(|s| s[protocol as usize].get_mut(which)) {
            *slot = Some(conn);
        }
        self.connect(conn, core);
        conn
    }

    /// Starts a connection attempt. `false`: it has failed already, and the connection is lost.
    pub(crate) fn connect(&mut self, conn: ConnId, core: &mut Core) -> bool {
        let until = core.now + core.settings.connect_timeout;
        core.arm_tick();
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return false };
        let Some(node) = self.nodes.list.get(up.node.at()) else { return false };
        let Some(addr) = node.socket else {
            let host = node.addr.host.to_string();
            core.lose(conn, ConnectionEnd::Unresolved { host });
            return false;
        };
        let registry = core.link.poll.registry();
        let stream = Stream::to_node(addr, &node.name, node.upstream, &core.shared.tls);
        let started = stream.and_then(|stream| {
            if let Some(socket) = stream.tcp() {
                // Without these it works as well, but for networks that swallow packets.
                let _ = retransmit_soon(socket);
                let own = core.settings.upstream(node.upstream);
                if let Some((idle, patience)) = own.and_then(|own| own.keepalive) {
                    let _ = keep_alive(socket, idle, patience);
                }
            }
            up.connecting(stream, until).watch(
                registry,
                Source::Upstream(conn).token(),
                true,
                false,
            )
        });
        if let Err(error) = started {
            let why = self.tls_why(conn, &error, core);
            core.lose(conn, why);
            return false;
        }
        true
    }
}

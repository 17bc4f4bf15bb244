//! Connections to nodes: made, and given up.

use crate::common::{Core, Source};
use crate::nodes::Nodes;
use crate::resp::Protocol;
use crate::sparsely;
use crate::stream::{Stream, keep_alive, retransmit_soon};
use crate::upstream::{ConnectionEnd, ConnectionState, Upstream};

/// So many pushes that nobody asked for are no accident: the connection is given up.
const MOST_STRANGE: u32 = 10_000;

impl Nodes {
    pub(crate) fn check_connect_timeout(&mut self, u: usize, core: &mut Core) {
        let Some(up) = self.upstreams.get(u) else { return };
        if let ConnectionState::Connecting { until }
        | ConnectionState::Securing { until }
        | ConnectionState::Handshake { until } = up.state
            && until <= core.now
        {
            let why = match up.state {
                ConnectionState::Securing { .. } => ConnectionEnd::NoTlsHandshake,
                _ => ConnectionEnd::NoAnswer,
            };
            self.end_securing(u);
            core.lose(u, why);
        }
    }

    #[cold]
    pub(crate) fn strange_push(&mut self, u: usize, core: &mut Core) -> Result<(), ConnectionEnd> {
        let Some(up) = self.upstreams.get_mut(u) else { return Ok(()) };
        up.unexpected_pushes += 1;
        if up.unexpected_pushes > MOST_STRANGE {
            return Err(ConnectionEnd::UnexpectedPushes);
        }
        let node = self.list.get(usize::from(up.node)).map(|n| n.addr.to_string());
        sparsely!(core.lines.pushes, warn, node, "a node sends messages that nobody asked for");
        Ok(())
    }

    /// The connection is not among its node's any more.
    pub(crate) fn leave_node(&mut self, node: usize, u: usize) {
        if let Some(node) = self.list.get_mut(node) {
            let all = node.shared.iter_mut().chain(&mut node.replica).flatten();
            for slot in all.filter(|s| **s == Some(u)) {
                *slot = None;
            }
        }
    }

    /// Why a node's connection is lost, in words.
    #[cold]
    pub(crate) fn tls_why(&self, u: usize, error: &std::io::Error, core: &Core) -> ConnectionEnd {
        let up = self.upstreams.get(u);
        let node = up.and_then(|up| self.list.get(usize::from(up.node)));
        ConnectionEnd::Tls(core.shared.tls.why(error, node.map_or("", |node| &node.name)))
    }

    /// The connection is given up; a TLS handshake on it has taken too long.
    pub(crate) fn end_securing(&mut self, u: usize) {
        let stream = self.upstreams.get_mut(u).and_then(|up| up.stream.as_mut());
        if let Some(tls) = stream.and_then(Stream::tls) {
            tls.timed_out();
        }
    }

    #[cold]
    pub(crate) fn new_upstream(
        &mut self,
        node: u16,
        protocol: Protocol,
        which: usize,
        core: &mut Core,
    ) -> usize {
        let mut up = Upstream::new(node, protocol);
        up.bulk = which >= core.settings.connections;
        let u = self.upstreams.insert(up);
        let shared = self.list.get_mut(usize::from(node)).map(|n| &mut n.shared);
        if let Some(slot) = shared.and_then(|s| s[protocol as usize].get_mut(which)) {
            *slot = Some(u);
        }
        self.connect(u, core);
        u
    }

    /// Starts a connection attempt. `false`: it has failed already, and the connection is lost.
    pub(crate) fn connect(&mut self, u: usize, core: &mut Core) -> bool {
        let until = core.now + core.settings.connect_timeout;
        core.arm_tick();
        let Some(up) = self.upstreams.get_mut(u) else { return false };
        let Some(node) = self.list.get(usize::from(up.node)) else { return false };
        let Some(addr) = node.socket else {
            let host = node.addr.host.to_string();
            core.lose(u, ConnectionEnd::Unresolved { host });
            return false;
        };
        let registry = core.link.poll.registry();
        let started = Stream::to_node(addr, &node.name, &core.shared.tls).and_then(|stream| {
            if let Some(socket) = stream.tcp() {
                // Without these it works as well, but for networks that swallow packets.
                let _ = retransmit_soon(socket);
                if let Some((idle, patience)) = core.settings.keepalive {
                    let _ = keep_alive(socket, idle, patience);
                }
            }
            up.connecting(stream, until).watch(registry, Source::Upstream(u).token(), true, false)
        });
        if let Err(error) = started {
            let why = self.tls_why(u, &error, core);
            core.lose(u, why);
            return false;
        }
        true
    }
}

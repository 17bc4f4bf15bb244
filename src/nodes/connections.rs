//! Connections to nodes: which there are, which can be used, and what is put on them.

use std::sync::Arc;

use crate::cluster::{NO_SLOT, NodeAddr};
use crate::command::CommandId;
use crate::common::requests::discarded;
use crate::common::{Core, Source};
use crate::errors::Failure;
use crate::metrics::NodeStats;
use crate::nodes::{Node, Nodes, reaccount};
use crate::placement::Refusal;
use crate::resp::Protocol;
use crate::route::{Script, flag};
use crate::sparsely;
use crate::stream::{Stream, keep_alive, retransmit_soon};
use crate::upstream::{ConnectionEnd, ConnectionState, Pending, Upstream};

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

    /// Sends something whose reply is nobody's.
    pub(crate) fn discard(&mut self, u: usize, frame: &[u8], core: &mut Core) {
        self.send(u, discarded(CommandId(0), core.now), frame, core);
    }

    pub(crate) fn pop_pending(&mut self, u: usize, core: &mut Core) {
        let Some(up) = self.upstreams.get_mut(u) else { return };
        if let Some(pending) = up.pending.pop_front() {
            up.queue.release(pending.len as usize, &mut core.spare.pool);
        }
    }

    #[inline]
    pub(crate) fn route(&self, slot: u16) -> Option<u16> {
        self.placement.slots.route(slot)
    }

    /// Puts a command into a connection's queue.
    #[inline]
    pub(crate) fn send(&mut self, u: usize, mut pending: Pending, frame: &[u8], core: &mut Core) {
        let Some(up) = self.upstreams.get_mut(u) else { return };
        pending.len = frame.len() as u32;
        up.queue.push(frame, &mut core.spare.pool);
        up.pending.push_back(pending);
        self.mark_upstream(u, core);
    }

    pub(crate) fn send_owned(
        &mut self,
        u: usize,
        mut pending: Pending,
        frame: Vec<u8>,
        core: &mut Core,
    ) {
        let Some(up) = self.upstreams.get_mut(u) else { return };
        pending.len = frame.len() as u32;
        up.queue.push_owned(frame, &mut core.spare.pool);
        up.pending.push_back(pending);
        self.mark_upstream(u, core);
    }

    /// The same primary for the same client, so that what it sends one after the other is
    /// answered in that order; another one only while that one is not reached.
    pub(crate) fn any_primary(&self, index: usize) -> Option<u16> {
        let first = index.checked_rem(self.placement.slots.primaries().len())?;
        let in_turn = || {
            self.placement
                .slots
                .primaries()
                .iter()
                .cycle()
                .skip(first)
                .take(self.placement.slots.primaries().len())
        };
        let reached = in_turn().find(|&&node| self.is_reached(node));
        reached.or_else(|| in_turn().next()).copied()
    }

    /// No connection to it is waiting for its next attempt, or for a sign of life.
    pub(crate) fn is_reached(&self, node: u16) -> bool {
        let shared = self.list.get(usize::from(node)).map(|n| &n.shared);
        let mut ours = shared.into_iter().flatten().flatten().flatten();
        ours.all(|&u| {
            self.upstreams
                .get(u)
                .is_none_or(|up| up.state != ConnectionState::Backoff && !up.suspect)
        })
    }

    /// A shared connection to the node stands, and is not suspected of being dead.
    pub(crate) fn is_connected(&self, node: u16) -> bool {
        let shared = self.list.get(usize::from(node)).map(|n| &n.shared);
        let mut ours = shared.into_iter().flatten().flatten().flatten();
        ours.any(|&u| {
            self.upstreams
                .get(u)
                .is_some_and(|up| up.state == ConnectionState::Ready && !up.suspect)
        })
    }

    /// What is only kept for reuse.
    pub(crate) fn trim(&mut self, core: &mut Core) {
        core.spare.trim();
        for (_, up) in self.upstreams.iter_mut().filter(|(_, up)| up.pending.is_empty()) {
            up.pending.shrink_to_fit();
            let held = up.memory();
            reaccount(&mut core.memory.accounted, &mut up.accounted, held);
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

    /// The node of the cluster that a redirection names.
    pub(crate) fn named_by(&self, refusal: &Refusal) -> Option<u16> {
        match refusal {
            Refusal::Moved(_, addr) | Refusal::Ask(_, addr) => self.known_node(addr),
            Refusal::Later(_) => None,
        }
    }

    /// A node is not reached: SCRIPT LOAD does not wait for it, as it is given the script when it is
    /// needed.
    pub(crate) fn loads_without(&mut self, u: usize, node: &str, core: &mut Core) {
        if !self.placement.slots.primaries().iter().any(|&n| self.is_reached(n)) {
            return; // somebody has to take it
        }
        let router = Arc::clone(&core.router);
        let Some(up) = self.upstreams.get_mut(u) else { return };
        let loads = up.take_unsent(&mut core.spare.pool, |p| {
            p.has(flag::NODE_BOUND) && router.script(p.command) == Some(Script::Load)
        });
        for (pending, _) in loads {
            core.fail(&pending, node, &Failure::NodeNotReached);
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

    /// The node at `addr`, if the cluster has it. Only such nodes are connected to: a redirection
    /// comes in a reply, and a script can make a node reply with anything.
    pub(crate) fn known_node(&self, addr: &NodeAddr) -> Option<u16> {
        let at = self.list.iter().position(|n| n.known && n.addr == *addr)?;
        u16::try_from(at).ok()
    }

    /// The worker's index of the node at `addr`; a new one if it is not known yet.
    pub(crate) fn node_at(&mut self, addr: &NodeAddr, core: &mut Core) -> u16 {
        if let Some(i) = self.list.iter().position(|n| n.addr == *addr) {
            return i as u16;
        }
        // An IP address needs no name server; a name is resolved by control, with the topology.
        let ip: Option<std::net::IpAddr> = addr.host.parse().ok();
        // The last one is for large transfers.
        let connections = core.settings.connections + 1;
        let node = Node {
            addr: addr.clone(),
            ident: crate::pubsub::ident(addr),
            name: addr.host.clone(),
            id: "".into(),
            socket: ip.map(|ip| (ip, addr.port).into()),
            known: false,
            unreached_since: 0,
            shard_slot: NO_SLOT,
            shared: [vec![None; connections], vec![None; connections]],
            replica: [vec![None; connections], vec![None; connections]],
            latency: Default::default(),
        };
        let lent_from = |i: usize| self.upstreams.iter().any(|(_, up)| usize::from(up.node) == i);
        let mut unused = self.list.iter().enumerate().filter(|(_, n)| !n.known && n.is_unused());
        let free = unused.find(|(i, _)| !lent_from(*i)).map(|(i, _)| i);
        match free.and_then(|i| self.list.get_mut(i).map(|n| (i, n))) {
            Some((i, place)) => {
                *place = node;
                if let Some(stats) = core.stats.nodes.get_mut(i) {
                    *stats = NodeStats::default();
                }
                i as u16
            }
            None => {
                self.list.push(node);
                core.stats.nodes.resize(self.list.len(), NodeStats::default());
                (self.list.len() - 1) as u16
            }
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

    /// The connection has something to be written at the end of the turn.
    #[inline]
    pub(crate) fn mark_upstream(&mut self, u: usize, core: &mut Core) {
        if let Some(up) = self.upstreams.get_mut(u)
            && !up.dirty
        {
            up.dirty = true;
            core.turn.dirty_upstreams.push(u);
        }
    }
}

impl Node {
    /// No connection is kept for it.
    pub(crate) fn is_unused(&self) -> bool {
        self.shared.iter().chain(&self.replica).flatten().all(Option::is_none)
    }
}

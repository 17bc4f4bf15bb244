//! Nodes' connections: make, write, read.

use super::scripts::Scripts;
use super::state::base;
use super::state::{Base, Core, Nodes};
use super::{Node, Source, Worker, reaccount};
use crate::buf::{CHUNK, WRITE_LIMIT};
use crate::cluster::{NO_SLOT, NodeAddr};
use crate::mailbox::ToControl;
use crate::metrics::NodeStats;
use crate::resp::Protocol;
use crate::stream::{Stream, keep_alive, retransmit_soon};
use crate::upstream::{ConnectionEnd, Handshake, State, Upstream};
use crate::users::OWN;

/// A write of fewer bytes is put off by a turn while the node has commands to answer.
const DEFER_BELOW: usize = 4 << 10;

impl Nodes {
    /// The node at `addr`, if the cluster has it. Only such nodes are connected to: a redirection
    /// comes in a reply, and a script can make a node reply with anything.
    pub(super) fn known_node(&self, addr: &NodeAddr) -> Option<u16> {
        let at = self.list.iter().position(|n| n.known && n.addr == *addr)?;
        u16::try_from(at).ok()
    }

    /// The worker's index of the node at `addr`; a new one if it is not known yet.
    pub(super) fn node_at(&mut self, addr: &NodeAddr, core: &mut Core) -> u16 {
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
    fn new_upstream(
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
    pub(super) fn connect(&mut self, u: usize, core: &mut Core) -> bool {
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
        let started = up.connect(addr, until).and_then(|stream| {
            if let Stream::Tcp(socket) = stream {
                // A proxy that waits to fill packets waits for nothing.
                let _ = socket.set_nodelay(true);
                // Without these it works as well, but for networks that swallow packets.
                let _ = retransmit_soon(&*socket);
                if let Some((idle, patience)) = core.settings.keepalive {
                    let _ = keep_alive(&*socket, idle, patience);
                }
            }
            stream.watch(registry, Source::Upstream(u).token(), true, false)
        });
        if let Err(error) = started {
            core.lose(u, error.into());
            return false;
        }
        if core.shared.tls.is_upstream()
            && let Err(why) = self.secure(u, core)
        {
            core.lose(u, why);
            return false;
        }
        true
    }

    /// The connection has something to be written at the end of the turn.
    #[inline]
    pub(super) fn mark_upstream(&mut self, u: usize, core: &mut Core) {
        if let Some(up) = self.upstreams.get_mut(u)
            && !up.dirty
        {
            up.dirty = true;
            core.turn.dirty_upstreams.push(u);
        }
    }
}

impl Scripts {
    pub(super) fn ready(&mut self, u: usize, nodes: &mut Nodes, core: &mut Core) {
        let Some(up) = nodes.upstreams.get_mut(u) else { return };
        up.state = State::Ready;
        up.ready_since = core.now;
        up.last_error = None;
        if up.failures > 0 && up.dedicated.is_none() {
            // The node may have been restarted, and be of another version now. Control may be gone
            // at the very end: nothing to ask then.
            let _ = core.link.control.send(ToControl::RefreshCommands);
        }
        let node = usize::from(up.node);
        if let Some(stats) = core.stats.nodes.get_mut(node) {
            stats.connects += 1;
        }
        if let Some(node) = nodes.list.get_mut(node) {
            node.unreached_since = 0;
        }
        let addr = nodes.list.get(node).map(|n| n.addr.to_string());
        tracing::debug!(node = addr, "connected");
        self.scripts_before_all(u, nodes, core);
        nodes.check_queued(u, core);
        nodes.mark_upstream(u, core);
    }
}

impl Base<'_> {
    /// The shared connection to `node` for a client that speaks `protocol`; made if there is none.
    #[inline]
    pub(super) fn upstream_for(&mut self, node: u16, protocol: Protocol, client: usize) -> usize {
        // Hardly ever is there any user of the cluster.
        let realm = if self.access.realms.is_empty() { OWN } else { self.clients.realm_of(client) };
        self.upstream_as(realm, node, protocol, client)
    }

    /// The same with the rights of this realm, which is one that is known.
    #[inline]
    pub(super) fn upstream_as(
        &mut self,
        realm: u16,
        node: u16,
        protocol: Protocol,
        client: usize,
    ) -> usize {
        if realm != OWN {
            return self.realm_upstream(realm, node, protocol, client);
        }
        let which = self.clients.connection_of(client, self.core);
        let shared = self.nodes.list.get(usize::from(node)).map(|n| &n.shared);
        if let Some(Some(u)) = shared.and_then(|s| s[protocol as usize].get(which)) {
            return *u;
        }
        self.nodes.new_upstream(node, protocol, which, self.core)
    }

    fn connecting(&mut self, u: usize) {
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
        let Some(stream) = up.stream.as_mut() else { return };
        match stream.connected() {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotConnected => return,
            Err(error) => return self.core.lose(u, error.into()),
        }
        let token = Source::Upstream(u).token();
        if let Err(error) = stream.watch(self.core.link.poll.registry(), token, false, true) {
            return self.core.lose(u, error.into());
        }
        if stream.tls().is_some() {
            up.state =
                State::Securing { until: self.core.now + self.core.settings.connect_timeout };
            return self.securing(u);
        }
        self.greet(u);
    }

    /// The connection stands: what is said first.
    pub(super) fn greet(&mut self, u: usize) {
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
        let settings = &self.core.settings;
        let (identify, name) = (up.dedicated.is_some(), &settings.client_name);
        let password = settings.password.reveal();
        // A realm that is gone is nobody's, not slotway's: its number stays, and gets no further.
        let who = match up.realm {
            OWN => Some((settings.user.as_bytes(), password.as_bytes())),
            realm => {
                self.access.realms.get(&realm).map(|realm| (&*realm.who.user, &*realm.who.password))
            }
        };
        let Some(who) = who else { return self.core.lose(u, ConnectionEnd::UserGone) };
        up.handshake = match up.realm {
            OWN => Handshake::new(up.protocol, who, name, identify, &mut self.core.spare.pool),
            _ => Handshake::for_user(up.protocol, who, name, &mut self.core.spare.pool),
        };
        if up.read_only {
            up.handshake.read_only(&mut self.core.spare.pool);
        }
        // Addresses are given to other servers, whose data a client must not see or change.
        if !self.access.unverified.contains(&up.realm)
            && let Some(node) = self.nodes.list.get(usize::from(up.node))
        {
            up.handshake.expect_node(&node.id, &mut self.core.spare.pool);
        }
        up.state = State::Handshake { until: self.core.now + settings.connect_timeout };
        if up.handshake.is_done() {
            self.scripts.ready(u, self.nodes, self.core);
        }
        self.nodes.mark_upstream(u, self.core);
    }

    #[inline]
    fn account_upstream(&mut self, u: usize) {
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
        let held = up.held();
        reaccount(&mut self.core.memory.accounted, &mut up.accounted, held);
        let (busy, growing) = (!up.pending.is_empty(), up.tail.len() > CHUNK);
        if busy {
            self.core.arm_tick();
        }
        if growing && self.clients.is_over_memory(self.nodes, self.core) {
            self.clients.refuse_reply(u, self.nodes, self.core);
        }
        self.clients.wake_waiters(u, self.nodes, self.core);
        self.retire(u);
    }
}

impl Worker {
    pub(super) fn upstream_event(&mut self, u: usize, event: &mio::event::Event) {
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
        match up.state {
            State::Connecting { .. } => return base!(self).connecting(u),
            State::Securing { .. } => return base!(self).securing(u),
            _ => {}
        }
        up.peer_closed |= event.is_read_closed();
        up.blocked &= !event.is_writable();
        if event.is_writable() {
            self.nodes.mark_upstream(u, &mut self.core);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.upstream_readable(u);
        }
    }

    pub(super) fn flush_upstream(&mut self, u: usize) {
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
        // While the node is busy with earlier commands a small write can wait for one turn more:
        // it then carries what the other clients send meanwhile, and costs both sides one call.
        if !up.deferred
            && up.state == State::Ready
            && up.queue.sent() > 0
            && (1..DEFER_BELOW).contains(&up.queue.unsent())
        {
            up.deferred = true;
            self.core.turn.deferred.push(u);
            return;
        }
        up.deferred = false;
        up.dirty = false;
        if up.blocked && up.suspect {
            return base!(self).account_upstream(u);
        }
        let written = if up.blocked { Ok((0, true)) } else { up.flush() };
        match written {
            Ok((n, full)) => {
                if let Some(stats) = self.core.stats.nodes.get_mut(usize::from(up.node)) {
                    stats.bytes_sent += n as u64;
                }
                if n > 0 && up.state == State::Ready {
                    let at = match self.seeing.traced.is_empty() {
                        true => self.core.now,
                        false => self.core.clock.epoch.elapsed().as_micros() as u64,
                    };
                    up.stamps.wrote(n, up.queue.sent(), at);
                }
                let connecting =
                    matches!(up.state, State::Connecting { .. } | State::Securing { .. });
                up.blocked = full;
                if n >= WRITE_LIMIT && up.queue.unsent() > 0 && !full {
                    // The rest is the next turn's.
                    up.dirty = true;
                    up.deferred = true;
                    self.core.turn.deferred.push(u);
                }
                if full != up.watching
                    && !connecting
                    && let Some(stream) = up.stream.as_mut()
                {
                    up.watching = full;
                    let token = Source::Upstream(u).token();
                    if let Err(e) = stream.watch(self.core.link.poll.registry(), token, full, true)
                    {
                        return self.core.lose(u, e.into());
                    }
                }
            }
            Err(error) => {
                let why = self.nodes.tls_why(u, &error, &self.core);
                return self.core.lose(u, why);
            }
        }
        base!(self).account_upstream(u);
    }
}

impl Node {
    /// No connection is kept for it.
    pub(super) fn is_unused(&self) -> bool {
        self.shared.iter().chain(&self.replica).flatten().all(Option::is_none)
    }
}

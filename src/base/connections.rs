//! Connections to nodes: made, greeted, accounted for, forgotten.

use std::sync::Arc;

use crate::base::Base;
use crate::buf::CHUNK;
use crate::command::CommandId;
use crate::common::Source;
use crate::common::requests::discarded;
use crate::dest::{ConnId, NodeId};
use crate::nodes::reaccount;
use crate::resp::{Args, Protocol};
use crate::route::Fan;
use crate::scripts::Sha;
use crate::upstream::{ConnectionEnd, ConnectionState, Handshake, HandshakeError};
use crate::users::{OWN_REALM, database_of};

impl Base<'_> {
    pub(crate) fn handshake_reply(
        &mut self,
        conn: ConnId,
        frame: &[u8],
    ) -> Result<(), ConnectionEnd> {
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return Ok(()) };
        if up.stream.is_none() {
            // A dedicated connection that was closed while what it had said was being read.
            return Ok(());
        }
        if frame.first() == Some(&b'>') {
            return Ok(());
        }
        match up.handshake.reply(frame) {
            Ok(false) => Ok(()),
            Ok(true) => {
                if let Some(dedicated) = up.dedicated.as_mut() {
                    dedicated.id = up.handshake.client_id().unwrap_or(0);
                }
                if up.handshake.is_unverified() {
                    let realm = up.realm;
                    self.access.note_unverified(realm);
                }
                self.scripts.ready(conn, self.nodes, self.core);
                Ok(())
            }
            Err(HandshakeError::Refused(text)) => {
                self.access.realm_refused(conn, &text, self.nodes, self.core);
                if let Some(up) = self.nodes.upstreams.get_mut(conn) {
                    up.refused = Some(text.as_bytes().into());
                }
                Err(ConnectionEnd::HandshakeRefused(text))
            }
            Err(stranger @ HandshakeError::WrongNode { .. }) => {
                self.core.stats.strangers += 1;
                Err(stranger.into())
            }
            Err(loading @ HandshakeError::Loading(_)) => Err(loading.into()),
        }
    }

    /// SCRIPT EXISTS is to say 1 of what slotway has, and to be right: the nodes are given it.
    pub(crate) fn scripts_to_primaries(&mut self, index: usize, command: CommandId, args: &Args) {
        let Some(client) = self.clients.slab.get(index) else { return };
        let protocol = client.session.protocol;
        let mut loads: Vec<Arc<[u8]>> = Vec::new();
        for sha in args.iter().skip(2).filter_map(Sha::parse) {
            let load = self.scripts.store.load_of(&sha);
            loads.extend(load.filter(|load| !loads.contains(load)));
        }
        if loads.is_empty() {
            return;
        }
        let upstreams = self.core.router.view(client.session.view).upstreams();
        let primaries = self.nodes.fan_targets(upstreams, Fan::Primaries, self.core);
        for node in primaries.into_iter().flatten() {
            let conn = self.upstream_for(node, protocol, index);
            for load in &loads {
                self.core.stats.script_loads += 1;
                // Nobody waits for what the node says: if it refuses, EVALSHA says NOSCRIPT.
                let pending = discarded(command, self.core.now);
                self.nodes.send(conn, pending, load, self.core);
            }
        }
    }

    /// Forgets a connection whose node has left the cluster, or that was set aside, once nothing
    /// waits for it. `true`: it is gone.
    pub(crate) fn retire(&mut self, conn: ConnId) -> bool {
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return true };
        let node = up.node;
        let known = self.nodes.list.get(node.at()).is_none_or(|n| n.known);
        if let Some(dedicated) = up.dedicated {
            if !known && dedicated.client.is_none() {
                self.clients.lending().close(conn, self.nodes, self.core);
            }
            return false;
        }
        let wanted = known && !up.retiring && (!up.bulk || self.core.shared.has_bulk_connections());
        if wanted || !up.pending.is_empty() {
            return false;
        }
        self.access.remove_upstream(conn, self.nodes, self.core);
        true
    }

    /// The shared connection to `node` for a client that speaks `protocol`; made if there is none.
    #[inline]
    pub(crate) fn upstream_for(
        &mut self,
        node: NodeId,
        protocol: Protocol,
        client: usize,
    ) -> ConnId {
        // Hardly ever is there any user of the cluster.
        let realm =
            if self.access.realms.is_empty() { OWN_REALM } else { self.clients.realm_of(client) };
        self.upstream_as(realm, node, protocol, client)
    }

    /// The same with the rights of this realm, which is one that is known.
    #[inline]
    pub(crate) fn upstream_as(
        &mut self,
        realm: u16,
        node: NodeId,
        protocol: Protocol,
        client: usize,
    ) -> ConnId {
        if realm != OWN_REALM {
            return self.realm_upstream(realm, node, protocol, client);
        }
        let which = self.clients.connection_of(client, self.core);
        let shared = self.nodes.list.get(node.at()).map(|n| &n.shared);
        if let Some(Some(conn)) = shared.and_then(|s| s[protocol as usize].get(which)) {
            return *conn;
        }
        self.nodes.connections().add(node, protocol, which, self.core)
    }

    pub(crate) fn connecting(&mut self, conn: ConnId) {
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return };
        let Some(stream) = up.stream.as_mut() else { return };
        match stream.connected() {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotConnected => return,
            Err(error) => return self.core.lose(conn, error.into()),
        }
        let token = Source::Upstream(conn).token();
        if let Err(error) = stream.watch(self.core.link.poll.registry(), token, false, true) {
            return self.core.lose(conn, error.into());
        }
        if stream.tls().is_some() {
            up.state = ConnectionState::Securing {
                until: self.core.now + self.core.settings.connect_timeout,
            };
            return self.securing(conn);
        }
        self.greet(conn);
    }

    /// The connection stands: what is said first.
    pub(crate) fn greet(&mut self, conn: ConnId) {
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return };
        let settings = &self.core.settings;
        let upstream = self.nodes.list.get(up.node.at()).map(|node| node.upstream);
        // An upstream's login is for its own nodes only.
        let Some(own) = upstream.and_then(|upstream| settings.upstream(upstream)) else {
            return self.core.lose(conn, ConnectionEnd::UserGone);
        };
        let (identify, name) = (up.dedicated.is_some(), &own.client_name);
        let password = own.password.reveal();
        // A realm that is gone is nobody's, not slotway's: its number stays, and gets no further.
        let database = database_of(up.realm);
        let who = match up.realm {
            _ if database.is_some() => Some((own.user.as_bytes(), password.as_bytes())),
            realm => {
                self.access.realms.get(&realm).map(|realm| (&*realm.who.user, &*realm.who.password))
            }
        };
        let Some(who) = who else { return self.core.lose(conn, ConnectionEnd::UserGone) };
        up.handshake = match database {
            Some(_) => Handshake::new(up.protocol, who, name, identify),
            None => Handshake::for_user(up.protocol, who, name),
        };
        if let Some(database) = database.filter(|&database| database != 0) {
            up.handshake.select(database);
        }
        // A replica outside of a cluster answers reads, and does not know READONLY.
        let node = self.nodes.list.get(up.node.at());
        if up.read_only && node.is_none_or(|node| !node.slots.is_one()) {
            up.handshake.read_only();
        }
        // Addresses are given to other servers, whose data a client must not see or change.
        if !self.access.unverified.contains(&up.realm)
            && let Some(node) = self.nodes.list.get(up.node.at())
        {
            up.handshake.expect_node(&node.id);
        }
        up.state = ConnectionState::Handshake { until: self.core.now + settings.connect_timeout };
        if up.handshake.is_done() {
            self.scripts.ready(conn, self.nodes, self.core);
        }
        self.nodes.mark_upstream(conn, self.core);
    }

    #[inline]
    pub(crate) fn account_upstream(&mut self, conn: ConnId) {
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return };
        let held = up.memory();
        reaccount(&mut self.core.memory.accounted, &mut up.accounted, held);
        let (busy, growing) = (!up.pending.is_empty(), up.tail.len() > CHUNK);
        if busy {
            self.core.arm_tick();
        }
        if growing && self.clients.memory().is_over_limit(self.nodes, self.core) {
            self.clients.deliveries().refuse_reply(conn, self.nodes, self.core);
        }
        self.clients.fairness().wake(conn, self.nodes, self.core);
        self.retire(conn);
    }
}

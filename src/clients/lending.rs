//! Connections to nodes that are lent to one client at a time.

use crate::clients::Clients;
use crate::common::Core;
use crate::dest::{ClientId, ConnId, Dest, NodeId};
use crate::errors::Failure;
use crate::mailbox::{ProbeResult, Probed};
use crate::metrics::LimitHit;
use crate::nodes::{Nodes, reaccount};
use crate::resp::Protocol;
use crate::upstream::{ConnectionState, Dedicated, Upstream};

/// Why no connection is lent.
#[derive(Debug)]
pub(crate) enum LendError {
    /// No connection can be made at the moment.
    NotNow,
    /// A limit is reached.
    Limit(Failure),
}

impl From<LendError> for Failure {
    fn from(error: LendError) -> Failure {
        match error {
            LendError::NotNow => Failure::NoConnection,
            LendError::Limit(failure) => failure,
        }
    }
}

/// Connections to nodes that are lent to clients, and what clients keep of them.
pub(crate) struct Lending<'a> {
    clients: &'a mut Clients,
}

impl Clients {
    /// The connections that are lent to clients.
    pub(crate) fn lending(&mut self) -> Lending<'_> {
        Lending { clients: self }
    }
}

impl Lending<'_> {
    /// A connection to `node` for this client alone.
    ///
    /// # Errors
    /// The limit of such connections is reached, or none can be made at the moment.
    pub(crate) fn lend(
        &mut self,
        node: NodeId,
        protocol: Protocol,
        client: ClientId,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Result<ConnId, LendError> {
        let configured = core.settings.dedicated;
        let most = configured.min(core.shared.max_dedicated());
        if !core.shared.lend(most) {
            core.stats.limits_hit[LimitHit::Dedicated as usize] += 1;
            return Err(LendError::Limit(match most == configured {
                true => Failure::TooManyDedicated { limit: most },
                false => Failure::TooManyDedicatedForFiles { configured, lowered: most },
            }));
        }
        let lent = Dedicated { client: Some(client), id: 0 };
        let realm = self.clients.realm_of(client.at());
        let fits = |&conn: &ConnId| {
            let fits = |up: &Upstream| (up.node, up.protocol, up.realm) == (node, protocol, realm);
            nodes.upstreams.get(conn).is_some_and(fits)
        };
        if let Some(at) = nodes.dedicated.idle.iter().position(fits) {
            let conn = nodes.dedicated.idle.swap_remove(at);
            if let Some(dedicated) =
                nodes.upstreams.get_mut(conn).and_then(|up| up.dedicated.as_mut())
            {
                dedicated.client = lent.client;
                return Ok(conn);
            }
        }
        let mut up = Upstream::new(node, protocol);
        up.dedicated = Some(lent);
        up.realm = realm;
        let conn = nodes.upstreams.insert(up);
        if nodes.connections().connect(conn, core) { Ok(conn) } else { Err(LendError::NotNow) }
    }

    /// The client is done with the connection.
    pub(crate) fn give_back(&mut self, conn: ConnId, nodes: &mut Nodes, core: &mut Core) {
        let Some(up) = nodes.upstreams.get_mut(conn) else { return };
        let Some(dedicated) = up.dedicated.as_mut() else { return };
        if nodes.dedicated.dead.contains(&conn) {
            return;
        }
        if dedicated.client.take().is_some() {
            core.shared.give_back();
        }
        let clean = up.state == ConnectionState::Ready
            && up.pending.iter().all(|p| p.dest == Dest::Discard)
            && nodes.list.get(up.node.at()).is_some_and(|n| n.known);
        if clean
            && nodes.dedicated.idle.len() < core.shared.max_idle_dedicated()
            && !nodes.dedicated.idle.contains(&conn)
        {
            nodes.dedicated.idle.push(conn);
        } else {
            self.close(conn, nodes, core);
        }
    }

    /// Closes the connection; its place is free at the end of the turn, and may be another
    /// connection's then: nobody may keep its index.
    pub(crate) fn close(&mut self, conn: ConnId, nodes: &mut Nodes, core: &mut Core) {
        nodes.dedicated.idle.retain(|&i| i != conn);
        let Some(up) = nodes.upstreams.get_mut(conn) else { return };
        if up.dedicated.is_none() || nodes.dedicated.dead.contains(&conn) {
            return;
        }
        if let Some(mut stream) = up.stream.take() {
            stream.unwatch(core.link.poll.registry());
        }
        let client = up.dedicated.replace(Dedicated::default()).and_then(|d| d.client);
        up.state = ConnectionState::Backoff;
        let pending = std::mem::take(&mut up.pending);
        up.queue.clear(&mut core.spare.pool);
        up.tail = Vec::new();
        reaccount(&mut core.memory.accounted, &mut up.accounted, 0);
        nodes.dedicated.dead.push(conn);
        if let Some(client) = client {
            core.shared.give_back();
            self.lent_of(client, |lent| lent.forget(conn));
        }
        // A gathering ends when it has heard of all its parts, whether its client is there or not.
        for pending in pending.iter().filter(|p| matches!(p.dest, Dest::Part { .. })) {
            core.fail(pending, "slotway", &Failure::LentConnectionClosed);
        }
    }

    /// Control has looked at a silent node.
    pub(crate) fn probed(&mut self, probed: &Probed, nodes: &mut Nodes, core: &mut Core) {
        let begun = probed.begun.saturating_duration_since(core.clock.epoch).as_micros() as u64;
        let here = |up: &Upstream| {
            let node = nodes.list.get(up.node.at());
            node.is_some_and(|n| n.socket == Some(probed.node))
        };
        let silent = |up: &Upstream| {
            up.state == ConnectionState::Ready
                && (1..=begun).contains(&up.quiet_since)
                && up.seen_read == up.last_read
        };
        let found = nodes.upstreams.iter().filter(|(_, up)| here(up));
        let (shared, dedicated): (Vec<_>, Vec<_>) =
            found.partition(|(_, up)| up.dedicated.is_none());
        let shared = shared.into_iter().filter(|(_, up)| silent(up));
        let shared: Vec<ConnId> = shared.map(|(conn, _)| conn).collect();
        let idle: Vec<ConnId> = dedicated.into_iter().map(|(conn, _)| conn).collect();
        for conn in shared {
            nodes.silence().after_probe(conn, probed.verdict, core);
        }
        if probed.verdict == ProbeResult::Unreachable {
            let idle: Vec<ConnId> =
                idle.into_iter().filter(|conn| nodes.dedicated.idle.contains(conn)).collect();
            idle.into_iter().for_each(|conn| self.close(conn, nodes, core));
        }
    }

    /// Changes what is lent to the client, from nothing on.
    pub(crate) fn lent(&mut self, index: usize, change: impl FnOnce(&mut crate::client::Lent)) {
        if let Some(client) = self.clients.slab.get_mut(index) {
            change(client.lent.get_or_insert_with(Box::default));
        }
    }

    /// Changes what is lent to the client, if it is here and has anything.
    pub(crate) fn lent_of(
        &mut self,
        client: ClientId,
        change: impl FnOnce(&mut crate::client::Lent),
    ) {
        if let Some(c) = self.clients.slab.get_mut(client.at())
            && c.generation == client.generation
            && let Some(lent) = c.lent.as_mut()
        {
            change(lent);
        }
    }

    /// Forgets what was lent to the client when it needs nothing of it any more.
    pub(crate) fn forget(&mut self, index: usize) {
        if let Some(client) = self.clients.slab.get_mut(index)
            && client.lent.as_ref().is_some_and(|l| l.is_over())
        {
            client.lent = None;
        }
    }
}

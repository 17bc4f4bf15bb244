//! Connections with the rights of the cluster's users.

use crate::access::realms::{IDLE, place};
use crate::base::Base;
use crate::dest::{ConnId, NodeId};
use crate::resp::Protocol;
use crate::upstream::Upstream;

impl Base<'_> {
    /// It may have had no clients for a while.
    pub(crate) fn realm_ends(&mut self, number: u16) {
        let Some(realm) = self.access.realms.get_mut(&number) else { return };
        realm.looked_at = false;
        // With clients it is looked at again when the last of them has gone.
        if realm.clients > 0 {
            return;
        }
        let over = self.core.now >= realm.idle_since + IDLE;
        if !over || !self.close_realm(number) {
            self.access.realm_later(number, self.core);
        }
    }

    /// Closes its connections. `false`: something is under way on them.
    pub(crate) fn close_realm(&mut self, number: u16) -> bool {
        let Some(realm) = self.access.realms.get(&number) else { return true };
        let all: Vec<ConnId> = realm.shared.values().copied().collect();
        let busy = |&conn: &ConnId| {
            self.nodes.upstreams.get(conn).is_some_and(|up| !up.pending.is_empty())
        };
        if all.iter().any(busy) {
            return false;
        }
        self.access.realms.remove(&number);
        self.access.unverified.remove(&number);
        for conn in all {
            self.access.remove_upstream(conn, self.nodes, self.core);
        }
        let lent =
            |&conn: &ConnId| self.nodes.upstreams.get(conn).is_some_and(|up| up.realm == number);
        let idle: Vec<ConnId> = self.nodes.dedicated.idle.iter().copied().filter(lent).collect();
        idle.into_iter().for_each(|conn| self.clients.lending().close(conn, self.nodes, self.core));
        true
    }

    /// The shared connection of a realm to `node` that `client` uses; made if there is none.
    pub(crate) fn realm_upstream(
        &mut self,
        realm: u16,
        node: NodeId,
        protocol: Protocol,
        client: usize,
    ) -> ConnId {
        if let Some(conn) =
            self.access.realm_connection(realm, node, protocol, client, self.clients)
        {
            return conn;
        }
        let mut up = Upstream::new(node, protocol);
        up.realm = realm;
        up.bulk = self.clients.slab.get(client).is_some_and(|c| c.bulk);
        let place = place(node, protocol, up.bulk);
        let conn = self.nodes.upstreams.insert(up);
        if let Some(realm) = self.access.realms.get_mut(&realm) {
            realm.shared.insert(place, conn);
        }
        self.nodes.connections().connect(conn, self.core);
        conn
    }
}

//! Connections with the rights of the cluster's users.

use crate::access::realms::{IDLE, place};
use crate::base::Base;
use crate::dest::NodeId;
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
        let all: Vec<usize> = realm.shared.values().copied().collect();
        let busy =
            |&u: &usize| self.nodes.upstreams.get(u).is_some_and(|up| !up.pending.is_empty());
        if all.iter().any(busy) {
            return false;
        }
        self.access.realms.remove(&number);
        self.access.unverified.remove(&number);
        for u in all {
            self.access.remove_upstream(u, self.nodes, self.core);
        }
        let lent = |&u: &usize| self.nodes.upstreams.get(u).is_some_and(|up| up.realm == number);
        let idle: Vec<usize> = self.nodes.dedicated.idle.iter().copied().filter(lent).collect();
        idle.into_iter().for_each(|u| self.clients.lending().close(u, self.nodes, self.core));
        true
    }

    /// The shared connection of a realm to `node` that `client` uses; made if there is none.
    pub(crate) fn realm_upstream(
        &mut self,
        realm: u16,
        node: NodeId,
        protocol: Protocol,
        client: usize,
    ) -> usize {
        if let Some(u) = self.access.realm_connection(realm, node, protocol, client, self.clients) {
            return u;
        }
        let mut up = Upstream::new(node, protocol);
        up.realm = realm;
        up.bulk = self.clients.slab.get(client).is_some_and(|c| c.bulk);
        let place = place(node, protocol, up.bulk);
        let u = self.nodes.upstreams.insert(up);
        if let Some(realm) = self.access.realms.get_mut(&realm) {
            realm.shared.insert(place, u);
        }
        self.nodes.connections().connect(u, self.core);
        u
    }
}

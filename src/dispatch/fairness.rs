//! Full connections. [`crate::clients::fairness`] decides which clients have to wait.

use crate::dest::{ConnId, NodeId};
use crate::dispatch::Dispatcher;
use crate::resp::Protocol;
use crate::users::OWN_REALM;

impl Dispatcher<'_> {
    /// The connection to `node` that the client uses, if the client has to wait before it may send
    /// on it.
    pub(super) fn full_upstream(
        &self,
        node: NodeId,
        protocol: Protocol,
        client: usize,
    ) -> Option<ConnId> {
        let conn = match self.engine.clients.realm_of(client) {
            OWN_REALM => {
                let shared = &self.engine.nodes.list.get(node.at())?.shared[protocol as usize];
                (*shared.get(self.engine.clients.connection_of(client, &self.engine.core))?)?
            }
            realm => self.engine.access.realm_connection(
                realm,
                node,
                protocol,
                client,
                &self.engine.clients,
            )?,
        };
        self.engine
            .clients
            .has_to_wait(client, conn, &self.engine.nodes, &self.engine.core)
            .then_some(conn)
    }
}

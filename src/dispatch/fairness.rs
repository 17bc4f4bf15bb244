//! Who may put a command on a connection to a node, and who waits.
//!
//! A connection is shared, and a node answers it in order: what one client has put there stands
//! before the next client's command. So when a queue is long enough to keep the node busy, a client
//! that has much of it under way waits, unread, until half of what it is owed is there. How much
//! is much depends on who else is there: while others use the connection, who fills most of it has
//! to leave them room; alone, or as one of many equals, a client may have a deep pipeline, which
//! costs less. At `limits.upstream_in_flight` everybody waits.
//!
//! Who waits for its own replies need not be woken by the connection: each reply that it gets, of
//! whatever node and whether it is an error or not, has it looked at, and all that are owed come
//! sooner or later. Nor can others keep it waiting by keeping the queue long.
//!
//! Commands and replies count by their bytes, too. A connection carries them one after the other, so
//! a quiet client's command waits for the bytes of all commands before it, and its reply for those of
//! all replies. How large a reply will be is not known before it comes; it is estimated from the
//! client's last ones ([`TransferSizes`]). While more than a budget of expected bytes is under way on
//! a connection, clients that ask for much wait for their turn, in an order that is fair by bytes
//! ([`Turns`]); a client that asks for little never does. The budget is small while others use the
//! connection, and larger while only clients with large transfers do: a connection needs no more
//! under way than the network delivers in one round trip, so a small budget costs no throughput where
//! nodes are near.
//!
//! Even one large transfer holds up what is behind it. So clients with large transfers have
//! connections of their own, one more to each node ([`Client::bulk`]), and a small command is never
//! behind a large one in a stream of bytes. Commands of one client must not overtake each other, so
//! it changes connections only while nothing of it is under way.
//!
//! [`Turns`]: crate::upstream::Turns

use crate::dispatch::Dispatcher;
use crate::resp::Protocol;
use crate::users::OWN_REALM;

impl Dispatcher<'_> {
    /// The connection to `node` for this client, if it has to wait for it.
    pub(super) fn full_upstream(
        &self,
        node: u16,
        protocol: Protocol,
        client: usize,
    ) -> Option<usize> {
        let u = match self.engine.clients.realm_of(client) {
            OWN_REALM => {
                let shared =
                    &self.engine.nodes.list.get(usize::from(node))?.shared[protocol as usize];
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
            .has_to_wait(client, u, &self.engine.nodes, &self.engine.core)
            .then_some(u)
    }
}

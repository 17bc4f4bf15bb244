//! Errands that are ended from outside: by CLIENT UNBLOCK, or because the client is closed.

use crate::base::{Base, base};
use crate::dest::{ClientId, ConnId, Dest, NodeId};
use crate::engine::Engine;
use crate::errors::Failure;
use crate::ops::ErrandKind;
use crate::resp::{Protocol, write};
use crate::upstream::ConnectionState;
use crate::users::OWN_REALM;
use std::sync::atomic::Ordering::Relaxed;

impl Engine {
    /// Unblocks a client (CLIENT UNBLOCK): passes the command on to the nodes that the client waits
    /// at, which then answer it; with an error if `error`, otherwise as at a timeout. `false`: the
    /// client is not blocked.
    pub(crate) fn unblock(&mut self, index: usize, error: bool) -> bool {
        let Some(client) = self.clients.slab.get(index) else { return false };
        let (protocol, me) = (client.session.protocol, ClientId::new(index, client.generation));
        let Some(lent) = client.lent.as_ref() else { return false };
        let Some(errand) = lent.errand.as_ref() else { return false };
        if errand.kind == ErrandKind::Emulated {
            return self.unblock_emulation(me, error);
        }
        let waits = errand.kind == ErrandKind::Block
            || (errand.kind == ErrandKind::Fleet && !lent.fleet.is_empty());
        if !waits {
            return false;
        }
        let (seq, mut at) = (errand.seq, lent.fleet.clone());
        at.extend(errand.upstream);
        let reachable = |conn: &ConnId| {
            let up = self.nodes.upstreams.get(*conn)?;
            // A command that is not fully written is withdrawn rather than ended at the node.
            let there = up.state == ConnectionState::Ready && up.queue.unsent() == 0;
            let id = up.dedicated.filter(|d| d.id != 0 && there)?.id;
            Some((up.node, id))
        };
        let told: Vec<(NodeId, i64)> = at.iter().filter_map(reachable).collect();
        if told.is_empty() {
            // No node has the command.
            at.into_iter().for_each(|conn| {
                self.clients.lending().close(conn, &mut self.nodes, &mut self.core)
            });
            if self.clients.errands().of(index).is_none_or(|e| e.seq != seq) {
                return true; // closing its connections has completed the reply
            }
            let dest = Dest::client(me, seq);
            let reads = self.clients.errands().only_reads(index, &self.core);
            let unblocked = Failure::UnblockedByClient;
            let lost = self.clients.errands().of(index).is_some_and(|errand| {
                errand.failure(reads, unblocked.clone()).is_outcome_unknown()
            });
            // Null would say that no element was taken.
            if error || lost {
                self.clients.errands().fail(me, seq, unblocked, &mut self.nodes, &mut self.core);
            } else {
                self.clients.errands().end(me, seq, &mut self.core);
                let null: &[u8] = if protocol == Protocol::Resp3 { b"_\r\n" } else { b"*-1\r\n" };
                self.clients.deliveries().own(dest, null, &mut self.core);
            }
            return true;
        }
        for (node, id) in told {
            let how: &[u8] = if error { b"ERROR" } else { b"TIMEOUT" };
            let mut frame = Vec::new();
            write::request(&mut frame, &[b"CLIENT", b"UNBLOCK", id.to_string().as_bytes(), how]);
            let conn = base!(self).upstream_as(OWN_REALM, node, protocol, index);
            self.nodes.discard(conn, &frame, &mut self.core);
        }
        true
    }

    /// Takes back everything that a client was lent, and ends its errand: the client is closed or
    /// has sent RESET.
    pub(crate) fn release_lent(&mut self, index: usize) {
        self.clients.watches().end(index, &mut self.nodes, &mut self.core);
        if let Some(client) = self.clients.slab.get(index).filter(|c| c.lent.is_some()) {
            let me = ClientId::new(index, client.generation);
            self.ops.joining().end_all_of(me, &mut base!(self));
            if self
                .clients
                .errands()
                .of(index)
                .is_some_and(|errand| errand.kind == ErrandKind::Emulated)
            {
                self.leave_emulation(me);
            }
        }
        let Some(lent) = self.clients.slab.get_mut(index).and_then(|c| c.lent.take()) else {
            return;
        };
        if lent.errand.as_ref().is_some_and(|e| e.is_blocking()) {
            self.core.shared.blocked.fetch_sub(1, Relaxed);
        }
        if lent.monitor {
            self.core.shared.monitors.fetch_sub(1, Relaxed);
        }
        // Closing the connection also ends its command at the node.
        let all = lent.errand.and_then(|e| e.upstream).into_iter().chain(lent.fleet);
        for conn in all.chain(lent.heard) {
            self.clients.lending().close(conn, &mut self.nodes, &mut self.core);
        }
    }
}

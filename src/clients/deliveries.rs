//! Replies that go where they are waited for, and what is done in place of one that will not come.

use crate::buf::CHUNK;
use crate::clients::Clients;
use crate::common::Core;
use crate::dest::{ConnId, Dest};
use crate::errors::Failure;
use crate::metrics::DisconnectReason;
use crate::nodes::Nodes;
use crate::upstream::ConnectionEnd;

/// The replies that clients wait for, put where they are waited for.
pub(crate) struct Deliveries<'a> {
    clients: &'a mut Clients,
}

impl Clients {
    /// What is put where clients wait for replies.
    pub(crate) fn deliveries(&mut self) -> Deliveries<'_> {
        Deliveries { clients: self }
    }
}

impl Deliveries<'_> {
    /// An error of slotway's own goes where a reply is waited for. One that leaves the outcome open
    /// ends the client's connection instead, where `commands.on_outcome_unknown` says so.
    pub(crate) fn failure(&mut self, to: Dest, failure: &Failure, core: &mut Core) {
        core.stats.count_failure(failure);
        match core.settings.disconnect_on_unknown && failure.is_outcome_unknown() {
            true => self.end_in_place_of(to, core),
            false => self.own(to, &failure.frame(), core),
        }
    }

    /// A reply that is no failure of slotway's own goes where it is waited for.
    pub(crate) fn own(&mut self, to: Dest, reply: &[u8], core: &mut Core) {
        if let Dest::Client { index, generation, seq } = to
            && let Some(client) = self.clients.slab.get_mut(index as usize)
            && client.generation == generation
        {
            client.complete(seq, reply, &mut core.spare.pool);
            self.clients.mark_client(index as usize, core);
        }
    }

    /// The same for a reply that may be large, and is taken out of its buffer then.
    pub(crate) fn whole(&mut self, to: Dest, reply: &mut Vec<u8>, core: &mut Core) {
        if let Dest::Client { index, generation, seq } = to
            && reply.len() >= CHUNK
            && let Some(client) = self.clients.slab.get_mut(index as usize)
            && client.generation == generation
        {
            client.complete_owned(seq, reply, &mut core.spare.pool);
            return self.clients.mark_client(index as usize, core);
        }
        self.own(to, reply, core);
    }

    /// The client's connection is closed in place of a reply, behind those before it.
    #[cold]
    pub(crate) fn end_in_place_of(&mut self, to: Dest, core: &mut Core) {
        if let Dest::Client { index, generation, seq } = to
            && let Some(client) = self.clients.slab.get_mut(index as usize)
            && client.generation == generation
        {
            client.end_at(seq);
            client.leave_when_idle = Some(DisconnectReason::OutcomeUnknown);
            self.clients.stop_reading(index as usize, core);
        }
    }

    /// The rest of a reply that was being handed on will not come. A client that has seen its
    /// beginning can only be closed; another gets what the rules for lost connections say.
    pub(crate) fn abandon_arriving(&mut self, conn: ConnId, nodes: &mut Nodes, core: &mut Core) {
        let Some(up) = nodes.upstreams.get_mut(conn) else { return };
        if !std::mem::take(&mut up.streaming) {
            return;
        }
        let dest = up.pending.front().map(|p| p.dest);
        let Some(Dest::Client { index, generation, seq }) = dest else { return };
        let Some(client) = self.clients.slab.get_mut(index as usize) else { return };
        if client.generation == generation
            && client.abandon(seq) == crate::client::Delivery::Partial
        {
            self.clients.close(index as usize, core);
        }
    }

    /// A reply that cannot be handed on in pieces grows beyond what there is room for: its command
    /// gets an error, and the connection, which is in the middle of it, is made anew.
    pub(crate) fn refuse_reply(&mut self, conn: ConnId, nodes: &mut Nodes, core: &mut Core) {
        let Some(up) = nodes.upstreams.get_mut(conn) else { return };
        let node = nodes.list.get(up.node.at()).map(|n| n.addr.to_string());
        let client = up.dedicated.and_then(|dedicated| dedicated.client);
        if let Some(pending) = up.pending.pop_front() {
            up.queue.release(pending.len as usize, &mut core.spare.pool);
            let failure = core.reply_dropped(&pending);
            match (client, pending.dest) {
                // Its client waits for this one command.
                (Some(client), Dest::Client { seq, .. }) => {
                    self.clients.errands().fail(client, seq, failure, nodes, core)
                }
                _ => core.fail(&pending, &node.unwrap_or_default(), &failure),
            }
        }
        core.lose(conn, ConnectionEnd::ReplyTooLarge);
    }
}

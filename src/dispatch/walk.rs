//! The walk of an ordinary command, one for the keys of one slot: from the parsed request to the
//! buffer of its node. HOT PATH: everything rare is behind one call, to a function that handles all
//! special cases. `delivery/walk.rs` has the way back.

use crate::base::{Base, base};
use crate::clients::Flow;
use crate::dest::Dest;
use crate::dispatch::Dispatcher;
use crate::resp::Args;
use crate::route::{PendingFlags, Plan};
use crate::upstream::Pending;
use crate::users::OWN_REALM;

impl Dispatcher<'_> {
    /// Puts a client's request into the buffer of the node that serves its slot. The buffer is
    /// written at the end of the turn, by `flush_upstream` in `worker/upstreams.rs`.
    #[inline]
    pub(crate) fn dispatch(&mut self, index: usize, frame: &[u8], args: &Args) -> Flow {
        // Which command is it, and in which slot are its keys?
        let command = self.engine.core.router.command(args);
        let view = self.engine.clients.view_of(index);
        let core = &mut self.engine.core;
        let slot = match core.router.plan(view, command, args, &mut core.spare.keys) {
            Plan::Slot(slot) => slot,
            plan => return self.dispatch_rare(index, command, plan, frame, args),
        };
        if self.engine.clients.memory().is_over_limit(&mut self.engine.nodes, &mut self.engine.core)
        {
            return self.engine.clients.refusals().for_memory(
                index,
                command,
                &mut self.engine.core,
            );
        }
        let Some(node) = self.engine.nodes.placement.slots.route(slot) else {
            return self.engine.ops.hold_fresh(
                index,
                command,
                slot,
                frame,
                &mut base!(self.engine),
            );
        };
        // Over which connection to the node?
        let Some(client) = self.engine.clients.slab.get(index) else { return Flow::Stop };
        let (protocol, which) =
            (client.session.protocol, self.engine.clients.connection_of(index, &self.engine.core));
        let place = self.engine.nodes.list.get(node.at());
        let place = place.and_then(|n| *n.shared[protocol as usize].get(which)?);
        let flags = self.engine.core.router.flags(command);
        let publishes = flags.contains(PendingFlags::PUBLISHES);
        // Users of the cluster are rare.
        let (Some(conn), true) = (place, self.engine.access.realms.is_empty() && !publishes) else {
            return self.engine.ops.forward_to(
                index,
                command,
                slot,
                node,
                frame,
                &mut base!(self.engine),
            );
        };
        if self.engine.clients.has_to_wait(index, conn, &self.engine.nodes, &self.engine.core) {
            return self.engine.clients.fairness().pause(
                index,
                conn,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        }
        // Reserve a place for the reply, and queue the command behind those in flight.
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return Flow::Stop };
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return Flow::Stop };
        client.session.last_command = command;
        if !flags.contains(PendingFlags::READ_ONLY) {
            client.wrote |= node.bit();
        }
        let seq = client.expect(&mut self.engine.core.spare.replies);
        up.queue.push(frame, &mut self.engine.core.spare.pool);
        up.pending.push_back(Pending {
            dest: Dest::Client { index: index as u32, generation: client.generation, seq },
            len: frame.len() as u32,
            slot,
            command,
            flags: flags | PendingFlags::of_protocol(protocol),
            realm: OWN_REALM,
            tries: 0,
            refused: None,
            before: 0,
            checks_shard: false,
            started: self.engine.core.now,
            expected: client.transfer_sizes.expected(),
        });
        client.transfer_sizes.ask();
        if !up.dirty {
            up.dirty = true;
            self.engine.core.turn.dirty_upstreams.push(conn);
        }
        Flow::Next
    }
}

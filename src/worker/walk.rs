//! The walk of an ordinary command, one for the keys of one slot: from the parsed request to the
//! buffer of its node, and from the node's reply to the buffer of its client. HOT PATH: everything
//! rare is behind one call, which does the same with all that may be special about a command.

use crate::base::{Base, base};
use crate::clients::Flow;
use crate::common::counters::BLOCKED;
use crate::dest::Dest;
use crate::metrics::Histogram;
use crate::resp::{Args, Protocol};
use crate::route::{Plan, flag};
use crate::upstream::{ConnectionEnd, ConnectionState, Pending};
use crate::users::OWN_REALM;
use crate::worker::Worker;

impl Worker {
    /// Puts a client's request into the buffer of the node that serves its slot. The rest is the
    /// end of the turn's: [`Worker::flush_upstream`].
    #[inline]
    pub(super) fn dispatch(&mut self, index: usize, frame: &[u8], args: &Args) -> Flow {
        // What is it, and where are its keys?
        let command = self.core.router.command(args);
        let slot = match self.core.router.plan(command, args, &mut self.core.spare.keys) {
            Plan::Slot(slot) => slot.0,
            plan => return self.dispatch_rare(index, command, plan, frame, args),
        };
        if self.clients.memory().is_over_limit(&mut self.nodes, &mut self.core) {
            return self.clients.refusals().for_memory(index, command, &mut self.core);
        }
        let Some(node) = self.nodes.placement.slots.route(slot) else {
            return self.ops.hold_fresh(index, command, slot, frame, &mut base!(self));
        };
        // Over which connection to the node?
        let Some(client) = self.clients.slab.get(index) else { return Flow::Stop };
        let (protocol, which) =
            (client.session.protocol, self.clients.connection_of(index, &self.core));
        let place = self.nodes.list.get(usize::from(node));
        let place = place.and_then(|n| *n.shared[protocol as usize].get(which)?);
        let flags = self.core.router.flags(command);
        // Hardly ever is there any user of the cluster.
        let (Some(u), true) =
            (place, self.access.realms.is_empty() && flags & flag::PUBLISHES == 0)
        else {
            return self.ops.forward_to(index, command, slot, node, frame, &mut base!(self));
        };
        if self.clients.has_to_wait(index, u, &self.nodes, &self.core) {
            return self.clients.fairness().pause(index, u, &mut self.nodes, &mut self.core);
        }
        // A place for the reply, and the command behind those that the node owes answers to.
        let Some(client) = self.clients.slab.get_mut(index) else { return Flow::Stop };
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return Flow::Stop };
        client.session.last_command = command;
        if flags & flag::READ_ONLY == 0 {
            client.wrote |= 1 << (node & 63);
        }
        let seq = client.expect(&mut self.core.spare.replies);
        up.queue.push(frame, &mut self.core.spare.pool);
        up.pending.push_back(Pending {
            dest: Dest::Client { index: index as u32, generation: client.generation, seq },
            len: frame.len() as u32,
            slot,
            command,
            flags: flags | if protocol == Protocol::Resp3 { flag::RESP3 } else { 0 },
            realm: OWN_REALM,
            tries: 0,
            refused: None,
            before: 0,
            checks_shard: false,
            started: self.core.now,
            expected: client.transfer_sizes.expected(),
        });
        client.transfer_sizes.ask();
        if !up.dirty {
            up.dirty = true;
            self.core.turn.dirty_upstreams.push(u);
        }
        Flow::Next
    }

    /// Puts a node's reply, complete, into the buffer of the client that waits for it. The rest is
    /// the end of the turn's: [`Worker::flush_client`].
    ///
    /// # Errors
    /// The node does not keep to the protocol.
    #[inline]
    pub(super) fn reply(&mut self, u: usize, frame: &[u8]) -> Result<(), ConnectionEnd> {
        // Is there anything about it but to be handed on?
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return Ok(()) };
        let Some(pending) = up.pending.front() else { return self.reply_rare(u, frame) };
        let micros = self.core.now.saturating_sub(pending.started);
        let rare = up.state != ConnectionState::Ready
            || up.streaming
            || up.dedicated.is_some()
            || pending.before > 0
            || pending.has(flag::SPECIAL | flag::PUBLISHES)
            || matches!(frame.first(), Some(b'-' | b'>'))
            || micros >= self.seeing.look_from.min(BLOCKED)
            || frame.len() >= self.seeing.big_from
            || self.core.settings.measures;
        let (Dest::Client { index, generation, seq }, false) = (pending.dest, rare) else {
            return self.reply_rare(u, frame);
        };
        // It is done with at the node: it counts, and gives its bytes back.
        let (node, len, command) = (up.node, pending.len as usize, pending.command);
        up.pending.pop_front();
        up.queue.release(len, &mut self.core.spare.pool);
        let bucket = Histogram::bucket(micros);
        if let Some(stats) = self.core.stats.nodes.get_mut(usize::from(node)) {
            stats.latency.record(bucket, micros);
        }
        if let Some(histogram) = self.core.stats.latency.get_mut(self.core.router.class(command)) {
            histogram.record(bucket, micros);
        }
        if let Some(stats) = self.core.stats.commands.get_mut(command.index()) {
            stats.ok += 1;
        }
        if command == self.core.router.unknown() {
            self.core.note_unknown();
        }
        // Whoever waits for it gets it, in its turn.
        let Some(client) = self.clients.slab.get_mut(index as usize) else { return Ok(()) };
        if client.generation == generation {
            client.complete(seq, frame, &mut self.core.spare.pool);
            client.transfer_sizes.record(frame.len());
            if !client.dirty {
                client.dirty = true;
                self.core.turn.dirty_clients.push(index as usize);
            }
        }
        Ok(())
    }
}

//! A command goes to a node.

use crate::access::Access;
use crate::base::Base;
use crate::clients::{Clients, Flow};
use crate::cluster::Slot;
use crate::command::CommandId;
use crate::common::Core;
use crate::dest::{ConnId, Dest, NodeId};
use crate::operations::Operations;
use crate::resp::{ArgRange, Args, Protocol};
use crate::route::{PendingFlags, Plan};
use crate::upstream::Pending;
use crate::users::OWN_REALM;

impl Operations {
    /// A large command in a buffer of its own. Gives the buffer back where the command is of a
    /// kind that needs it as bytes.
    pub(crate) fn dispatch_owned(
        &mut self,
        index: usize,
        frame: Vec<u8>,
        ranges: &[ArgRange],
        base: &mut Base<'_>,
    ) -> Result<Flow, Vec<u8>> {
        let args = Args::new(&frame, ranges);
        let command = base.core.router.command(&args);
        let has_modes =
            base.clients.slab.get(index).is_some_and(|client| !client.session.modes.is_empty());
        if has_modes && base.core.router.is_read_only(command) {
            return Err(frame); // it may go elsewhere
        }
        let slot = match base.core.router.plan(
            base.clients.view_of(index),
            command,
            &args,
            &mut base.core.spare.keys,
        ) {
            Plan::Slot(slot) => slot,
            _ => return Err(frame),
        };
        if base.clients.memory().is_over_limit(base.nodes, base.core) {
            return Err(frame);
        }
        let Some(node) = base.nodes.route(slot) else { return Err(frame) };
        let Some(pending) = self.admit(index, command, slot, node, base) else { return Err(frame) };
        let conn = pending.1;
        base.nodes.send_owned(conn, pending.0, frame, base.core);
        Ok(Flow::Next)
    }

    #[inline]
    pub(crate) fn forward(
        &mut self,
        index: usize,
        command: CommandId,
        slot: Slot,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        if base.clients.memory().is_over_limit(base.nodes, base.core) {
            return base.clients.refusals().for_memory(index, command, base.core);
        }
        let Some(node) = base.nodes.route(slot) else {
            return self.hold_fresh(index, command, slot, frame, base);
        };
        self.forward_to(index, command, slot, node, frame, base)
    }

    #[inline]
    pub(crate) fn forward_to(
        &mut self,
        index: usize,
        command: CommandId,
        slot: Slot,
        node: NodeId,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        match self.admit(index, command, slot, node, base) {
            Some((pending, conn)) => {
                base.nodes.send(conn, pending, frame, base.core);
                Flow::Next
            }
            None => Flow::Pause,
        }
    }

    /// Makes the entry of a client's command for `node`, and gives it with the connection; `None`:
    /// the connection is full and the client was paused.
    #[inline]
    pub(crate) fn admit(
        &mut self,
        index: usize,
        command: CommandId,
        slot: Slot,
        node: NodeId,
        base: &mut Base<'_>,
    ) -> Option<(Pending, ConnId)> {
        let client = base.clients.slab.get(index)?;
        let (protocol, generation) = (client.session.protocol, client.generation);
        let conn = base.upstream_for(node, protocol, index);
        self.admit_on(index, command, slot, conn, (protocol, generation), base)
    }

    /// The same for a connection that is chosen already.
    #[inline]
    pub(crate) fn admit_on(
        &mut self,
        index: usize,
        command: CommandId,
        slot: Slot,
        conn: ConnId,
        (protocol, generation): (Protocol, u32),
        base: &mut Base<'_>,
    ) -> Option<(Pending, ConnId)> {
        if base.clients.has_to_wait(index, conn, base.nodes, base.core) {
            base.clients.fairness().pause(index, conn, base.nodes, base.core);
            return None;
        }
        let node = base.nodes.upstreams.get(conn)?.node;
        let dest = Dest::Client { index: index as u32, generation, seq: 0 };
        let mut pending =
            self.pending(dest, command, slot, protocol, base.access, base.clients, base.core);
        let client = base.clients.slab.get_mut(index)?;
        client.session.last_command = command;
        let seq = client.expect(&mut base.core.spare.replies);
        pending.dest = Dest::Client { index: index as u32, generation, seq };
        pending.expected = client.transfer_sizes.expected();
        client.transfer_sizes.ask();
        if !pending.flags.contains(PendingFlags::READ_ONLY) {
            client.wrote |= node.bit();
        }
        Some((pending, conn))
    }

    #[inline]
    #[allow(clippy::too_many_arguments)] // the parts that it works with, each borrowed
    pub(crate) fn pending(
        &self,
        dest: Dest,
        command: CommandId,
        slot: Slot,
        protocol: Protocol,
        access: &Access,
        clients: &Clients,
        core: &Core,
    ) -> Pending {
        let flags = core.router.flags(command) | PendingFlags::of_protocol(protocol);
        // Hardly ever is there any user of the cluster.
        let realm = if access.realms.is_empty() {
            OWN_REALM
        } else {
            self.gatherings.realm_of_dest(&dest, clients)
        };
        let started = match flags.contains(PendingFlags::PUBLISHES) {
            false => core.now,
            true => core.publish_time(),
        };
        // A client's own is set where the client is at hand.
        let expected = match dest {
            Dest::Part { gather, .. } => self.gatherings.expected_of_part(gather, clients),
            _ => 0,
        };
        Pending {
            dest,
            len: 0,
            slot,
            command,
            flags,
            realm,
            tries: 0,
            refused: None,
            before: 0,
            checks_shard: false,
            started,
            expected,
        }
    }
}

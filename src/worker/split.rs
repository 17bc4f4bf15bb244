//! Commands for several slots or nodes: their parts are sent, and their replies gathered.

use crate::base::{Base, base};
use crate::buf::CHUNK;
use crate::clients::Flow;
use crate::cluster::NO_SLOT;
use crate::command::CommandId;
use crate::common::requests::part_frame;
use crate::dest::{ClientId, Dest};
use crate::errors::Failure;
use crate::metrics::LimitHit;
use crate::resp::Args;
use crate::route::{Fan, Merge, flag};
use crate::worker::Worker;

impl Worker {
    /// Keys in several slots: each slot's keys in a command of their own, all of a node's in one
    /// write.
    pub(super) fn split(
        &mut self,
        index: usize,
        command: CommandId,
        merge: Merge,
        step: u32,
        args: &Args,
    ) -> Flow {
        // What a key costs until its reply is there: its slot, its place, its part's bytes.
        const KEY: usize = 64;
        let bytes = |args: &Args| args.iter().map(<[u8]>::len).sum::<usize>();
        let large = args.len() > CHUNK / KEY || self.core.turn.unread > CHUNK;
        if large
            && !self.clients.memory().has_room_for(
                args.len() * KEY + bytes(args),
                &mut self.nodes,
                &mut self.core,
            )
        {
            return self.clients.refusals().for_memory(index, command, &mut self.core);
        }
        let Some(client) = self.clients.slab.get(index) else { return Flow::Stop };
        let protocol = client.session.protocol;
        let lane = ClientId::new(index, client.generation);
        let mut slots = std::mem::take(&mut self.core.spare.slots);
        slots.clear();
        for (position, &at) in self.core.spare.keys.iter().enumerate() {
            let key = args.get(at as usize).unwrap_or_default();
            slots.push((crate::cluster::slot_of(key).0, position as u32));
        }
        slots.sort_unstable();
        // Full connections pause the client before anything of the command is sent.
        let full = slots.iter().find_map(|&(slot, _)| {
            self.nodes.route(slot).and_then(|node| self.full_upstream(node, protocol, index))
        });
        if let Some(u) = full {
            self.core.spare.slots = slots;
            return self.clients.fairness().pause(index, u, &mut self.nodes, &mut self.core);
        }
        let first_key = self.core.spare.keys.first().copied().unwrap_or(1);
        let Some(g) =
            self.ops.gatherings.begin(index, command, merge, &mut self.clients, &mut self.core)
        else {
            return Flow::Stop;
        };
        self.core.stats.splits += 1;
        self.ops.gatherings.keep_args(g, args, &mut self.core);
        if let Some(gather) = self.ops.gatherings.merged(g) {
            slots.chunk_by(|a, b| a.0 == b.0).for_each(|_| gather.expect());
        }
        for group in slots.chunk_by(|a, b| a.0 == b.0) {
            let Some(&(slot, _)) = group.first() else { continue };
            let mut part = 0;
            if merge == Merge::Array
                && let Some(gather) = self.ops.gatherings.merged(g)
            {
                part = gather.next_key();
                for &(_, position) in group {
                    gather.expect_key(position);
                }
            }
            let mut frame = std::mem::take(&mut self.core.spare.line);
            frame.clear();
            part_frame(&mut frame, args, first_key, step, group);
            let dest = Dest::Part { gather: g as u32, first: part };
            let pending = self.ops.pending(
                dest,
                command,
                slot,
                protocol,
                &self.access,
                &self.clients,
                &self.core,
            );
            match self.nodes.route(slot) {
                Some(node) => {
                    if !pending.has(flag::READ_ONLY) {
                        self.clients.note_write(index, Some(node));
                    }
                    let u = base!(self).upstream_for(node, protocol, index);
                    if frame.len() > CHUNK {
                        self.nodes.send_owned(
                            u,
                            pending,
                            std::mem::take(&mut frame),
                            &mut self.core,
                        );
                    } else {
                        self.nodes.send(u, pending, &frame, &mut self.core);
                    }
                }
                None if !self.nodes.placement.slots.holds.fits(
                    slot,
                    frame.len(),
                    self.core.settings.held,
                ) =>
                {
                    self.core.stats.limits_hit[LimitHit::Held as usize] += 1;
                    self.core.fail(&pending, "slotway", &Failure::HoldsFull { slot });
                }
                None => self.ops.hold_pending(
                    pending,
                    lane,
                    frame.clone(),
                    &mut self.nodes,
                    &mut self.core,
                ),
            }
            self.core.spare.line = frame;
        }
        self.core.spare.slots = slots;
        Flow::Next
    }

    /// A command for every primary or every node.
    pub(super) fn fan(
        &mut self,
        index: usize,
        command: CommandId,
        to: Fan,
        merge: Merge,
        frame: &[u8],
    ) -> Flow {
        let Some(client) = self.clients.slab.get(index) else { return Flow::Stop };
        let protocol = client.session.protocol;
        let mut nodes = self.nodes.fan_targets_for(index, to, &mut self.core);
        if nodes.is_empty() && to == Fan::Reached {
            // Then those are waited for that should be.
            nodes = self.nodes.fan_targets(Fan::Primaries, &mut self.core);
        }
        if self.nodes.topology.snapshot.generation == 0 || nodes.is_empty() {
            return self.clients.refusals().no_cluster(
                index,
                command,
                &mut self.nodes,
                &mut self.core,
            );
        }
        let mut reached = nodes.iter().filter_map(|n| n.as_ref().ok());
        if let Some(u) = reached.find_map(|&n| self.full_upstream(n, protocol, index)) {
            return self.clients.fairness().pause(index, u, &mut self.nodes, &mut self.core);
        }
        let Some(g) =
            self.ops.gatherings.begin(index, command, merge, &mut self.clients, &mut self.core)
        else {
            return Flow::Stop;
        };
        if let Some(gather) = self.ops.gatherings.merged(g) {
            nodes.iter().for_each(|_| gather.expect());
        }
        for target in nodes {
            let dest = Dest::Part { gather: g as u32, first: 0 };
            match target {
                Ok(node) => {
                    let mut pending = self.ops.pending(
                        dest,
                        command,
                        NO_SLOT,
                        protocol,
                        &self.access,
                        &self.clients,
                        &self.core,
                    );
                    if to != Fan::One {
                        pending.flags |= flag::NODE_BOUND;
                    }
                    if !pending.has(flag::READ_ONLY) {
                        self.clients.note_write(index, Some(node));
                    }
                    let u = base!(self).upstream_for(node, protocol, index);
                    self.nodes.checks().send_part(u, pending, frame, &mut self.core);
                }
                Err(missing) => {
                    let pending = self.ops.pending(
                        dest,
                        command,
                        NO_SLOT,
                        protocol,
                        &self.access,
                        &self.clients,
                        &self.core,
                    );
                    self.ops.hold_part(pending, &missing, frame, &mut self.nodes, &mut self.core);
                }
            }
        }
        Flow::Next
    }
}

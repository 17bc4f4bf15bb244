//! Commands for several slots or nodes: sending their parts.

use crate::base::{Base, base};
use crate::buf::CHUNK;
use crate::clients::Flow;
use crate::command::CommandId;
use crate::common::requests::part_frame;
use crate::dest::{ClientId, Dest};
use crate::dispatch::Dispatcher;
use crate::errors::Failure;
use crate::metrics::LimitHit;
use crate::resp::Args;
use crate::route::{Fan, Merge, PendingFlags};

impl Dispatcher<'_> {
    /// Splits a command with keys in several slots into one command per slot. The commands for one
    /// node leave in one write.
    pub(super) fn split(
        &mut self,
        index: usize,
        command: CommandId,
        merge: Merge,
        step: u32,
        args: &Args,
    ) -> Flow {
        // Memory per key in bytes until the reply arrives: its slot, its position, its share of the
        // part.
        const KEY: usize = 64;
        let bytes = |args: &Args| args.iter().map(<[u8]>::len).sum::<usize>();
        let large = args.len() > CHUNK / KEY || self.engine.core.turn.unread > CHUNK;
        if large
            && !self.engine.clients.memory().has_room_for(
                args.len() * KEY + bytes(args),
                &mut self.engine.nodes,
                &mut self.engine.core,
            )
        {
            return self.engine.clients.refusals().for_memory(
                index,
                command,
                &mut self.engine.core,
            );
        }
        let Some(client) = self.engine.clients.slab.get(index) else { return Flow::Stop };
        let protocol = client.session.protocol;
        let lane = ClientId::new(index, client.generation);
        let mut slots = std::mem::take(&mut self.engine.core.spare.slots);
        slots.clear();
        let view = self.engine.core.router.view(client.session.view);
        for (position, &at) in self.engine.core.spare.keys.iter().enumerate() {
            let key = args.get(at as usize).unwrap_or_default();
            slots.push((view.slot_of(key), position as u32));
        }
        slots.sort_unstable();
        // Full connections pause the client before anything of the command is sent.
        let full = slots.iter().find_map(|&(slot, _)| {
            self.engine.nodes.route(slot).and_then(|node| self.full_upstream(node, protocol, index))
        });
        if let Some(conn) = full {
            self.engine.core.spare.slots = slots;
            return self.engine.clients.fairness().pause(
                index,
                conn,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        }
        let first_key = self.engine.core.spare.keys.first().copied().unwrap_or(1);
        let Some(g) = self.engine.ops.gatherings.begin(
            index,
            command,
            merge,
            &mut self.engine.clients,
            &mut self.engine.core,
        ) else {
            return Flow::Stop;
        };
        self.engine.core.stats.splits += 1;
        self.engine.ops.gatherings.keep_args(g, args, &mut self.engine.core);
        if let Some(gather) = self.engine.ops.gatherings.merged(g) {
            slots.chunk_by(|a, b| a.0 == b.0).for_each(|_| gather.expect());
        }
        for group in slots.chunk_by(|a, b| a.0 == b.0) {
            let Some(&(slot, _)) = group.first() else { continue };
            let mut part = 0;
            if merge == Merge::Array
                && let Some(gather) = self.engine.ops.gatherings.merged(g)
            {
                part = gather.next_key();
                for &(_, position) in group {
                    gather.expect_key(position);
                }
            }
            let mut frame = std::mem::take(&mut self.engine.core.spare.line);
            frame.clear();
            part_frame(&mut frame, args, first_key, step, group);
            let dest = Dest::Part { gather: g as u32, first: part };
            let pending = self.engine.ops.pending(
                dest,
                command,
                slot,
                protocol,
                &self.engine.access,
                &self.engine.clients,
                &self.engine.core,
            );
            match self.engine.nodes.route(slot) {
                Some(node) => {
                    if !pending.flags.contains(PendingFlags::READ_ONLY) {
                        self.engine.clients.note_write(index, Some(node));
                    }
                    let conn = base!(self.engine).upstream_for(node, protocol, index);
                    if frame.len() > CHUNK {
                        self.engine.nodes.send_owned(
                            conn,
                            pending,
                            std::mem::take(&mut frame),
                            &mut self.engine.core,
                        );
                    } else {
                        self.engine.nodes.send(conn, pending, &frame, &mut self.engine.core);
                    }
                }
                None if !self.engine.nodes.placement.slots.holds.fits(
                    slot,
                    frame.len(),
                    self.engine.core.settings.held,
                ) =>
                {
                    self.engine.core.stats.limits_hit[LimitHit::Held as usize] += 1;
                    self.engine.core.fail(&pending, "slotway", &Failure::HoldsFull { slot });
                }
                None => self.engine.ops.hold_pending(
                    pending,
                    lane,
                    frame.clone(),
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                ),
            }
            self.engine.core.spare.line = frame;
        }
        self.engine.core.spare.slots = slots;
        Flow::Next
    }

    /// Sends a command to the nodes of `to`, as one gathering.
    pub(super) fn fan(
        &mut self,
        index: usize,
        command: CommandId,
        to: Fan,
        merge: Merge,
        frame: &[u8],
    ) -> Flow {
        let Some(client) = self.engine.clients.slab.get(index) else { return Flow::Stop };
        let protocol = client.session.protocol;
        let view = client.session.view;
        let keyless = self.keyless(index);
        let asked = self.engine.core.router.view(view);
        let upstreams = match merge {
            Merge::PubSub(_) => asked.channel_upstreams(),
            _ => asked.upstreams(),
        };
        let mut nodes = match merge {
            Merge::PubSub(_) => self.engine.nodes.fan_targets(upstreams, to, &mut self.engine.core),
            _ => self.engine.nodes.fan_targets_for((index, view), to, &mut self.engine.core),
        };
        if nodes.is_empty() && to == Fan::Reached {
            // Wait for the primaries instead.
            nodes = self.engine.nodes.fan_targets(upstreams, Fan::Primaries, &mut self.engine.core);
        }
        if self.engine.nodes.topology.snapshot.generation == 0 || nodes.is_empty() {
            return self.engine.clients.refusals().no_cluster(
                index,
                command,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        }
        let mut reached = nodes.iter().filter_map(|n| n.as_ref().ok());
        if let Some(conn) = reached.find_map(|&n| self.full_upstream(n, protocol, index)) {
            return self.engine.clients.fairness().pause(
                index,
                conn,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        }
        let Some(g) = self.engine.ops.gatherings.begin(
            index,
            command,
            merge,
            &mut self.engine.clients,
            &mut self.engine.core,
        ) else {
            return Flow::Stop;
        };
        if let Some(gather) = self.engine.ops.gatherings.merged(g) {
            nodes.iter().for_each(|_| gather.expect());
        }
        for target in nodes {
            let dest = Dest::Part { gather: g as u32, first: 0 };
            match target {
                Ok(node) => {
                    let mut pending = self.engine.ops.pending(
                        dest,
                        command,
                        keyless,
                        protocol,
                        &self.engine.access,
                        &self.engine.clients,
                        &self.engine.core,
                    );
                    if to != Fan::One {
                        pending.flags.insert(PendingFlags::NODE_BOUND);
                    }
                    if !pending.flags.contains(PendingFlags::READ_ONLY) {
                        self.engine.clients.note_write(index, Some(node));
                    }
                    let conn = base!(self.engine).upstream_for(node, protocol, index);
                    self.engine.nodes.checks().send_part(
                        conn,
                        pending,
                        frame,
                        &mut self.engine.core,
                    );
                }
                Err(missing) => {
                    let pending = self.engine.ops.pending(
                        dest,
                        command,
                        keyless,
                        protocol,
                        &self.engine.access,
                        &self.engine.clients,
                        &self.engine.core,
                    );
                    self.engine.ops.hold_part(
                        pending,
                        &missing,
                        frame,
                        &mut self.engine.nodes,
                        &mut self.engine.core,
                    );
                }
            }
        }
        Flow::Next
    }
}

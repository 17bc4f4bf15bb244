//! Delivering replies: unchanged, merged with other parts, or as an error of slotway's own.

use crate::base::{Base, base};
use crate::buf::CHUNK;
use crate::dest::{ClientId, Dest, NodeId};
use crate::engine::Engine;
use crate::errors::{Cause, Failure};
use crate::mailbox::ToControl;
use crate::nodes::{Node, reaccount};
use crate::ops::{Answerer, Parts};
use crate::resp::Protocol;
use crate::route::{OwnSubscriptions, PendingFlags, ProxyInfo};
use crate::upstream::Pending;
use std::sync::atomic::Ordering::Relaxed;

/// The node that answered a part of a command.
struct Answered<'a> {
    nodes: &'a [Node],
    node: NodeId,
}

impl Answerer for Answered<'_> {
    fn node(&self) -> NodeId {
        self.node
    }

    fn name(&self) -> String {
        let node = self.nodes.get(self.node.at());
        node.map_or_else(String::new, |node| node.addr.to_string())
    }
}

impl Engine {
    /// Delivers a node's reply to the destination of its command.
    pub(crate) fn deliver(&mut self, node: NodeId, pending: &Pending, frame: &[u8]) {
        let ok = frame.first() != Some(&b'-');
        self.core.count_reply(node, pending, ok);
        match pending.dest {
            Dest::Client { index, generation, seq } => {
                if let Some(client) = self.clients.slab.get_mut(index as usize)
                    && client.generation == generation
                {
                    client.complete(seq, frame, &mut self.core.spare.pool);
                    client.transfer_sizes.record(frame.len());
                    if !client.dirty {
                        client.dirty = true;
                        self.core.turn.dirty_clients.push(index as usize);
                    }
                }
                if pending.flags.intersects(PendingFlags::SPECIAL) {
                    self.ops.answered(pending, &mut self.nodes, &mut self.core);
                }
            }
            Dest::Part { gather, first } => {
                // Looked up first: the gathering, which knows the lane, may end with this part.
                let lane = self.ops.gatherings.lane_of(pending);
                self.part(gather, first, node, frame);
                self.nodes.placement.answered_in(pending, lane, true, &mut self.core);
            }
            Dest::Join { .. } | Dest::Discard => {}
        }
    }

    /// Answers a command with an error of slotway's own in place of a node's reply.
    pub(crate) fn command_failed(&mut self, pending: &Pending, node: &str, failure: &Failure) {
        let lane = self.ops.gatherings.lane_of(pending);
        match pending.dest {
            Dest::Client { index, generation, seq } => {
                if let Some(stats) = self.core.stats.commands.get_mut(pending.command.index()) {
                    stats.refused += 1;
                }
                self.clients.deliveries().failure(pending.dest, failure, &mut self.core);
                self.clients.errands().end_handed_on(
                    ClientId { index, generation },
                    seq,
                    &mut self.core,
                );
            }
            Dest::Part { gather, first } => self.fail_part(gather, first, node.to_owned(), failure),
            Dest::Join { join, .. } => self.ops.joining().lost(join, &mut base!(self)),
            Dest::Discard => {}
        }
        self.nodes.placement.answered_in(pending, lane, false, &mut self.core);
    }

    /// Adds an error to a gathering in place of a part's reply.
    pub(super) fn fail_part(&mut self, gather: u32, first: u32, node: String, failure: &Failure) {
        let gathering = self.ops.gatherings.get_mut(gather as usize);
        let last = gathering.is_some_and(|g| g.parts.fail(first, || node, failure.clone()));
        if last {
            self.finish_gathering(gather as usize);
        }
    }

    /// Adds the reply to a part to its gathering. A large reply for which there is no memory is
    /// replaced by an error.
    pub(crate) fn part(&mut self, gather: u32, first: u32, node: NodeId, frame: &[u8]) {
        let over = frame.len() > CHUNK
            && !self.clients.memory().has_room_for(frame.len(), &mut self.nodes, &mut self.core);
        let Some(gathering) = self.ops.gatherings.get(gather as usize) else { return };
        let reads = self.core.router.is_read_only(gathering.command);
        let dropped = gathering.parts.may_drop(reads).filter(|_| over);
        let dropped = dropped.map(|only_reads| self.core.no_room_for_reply(only_reads));
        let received = frame.len();
        let Some(gathering) = self.ops.gatherings.get_mut(gather as usize) else { return };
        gathering.received += received;
        let by = Answered { nodes: &self.nodes.list, node };
        let last = match dropped {
            Some(failure) => gathering.parts.fail(first, || by.name(), failure),
            None => gathering.parts.add(first, frame, &by),
        };
        let held = gathering.parts.memory();
        reaccount(&mut self.core.memory.accounted, &mut gathering.accounted, held);
        if last && !self.scan_goes_on(gather as usize) {
            self.finish_gathering(gather as usize);
        }
    }

    /// Merges the replies of a gathering, which are complete, and delivers the result. An emulated
    /// command takes its next step instead.
    pub(crate) fn finish_gathering(&mut self, g: usize) {
        if self.ops.gatherings.get(g).is_some_and(|g| g.parts.emulated().is_some()) {
            return self.emulation_goes_on(g);
        }
        // The merged reply needs memory in addition to its parts.
        let parts = self.ops.gatherings.get(g).map_or(0, |g| g.accounted);
        let fits = parts <= CHUNK
            || self.clients.memory().has_room_for(parts, &mut self.nodes, &mut self.core);
        let Some(mut gathering) = self.ops.gatherings.try_remove(g) else { return };
        reaccount(&mut self.core.memory.accounted, &mut gathering.accounted, 0);
        let mut cursor = String::new();
        if let Some(gather) = gathering.parts.merged_mut() {
            if gather.wants_info() {
                gather.set_info(self.proxy_info());
            }
            cursor = self.nodes.next_cursor(gather, self.core.router.views().map());
        }
        let mut reply = std::mem::take(&mut self.core.spare.reply);
        reply.clear();
        let mut unknown = false;
        if parts > CHUNK && fits {
            reply.reserve_exact(parts + CHUNK);
        }
        let info = || self.proxy_info();
        let made = match &mut gathering.parts {
            _ if !fits => {
                let only_reads = self.core.router.is_read_only(gathering.command);
                Err(self.core.no_room_for_reply(only_reads).into())
            }
            Parts::Transaction(exec) => {
                // Some of the replies inside say that the outcome of their command is unknown.
                unknown = exec.has_unknown();
                exec.finish(info, &mut reply)
            }
            Parts::Merged(gather) => match gather.asked() {
                Some(ask) => {
                    let view = self.clients.view_of(gathering.lane.at());
                    let upstreams = self.core.router.view(view).channel_upstreams();
                    let own = |kind, name: &[u8]| {
                        let parts =
                            upstreams.iter().map(|of| self.subscribers.own_part(of, kind, name));
                        parts.fold(OwnSubscriptions::default(), |sum, part| OwnSubscriptions {
                            subscribers: sum.subscribers + part.subscribers,
                            upstream: sum.upstream + part.upstream,
                        })
                    };
                    ask.merge(gather.replies(), own, &mut reply);
                    Ok(())
                }
                None => gather.finish(&mut reply, &cursor),
            },
            // Handled at the beginning.
            Parts::Emulated(..) => Ok(()),
        };
        let ok = made.is_ok();
        // What the nodes have sent counts, even if the merged reply is shorter.
        let bytes = gathering.received.max(reply.len());
        if let Dest::Part { .. } = gathering.to {
            self.deliver_part(&mut gathering, made.map(|()| &*reply));
        } else {
            self.core.count_gathering(gathering.command, gathering.started, ok);
            let unknown = match made {
                Ok(()) => unknown,
                Err(cause) => {
                    if let Cause::Own(failure) = &cause {
                        self.core.stats.count_failure(failure);
                    }
                    cause.write(&mut reply);
                    cause.is_outcome_unknown()
                }
            };
            if gathering.renames && ok {
                // Fails only after the end of the control thread, at shutdown.
                let _ = self.core.link.control.send(ToControl::RefreshCommands);
            }
            if let Some(sets) = gathering.sets.filter(|_| ok) {
                self.core.shared.slow.set(sets);
            }
            if let Some(slow) = gathering.slow.take() {
                self.seeing.slow_gathering(
                    *slow,
                    gathering.command,
                    gathering.to,
                    &mut self.clients,
                    &mut self.core,
                );
            }
            match unknown && self.core.settings.disconnect_on_unknown {
                true => self.clients.deliveries().end_in_place_of(gathering.to, &mut self.core),
                false => self.clients.deliveries().whole(gathering.to, &mut reply, &mut self.core),
            }
        }
        if let Some(kept) = gathering.kept.take().filter(|_| self.core.spare.kept.len() < 256) {
            self.core.spare.kept.push(kept);
        }
        if let Dest::Client { seq, .. } = gathering.to {
            if let Some(client) = self.clients.slab.get_mut(gathering.lane.at())
                && client.generation == gathering.lane.generation
            {
                client.transfer_sizes.record(bytes);
            }
            if !ok {
                self.clients.monitors().fleet_failed(
                    gathering.lane,
                    seq,
                    &mut self.nodes,
                    &mut self.core,
                );
            }
            self.clients.errands().end(gathering.lane, seq, &mut self.core);
        }
        if reply.capacity() <= crate::buf::CHUNK {
            self.core.spare.reply = reply;
        }
        if let Parts::Merged(mut gather) = gathering.parts
            && self.core.spare.gathers.len() < 256
        {
            gather.start(crate::route::Merge::AllSucceeded, Protocol::Resp2);
            self.core.spare.gathers.push(gather);
        }
    }

    /// Slotway's own values for the reply to INFO.
    pub(super) fn proxy_info(&self) -> ProxyInfo {
        ProxyInfo {
            clients: self.core.shared.clients.load(Relaxed),
            blocked: self.core.shared.blocked.load(Relaxed),
            max_clients: self.core.shared.max_clients(),
            announce_mode: self.core.settings.announce_mode,
            section: self.proxy_section(),
        }
    }

    /// The fields of INFO's section about slotway.
    fn proxy_section(&self) -> String {
        let uptime = self.core.clock.epoch.elapsed().as_secs();
        let covered = self.nodes.placement.slots.covered();
        let known = self.nodes.list.iter().filter(|n| n.known).count();
        format!(
            "proxy_name:slotway\r\nproxy_version:{}\r\nproxy_uptime_in_seconds:{uptime}\r\n\
             proxy_worker:{}\r\nproxy_worker_clients:{}\r\nproxy_maxclients:{}\r\n\
             proxy_topology_generation:{}\r\n\
             proxy_cluster_nodes:{known}\r\nproxy_cluster_primaries:{}\r\n\
             proxy_cluster_slots_covered:{covered}\r\n",
            env!("CARGO_PKG_VERSION"),
            self.core.link.index,
            self.clients.slab.len(),
            self.core.shared.max_clients(),
            self.nodes.topology.snapshot.generation,
            self.nodes.placement.slots.primaries().len(),
        )
    }
}

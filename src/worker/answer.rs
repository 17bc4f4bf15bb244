//! A reply finds its client: as it is, merged with others, or as an error of slotway's own.

use super::state::Base;
use super::state::base;
use super::state::{Clients, Core, Nodes, Operations};
use std::sync::atomic::Ordering::Relaxed;

use super::{Gathering, Node, Worker, reaccount};
use crate::buf::CHUNK;
use crate::command::CommandId;
use crate::dest::{ClientId, Dest};
use crate::errors::{Cause, Failure};
use crate::mailbox::ToControl;
use crate::metrics::{DisconnectReason, Histogram};
use crate::ops::{Answerer, Parts};
use crate::resp::Protocol;
use crate::route::{ProxyInfo, flag};
use crate::upstream::Pending;

/// A command that stays unknown (a renamed one, say) is not asked about more often, microseconds.
const COMMANDS_WISH_PAUSE: u64 = 1_000_000;
/// From here on a blocking command (BLPOP, XREAD BLOCK) has waited as it was told to, microseconds.
pub(super) const BLOCKED: u64 = 10_000;

/// The node that has answered a part.
struct Answered<'a> {
    nodes: &'a [Node],
    node: u16,
}

impl Answerer for Answered<'_> {
    fn node(&self) -> u16 {
        self.node
    }

    fn name(&self) -> String {
        let node = self.nodes.get(usize::from(self.node));
        node.map_or_else(String::new, |node| node.addr.to_string())
    }
}

impl Core {
    /// It may want to wait: what it takes is no latency.
    #[cold]
    fn may_block(&self, command: CommandId) -> bool {
        command < self.router.unknown() && self.router.may_block(command)
    }

    #[inline]
    pub(super) fn count_reply(&mut self, node: u16, pending: &Pending, ok: bool) {
        if pending.dest == Dest::Discard {
            return;
        }
        let micros = self.now.saturating_sub(pending.started);
        let bucket = Histogram::bucket(micros);
        let waited = micros >= BLOCKED && self.may_block(pending.command);
        if let Some(stats) = self.stats.nodes.get_mut(usize::from(node)).filter(|_| !waited) {
            stats.latency.record(bucket, micros);
        }
        if !matches!(pending.dest, Dest::Client { .. }) {
            return;
        }
        let histogram = self.stats.latency.get_mut(self.router.class(pending.command));
        if let Some(histogram) = histogram.filter(|_| !waited) {
            histogram.record(bucket, micros);
        }
        if let Some(stats) = self.stats.commands.get_mut(pending.command.index()) {
            if ok {
                stats.ok += 1;
            } else {
                stats.error += 1;
            }
        }
        if ok && pending.command == self.router.unknown() {
            self.note_unknown();
        }
    }

    /// The cluster has a command that the table has not.
    #[cold]
    pub(super) fn note_unknown(&mut self) {
        if self.now >= self.clock.next_commands_wish {
            self.clock.next_commands_wish = self.now + COMMANDS_WISH_PAUSE;
            // Control may be gone at the very end: nothing to refresh then.
            let _ = self.link.control.send(ToControl::RefreshCommands);
        }
    }

    fn count_gathering(&mut self, command: CommandId, started: u64, ok: bool) {
        let micros = self.now.saturating_sub(started);
        if let Some(histogram) = self.stats.latency.get_mut(self.router.class(command)) {
            histogram.record(Histogram::bucket(micros), micros);
        }
        if let Some(stats) = self.stats.commands.get_mut(command.index()) {
            if ok {
                stats.ok += 1;
            } else {
                stats.error += 1;
            }
        }
    }

    /// A client gets this error.
    pub(super) fn count_failure(&mut self, failure: &Failure) {
        if let Some(count) = self.stats.errors.get_mut(failure.code().index()) {
            *count += 1;
        }
    }
}

impl Nodes {
    fn answered_in(&mut self, pending: &Pending, lane: ClientId, answered: bool, core: &mut Core) {
        if pending.has(flag::LANE) {
            let gate = self.placement.slots.holds.done(pending.slot, lane, answered, core.now);
            if let Some(class) = gate {
                self.gate_answered(pending.slot, class, answered, core);
            }
        } else if pending.has(flag::TRACKED) {
            self.placement.slots.holds.untrack(pending.slot, lane);
        } else {
            return;
        }
        core.run_lane(pending.slot, lane);
    }
}

impl Clients {
    /// An error of slotway's own goes where a reply is waited for. One that leaves the outcome open
    /// ends the client's connection instead, where `commands.on_outcome_unknown` says so.
    pub(super) fn deliver_failure(&mut self, to: Dest, failure: &Failure, core: &mut Core) {
        core.count_failure(failure);
        match core.settings.disconnect_on_unknown && failure.is_outcome_unknown() {
            true => self.end_in_place_of(to, core),
            false => self.deliver_own(to, &failure.frame(), core),
        }
    }

    /// A reply that is no failure of slotway's own goes where it is waited for.
    pub(super) fn deliver_own(&mut self, to: Dest, reply: &[u8], core: &mut Core) {
        if let Dest::Client { index, generation, seq } = to
            && let Some(client) = self.slab.get_mut(index as usize)
            && client.generation == generation
        {
            client.complete(seq, reply, &mut core.spare.pool);
            self.mark_client(index as usize, core);
        }
    }

    /// The same for a reply that may be large, and is taken out of its buffer then.
    fn deliver_whole(&mut self, to: Dest, reply: &mut Vec<u8>, core: &mut Core) {
        if let Dest::Client { index, generation, seq } = to
            && reply.len() >= CHUNK
            && let Some(client) = self.slab.get_mut(index as usize)
            && client.generation == generation
        {
            client.complete_owned(seq, reply, &mut core.spare.pool);
            return self.mark_client(index as usize, core);
        }
        self.deliver_own(to, reply, core);
    }

    /// The client's connection is closed in place of a reply, behind those before it.
    #[cold]
    fn end_in_place_of(&mut self, to: Dest, core: &mut Core) {
        if let Dest::Client { index, generation, seq } = to
            && let Some(client) = self.slab.get_mut(index as usize)
            && client.generation == generation
        {
            client.end_at(seq);
            client.leaves_for = Some(DisconnectReason::OutcomeUnknown);
            self.stop_reading(index as usize, core);
        }
    }
}

impl Operations {
    /// Whose lane a command belongs to.
    pub(super) fn lane_of(&self, pending: &Pending) -> ClientId {
        match pending.dest {
            Dest::Client { index, generation, .. } => ClientId { index, generation },
            Dest::Part { gather, .. } => {
                let gathering = self.gatherings.get(gather as usize);
                gathering.map_or(ClientId::UNKNOWN, |g| g.lane)
            }
            Dest::Join { .. } | Dest::Discard => ClientId::UNKNOWN,
        }
    }

    /// A command that its slot's hold knows of has come to its end.
    pub(super) fn answered(&mut self, pending: &Pending, nodes: &mut Nodes, core: &mut Core) {
        let lane = self.lane_of(pending);
        nodes.answered_in(pending, lane, true, core);
    }
}

impl Worker {
    /// A node's reply goes where it is waited for.
    pub(super) fn deliver(&mut self, node: u16, pending: &Pending, frame: &[u8]) {
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
                if pending.has(flag::SPECIAL) {
                    self.ops.answered(pending, &mut self.nodes, &mut self.core);
                }
            }
            Dest::Part { gather, first } => {
                // The lane is known by its gathering, which may end with this part.
                let lane = self.ops.lane_of(pending);
                self.part(gather, first, node, frame);
                self.nodes.answered_in(pending, lane, true, &mut self.core);
            }
            Dest::Join { .. } | Dest::Discard => {}
        }
    }

    /// An error of slotway's own in place of a node's reply.
    pub(super) fn command_failed(&mut self, pending: &Pending, node: &str, failure: &Failure) {
        let lane = self.ops.lane_of(pending);
        match pending.dest {
            Dest::Client { index, generation, seq } => {
                if let Some(stats) = self.core.stats.commands.get_mut(pending.command.index()) {
                    stats.refused += 1;
                }
                self.clients.deliver_failure(pending.dest, failure, &mut self.core);
                self.clients.end_handed_on(ClientId { index, generation }, seq, &mut self.core);
            }
            Dest::Part { gather, first } => self.fail_part(gather, first, node.to_owned(), failure),
            Dest::Join { join, .. } => self.ops.join_lost(join, &mut base!(self)),
            Dest::Discard => {}
        }
        self.nodes.answered_in(pending, lane, false, &mut self.core);
    }

    pub(super) fn fail_part(&mut self, gather: u32, first: u32, node: String, failure: &Failure) {
        let gathering = self.ops.gatherings.get_mut(gather as usize);
        let last = gathering.is_some_and(|g| g.parts.fail(first, || node, failure.clone()));
        if last {
            self.finish_gathering(gather as usize);
        }
    }

    pub(super) fn part(&mut self, gather: u32, first: u32, node: u16, frame: &[u8]) {
        let over = frame.len() > CHUNK
            && !self.clients.has_room_for(frame.len(), &mut self.nodes, &mut self.core);
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
        let held = gathering.parts.held();
        reaccount(&mut self.core.memory.accounted, &mut gathering.accounted, held);
        if last && !self.scan_goes_on(gather as usize) {
            self.finish_gathering(gather as usize);
        }
    }

    /// All parts are there: one reply.
    pub(super) fn finish_gathering(&mut self, g: usize) {
        if self.ops.gatherings.get(g).is_some_and(|g| g.parts.emulated().is_some()) {
            return self.emulation_goes_on(g);
        }
        // The reply is made beside its parts.
        let parts = self.ops.gatherings.get(g).map_or(0, |g| g.accounted);
        let fits =
            parts <= CHUNK || self.clients.has_room_for(parts, &mut self.nodes, &mut self.core);
        let Some(mut gathering) = self.ops.gatherings.try_remove(g) else { return };
        reaccount(&mut self.core.memory.accounted, &mut gathering.accounted, 0);
        let mut cursor = String::new();
        if let Some(gather) = gathering.parts.merged_mut() {
            if gather.wants_info() {
                gather.set_info(self.proxy_info());
            }
            cursor = self.nodes.next_cursor(gather);
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
                // The reply says it at some of its commands.
                unknown = exec.has_unknown();
                exec.finish(info, &mut reply)
            }
            Parts::Merged(gather) => match gather.asked() {
                Some(ask) => {
                    let own = |kind, name: &[u8]| self.subscribers.own_part(kind, name);
                    ask.merge(gather.replies(), own, &mut reply);
                    Ok(())
                }
                None => gather.finish(&mut reply, &cursor),
            },
            // It has gone on above.
            Parts::Emulated(..) => Ok(()),
        };
        let ok = made.is_ok();
        // What the nodes had to send counts, however short the reply that was made of it is.
        let bytes = gathering.received.max(reply.len());
        if let Dest::Part { .. } = gathering.to {
            self.deliver_part(&mut gathering, made.map(|()| &*reply));
        } else {
            self.core.count_gathering(gathering.command, gathering.started, ok);
            let unknown = match made {
                Ok(()) => unknown,
                Err(cause) => {
                    if let Cause::Own(failure) = &cause {
                        self.core.count_failure(failure);
                    }
                    cause.write(&mut reply);
                    cause.is_outcome_unknown()
                }
            };
            if gathering.renames && ok {
                // Control may be gone at the very end: nothing to ask then.
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
                true => self.clients.end_in_place_of(gathering.to, &mut self.core),
                false => self.clients.deliver_whole(gathering.to, &mut reply, &mut self.core),
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
                self.clients.fleet_failed(gathering.lane, seq, &mut self.nodes, &mut self.core);
            }
            self.clients.end_errand(gathering.lane, seq, &mut self.core);
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

    /// What INFO says of slotway itself.
    pub(super) fn proxy_info(&self) -> ProxyInfo {
        ProxyInfo {
            clients: self.core.shared.clients.load(Relaxed),
            blocked: self.core.shared.blocked.load(Relaxed),
            max_clients: self.core.shared.max_clients(),
            announce_mode: self.core.settings.announce_mode,
            section: self.proxy_section(),
        }
    }

    /// INFO's section about the proxy.
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

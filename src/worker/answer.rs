//! A reply finds its client. A node's refusals are carried out: sent elsewhere, or later.

use std::sync::atomic::Ordering::Relaxed;

use super::clock::{Job, Timer};
use super::retries::Want;
use super::{Gathering, Node, Worker, reaccount};
use crate::buf::CHUNK;
use crate::cluster::NO_SLOT;
use crate::dest::{ClientId, Dest};
use crate::errors::{Cause, Failure};
use crate::mailbox::ToControl;
use crate::metrics::{DisconnectReason, Histogram, RetryReason};
use crate::ops::{Answerer, Parts};
use crate::placement::{
    AfterRefusal, Held, Redirection, Refusal, Retry, Scope, Work, after_refusal, concerns,
};
use crate::resp::Protocol;
use crate::route::{ProxyInfo, flag};
use crate::upstream::{Pending, Waiting};

/// A command that stays unknown (a renamed one, say) is not asked about more often, microseconds.
const COMMANDS_WISH_PAUSE: u64 = 1_000_000;
/// So many slots newly held in one turn are many.
const MANY_HOLDS: usize = 32;
/// From here on a blocking command (BLPOP, XREAD BLOCK) has waited as it was told to, microseconds.
pub(super) const BLOCKED: u64 = 10_000;
pub(super) const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

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

impl Worker {
    /// A node's reply goes where it is waited for.
    pub(super) fn deliver(&mut self, node: u16, pending: &Pending, frame: &[u8]) {
        let ok = frame.first() != Some(&b'-');
        self.count_reply(node, pending, ok);
        match pending.dest {
            Dest::Client { index, generation, seq } => {
                if let Some(client) = self.clients.get_mut(index as usize)
                    && client.generation == generation
                {
                    client.complete(seq, frame, &mut self.pool);
                    client.transfer_sizes.record(frame.len());
                    if !client.dirty {
                        client.dirty = true;
                        self.dirty_clients.push(index as usize);
                    }
                }
                if pending.has(flag::SPECIAL) {
                    self.answered(pending);
                }
            }
            Dest::Part { gather, first } => {
                // The lane is known by its gathering, which may end with this part.
                let lane = self.lane_of(pending);
                self.part(gather, first, node, frame);
                self.answered_in(pending, lane, true);
            }
            Dest::Join { .. } | Dest::Discard => {}
        }
    }

    /// It may want to wait: what it takes is no latency.
    #[cold]
    fn may_block(&self, command: u16) -> bool {
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
        if let Some(stats) = self.stats.commands.get_mut(usize::from(pending.command)) {
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
        if self.now >= self.next_commands_wish {
            self.next_commands_wish = self.now + COMMANDS_WISH_PAUSE;
            // Control may be gone at the very end: nothing to refresh then.
            let _ = self.control.send(ToControl::RefreshCommands);
        }
    }

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
    pub(super) fn answered(&mut self, pending: &Pending) {
        let lane = self.lane_of(pending);
        self.answered_in(pending, lane, true);
    }

    fn answered_in(&mut self, pending: &Pending, lane: ClientId, answered: bool) {
        if pending.has(flag::LANE) {
            let gate = self.slot_table.holds.done(pending.slot, lane, answered, self.now);
            if let Some(class) = gate {
                self.gate_answered(pending.slot, class, answered);
            }
        } else if pending.has(flag::TRACKED) {
            self.slot_table.holds.untrack(pending.slot, lane);
        } else {
            return;
        }
        self.run_lane(pending.slot, lane);
    }

    /// An error of slotway's own in place of a node's reply.
    pub(super) fn fail(&mut self, pending: &Pending, node: &str, failure: &Failure) {
        let lane = self.lane_of(pending);
        match pending.dest {
            Dest::Client { index, generation, seq } => {
                if let Some(stats) = self.stats.commands.get_mut(usize::from(pending.command)) {
                    stats.refused += 1;
                }
                self.deliver_failure(pending.dest, failure);
                self.end_handed_on(ClientId { index, generation }, seq);
            }
            Dest::Part { gather, first } => self.fail_part(gather, first, node.to_owned(), failure),
            Dest::Join { join, .. } => self.join_lost(join),
            Dest::Discard => {}
        }
        self.answered_in(pending, lane, false);
    }

    pub(super) fn fail_part(&mut self, gather: u32, first: u32, node: String, failure: &Failure) {
        let gathering = self.gatherings.get_mut(gather as usize);
        let last = gathering.is_some_and(|g| g.parts.fail(first, || node, failure.clone()));
        if last {
            self.finish_gathering(gather as usize);
        }
    }

    pub(super) fn part(&mut self, gather: u32, first: u32, node: u16, frame: &[u8]) {
        let over = frame.len() > CHUNK && !self.has_room_for(frame.len());
        let Some(gathering) = self.gatherings.get(gather as usize) else { return };
        let reads = self.router.is_read_only(gathering.command);
        let dropped = gathering.parts.may_drop(reads).filter(|_| over);
        let dropped = dropped.map(|only_reads| self.no_room_for_reply(only_reads));
        let received = frame.len();
        let Some(gathering) = self.gatherings.get_mut(gather as usize) else { return };
        gathering.received += received;
        let by = Answered { nodes: &self.nodes, node };
        let last = match dropped {
            Some(failure) => gathering.parts.fail(first, || by.name(), failure),
            None => gathering.parts.add(first, frame, &by),
        };
        let held = gathering.parts.held();
        reaccount(&mut self.accounted, &mut gathering.accounted, held);
        if last && !self.scan_goes_on(gather as usize) {
            self.finish_gathering(gather as usize);
        }
    }

    /// All parts are there: one reply.
    pub(super) fn finish_gathering(&mut self, g: usize) {
        if self.gatherings.get(g).is_some_and(|g| g.parts.emulated().is_some()) {
            return self.emulation_goes_on(g);
        }
        // The reply is made beside its parts.
        let parts = self.gatherings.get(g).map_or(0, |g| g.accounted);
        let fits = parts <= CHUNK || self.has_room_for(parts);
        let Some(mut gathering) = self.gatherings.try_remove(g) else { return };
        reaccount(&mut self.accounted, &mut gathering.accounted, 0);
        let mut cursor = String::new();
        if let Some(gather) = gathering.parts.merged_mut() {
            if gather.wants_info() {
                gather.set_info(self.proxy_info());
            }
            cursor = self.next_cursor(gather);
        }
        let mut reply = std::mem::take(&mut self.reply);
        reply.clear();
        let mut unknown = false;
        if parts > CHUNK && fits {
            reply.reserve_exact(parts + CHUNK);
        }
        let info = || self.proxy_info();
        let made = match &mut gathering.parts {
            _ if !fits => {
                let only_reads = self.router.is_read_only(gathering.command);
                Err(self.no_room_for_reply(only_reads).into())
            }
            Parts::Transaction(exec) => {
                // The reply says it at some of its commands.
                unknown = exec.has_unknown();
                exec.finish(info, &mut reply)
            }
            Parts::Merged(gather) => match gather.asked() {
                Some(ask) => {
                    let own = |kind, name: &[u8]| self.own_part(kind, name);
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
            self.count_gathering(&gathering, ok);
            let unknown = match made {
                Ok(()) => unknown,
                Err(cause) => {
                    if let Cause::Own(failure) = &cause {
                        self.count_failure(failure);
                    }
                    cause.write(&mut reply);
                    cause.is_outcome_unknown()
                }
            };
            if gathering.renames && ok {
                // Control may be gone at the very end: nothing to ask then.
                let _ = self.control.send(ToControl::RefreshCommands);
            }
            if let Some(sets) = gathering.sets.filter(|_| ok) {
                self.shared.slow.set(sets);
            }
            if let Some(slow) = gathering.slow.take() {
                self.slow_gathering(*slow, gathering.command, gathering.to);
            }
            match unknown && self.settings.disconnect_on_unknown {
                true => self.end_in_place_of(gathering.to),
                false => self.deliver_whole(gathering.to, &mut reply),
            }
        }
        if let Some(kept) = gathering.kept.take().filter(|_| self.spare_kept.len() < 256) {
            self.spare_kept.push(kept);
        }
        if let Dest::Client { seq, .. } = gathering.to {
            if let Some(client) = self.clients.get_mut(gathering.lane.at())
                && client.generation == gathering.lane.generation
            {
                client.transfer_sizes.record(bytes);
            }
            if !ok {
                self.fleet_failed(gathering.lane, seq);
            }
            self.end_errand(gathering.lane, seq);
        }
        if reply.capacity() <= crate::buf::CHUNK {
            self.reply = reply;
        }
        if let Parts::Merged(mut gather) = gathering.parts
            && self.spare_gathers.len() < 256
        {
            gather.start(crate::route::Merge::AllSucceeded, Protocol::Resp2);
            self.spare_gathers.push(gather);
        }
    }

    fn count_gathering(&mut self, gathering: &Gathering, ok: bool) {
        let micros = self.now.saturating_sub(gathering.started);
        if let Some(histogram) = self.stats.latency.get_mut(self.router.class(gathering.command)) {
            histogram.record(Histogram::bucket(micros), micros);
        }
        if let Some(stats) = self.stats.commands.get_mut(usize::from(gathering.command)) {
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

    /// An error of slotway's own goes where a reply is waited for. One that leaves the outcome open
    /// ends the client's connection instead, where `commands.on_outcome_unknown` says so.
    pub(super) fn deliver_failure(&mut self, to: Dest, failure: &Failure) {
        self.count_failure(failure);
        match self.settings.disconnect_on_unknown && failure.is_outcome_unknown() {
            true => self.end_in_place_of(to),
            false => self.deliver_own(to, &failure.frame()),
        }
    }

    /// A reply that is no failure of slotway's own goes where it is waited for.
    pub(super) fn deliver_own(&mut self, to: Dest, reply: &[u8]) {
        if let Dest::Client { index, generation, seq } = to
            && let Some(client) = self.clients.get_mut(index as usize)
            && client.generation == generation
        {
            client.complete(seq, reply, &mut self.pool);
            self.mark_client(index as usize);
        }
    }

    /// The same for a reply that may be large, and is taken out of its buffer then.
    fn deliver_whole(&mut self, to: Dest, reply: &mut Vec<u8>) {
        if let Dest::Client { index, generation, seq } = to
            && reply.len() >= CHUNK
            && let Some(client) = self.clients.get_mut(index as usize)
            && client.generation == generation
        {
            client.complete_owned(seq, reply, &mut self.pool);
            return self.mark_client(index as usize);
        }
        self.deliver_own(to, reply);
    }

    /// The client's connection is closed in place of a reply, behind those before it.
    #[cold]
    fn end_in_place_of(&mut self, to: Dest) {
        if let Dest::Client { index, generation, seq } = to
            && let Some(client) = self.clients.get_mut(index as usize)
            && client.generation == generation
        {
            client.end_at(seq);
            client.leaves_for = Some(DisconnectReason::OutcomeUnknown);
            self.stop_reading(index as usize);
        }
    }

    /// What INFO says of slotway itself.
    pub(super) fn proxy_info(&self) -> ProxyInfo {
        ProxyInfo {
            clients: self.shared.clients.load(Relaxed),
            blocked: self.shared.blocked.load(Relaxed),
            max_clients: self.shared.max_clients(),
            announce_mode: self.settings.announce_mode,
            section: self.proxy_section(),
        }
    }

    /// INFO's section about the proxy.
    fn proxy_section(&self) -> String {
        let uptime = self.epoch.elapsed().as_secs();
        let covered = self.slot_table.covered();
        let known = self.nodes.iter().filter(|n| n.known).count();
        format!(
            "proxy_name:slotway\r\nproxy_version:{}\r\nproxy_uptime_in_seconds:{uptime}\r\n\
             proxy_worker:{}\r\nproxy_worker_clients:{}\r\nproxy_maxclients:{}\r\n\
             proxy_topology_generation:{}\r\n\
             proxy_cluster_nodes:{known}\r\nproxy_cluster_primaries:{}\r\n\
             proxy_cluster_slots_covered:{covered}\r\n",
            env!("CARGO_PKG_VERSION"),
            self.index,
            self.clients.len(),
            self.shared.max_clients(),
            self.snapshot.generation,
            self.slot_table.primaries().len(),
        )
    }

    /// An error reply that is not the client's business: the command was not executed and goes
    /// elsewhere or waits. `false`: it is the client's.
    pub(super) fn refused(&mut self, u: usize, frame: &[u8]) -> bool {
        let text = crate::resp::reply::error_text(frame).unwrap_or_default();
        self.forget_script(u, text);
        let Some(up) = self.upstreams.get_mut(u) else { return false };
        let Some(front) = up.pending.front() else { return false };
        if front.dest == Dest::Discard {
            // SCRIPT LOAD may have been refused.
            if text.starts_with(b"BUSY ") {
                up.scripts.clear();
            }
            if front.slot != NO_SLOT {
                self.note_probe(u, frame);
            }
            return false;
        }
        let bound = front.has(flag::NODE_BOUND);
        let Some(node) = self.nodes.get(usize::from(up.node)) else { return false };
        let Some(refusal) = Refusal::parse(frame, &node.addr) else { return false };
        if bound && !self.rebind_refused(u, &refusal) {
            // The client is told; what comes next need not be.
            self.want_topology(None);
            return false;
        }
        let Some(front) = self.upstreams.get(u).and_then(|up| up.pending.front()) else {
            return false;
        };
        let strange = !concerns(&refusal, front.slot_of_keys(), front.tries);
        let no_script = refusal.kind() == Redirection::NoScript;
        if strange || (no_script && !self.heals(u, text)) {
            return false;
        }
        if !self.seeing.traced.is_empty()
            && let Some(front) = self.upstreams.get(u).and_then(|up| up.pending.front()).copied()
        {
            self.trace_attempt(u, &front, frame, true);
        }
        let Some(up) = self.upstreams.get_mut(u) else { return false };
        let Some(mut pending) = up.pending.pop_front() else { return false };
        let len = pending.len as usize;
        let bytes = up.queue.take_front(len, &mut self.pool);
        self.stats.redirections[refusal.kind() as usize] += 1;
        let (node, read_only) = (up.node, up.read_only);
        self.count_retry(RetryReason::of(refusal.kind()));
        pending.tries = pending.tries.saturating_add(1);
        pending.refused = Some(refusal.kind());
        let work = if read_only { Work::ReplicaRead } else { pending.work() };
        let known = self.named_by(&refusal).is_some();
        match after_refusal(work, &refusal, known, pending.tries) {
            AfterRefusal::Again(when, scope) => {
                let text = String::from_utf8_lossy(text);
                self.retry(node, (pending, bytes), refusal, (when, scope), &text);
            }
            _ => {
                self.want_topology(None);
                self.send_to_primary(pending, bytes);
            }
        }
        true
    }

    /// The node of the cluster that a redirection names.
    pub(super) fn named_by(&self, refusal: &Refusal) -> Option<u16> {
        match refusal {
            Refusal::Moved(_, addr) | Refusal::Ask(_, addr) => self.known_node(addr),
            Refusal::Later(_) => None,
        }
    }

    fn retry(
        &mut self,
        refuser: u16,
        (mut pending, mut bytes): (Pending, Vec<u8>),
        refusal: Refusal,
        (when, scope): (Retry, Scope),
        text: &str,
    ) {
        let slot = pending.slot;
        let lane = self.lane_of(&pending);
        let mut ask = None;
        let named = self.named_by(&refusal);
        let half_moved = matches!(refusal, Refusal::Later(Redirection::TryAgain));
        self.note_migration(slot, &refusal);
        match refusal {
            Refusal::Moved(_, addr) => {
                let node = named;
                self.want_topology(Some(addr));
                if let Some(node) = node {
                    if slot == NO_SLOT {
                        // A command whose keys slotway does not know: the node knows them.
                        return self.send_to(node, pending, bytes, lane.index);
                    }
                    self.slot_table.moved(slot, node);
                }
            }
            Refusal::Ask(..) => match named {
                Some(node) if slot == NO_SLOT => {
                    return self.send_asking(node, pending, bytes, lane.index);
                }
                Some(_) => ask = named.filter(|_| when == Retry::Asking),
                None => self.want_topology(None),
            },
            // The same node again, at once.
            Refusal::Later(Redirection::NoScript) => {}
            Refusal::Later(_) => self.want_topology(None),
        }
        let delay = match when {
            Retry::Now | Retry::Asking => 0,
            Retry::After(pause) => pause / 2 + self.backoff_jitter(pause),
        };
        self.hold_slot(slot);
        self.slot_table.refused(slot, text.to_owned());
        let (from_lane, tracked) = (pending.has(flag::LANE), pending.has(flag::TRACKED));
        pending.flags &= !(flag::SPECIAL | flag::ASKING);
        if tracked {
            self.slot_table.holds.untrack(slot, lane);
        }
        if half_moved {
            bytes = match self.send_key_by_key(refuser, pending, from_lane, bytes) {
                None => return,
                Some(bytes) => bytes,
            };
        }
        // ASK is followed at once or not at all: a moment later the slot may have moved on, and a
        // node that is importing it again would take the key for a new one.
        if let Some(node) = ask
            && (from_lane || self.slot_table.holds.begin(slot, lane))
        {
            pending.flags |= flag::LANE;
            return self.send_asking(node, pending, bytes, lane.index);
        }
        let held = Held { meta: Waiting { pending, lane }, frame: bytes };
        let not_before = self.now + delay;
        let class = pending.class();
        if from_lane {
            self.slot_table.holds.push_back_again(slot, lane, held, not_before);
        } else {
            self.slot_table.holds.push_refused(slot, lane, held);
            self.slot_table.holds.delay(slot, lane, not_before);
        }
        self.arm_tick();
        if scope != Scope::Keys {
            self.close_gate(slot, class, refuser, scope == Scope::Node);
        } else if delay > 0 {
            self.slot_table.holds.owe(slot, lane);
        }
        if delay > 0 {
            self.timers.push(Timer { due: not_before, job: Job::Lane(slot, lane) });
            if scope != Scope::Keys {
                self.run_gate(slot, class);
            }
        } else {
            self.run_lane(slot, lane);
        }
    }

    /// Holds `slot` (on), and notes which of its commands are under way already.
    pub(super) fn hold_slot(&mut self, slot: u16) {
        if self.slot_table.holds.contains(slot) {
            self.slot_table.holds.hold(slot, self.now);
            self.arm_tick();
            return;
        }
        // Each time all that is under way is looked through. Where many slots are redirected at
        // once, as after a failover, all that have something under way are held in one go.
        self.held_now += 1;
        let mut slots = vec![slot];
        if self.held_now > MANY_HOLDS {
            for (_, up) in &self.upstreams {
                slots.extend(up.pending.iter().map(|p| p.slot).filter(|s| *s != NO_SLOT));
            }
            self.held_now = 0;
        }
        self.hold_slots(slots);
    }

    /// Holds those of `slots` that are not held yet.
    pub(super) fn hold_slots(&mut self, mut slots: Vec<u16>) {
        slots.sort_unstable();
        slots.dedup();
        slots.retain(|slot| !self.slot_table.holds.contains(*slot));
        if slots.is_empty() {
            return;
        }
        for &slot in &slots {
            self.slot_table.hold(slot, self.now);
        }
        self.arm_tick();
        let mut found = Vec::new();
        // What goes over dedicated connections keeps its order by itself; reads from replicas have
        // none.
        for (_, up) in self.upstreams.iter_mut().filter(|(_, up)| up.is_ordered()) {
            for pending in up.pending.iter_mut() {
                // Commands without keys have no order to keep among those already sent.
                let concerned = pending.slot != NO_SLOT
                    && !pending.has(flag::SPECIAL)
                    && pending.dest != Dest::Discard
                    && slots.binary_search(&pending.slot).is_ok();
                if concerned {
                    pending.flags |= flag::TRACKED;
                    found.push(*pending);
                }
            }
        }
        for pending in found {
            let lane = self.lane_of(&pending);
            self.slot_table.holds.track(pending.slot, lane);
        }
    }

    /// Sends the lane's next command if it may go and there is a node for it.
    pub(super) fn run_lane(&mut self, slot: u16, lane: ClientId) {
        let Some(owner) = self.owner_for(slot, lane) else { return };
        let Some(class) = self.slot_table.holds.ready(slot, lane, self.now) else { return };
        if self.slot_table.holds.wait_at_gate(slot, class, lane) {
            return self.run_gate(slot, class);
        }
        if self.slot_table.holds.owes(slot, lane, false) && !self.may_retry(Want::Lane(slot, lane))
        {
            return;
        }
        self.slot_table.holds.owes(slot, lane, true);
        let Some(held) = self.slot_table.holds.next(slot, lane, self.now) else { return };
        let mut pending = held.meta.pending;
        pending.flags |= flag::LANE;
        let owner = self.node_of_held(&pending, &held.frame, owner);
        self.send_to(owner, pending, held.frame, lane.index);
    }

    pub(super) fn protocol_of(pending: &Pending) -> Protocol {
        if pending.has(flag::RESP3) { Protocol::Resp3 } else { Protocol::Resp2 }
    }

    pub(super) fn send_to(&mut self, node: u16, mut pending: Pending, bytes: Vec<u8>, client: u32) {
        if !self.has_realm(&pending) {
            return;
        }
        if !pending.has(flag::READ_ONLY) {
            self.note_write(client as usize, Some(node));
        }
        let protocol = Self::protocol_of(&pending);
        let u = self.upstream_as(pending.realm, node, protocol, client as usize);
        self.script_before_again(u, &mut pending, &bytes);
        let bytes = self.behind_check(u, &mut pending, &bytes).unwrap_or(bytes);
        self.send_owned(u, pending, bytes);
    }

    fn send_asking(&mut self, node: u16, mut pending: Pending, bytes: Vec<u8>, client: u32) {
        if !self.has_realm(&pending) {
            return;
        }
        self.note_write(client as usize, Some(node));
        let protocol = Self::protocol_of(&pending);
        let u = self.upstream_as(pending.realm, node, protocol, client as usize);
        self.script_before_again(u, &mut pending, &bytes);
        let asking = Pending {
            dest: Dest::Discard,
            flags: 0,
            slot: NO_SLOT,
            before: 0,
            checks_shard: false,
            expected: 0,
            ..pending
        };
        self.send(u, asking, ASKING);
        pending.flags |= flag::ASKING;
        self.send_owned(u, pending, bytes);
    }

    /// A slot is calm: it is pipelined again. If all that is under way for it is on its owner's
    /// connections, what waits goes right behind, in order; otherwise only what waits in lanes
    /// that have nothing under way.
    pub(super) fn release_slot(&mut self, slot: u16) {
        let owner = match slot {
            NO_SLOT => self.slot_table.primaries().first().copied(),
            slot => self.slot_table.owner(slot),
        };
        let Some(owner) = owner else { return };
        let mut ordered = self.upstreams.iter().filter(|(_, up)| up.is_ordered());
        let elsewhere = ordered.any(|(_, up)| {
            let ours = |p: &Pending| p.slot == slot && p.dest != Dest::Discard;
            up.pending.iter().any(|p| ours(p) && (up.node != owner || p.has(flag::ASKING)))
        });
        let elsewhere = elsewhere && slot != NO_SLOT;
        if !elsewhere {
            for (_, up) in &mut self.upstreams {
                for pending in up.pending.iter_mut().filter(|p| p.slot == slot) {
                    pending.flags &= !flag::SPECIAL;
                }
            }
        }
        let (waiting, ended) = self.slot_table.release(slot, elsewhere);
        for held in waiting {
            let Waiting { mut pending, lane } = held.meta;
            if !ended {
                // The slot stays held for others: this client's next ones must not overtake.
                pending.flags |= flag::TRACKED;
                self.slot_table.holds.track(slot, lane);
            }
            let owner = self.node_of_held(&pending, &held.frame, owner);
            self.send_to(owner, pending, held.frame, lane.index);
        }
    }

    /// Where a command goes that was held: to its slot's `owner`, a message where it is heard.
    pub(super) fn node_of_held(&self, pending: &Pending, frame: &[u8], owner: u16) -> u16 {
        match super::publish::is_lone_publish(pending) {
            true => self.publish_node_of(frame).unwrap_or(owner),
            false => owner,
        }
    }
}

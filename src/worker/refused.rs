//! What a node refuses is carried out: sent elsewhere, or later, in the order of its client.

use super::Worker;
use super::clock::{Job, Timer};
use super::dedicated::protocol_of;
use super::retries::Want;
use super::state::base;
use super::state::{Base, Core, Nodes, Operations, Subscribers};
use crate::cluster::NO_SLOT;
use crate::dest::{ClientId, Dest};
use crate::metrics::RetryReason;
use crate::placement::{
    AfterRefusal, Held, Redirection, Refusal, Retry, Scope, Work, after_refusal, concerns,
};
use crate::resp::Protocol;
use crate::route::flag;
use crate::upstream::{Pending, Waiting};

/// So many slots newly held in one turn are many.
const MANY_HOLDS: usize = 32;
pub(super) const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

impl Nodes {
    /// The node of the cluster that a redirection names.
    pub(super) fn named_by(&self, refusal: &Refusal) -> Option<u16> {
        match refusal {
            Refusal::Moved(_, addr) | Refusal::Ask(_, addr) => self.known_node(addr),
            Refusal::Later(_) => None,
        }
    }
}

impl Subscribers {
    /// Where a command goes that was held: to its slot's `owner`, a message where it is heard.
    pub(super) fn node_of_held(
        &self,
        pending: &Pending,
        frame: &[u8],
        owner: u16,
        nodes: &Nodes,
        core: &Core,
    ) -> u16 {
        match super::publish::is_lone_publish(pending) {
            true => self.publish_node_of(frame, nodes, core).unwrap_or(owner),
            false => owner,
        }
    }
}

impl Base<'_> {
    /// Sends the lane's next command if it may go and there is a node for it.
    pub(super) fn lane_goes_on(&mut self, slot: u16, lane: ClientId) {
        let Some(owner) = self.nodes.owner_for(slot, lane) else { return };
        let Some(class) = self.nodes.placement.slots.holds.ready(slot, lane, self.core.now) else {
            return;
        };
        if self.nodes.placement.slots.holds.wait_at_gate(slot, class, lane) {
            return self.core.run_gate(slot, class);
        }
        if self.nodes.placement.slots.holds.owes(slot, lane, false)
            && !self.nodes.may_retry(Want::Lane(slot, lane), self.core)
        {
            return;
        }
        self.nodes.placement.slots.holds.owes(slot, lane, true);
        let Some(held) = self.nodes.placement.slots.holds.next(slot, lane, self.core.now) else {
            return;
        };
        let mut pending = held.meta.pending;
        pending.flags |= flag::LANE;
        let owner =
            self.subscribers.node_of_held(&pending, &held.frame, owner, self.nodes, self.core);
        self.send_to(owner, pending, held.frame, lane.index);
    }

    pub(super) fn send_to(&mut self, node: u16, mut pending: Pending, bytes: Vec<u8>, client: u32) {
        if !self.access.has_realm(&pending, self.core) {
            return;
        }
        if !pending.has(flag::READ_ONLY) {
            self.clients.note_write(client as usize, Some(node));
        }
        let protocol = protocol_of(&pending);
        let u = self.upstream_as(pending.realm, node, protocol, client as usize);
        self.scripts.script_before_again(u, &mut pending, &bytes, self.nodes, self.core);
        let bytes = self.nodes.behind_check(u, &mut pending, &bytes, self.core).unwrap_or(bytes);
        self.nodes.send_owned(u, pending, bytes, self.core);
    }

    fn send_asking(&mut self, node: u16, mut pending: Pending, bytes: Vec<u8>, client: u32) {
        if !self.access.has_realm(&pending, self.core) {
            return;
        }
        self.clients.note_write(client as usize, Some(node));
        let protocol = protocol_of(&pending);
        let u = self.upstream_as(pending.realm, node, protocol, client as usize);
        self.scripts.script_before_again(u, &mut pending, &bytes, self.nodes, self.core);
        let asking = Pending {
            dest: Dest::Discard,
            flags: 0,
            slot: NO_SLOT,
            before: 0,
            checks_shard: false,
            expected: 0,
            ..pending
        };
        self.nodes.send(u, asking, ASKING, self.core);
        pending.flags |= flag::ASKING;
        self.nodes.send_owned(u, pending, bytes, self.core);
    }

    /// A slot is calm: it is pipelined again. If all that is under way for it is on its owner's
    /// connections, what waits goes right behind, in order; otherwise only what waits in lanes
    /// that have nothing under way.
    pub(super) fn release_slot(&mut self, slot: u16) {
        let owner = match slot {
            NO_SLOT => self.nodes.placement.slots.primaries().first().copied(),
            slot => self.nodes.placement.slots.owner(slot),
        };
        let Some(owner) = owner else { return };
        let mut ordered = self.nodes.upstreams.iter().filter(|(_, up)| up.is_ordered());
        let elsewhere = ordered.any(|(_, up)| {
            let ours = |p: &Pending| p.slot == slot && p.dest != Dest::Discard;
            up.pending.iter().any(|p| ours(p) && (up.node != owner || p.has(flag::ASKING)))
        });
        let elsewhere = elsewhere && slot != NO_SLOT;
        if !elsewhere {
            for (_, up) in &mut self.nodes.upstreams {
                for pending in up.pending.iter_mut().filter(|p| p.slot == slot) {
                    pending.flags &= !flag::SPECIAL;
                }
            }
        }
        let (waiting, ended) = self.nodes.placement.slots.release(slot, elsewhere);
        for held in waiting {
            let Waiting { mut pending, lane } = held.meta;
            if !ended {
                // The slot stays held for others: this client's next ones must not overtake.
                pending.flags |= flag::TRACKED;
                self.nodes.placement.slots.holds.track(slot, lane);
            }
            let owner =
                self.subscribers.node_of_held(&pending, &held.frame, owner, self.nodes, self.core);
            self.send_to(owner, pending, held.frame, lane.index);
        }
    }
}

impl Operations {
    fn retry(
        &mut self,
        refuser: u16,
        (mut pending, mut bytes): (Pending, Vec<u8>),
        refusal: Refusal,
        (when, scope): (Retry, Scope),
        text: &str,
        base: &mut Base<'_>,
    ) {
        let slot = pending.slot;
        let lane = self.lane_of(&pending);
        let mut ask = None;
        let named = base.nodes.named_by(&refusal);
        let half_moved = matches!(refusal, Refusal::Later(Redirection::TryAgain));
        base.nodes.note_migration(slot, &refusal);
        match refusal {
            Refusal::Moved(_, addr) => {
                let node = named;
                base.core.want_topology(Some(addr));
                if let Some(node) = node {
                    if slot == NO_SLOT {
                        // A command whose keys slotway does not know: the node knows them.
                        return base.send_to(node, pending, bytes, lane.index);
                    }
                    base.nodes.placement.slots.moved(slot, node);
                }
            }
            Refusal::Ask(..) => match named {
                Some(node) if slot == NO_SLOT => {
                    return base.send_asking(node, pending, bytes, lane.index);
                }
                Some(_) => ask = named.filter(|_| when == Retry::Asking),
                None => base.core.want_topology(None),
            },
            // The same node again, at once.
            Refusal::Later(Redirection::NoScript) => {}
            Refusal::Later(_) => base.core.want_topology(None),
        }
        let delay = match when {
            Retry::Now | Retry::Asking => 0,
            Retry::After(pause) => pause / 2 + base.core.backoff_jitter(pause),
        };
        self.hold_slot(slot, base.nodes, base.core);
        base.nodes.placement.slots.refused(slot, text.to_owned());
        let (from_lane, tracked) = (pending.has(flag::LANE), pending.has(flag::TRACKED));
        pending.flags &= !(flag::SPECIAL | flag::ASKING);
        if tracked {
            base.nodes.placement.slots.holds.untrack(slot, lane);
        }
        if half_moved {
            bytes = match self.send_key_by_key(refuser, pending, from_lane, bytes, base) {
                None => return,
                Some(bytes) => bytes,
            };
        }
        // ASK is followed at once or not at all: a moment later the slot may have moved on, and a
        // node that is importing it again would take the key for a new one.
        if let Some(node) = ask
            && (from_lane || base.nodes.placement.slots.holds.begin(slot, lane))
        {
            pending.flags |= flag::LANE;
            return base.send_asking(node, pending, bytes, lane.index);
        }
        let held = Held { meta: Waiting { pending, lane }, frame: bytes };
        let not_before = base.core.now + delay;
        let class = pending.class();
        if from_lane {
            base.nodes.placement.slots.holds.push_back_again(slot, lane, held, not_before);
        } else {
            base.nodes.placement.slots.holds.push_refused(slot, lane, held);
            base.nodes.placement.slots.holds.delay(slot, lane, not_before);
        }
        base.core.arm_tick();
        if scope != Scope::Keys {
            base.nodes.close_gate(slot, class, refuser, scope == Scope::Node, base.core);
        } else if delay > 0 {
            base.nodes.placement.slots.holds.owe(slot, lane);
        }
        if delay > 0 {
            base.core.clock.timers.push(Timer { due: not_before, job: Job::Lane(slot, lane) });
            if scope != Scope::Keys {
                base.core.run_gate(slot, class);
            }
        } else {
            base.core.run_lane(slot, lane);
        }
    }

    /// Holds `slot` (on), and notes which of its commands are under way already.
    pub(super) fn hold_slot(&mut self, slot: u16, nodes: &mut Nodes, core: &mut Core) {
        if nodes.placement.slots.holds.contains(slot) {
            nodes.placement.slots.holds.hold(slot, core.now);
            core.arm_tick();
            return;
        }
        // Each time all that is under way is looked through. Where many slots are redirected at
        // once, as after a failover, all that have something under way are held in one go.
        core.turn.held_now += 1;
        let mut slots = vec![slot];
        if core.turn.held_now > MANY_HOLDS {
            for (_, up) in &nodes.upstreams {
                slots.extend(up.pending.iter().map(|p| p.slot).filter(|s| *s != NO_SLOT));
            }
            core.turn.held_now = 0;
        }
        self.hold_slots(slots, nodes, core);
    }

    /// Holds those of `slots` that are not held yet.
    pub(super) fn hold_slots(&mut self, mut slots: Vec<u16>, nodes: &mut Nodes, core: &mut Core) {
        slots.sort_unstable();
        slots.dedup();
        slots.retain(|slot| !nodes.placement.slots.holds.contains(*slot));
        if slots.is_empty() {
            return;
        }
        for &slot in &slots {
            nodes.placement.slots.hold(slot, core.now);
        }
        core.arm_tick();
        let mut found = Vec::new();
        // What goes over dedicated connections keeps its order by itself; reads from replicas have
        // none.
        for (_, up) in nodes.upstreams.iter_mut().filter(|(_, up)| up.is_ordered()) {
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
            nodes.placement.slots.holds.track(pending.slot, lane);
        }
    }
}

impl Worker {
    /// An error reply that is not the client's business: the command was not executed and goes
    /// elsewhere or waits. `false`: it is the client's.
    pub(super) fn refused(&mut self, u: usize, frame: &[u8]) -> bool {
        let text = crate::resp::reply::error_text(frame).unwrap_or_default();
        self.scripts.forget_script(u, text, &mut self.nodes, &mut self.core);
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return false };
        let Some(front) = up.pending.front() else { return false };
        if front.dest == Dest::Discard {
            // SCRIPT LOAD may have been refused.
            if text.starts_with(b"BUSY ") {
                up.scripts.clear();
            }
            if front.slot != NO_SLOT {
                self.nodes.note_probe(u, frame);
            }
            return false;
        }
        let bound = front.has(flag::NODE_BOUND);
        let Some(node) = self.nodes.list.get(usize::from(up.node)) else { return false };
        let Some(refusal) = Refusal::parse(frame, &node.addr) else { return false };
        if bound && !self.nodes.rebind_refused(u, &refusal, &mut self.core) {
            // The client is told; what comes next need not be.
            self.core.want_topology(None);
            return false;
        }
        let Some(front) = self.nodes.upstreams.get(u).and_then(|up| up.pending.front()) else {
            return false;
        };
        let strange = !concerns(&refusal, front.slot_of_keys(), front.tries);
        let no_script = refusal.kind() == Redirection::NoScript;
        if strange || (no_script && !self.scripts.heals(u, text, &mut self.nodes, &mut self.core)) {
            return false;
        }
        if !self.seeing.traced.is_empty()
            && let Some(front) =
                self.nodes.upstreams.get(u).and_then(|up| up.pending.front()).copied()
        {
            self.seeing.trace_attempt(
                u,
                &front,
                frame,
                true,
                &mut self.ops,
                &mut self.nodes,
                &mut self.core,
            );
        }
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return false };
        let Some(mut pending) = up.pending.pop_front() else { return false };
        let len = pending.len as usize;
        let bytes = up.queue.take_front(len, &mut self.core.spare.pool);
        self.core.stats.redirections[refusal.kind() as usize] += 1;
        let (node, read_only) = (up.node, up.read_only);
        self.core.count_retry(RetryReason::of(refusal.kind()));
        pending.tries = pending.tries.saturating_add(1);
        pending.refused = Some(refusal.kind());
        let work = if read_only { Work::ReplicaRead } else { pending.work() };
        let known = self.nodes.named_by(&refusal).is_some();
        match after_refusal(work, &refusal, known, pending.tries) {
            AfterRefusal::Again(when, scope) => {
                let text = String::from_utf8_lossy(text);
                self.ops.retry(
                    node,
                    (pending, bytes),
                    refusal,
                    (when, scope),
                    &text,
                    &mut base!(self),
                );
            }
            _ => {
                self.core.want_topology(None);
                self.ops.send_to_primary(pending, bytes, &mut base!(self));
            }
        }
        true
    }
}

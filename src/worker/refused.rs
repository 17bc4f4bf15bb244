//! What a node refuses is carried out: sent elsewhere, or later, in the order of its client.

use super::Worker;
use super::dedicated::protocol_of;
use super::clock::{Job, Timer};
use super::retries::Want;
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

impl Worker {
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
        let bytes = up.queue.take_front(len, &mut self.spare.pool);
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
                    self.placement.slots.moved(slot, node);
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
        self.placement.slots.refused(slot, text.to_owned());
        let (from_lane, tracked) = (pending.has(flag::LANE), pending.has(flag::TRACKED));
        pending.flags &= !(flag::SPECIAL | flag::ASKING);
        if tracked {
            self.placement.slots.holds.untrack(slot, lane);
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
            && (from_lane || self.placement.slots.holds.begin(slot, lane))
        {
            pending.flags |= flag::LANE;
            return self.send_asking(node, pending, bytes, lane.index);
        }
        let held = Held { meta: Waiting { pending, lane }, frame: bytes };
        let not_before = self.now + delay;
        let class = pending.class();
        if from_lane {
            self.placement.slots.holds.push_back_again(slot, lane, held, not_before);
        } else {
            self.placement.slots.holds.push_refused(slot, lane, held);
            self.placement.slots.holds.delay(slot, lane, not_before);
        }
        self.arm_tick();
        if scope != Scope::Keys {
            self.close_gate(slot, class, refuser, scope == Scope::Node);
        } else if delay > 0 {
            self.placement.slots.holds.owe(slot, lane);
        }
        if delay > 0 {
            self.clock.timers.push(Timer { due: not_before, job: Job::Lane(slot, lane) });
            if scope != Scope::Keys {
                self.run_gate(slot, class);
            }
        } else {
            self.run_lane(slot, lane);
        }
    }

    /// Holds `slot` (on), and notes which of its commands are under way already.
    pub(super) fn hold_slot(&mut self, slot: u16) {
        if self.placement.slots.holds.contains(slot) {
            self.placement.slots.holds.hold(slot, self.now);
            self.arm_tick();
            return;
        }
        // Each time all that is under way is looked through. Where many slots are redirected at
        // once, as after a failover, all that have something under way are held in one go.
        self.turn.held_now += 1;
        let mut slots = vec![slot];
        if self.turn.held_now > MANY_HOLDS {
            for (_, up) in &self.upstreams {
                slots.extend(up.pending.iter().map(|p| p.slot).filter(|s| *s != NO_SLOT));
            }
            self.turn.held_now = 0;
        }
        self.hold_slots(slots);
    }

    /// Holds those of `slots` that are not held yet.
    pub(super) fn hold_slots(&mut self, mut slots: Vec<u16>) {
        slots.sort_unstable();
        slots.dedup();
        slots.retain(|slot| !self.placement.slots.holds.contains(*slot));
        if slots.is_empty() {
            return;
        }
        for &slot in &slots {
            self.placement.slots.hold(slot, self.now);
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
            self.placement.slots.holds.track(pending.slot, lane);
        }
    }

    /// Sends the lane's next command if it may go and there is a node for it.
    pub(super) fn lane_goes_on(&mut self, slot: u16, lane: ClientId) {
        let Some(owner) = self.owner_for(slot, lane) else { return };
        let Some(class) = self.placement.slots.holds.ready(slot, lane, self.now) else { return };
        if self.placement.slots.holds.wait_at_gate(slot, class, lane) {
            return self.run_gate(slot, class);
        }
        if self.placement.slots.holds.owes(slot, lane, false)
            && !self.may_retry(Want::Lane(slot, lane))
        {
            return;
        }
        self.placement.slots.holds.owes(slot, lane, true);
        let Some(held) = self.placement.slots.holds.next(slot, lane, self.now) else { return };
        let mut pending = held.meta.pending;
        pending.flags |= flag::LANE;
        let owner = self.node_of_held(&pending, &held.frame, owner);
        self.send_to(owner, pending, held.frame, lane.index);
    }

    pub(super) fn send_to(&mut self, node: u16, mut pending: Pending, bytes: Vec<u8>, client: u32) {
        if !self.has_realm(&pending) {
            return;
        }
        if !pending.has(flag::READ_ONLY) {
            self.note_write(client as usize, Some(node));
        }
        let protocol = protocol_of(&pending);
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
        let protocol = protocol_of(&pending);
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
            NO_SLOT => self.placement.slots.primaries().first().copied(),
            slot => self.placement.slots.owner(slot),
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
        let (waiting, ended) = self.placement.slots.release(slot, elsewhere);
        for held in waiting {
            let Waiting { mut pending, lane } = held.meta;
            if !ended {
                // The slot stays held for others: this client's next ones must not overtake.
                pending.flags |= flag::TRACKED;
                self.placement.slots.holds.track(slot, lane);
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

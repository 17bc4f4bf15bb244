//! Commands that are sent again: refused, lost with a connection, or not sent before their slot
//! moved.

use crate::base::Base;
use crate::clients::errands::NO_PRIMARY_PAUSE;
use crate::cluster::Slot;
use crate::common::clock::{Job, Timer, jitter};
use crate::dest::{ClientId, ConnId, Dest, NodeId};
use crate::errors::Failure;
use crate::metrics::RetryReason;
use crate::nodes::retries::Want;
use crate::operations::Operations;
use crate::placement::{
    GateClass, GateNext, Held, Micros, Moment, NodeStatus, Redirection, Refusal, Retry, Scope,
    Target, leaves_queue,
};
use crate::route::PendingFlags;
use crate::subscribers::publish;
use crate::upstream::{ConnectionState, LaneCommand, Pending};

/// A blocking command that was not refused within this time was accepted.
const TRIAL: Micros = Micros(20_000);

/// Commands that are sent again.
pub(crate) struct Resends<'a> {
    ops: &'a mut Operations,
}

impl Operations {
    /// The methods about commands that are sent again.
    #[inline]
    pub(crate) fn resends(&mut self) -> Resends<'_> {
        Resends { ops: self }
    }
}

impl Resends<'_> {
    /// `refuser` has refused the command, saying `text`: again, there or elsewhere, as the retry
    /// policy says.
    pub(crate) fn refused(
        &mut self,
        refuser: NodeId,
        (mut pending, mut bytes): (Pending, Vec<u8>),
        refusal: Refusal,
        (when, scope): (Retry, Scope),
        text: &str,
        base: &mut Base<'_>,
    ) {
        let slot = pending.slot;
        let lane = self.ops.gatherings.lane_of(&pending);
        let mut ask = None;
        let named = base.nodes.named_by(&refusal, refuser);
        let of = Some(base.nodes.upstream_of(refuser));
        let half_moved = matches!(refusal, Refusal::Later(Redirection::TryAgain));
        base.nodes.placement.note_migration(slot, &refusal);
        match refusal {
            Refusal::Moved(_, addr) => {
                let node = named;
                base.core.link.want_topology(Some(addr), of);
                if let Some(node) = node {
                    if slot.is_keyless() {
                        // A command whose keys slotway does not know: the node knows them.
                        return base.send_to(node, pending, bytes, lane.index);
                    }
                    base.nodes.placement.slots.moved(slot, node);
                }
            }
            Refusal::Ask(..) => match named {
                Some(node) if slot.is_keyless() => {
                    return base.send_asking(node, pending, bytes, lane.index);
                }
                Some(_) => ask = named.filter(|_| when == Retry::Asking),
                None => base.core.link.want_topology(None, of),
            },
            // The same node again, at once.
            Refusal::Later(Redirection::NoScript) => {}
            Refusal::Later(_) => base.core.link.want_topology(None, of),
        }
        let delay = match when {
            Retry::Now | Retry::Asking => 0,
            Retry::After(Micros(pause)) => pause / 2 + jitter(pause),
        };
        self.ops.hold_slot(slot, base.nodes, base.core);
        base.nodes.placement.slots.refused(slot, text.to_owned());
        let from_lane = pending.flags.contains(PendingFlags::LANE);
        let tracked = pending.flags.contains(PendingFlags::TRACKED);
        pending.flags.remove(PendingFlags::SPECIAL | PendingFlags::ASKING);
        if tracked {
            base.nodes.placement.slots.holds.untrack(slot, lane);
        }
        if half_moved {
            bytes = match self.ops.send_key_by_key(refuser, pending, from_lane, bytes, base) {
                None => return,
                Some(bytes) => bytes,
            };
        }
        // ASK is followed at once or not at all: a moment later the slot may have moved on, and a
        // node that is importing it again would take the key for a new one.
        if let Some(node) = ask
            && (from_lane || base.nodes.placement.slots.holds.begin(slot, lane))
        {
            pending.flags.insert(PendingFlags::LANE);
            return base.send_asking(node, pending, bytes, lane.index);
        }
        let held = Held { meta: LaneCommand { pending, lane }, frame: bytes };
        let not_before = base.core.now + delay;
        let class = pending.class();
        if from_lane {
            base.nodes.placement.slots.holds.push_back_again(slot, lane, held, Moment(not_before));
        } else {
            base.nodes.placement.slots.holds.push_refused(slot, lane, held);
            base.nodes.placement.slots.holds.delay(slot, lane, Moment(not_before));
        }
        base.core.arm_tick();
        if scope != Scope::Keys {
            base.nodes.placement.close_gate(slot, class, refuser, scope == Scope::Node, base.core);
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

    /// A connection is lost, or its node has left the cluster. A replica's: what it was not sent,
    /// or may be sent again, goes to the primaries. A primary's: reads may go to its replicas.
    pub(crate) fn leave_replica(&mut self, conn: ConnId, base: &mut Base<'_>) {
        let Some(up) = base.nodes.upstreams.get_mut(conn) else { return };
        if !up.read_only {
            return base.clients.reads().leave_primary(conn, base.nodes, base.core);
        }
        for (pending, frame) in up.take_unsent(&mut base.core.spare.pool, |_| true) {
            base.core.stats.count_retry(RetryReason::Lost);
            self.send_to_primary(pending, frame, base);
        }
    }

    /// A read that a replica did not answer. It keeps no order with others, so no lane is asked.
    pub(crate) fn send_to_primary(
        &mut self,
        mut pending: Pending,
        frame: Vec<u8>,
        base: &mut Base<'_>,
    ) {
        let lane = self.ops.gatherings.lane_of(&pending);
        pending.flags.remove(PendingFlags::SPECIAL);
        match base.nodes.placement.slots.owner(pending.slot) {
            Some(owner) => base.send_to(owner, pending, frame, lane.index),
            None => self.ops.hold_pending(pending, lane, frame, base.nodes, base.core),
        }
    }

    /// The budget may have room again.
    pub(crate) fn run_retries(&mut self, base: &mut Base<'_>) {
        base.nodes.placement.retries.wake();
        base.nodes.placement.earn_retries(base.core);
        while let Some(want) = base.nodes.placement.retries.take() {
            match want {
                Want::Gate(slot, class) => base.core.run_gate(slot, class),
                Want::Lane(slot, lane) => base.core.run_lane(slot, lane),
                Want::Errand(client, seq) => self.ops.errands().again(client, seq, base),
            }
            base.nodes.placement.retries.carried_out();
        }
        base.nodes.placement.arm_retries(base.core);
    }

    /// Sends what the slot's closed gate lets through.
    pub(crate) fn gate_goes_on(&mut self, slot: Slot, class: GateClass, base: &mut Base<'_>) {
        loop {
            let now = Moment(base.core.now);
            let (placement, clients) = (&mut base.nodes.placement, &base.clients.slab);
            let waits = |id: ClientId| {
                let client = clients.get(id.at()).filter(|c| c.generation == id.generation);
                let errand = client.and_then(|c| c.lent.as_ref()?.errand.as_ref());
                errand.is_some_and(|e| e.slot == slot && e.upstream.is_none())
            };
            let (lane, paid) = match placement.slots.holds.gate_next(slot, class, now, waits) {
                GateNext::Nothing => return,
                GateNext::At(Moment(due)) => {
                    if base.nodes.placement.slots.holds.arm(slot, class) {
                        base.core.clock.timers.push(Timer { due, job: Job::Gate(slot, class) });
                    }
                    return;
                }
                GateNext::Try { lane, paid } => (lane, paid),
            };
            let Some(owner) = base.nodes.owner_for(slot, lane) else {
                // A client whose errand waits has nothing in its lane: no topology sends it.
                if base.nodes.placement.slots.holds.arm(slot, class) {
                    let due = base.core.now + NO_PRIMARY_PAUSE;
                    base.core.clock.timers.push(Timer { due, job: Job::Gate(slot, class) });
                }
                return;
            };
            if !paid && !base.nodes.placement.may_retry(Want::Gate(slot, class), base.core) {
                return;
            }
            match base.nodes.placement.slots.holds.admit(slot, class, now, TRIAL) {
                Some(held) => {
                    let mut pending = held.meta.pending;
                    pending.flags.insert(PendingFlags::LANE);
                    let owner = base.subscribers.node_of_held(
                        &pending,
                        &held.frame,
                        owner,
                        base.nodes,
                        base.core,
                    );
                    base.send_to(owner, pending, held.frame, lane.index);
                }
                None => self.ops.errands().send(lane.at(), None, base),
            }
        }
    }

    /// Commands that were not sent, for slots that another node owns now, or for any node while
    /// theirs is not reached.
    pub(crate) fn redirect_unsent(&mut self, base: &mut Base<'_>) {
        let all: Vec<ConnId> = base.nodes.upstreams.iter().map(|(conn, _)| conn).collect();
        for conn in all {
            let node = base.nodes.upstreams.get(conn).map(|up| up.node);
            let superseded = node.is_some_and(|node| base.nodes.shards().is_superseded(node));
            let deposed = node.is_some_and(|node| base.nodes.shards().is_deposed(node));
            let (slot_table, router) = (&base.nodes.placement.slots, &base.core.router);
            let Some(up) = base.nodes.upstreams.get_mut(conn) else { continue };
            if up.dedicated.is_some() {
                continue;
            }
            let node = up.node;
            let known = base.nodes.list.get(node.at()).is_some_and(|n| n.known);
            if up.read_only {
                if !known {
                    self.leave_replica(conn, base);
                }
                continue;
            }
            let reachable = known && up.state != ConnectionState::Backoff && !up.suspect;
            let standing = NodeStatus { known, reachable, superseded, deposed };
            let target = |p: &Pending| match p.slot {
                _ if p.dest == Dest::Discard => Target::Nobody,
                slot if slot.is_keyless() && !p.flags.contains(PendingFlags::NODE_BOUND) => {
                    Target::Any
                }
                slot if slot.is_keyless() && router.is_for_shards(p.command) => Target::Shard,
                slot if slot.is_keyless() => Target::Node,
                slot => {
                    let elsewhere = slot_table.owner(slot).is_some_and(|owner| owner != node);
                    Target::Owner { elsewhere, asking: p.flags.contains(PendingFlags::ASKING) }
                }
            };
            let taken =
                up.take_unsent(&mut base.core.spare.pool, |p| leaves_queue(target(p), standing));
            if !taken.is_empty() {
                base.nodes.mark_upstream(conn, base.core);
            }
            for (mut pending, frame) in taken {
                let lane = self.ops.gatherings.lane_of(&pending);
                base.core.stats.count_retry(RetryReason::Topology);
                if pending.flags.contains(PendingFlags::NODE_BOUND) {
                    base.nodes.shards().bind(node, &mut pending, base.core);
                }
                let slot = pending.slot;
                if pending.flags.contains(PendingFlags::NODE_BOUND) {
                    let name = base.nodes.list.get(node.at()).map(|n| n.addr.to_string());
                    base.core.fail(&pending, &name.unwrap_or_default(), &Failure::NodeFailed);
                } else if slot.is_keyless() {
                    let node = match publish::is_lone_publish(&pending) {
                        true => base.subscribers.publish_node_of(
                            slot.keyless_of().unwrap_or_default(),
                            &frame,
                            base.nodes,
                            base.core,
                        ),
                        false => base.nodes.any_primary(lane.at(), slot),
                    };
                    match node {
                        Some(other) => base.send_to(other, pending, frame, lane.index),
                        None => base.core.fail(&pending, "a node", &Failure::NoPrimary),
                    }
                } else if base.nodes.placement.slots.holds.contains(slot) {
                    let from_lane = pending.flags.contains(PendingFlags::LANE);
                    let tracked = pending.flags.contains(PendingFlags::TRACKED);
                    pending.flags.remove(PendingFlags::SPECIAL);
                    let held = Held { meta: LaneCommand { pending, lane }, frame };
                    if from_lane {
                        base.nodes.placement.slots.holds.push_back_again(
                            slot,
                            lane,
                            held,
                            Moment(0),
                        );
                    } else {
                        if tracked {
                            base.nodes.placement.slots.holds.untrack(slot, lane);
                        }
                        base.nodes.placement.slots.holds.push_unsent(slot, lane, held);
                    }
                } else if let Some(owner) = base.nodes.placement.slots.owner(slot) {
                    base.send_to(owner, pending, frame, lane.index);
                }
            }
        }
    }
}

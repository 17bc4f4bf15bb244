//! The budget of retries, gates of slots, and slots without a primary.

use crate::cluster::Slot;
use crate::common::Core;
use crate::common::clock::{Job, Timer, jitter};
use crate::dest::{ClientId, ConnId, Dest, NodeId};
use crate::errors::{Failure, Unanswered};
use crate::nodes::{Node, Nodes, Placement};
use crate::placement::{
    Allowance, GateClass, Micros, Moment, OutageCause, Phase, at_deadline, pause,
};
use crate::route::PendingFlags;
use crate::upstream::{ConnectionState, Pending};

/// A retry that waits for the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Want {
    Gate(Slot, GateClass),
    Lane(Slot, ClientId),
    /// A command on a dedicated connection: its client, the number of its reply.
    Errand(ClientId, u32),
}

/// Since when no connection to the node can be made; `None`: it is reached, or is no node.
pub(crate) fn unreached_since(nodes: &[Node], node: NodeId) -> Option<Moment> {
    let since = nodes.get(node.at())?.unreached_since;
    (since > 0).then_some(Moment(since))
}

/// The failure of a command that waits for a primary, with what is known of this one: a read that
/// was lost with a connection may have been executed then.
fn true_of(mut failure: Failure, pending: &Pending) -> Failure {
    if let Failure::PrimaryMissing { outcome, .. } = &mut failure {
        *outcome = at_deadline(pending.work(), Phase::Held, pending.was_lost());
    }
    failure
}

impl Placement {
    /// A command that its slot's hold knows of has come to its end in `lane`.
    pub(crate) fn answered_in(
        &mut self,
        pending: &Pending,
        lane: ClientId,
        answered: bool,
        core: &mut Core,
    ) {
        if pending.flags.contains(PendingFlags::LANE) {
            let gate = self.slots.holds.done(pending.slot, lane, answered, Moment(core.now));
            if let Some(class) = gate {
                self.gate_answered(pending.slot, class, answered, core);
            }
        } else if pending.flags.contains(PendingFlags::TRACKED) {
            self.slots.holds.untrack(pending.slot, lane);
        } else {
            return;
        }
        core.run_lane(pending.slot, lane);
    }

    pub(crate) fn earn_retries(&mut self, core: &mut Core) {
        let answered = core.stats.commands.iter().map(|c| c.ok + c.error + c.refused).sum();
        self.retries.budget.earn(Moment(core.now), answered);
    }

    /// Whether the budget has room for this retry; otherwise it waits and is carried out later.
    pub(crate) fn may_retry(&mut self, want: Want, core: &mut Core) -> bool {
        self.earn_retries(core);
        match self.retries.allows(want) {
            Allowance::Now => true,
            Allowance::Queued { first } => {
                core.stats.retry_budget_exhausted += u64::from(first);
                self.arm_retries(core);
                false
            }
        }
    }

    pub(crate) fn arm_retries(&mut self, core: &mut Core) {
        if let Some(wait) = self.retries.arm() {
            core.clock.timers.push(Timer { due: core.now + wait.0, job: Job::Retries });
        }
    }

    /// `node` has refused the slot to commands of `class`; `wide`: most likely its other slots, too.
    pub(crate) fn close_gate(
        &mut self,
        slot: Slot,
        class: GateClass,
        node: NodeId,
        wide: bool,
        core: &mut Core,
    ) {
        let jitter = jitter(1 << 10);
        let jittered = |failures| {
            let pause = pause(failures).0;
            Micros(pause / 2 + pause * jitter / (1 << 10))
        };
        self.slots.holds.close(slot, class, Moment(core.now), jittered);
        if wide && !slot.is_keyless() {
            self.retries.note_refused(node, slot, class);
        }
    }

    /// A command that went through a closed gate is answered: the gate's next go, and those of
    /// other slots that the node had refused.
    fn gate_answered(&mut self, slot: Slot, class: GateClass, answered: bool, core: &mut Core) {
        core.run_gate(slot, class);
        let Some(owner) = self.slots.owner(slot).filter(|_| answered) else { return };
        let (slots, now) = (&mut self.slots, Moment(core.now));
        let probe_now = |other, class| slots.holds.probe_now(other, class, now, true);
        for (other, class) in self.retries.take_refused(owner, slot, probe_now) {
            core.run_gate(other, class);
        }
    }
}

impl Nodes {
    pub(crate) fn owner_for(&self, slot: Slot, lane: ClientId) -> Option<NodeId> {
        match slot {
            keyless if keyless.is_keyless() => self.any_primary(lane.at(), keyless),
            slot => self.placement.slots.owner(slot),
        }
    }

    /// The error for commands of a slot whose primary has been missing for longer than
    /// `timeouts.no_primary`: the cluster names none, or it is not reached, or it refuses them.
    pub(crate) fn without_primary(
        &self,
        slot: Slot,
        class: GateClass,
        core: &Core,
    ) -> Option<Failure> {
        let limit = core.settings.no_primary?;
        let unreached = |node| unreached_since(&self.list, node);
        let outage = self.placement.slots.outage(slot, class, unreached)?;
        let micros = (Moment(core.now) - outage.since).0;
        if micros < limit {
            return None;
        }
        let primary = outage.primary.and_then(|node| self.list.get(node.at()));
        let primary = primary.map_or_else(|| "unknown".to_owned(), |node| node.addr.to_string());
        let place = match slot {
            slot if slot.is_keyless() => "a command without keys".into(),
            slot => format!("slot {slot}").into(),
        };
        let why = match outage.cause {
            OutageCause::NoPrimary => "the cluster has no primary for it".to_owned(),
            OutageCause::NotReached => "its primary is not reached".to_owned(),
            OutageCause::Refused(said) => format!("its primary refuses commands: {said}"),
        };
        Some(Failure::PrimaryMissing {
            place,
            primary: primary.into(),
            seconds: micros as f64 / 1e6,
            limit: limit as f64 / 1e6,
            outcome: Unanswered::NotExecuted,
            why,
        })
    }

    /// With every tick: what waits for a primary that is missing for too long fails.
    pub(crate) fn fail_without_primary(&mut self, core: &mut Core) {
        if core.settings.no_primary.is_none() {
            return;
        }
        for slot in self.placement.slots.holds.slots() {
            for class in GateClass::ALL {
                let Some(failure) = self.without_primary(slot, class, core) else { continue };
                for held in self.placement.slots.holds.take_waiting(slot, Some(class)) {
                    core.stats.no_primary += 1;
                    let pending = held.meta.pending;
                    core.fail(&pending, "slotway", &true_of(failure.clone(), &pending));
                }
            }
        }
        let waits = |up: &crate::upstream::Upstream| {
            up.is_ordered() && up.state != ConnectionState::Ready && !up.pending.is_empty()
        };
        let all: Vec<ConnId> =
            self.upstreams.iter().filter(|(_, up)| waits(up)).map(|(conn, _)| conn).collect();
        for conn in all {
            let Some(node) = self.upstreams.get(conn).map(|up| up.node) else { continue };
            let slot = self.list.get(node.at()).map_or(Slot::NONE, |n| n.shard_slot);
            let owns = self.placement.slots.owner(slot) == Some(node);
            if !owns || self.without_primary(slot, GateClass::Write, core).is_none() {
                continue;
            }
            let Some(up) = self.upstreams.get_mut(conn) else { continue };
            let taken = up.take_unsent(&mut core.spare.pool, |p: &Pending| {
                p.dest != Dest::Discard
                    && (!p.slot.is_keyless() || p.flags.contains(PendingFlags::NODE_BOUND))
            });
            for (pending, _) in taken {
                let at = if pending.slot.is_keyless() { slot } else { pending.slot };
                let failure = self.without_primary(at, pending.class(), core);
                let failure =
                    failure.or_else(|| self.without_primary(slot, GateClass::Write, core));
                let failure = failure.unwrap_or(Failure::SlotWithoutPrimary { slot: at });
                core.stats.no_primary += 1;
                core.fail(&pending, "slotway", &true_of(failure, &pending));
            }
            self.mark_upstream(conn, core);
        }
    }
}

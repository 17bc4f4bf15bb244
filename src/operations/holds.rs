//! Slots whose commands are held, and commands that wait.

use crate::base::Base;
use crate::buf::CHUNK;
use crate::clients::Flow;
use crate::cluster::Slot;
use crate::command::CommandId;
use crate::common::Core;
use crate::dest::{ClientId, Dest};
use crate::errors::Failure;
use crate::metrics::LimitHit;
use crate::nodes::Nodes;
use crate::nodes::shards::MissingTarget;
use crate::operations::Operations;
use crate::placement::{Held, Moment};
use crate::route::PendingFlags;
use crate::upstream::{LaneCommand, Pending};

/// So many slots newly held in one turn are many.
const MANY_HOLDS: usize = 32;

impl Operations {
    /// The slot is in motion or has no primary: the command waits in its client's lane.
    #[cold]
    pub(crate) fn hold_fresh(
        &mut self,
        index: usize,
        command: CommandId,
        slot: Slot,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        if frame.len() > CHUNK
            && !base.clients.memory().has_room_for(frame.len(), base.nodes, base.core)
        {
            return base.clients.refusals().for_memory(index, command, base.core);
        }
        if !base.nodes.placement.slots.holds.fits(slot, frame.len(), base.core.settings.held) {
            base.core.stats.limits_hit[LimitHit::Held as usize] += 1;
            base.clients.answer_own_error(index, command, &Failure::HoldsFull { slot }, base.core);
            return Flow::Next;
        }
        let Some(client) = base.clients.slab.get_mut(index) else { return Flow::Stop };
        let (protocol, generation) = (client.session.protocol, client.generation);
        client.session.last_command = command;
        let seq = client.expect(&mut base.core.spare.replies);
        let expected = client.transfer_sizes.expected();
        let dest = Dest::Client { index: index as u32, generation, seq };
        let mut pending =
            self.pending(dest, command, slot, protocol, base.access, base.clients, base.core);
        pending.expected = expected;
        self.hold_pending(
            pending,
            ClientId::new(index, generation),
            frame.to_vec(),
            base.nodes,
            base.core,
        );
        Flow::Next
    }

    /// Puts a command that has not been sent into its lane, and sends it on if it may go.
    pub(crate) fn hold_pending(
        &mut self,
        mut pending: Pending,
        lane: ClientId,
        frame: Vec<u8>,
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let slot = pending.slot;
        pending.len = frame.len() as u32;
        if !nodes.placement.slots.holds.contains(slot) {
            self.hold_slot(slot, nodes, core);
        }
        let meta = LaneCommand { pending, lane };
        nodes.placement.slots.holds.push_fresh(slot, lane, Held { meta, frame });
        core.arm_tick();
        core.run_lane(slot, lane);
    }

    /// A command that any node could take, and none is there: it waits, if there ever was one.
    #[cold]
    pub(crate) fn wait_for_a_node(
        &mut self,
        index: usize,
        command: CommandId,
        keyless: Slot,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        if base.nodes.topology.snapshot.generation == 0 {
            return base.clients.refusals().no_cluster(index, command, base.nodes, base.core);
        }
        self.hold_fresh(index, command, keyless, frame, base)
    }

    /// Holds `slot` (on), and notes which of its commands are under way already.
    pub(crate) fn hold_slot(&mut self, slot: Slot, nodes: &mut Nodes, core: &mut Core) {
        if nodes.placement.slots.holds.contains(slot) {
            nodes.placement.slots.holds.hold(slot, Moment(core.now));
            core.arm_tick();
            return;
        }
        // Each time all that is under way is looked through. Where many slots are redirected at
        // once, as after a failover, all that have something under way are held in one go.
        core.turn.held_now += 1;
        let mut slots = vec![slot];
        if core.turn.held_now > MANY_HOLDS {
            for (_, up) in nodes.upstreams.iter() {
                slots.extend(up.pending.iter().map(|p| p.slot).filter(|s| !s.is_keyless()));
            }
            core.turn.held_now = 0;
        }
        self.hold_slots(slots, nodes, core);
    }

    /// Holds those of `slots` that are not held yet.
    pub(crate) fn hold_slots(&mut self, mut slots: Vec<Slot>, nodes: &mut Nodes, core: &mut Core) {
        slots.sort_unstable();
        slots.dedup();
        slots.retain(|slot| !nodes.placement.slots.holds.contains(*slot));
        if slots.is_empty() {
            return;
        }
        for &slot in &slots {
            nodes.placement.slots.hold(slot, Moment(core.now));
        }
        core.arm_tick();
        let mut found = Vec::new();
        // What goes over dedicated connections keeps its order by itself; reads from replicas have
        // none.
        for (_, up) in nodes.upstreams.iter_mut().filter(|(_, up)| up.is_ordered()) {
            for pending in up.pending.iter_mut() {
                // Commands without keys have no order to keep among those already sent.
                let concerned = !pending.slot.is_keyless()
                    && !pending.flags.intersects(PendingFlags::SPECIAL)
                    && pending.dest != Dest::Discard
                    && slots.binary_search(&pending.slot).is_ok();
                if concerned {
                    pending.flags.insert(PendingFlags::TRACKED);
                    found.push(*pending);
                }
            }
        }
        for pending in found {
            let lane = self.gatherings.lane_of(&pending);
            nodes.placement.slots.holds.track(pending.slot, lane);
        }
    }

    /// The part for a target that is missing: it waits for a primary that is to come, and fails
    /// otherwise.
    pub(crate) fn hold_part(
        &mut self,
        mut pending: Pending,
        to: &MissingTarget,
        frame: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        pending.flags.remove(PendingFlags::NODE_BOUND);
        match *to {
            MissingTarget::Owners(_) => {
                core.fail(&pending, &to.name(), &Failure::SlotsWithoutPrimary);
            }
            MissingTarget::Failed(_) => core.fail(&pending, &to.name(), &Failure::NodeFailed),
            MissingTarget::Primary(slot)
                if !nodes.placement.slots.holds.fits(slot, frame.len(), core.settings.held) =>
            {
                core.stats.limits_hit[LimitHit::Held as usize] += 1;
                core.fail(&pending, &to.name(), &Failure::HoldsFull { slot });
            }
            MissingTarget::Primary(slot) => {
                let lane = self.gatherings.lane_of(&pending);
                pending.slot = slot;
                self.hold_pending(pending, lane, frame.to_vec(), nodes, core);
            }
        }
    }

    /// Slots that moved while commands for them are on the wire to the old node: later commands
    /// must not reach the new node before those are answered.
    pub(crate) fn hold_overtaken(&mut self, nodes: &mut Nodes, core: &mut Core) {
        let mut slots = Vec::new();
        for (_, up) in nodes.upstreams.iter().filter(|(_, up)| up.is_ordered()) {
            let mut written = up.queue.sent();
            for pending in up.pending.iter() {
                if written == 0 {
                    break;
                }
                written = written.saturating_sub(pending.len as usize);
                let owner = nodes.placement.slots.owner(pending.slot);
                let moved = owner.is_some_and(|owner| owner != up.node);
                if moved
                    && !pending.flags.contains(PendingFlags::LANE)
                    && pending.dest != Dest::Discard
                {
                    slots.push(pending.slot);
                }
            }
        }
        self.hold_slots(slots, nodes, core);
    }
}

//! The steps of emulated commands on their way to nodes.

use crate::base::Base;
use crate::clients::Clients;
use crate::dest::{ClientId, ConnId, Dest};
use crate::emulate::{LastStep, Step};
use crate::errors::Failure;
use crate::metrics::{EmulatedOutcome, LimitHit};
use crate::nodes::reaccount;
use crate::operations::{Gathering, Operations};
use crate::route::PendingFlags;
use crate::upstream::ConnectionState;

impl Operations {
    pub(crate) fn send_step(&mut self, g: usize, i: u32, step: Step, base: &mut Base<'_>) {
        let Some(gathering) = self.gatherings.get(g) else { return };
        let (lane, protocol) = (gathering.lane, gathering.parts.protocol());
        let slots = gathering.parts.emulated().map(|emulation| emulation.slots);
        let slot = slots.map_or(step.slot, |slots| slots.slot(step.slot.0));
        let table = base.core.router.table();
        let id = |name: &str| table.by_name(name).unwrap_or(base.core.router.unknown());
        let command = match (step.batch, step.names.first()) {
            (false, Some(name)) => id(name),
            _ => id("exec"),
        };
        let reads = step.names.iter().all(|name| base.core.router.is_read_only(id(name)));
        let repeatable = step.harmless || reads;
        let dest = Dest::Part { gather: g as u32, first: i };
        let mut pending =
            self.pending(dest, command, slot, protocol, base.access, base.clients, base.core);
        if step.batch {
            pending.before = step.names.len() as u32 + 1;
        }
        if repeatable {
            pending.flags.insert(PendingFlags::READ_ONLY);
        }
        if step.anywhere
            && reads
            && base.clients.reads().step(lane, pending, &step.frame, base.nodes, base.core)
        {
            return;
        }
        match base.nodes.route(slot) {
            Some(node) => base.send_to(node, pending, step.frame, lane.index),
            None if !base.nodes.placement.slots.holds.fits(
                slot,
                step.frame.len(),
                base.core.settings.held,
            ) =>
            {
                base.core.stats.limits_hit[LimitHit::Held as usize] += 1;
                base.core.fail(&pending, "slotway", &Failure::HoldsFull { slot });
            }
            None => self.hold_pending(pending, lane, step.frame, base.nodes, base.core),
        }
    }

    /// The reply to a step has begun to arrive at connection `conn`. If it is the client's reply
    /// ([`emulate::Step::last`]) the client gets it from here on as that of an ordinary command, so
    /// that it need not fit into `limits.memory`. Gives what of `piece` is the client's.
    #[cold]
    pub(crate) fn hand_on_step<'a>(
        &mut self,
        conn: ConnId,
        g: u32,
        piece: &'a [u8],
        base: &mut Base<'_>,
    ) -> Option<&'a [u8]> {
        let up =
            base.nodes.upstreams.get_mut(conn).filter(|up| up.state == ConnectionState::Ready)?;
        let pending = up.pending.front_mut().filter(|p| p.before == up.skipped_replies)?;
        let gathering = self.gatherings.get_mut(g as usize)?;
        let piece = match gathering.parts.emulated()?.last_step()? {
            LastStep::Command => piece,
            LastStep::Batch => piece.strip_prefix(b"*1\r\n")?,
        };
        let client = base.clients.slab.get(gathering.lane.at());
        let is_here = client.is_some_and(|c| c.generation == gathering.lane.generation && !c.gone);
        if !is_here || piece.first() != Some(&b'*') {
            return None;
        }
        pending.dest = gathering.to;
        pending.command = gathering.command;
        reaccount(&mut base.core.memory.accounted, &mut gathering.accounted, 0);
        let command = gathering.command;
        self.gatherings.try_remove(g as usize);
        base.core.count_emulated(command, EmulatedOutcome::Ok);
        Some(piece)
    }

    /// The client's emulation under way.
    pub(crate) fn emulation_of(&self, client: ClientId, clients: &Clients) -> Option<usize> {
        let known = clients.slab.get(client.at()).filter(|c| c.generation == client.generation)?;
        let g = known.lent.as_ref()?.errand.as_ref()?.gathering?;
        let its = |g: &&Gathering| g.parts.emulated().is_some() && g.lane == client;
        self.gatherings.get(g).filter(its).map(|_| g)
    }
}

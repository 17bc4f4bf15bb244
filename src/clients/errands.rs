//! Clients with a command that waits at a node: blocking commands, WATCH.

use std::sync::atomic::Ordering::Relaxed;

use crate::client::Paused;
use crate::clients::Clients;
use crate::cluster::Slot;
use crate::common::Core;
use crate::common::clock::{Job, Timer};
use crate::dest::{ClientId, Dest};
use crate::errors::Failure;
use crate::nodes::Nodes;
use crate::ops::{Errand, ErrandKind};
use crate::placement::{GateClass, Moment};

/// A timer outlives its errand. One that may wait for an hour and is answered at once, over and
/// over, must not leave an hour's timers: its end is looked at from time to time, microseconds.
pub(crate) const FARTHEST_TIMER: u64 = 10_000_000;
/// How long an errand waits for its slot to get a primary before it looks again, microseconds.
pub(crate) const NO_PRIMARY_PAUSE: u64 = 20_000;

/// The errands of clients: commands for which one client waits at a node, alone or at several.
pub(crate) struct Errands<'a> {
    clients: &'a mut Clients,
}

impl Clients {
    /// The errands of clients: what they wait for at nodes.
    pub(crate) fn errands(&mut self) -> Errands<'_> {
        Errands { clients: self }
    }
}

impl<'a> Errands<'a> {
    /// The reply of an emulated command that was handed on as it arrived is there, or will not come.
    pub(crate) fn end_handed_on(&mut self, client: ClientId, seq: u32, core: &mut Core) {
        let lent = self.clients.slab.get(client.at()).and_then(|c| c.lent.as_ref());
        let errand = lent.and_then(|lent| lent.errand.as_ref());
        if errand.is_some_and(|errand| errand.kind == ErrandKind::Emulated) {
            self.end(client, seq, core);
        }
    }

    /// From now on the client waits for `errand`; `own` is the time that it may take beside the
    /// deadline of every command, `None` for ever.
    pub(crate) fn begin(
        &mut self,
        index: usize,
        mut errand: Errand,
        own: Option<u64>,
        core: &mut Core,
    ) -> Option<Dest> {
        let client = self.clients.slab.get_mut(index)?;
        let generation = client.generation;
        let seq = client.expect(&mut core.spare.replies);
        client.paused = Paused::Command;
        errand.seq = seq;
        // A client may name a time beyond the end of the clock's numbers.
        let end = |(own, timeout)| core.now.saturating_add(timeout).saturating_add(own);
        errand.until = own.zip(core.settings.command_timeout).map(end);
        if let Some(until) = errand.until {
            let due = until.min(core.now + FARTHEST_TIMER);
            core.clock
                .timers
                .push(Timer { due, job: Job::ErrandEnd(ClientId::new(index, generation), seq) });
        }
        if errand.is_blocking() {
            core.shared.blocked.fetch_add(1, Relaxed);
        }
        self.clients.lending().lent(index, |lent| lent.errand = Some(errand));
        Some(Dest::Client { index: index as u32, generation, seq })
    }

    /// Nodes refuse the slot: the client's errand waits at its gate. `false`: it may go.
    pub(crate) fn waits_at_gate(
        &mut self,
        client: ClientId,
        slot: Slot,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> bool {
        if !nodes.placement.slots.holds.wait_at_gate(slot, GateClass::Write, client) {
            return false;
        }
        // To fail fast in time.
        let seq = self.clients.errands().of(client.at()).map(|errand| errand.seq);
        let since = nodes.placement.slots.holds.closed_since(slot, GateClass::Write);
        if let (Some(seq), Some(limit), Some(Moment(since))) =
            (seq, core.settings.no_primary, since)
        {
            let left = (since + limit).saturating_sub(core.now).max(NO_PRIMARY_PAUSE);
            core.errand_later(client, seq, left);
        }
        core.run_gate(slot, GateClass::Write);
        true
    }

    /// One try more has found no primary: how long until the next.
    pub(crate) fn no_primary_pause(&mut self, index: usize, core: &mut Core) -> u64 {
        let Some(errand) = self.clients.errands().of(index) else { return NO_PRIMARY_PAUSE };
        errand.tries = errand.tries.saturating_add(1);
        let tries = errand.tries;
        NO_PRIMARY_PAUSE.max(core.retry_pause(tries))
    }

    /// An error of slotway's own in place of the errand's reply.
    pub(crate) fn fail(
        &mut self,
        client: ClientId,
        seq: u32,
        failure: Failure,
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let index = client.at();
        let Some(errand) = self.clients.errands().of(index).filter(|e| e.seq == seq) else {
            return;
        };
        let (command, kind) = (errand.command, errand.kind);
        if let Some(stats) = core.stats.commands.get_mut(command.index()) {
            stats.refused += 1;
        }
        let reads = self.only_reads(index, core);
        let was_unknown = failure.is_outcome_unknown();
        let failure = match self.clients.errands().of(index) {
            Some(errand) => errand.failure(reads, failure),
            None => failure,
        };
        core.stats.outcome_unknown += u64::from(!was_unknown && failure.is_outcome_unknown());
        self.end(client, seq, core);
        if let ErrandKind::Check { .. } = kind {
            self.clients.transactions().forget(index, nodes, core);
        }
        let dest = Dest::client(client, seq);
        self.clients.deliveries().failure(dest, &failure, core);
    }

    /// Whether the command of the client's errand changes nothing.
    pub(crate) fn only_reads(&self, index: usize, core: &Core) -> bool {
        let lent = self.clients.slab.get(index).and_then(|client| client.lent.as_ref());
        lent.and_then(|lent| lent.errand.as_ref()).is_some_and(|errand| core.only_reads(errand))
    }

    /// The client's errand is answered: it is read from again.
    pub(crate) fn end(&mut self, client: ClientId, seq: u32, core: &mut Core) {
        let index = client.at();
        let Some(c) =
            self.clients.slab.get_mut(index).filter(|c| c.generation == client.generation)
        else {
            return;
        };
        let Some(lent) = c.lent.as_mut() else { return };
        if lent.errand.as_ref().is_none_or(|e| e.seq != seq) {
            return;
        }
        if lent.errand.take().is_some_and(|e| e.is_blocking()) {
            core.shared.blocked.fetch_sub(1, Relaxed);
        }
        if c.paused == Paused::Command {
            core.turn.resume.push(client);
        }
        self.clients.lending().forget(index);
    }

    /// The client waits for an answer that it will not read: it has closed its connection.
    pub(crate) fn waits_in_vain(&self, index: usize) -> bool {
        self.clients.slab.get(index).is_some_and(|c| {
            let errand = c.lent.as_ref().and_then(|l| l.errand.as_ref());
            c.peer_closed
                && c.paused == Paused::Command
                && errand.is_some_and(|e| {
                    matches!(e.kind, ErrandKind::Block | ErrandKind::Join) || e.time.is_some()
                })
        })
    }

    /// The errand that the client waits for.
    pub(crate) fn of(self, index: usize) -> Option<&'a mut Errand> {
        self.clients.slab.get_mut(index)?.lent.as_mut()?.errand.as_mut()
    }
}

//! Commands over several slots that are emulated in steps ([`crate::emulate`]): running the steps
//! and delivering the result. `dispatch/emulation.rs` starts them.
//!
//! An emulated command occupies its client as an errand does: nothing more is read from the client
//! until the command is answered, so later commands cannot overtake its steps. It is a gathering:
//! its steps keep their order with the client's earlier commands, are sent as the client's user,
//! and count as memory. If the client disconnects, changes that have begun are completed.

use crate::base::{Base, base};
use crate::buf::CHUNK;
use crate::clients::answers::buffers_full;
use crate::common::clock::{Job, Timer};
use crate::dest::{ClientId, Dest};
use crate::emulate;
use crate::emulate::{CommandResult, Next};
use crate::engine::Engine;
use crate::errors::Cause;
use crate::metrics::{EmulatedOutcome, Histogram, LimitHit};
use crate::nodes::reaccount;
use crate::operations::Gathering;

/// Memory for processing replies, as a multiple of their size.
const PROCESSING_FACTOR: usize = 4;

impl Engine {
    /// Advances an emulated command whose replies are complete or whose pause is over.
    pub(crate) fn emulation_goes_on(&mut self, g: usize) {
        let gathering = self.ops.gatherings.get(g).and_then(|g| g.parts.emulated());
        let Some(emulation) = gathering else { return };
        let bytes = emulation.gathered() * PROCESSING_FACTOR;
        if emulation.only_reads()
            && bytes > CHUNK
            && !self.clients.memory().has_room_for(bytes, &mut self.nodes, &mut self.core)
        {
            let failure = self.core.no_room_for_reply(true);
            return self.end_emulation(g, Err(failure.into()));
        }
        let now = self.core.now;
        let Some(gathering) = self.ops.gatherings.get_mut(g) else { return };
        let Some(emulation) = gathering.parts.emulated_mut() else { return };
        let only_read = emulation.only_reads();
        let next = emulation.advance(now);
        let begins_to_write = only_read && !emulation.only_reads();
        let held = emulation.memory();
        reaccount(&mut self.core.memory.accounted, &mut gathering.accounted, held);
        let ticket = emulation_ticket(gathering);
        match next {
            // The last chance to refuse the command: nothing has been written yet.
            Next::Ask(_)
                if begins_to_write
                    && self.clients.memory().is_over_limit(&mut self.nodes, &mut self.core) =>
            {
                self.core.stats.limits_hit[LimitHit::Memory as usize] += 1;
                let failure = buffers_full(&self.core.settings);
                self.end_emulation(g, Err(failure.into()));
            }
            Next::Ask(steps) => {
                for (i, step) in (0..).zip(steps) {
                    self.ops.send_step(g, i, step, &mut base!(self));
                }
            }
            Next::Pause(micros) => {
                let due = now + micros;
                self.core.clock.timers.push(Timer { due, job: Job::Emulation(g, ticket) });
            }
            Next::Done(outcome) => self.end_emulation(g, outcome),
        }
    }

    /// Advances an emulated command after its pause. `ticket` tells it from a later command with
    /// the same index.
    pub(crate) fn wake_emulation(&mut self, g: usize, ticket: u64) {
        let gathering = self.ops.gatherings.get(g).filter(|g| emulation_ticket(g) == ticket);
        let paused = gathering.and_then(|g| g.parts.emulated()).is_some_and(|e| e.is_paused());
        if paused {
            self.emulation_goes_on(g);
        }
    }

    /// Ends an emulated command: counts it, and delivers its reply or error.
    fn end_emulation(&mut self, g: usize, outcome: CommandResult) {
        let Some(mut gathering) = self.ops.gatherings.try_remove(g) else { return };
        reaccount(&mut self.core.memory.accounted, &mut gathering.accounted, 0);
        let micros = self.core.now.saturating_sub(gathering.started);
        if let Some(histogram) =
            self.core.stats.latency.get_mut(self.core.router.class(gathering.command))
        {
            histogram.record(Histogram::bucket(micros), micros);
        }
        let ok = outcome.is_ok();
        if let Some(stats) = self.core.stats.commands.get_mut(gathering.command.index()) {
            match ok {
                true => stats.ok += 1,
                false => stats.error += 1,
            }
        }
        let halfway = gathering.parts.emulated().is_some_and(|e| e.is_halfway());
        let counted = match ok {
            _ if halfway => EmulatedOutcome::Halfway,
            true => EmulatedOutcome::Ok,
            false => EmulatedOutcome::Error,
        };
        self.core.count_emulated(gathering.command, counted);
        if let Some(slow) = gathering.slow.take() {
            self.seeing.slow_gathering(
                *slow,
                gathering.command,
                gathering.to,
                &mut self.clients,
                &mut self.core,
            );
        }
        match outcome {
            Ok(reply) => self.clients.deliveries().own(gathering.to, &reply, &mut self.core),
            Err(Cause::Own(failure)) => {
                self.clients.deliveries().failure(gathering.to, &failure, &mut self.core)
            }
            Err(Cause::Node(error)) => {
                self.clients.deliveries().own(gathering.to, &error, &mut self.core)
            }
        }
        if let Dest::Client { seq, .. } = gathering.to {
            self.clients.errands().end(gathering.lane, seq, &mut self.core);
        }
    }

    /// Tells the client's emulated command that the client is closing.
    pub(super) fn leave_emulation(&mut self, client: ClientId) {
        self.tell_emulation(client, |emulation| {
            emulation.leave();
            true
        });
    }

    /// Unblocks the client's emulated command (CLIENT UNBLOCK). `false`: it is not waiting for
    /// data.
    pub(super) fn unblock_emulation(&mut self, client: ClientId, error: bool) -> bool {
        self.tell_emulation(client, |emulation| {
            let blocked = emulation.is_blocked();
            if blocked {
                emulation.unblock(error);
            }
            blocked
        })
    }

    /// Returns what `tell` returns for the client's emulated command; `false` if there is none. If
    /// `true`, and the command is paused, it advances at once.
    fn tell_emulation(
        &mut self,
        client: ClientId,
        tell: impl FnOnce(&mut emulate::Emulation) -> bool,
    ) -> bool {
        let Some(g) = self.ops.emulation_of(client, &self.clients) else { return false };
        let gathering = self.ops.gatherings.get_mut(g);
        let Some(emulation) = gathering.and_then(|g| g.parts.emulated_mut()) else { return false };
        let told = tell(emulation);
        if told && emulation.is_paused() {
            self.emulation_goes_on(g);
        }
        told
    }
}

fn emulation_ticket(gathering: &Gathering) -> u64 {
    gathering.parts.emulated().map_or(0, |emulation| emulation.ticket)
}

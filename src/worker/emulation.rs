//! Commands over several slots that are carried out in steps ([`crate::emulate`]): they are begun,
//! their steps are sent as any other command, and their replies given back.
//!
//! An emulated command occupies its client as an errand does: nothing more is read from it until it
//! is answered, so that what comes behind does not overtake the steps. Its place is a gathering, so
//! steps keep their order with the client's earlier commands, travel with its rights, and count as
//! memory. It goes on when its client is gone: what was begun is brought to its end.

use crate::base::{Base, base};
use crate::buf::CHUNK;
use crate::clients::Flow;
use crate::clients::answers::buffers_full;
use crate::cluster::{NO_SLOT, slot_of};
use crate::command::CommandId;
use crate::common::clock::{Job, Timer};
use crate::common::requests::{apart, cross_slot};
use crate::dest::{ClientId, Dest};
use crate::emulate;
use crate::emulate::{CommandResult, Next, Request};
use crate::errors::Cause;
use crate::metrics::{EmulatedOutcome, Histogram, LimitHit};
use crate::nodes::reaccount;
use crate::operations::Gathering;
use crate::ops::{Errand, ErrandKind, Parts};
use crate::resp::Args;
use crate::route::wait_time;
use crate::worker::Worker;

/// How long a command tries to get hold of a key that another one moves, microseconds.
const PATIENCE: u64 = 6_000_000;
/// What is made of replies takes so many times their bytes.
const WORKED_ON: usize = 4;

impl Worker {
    /// A command whose keys lie in several slots, or that looks for keys anywhere (SORT). `slot` is
    /// its first key's.
    #[cold]
    pub(super) fn several_slots(
        &mut self,
        index: usize,
        command: CommandId,
        slot: u16,
        frame: &[u8],
        args: &Args,
    ) -> Flow {
        let spec = self.core.router.table().get(command);
        let name = spec.name.to_string();
        let keys: Vec<usize> = self.core.spare.keys.iter().map(|&at| at as usize).collect();
        let others = apart(args, &keys);
        let entry = emulate::entry(&name).filter(|_| self.core.settings.emulate);
        let Some((_, entry)) = entry else {
            return match others {
                Some(others) => {
                    self.clients.answer_own_error(
                        index,
                        command,
                        &cross_slot(&name, others),
                        &mut self.core,
                    );
                    Flow::Next
                }
                // The node refuses it in its own words.
                None => self.ops.forward(index, command, slot, frame, &mut base!(self)),
            };
        };
        let bytes: usize = args.iter().map(<[u8]>::len).sum();
        if bytes > CHUNK
            && !self.clients.memory().has_room_for(2 * bytes, &mut self.nodes, &mut self.core)
        {
            return self.clients.refusals().for_memory(index, command, &mut self.core);
        }
        let Some(client) = self.clients.slab.get(index) else { return Flow::Stop };
        let (protocol, generation) = (client.session.protocol, client.generation);
        let slots = keys.iter().filter_map(|&at| args.get(at)).map(|key| slot_of(key).0);
        let full = slots
            .filter_map(|slot| self.nodes.route(slot))
            .find_map(|node| self.full_upstream(node, protocol, index));
        if let Some(u) = full {
            return self.clients.fairness().pause(index, u, &mut self.nodes, &mut self.core);
        }
        let wait = wait_time(args).filter(|_| spec_blocks(&name, args));
        let mut errand =
            Errand::new(ErrandKind::Emulated, command, NO_SLOT, Vec::new(), self.core.now);
        errand.time = wait;
        let Some(to) = self.clients.errands().begin(index, errand, None, &mut self.core) else {
            return Flow::Stop;
        };
        self.ops.next_emulation += 1;
        let request = Request {
            args: args.iter().map(Into::into).collect(),
            keys,
            name,
            protocol,
            wait: wait.map_or(Some(0), |wait| wait.micros),
            turn: self.core.settings.emulation_turn,
            patience: PATIENCE,
            // No two of any slotway, nor of one that was started anew.
            ticket: self.ops.born.wrapping_add(self.ops.next_emulation),
        };
        let emulation = Box::new(emulate::begin(entry.recipe, request));
        let lane = ClientId::new(index, generation);
        let parts = Parts::Emulated(emulation, protocol);
        let gathering = Gathering::new(lane, command, to, parts, &self.clients, &self.core);
        let g = self.ops.gatherings.insert(gathering);
        self.ops.gatherings.keep_args(g, args, &mut self.core);
        if let Some(errand) = self.clients.errands().of(index) {
            errand.gathering = Some(g);
        }
        self.emulation_goes_on(g);
        Flow::Next
    }

    /// What it waited for is there.
    pub(super) fn emulation_goes_on(&mut self, g: usize) {
        let gathering = self.ops.gatherings.get(g).and_then(|g| g.parts.emulated());
        let Some(emulation) = gathering else { return };
        let bytes = emulation.gathered() * WORKED_ON;
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
            // The last moment at which it can be refused.
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

    /// Its pause is over.
    pub(super) fn wake_emulation(&mut self, g: usize, ticket: u64) {
        let gathering = self.ops.gatherings.get(g).filter(|g| emulation_ticket(g) == ticket);
        let paused = gathering.and_then(|g| g.parts.emulated()).is_some_and(|e| e.is_paused());
        if paused {
            self.emulation_goes_on(g);
        }
    }

    /// The client gets its reply, or the error in its place.
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

    /// The client is closing: what waits for it ends, what is under way is brought to its end.
    pub(super) fn leave_emulation(&mut self, client: ClientId) {
        self.tell_emulation(client, |emulation| {
            emulation.leave();
            true
        });
    }

    /// CLIENT UNBLOCK. `false`: it does not wait for data.
    pub(super) fn unblock_emulation(&mut self, client: ClientId, error: bool) -> bool {
        self.tell_emulation(client, |emulation| {
            let blocked = emulation.is_blocked();
            if blocked {
                emulation.unblock(error);
            }
            blocked
        })
    }

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

/// It waits for data: only then a number in it is a time.
fn spec_blocks(name: &str, args: &Args) -> bool {
    name.starts_with('b') && name != "bitop" || crate::route::asks_to_block(args)
}

//! Starting commands over several slots that are emulated in steps.

use std::sync::Arc;

use crate::base::{Base, base};
use crate::buf::CHUNK;
use crate::clients::Flow;
use crate::cluster::Slot;
use crate::command::CommandId;
use crate::common::requests::{apart, remedy_for};
use crate::dest::ClientId;
use crate::dispatch::Dispatcher;
use crate::emulate;
use crate::emulate::Request;
use crate::errors::Failure;
use crate::operations::Gathering;
use crate::ops::{Errand, ErrandKind, Parts};
use crate::resp::Args;
use crate::route::wait_time;

/// How long a command waits for the lock of a key that another command moves, in microseconds.
const PATIENCE: u64 = 6_000_000;

impl Dispatcher<'_> {
    /// Starts the emulation of a command whose keys lie in several slots, or whose patterns name
    /// keys in any slot (SORT); refuses a command that cannot be emulated. `slot` is the slot of
    /// the first key.
    #[cold]
    pub(super) fn several_slots(
        &mut self,
        index: usize,
        command: CommandId,
        slot: Slot,
        frame: &[u8],
        args: &Args,
    ) -> Flow {
        let spec = self.engine.core.router.table().get(command);
        let name = spec.name.to_string();
        let keys: Vec<usize> = self.engine.core.spare.keys.iter().map(|&at| at as usize).collect();
        let router = Arc::clone(&self.engine.core.router);
        let view_id = self.engine.clients.view_of(index);
        let view = router.view(view_id);
        let map = router.views().map();
        let others = apart(map, view, args, &keys);
        let entry = emulate::entry(&name).filter(|_| self.engine.core.settings.emulate);
        let first = keys.first().and_then(|&at| args.get(at)).unwrap_or_default();
        let space = view.space_of(first);
        let on_upstreams = match others {
            Some(((_, a), (_, b))) => map.upstream_of(a) != map.upstream_of(b),
            None => false,
        };
        if on_upstreams || self.engine.core.has_foreign_pattern(view_id, &name, args) {
            let failure = match others.filter(|_| on_upstreams) {
                Some(others) => self.engine.core.keys_apart(view_id, others, remedy_for(&name)),
                None => Failure::PatternOnUpstreams { command: name.to_ascii_uppercase().into() },
            };
            self.engine.clients.answer_own_error(index, command, &failure, &mut self.engine.core);
            return Flow::Next;
        }
        let Some((_, entry)) = entry else {
            return match others {
                Some(others) => {
                    self.engine.clients.answer_own_error(
                        index,
                        command,
                        &self.engine.core.keys_apart(view_id, others, remedy_for(&name)),
                        &mut self.engine.core,
                    );
                    Flow::Next
                }
                // The node refuses it with its own error.
                None => {
                    self.engine.ops.forward(index, command, slot, frame, &mut base!(self.engine))
                }
            };
        };
        let bytes: usize = args.iter().map(<[u8]>::len).sum();
        if bytes > CHUNK
            && !self.engine.clients.memory().has_room_for(
                2 * bytes,
                &mut self.engine.nodes,
                &mut self.engine.core,
            )
        {
            return self.engine.clients.refusals().for_memory(
                index,
                command,
                &mut self.engine.core,
            );
        }
        let Some(client) = self.engine.clients.slab.get(index) else { return Flow::Stop };
        let (protocol, generation) = (client.session.protocol, client.generation);
        let slots = keys.iter().filter_map(|&at| args.get(at)).map(|key| view.slot_of(key));
        let full = slots
            .filter_map(|slot| self.engine.nodes.route(slot))
            .find_map(|node| self.full_upstream(node, protocol, index));
        if let Some(conn) = full {
            return self.engine.clients.fairness().pause(
                index,
                conn,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        }
        let wait = wait_time(args).filter(|_| spec_blocks(&name, args));
        let mut errand = Errand::new(
            ErrandKind::Emulated,
            command,
            view.keyless(),
            Vec::new(),
            self.engine.core.now,
        );
        errand.time = wait;
        let Some(to) =
            self.engine.clients.errands().begin(index, errand, None, &mut self.engine.core)
        else {
            return Flow::Stop;
        };
        self.engine.ops.next_emulation += 1;
        let request = Request {
            args: args.iter().map(Into::into).collect(),
            keys,
            name,
            slots: space,
            protocol,
            wait: wait.map_or(Some(0), |wait| wait.micros),
            turn: self.engine.core.settings.emulation_turn,
            patience: PATIENCE,
            // Unique over all slotway processes, past ones included.
            ticket: self.engine.ops.born.wrapping_add(self.engine.ops.next_emulation),
        };
        let emulation = Box::new(emulate::begin(entry.recipe, request));
        let lane = ClientId::new(index, generation);
        let parts = Parts::Emulated(emulation, protocol);
        let gathering =
            Gathering::new(lane, command, to, parts, &self.engine.clients, &self.engine.core);
        let g = self.engine.ops.gatherings.insert(gathering);
        self.engine.ops.gatherings.keep_args(g, args, &mut self.engine.core);
        if let Some(errand) = self.engine.clients.errands().of(index) {
            errand.gathering = Some(g);
        }
        self.engine.emulation_goes_on(g);
        Flow::Next
    }
}

/// Whether the command waits for data, so that one of its numbers is a timeout.
fn spec_blocks(name: &str, args: &Args) -> bool {
    name.starts_with('b') && name != "bitop" || crate::route::asks_to_block(args)
}

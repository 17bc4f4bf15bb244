//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! What follows MULTI is checked and queued here; a node sees nothing of it before EXEC. Then all
//! of it leaves as one batch, MULTI … EXEC, on the shared connection of its slot: other clients'
//! commands stand before or behind it, never in it. Redis decides by the whole batch: where a node
//! refuses one of the commands (the slot moved), it refuses EXEC, nothing was executed, and the
//! batch can go elsewhere.
//!
//! Only where that is not enough does it become more: several slots (one batch each), commands
//! that slotway answers itself or that all shards are asked, watched keys (the batch goes on the
//! connection that watches).

use super::Worker;
use super::downstream::Flow;
use super::emulation::keys_apart;
use super::no_room::buffers_full;
use super::state::base;
use super::state::{Base, Clients, Core, Nodes, Operations};
use crate::buf::CHUNK;
use crate::client::{EXEC, Multi, Paused, Place, mode};
use crate::cluster::{NO_SLOT, Product, slot_of};
use crate::command::{Class, CommandId, Flags, key_positions};
use crate::dest::{ClientId, Dest};
use crate::errors::{CrossSlotRemedy, Failure};
use crate::metrics::{LimitHit, TransactionKind};
use crate::resp::{ArgRange, Args, Protocol, RequestProgress, scan_request};
use crate::route::{Fan, Local, Merge, Plan, PubSub, Script, Transaction, flag};

impl Core {
    pub(super) fn spare_multi(&mut self, mut multi: Box<Multi>) {
        if self.spare.multis.len() < 64 && multi.held() <= CHUNK {
            let frames = std::mem::take(&mut multi.frames);
            *multi = Multi::reusing(frames, std::mem::take(&mut multi.queue));
            self.spare.multis.push(multi);
        }
    }
}

impl Clients {
    fn queue(
        &mut self,
        index: usize,
        command: CommandId,
        place: Place,
        frame: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let read_only = core.router.is_read_only(command);
        let publishes = core.router.publishes(command);
        let by_sha = core.router.script(command) == Some(Script::EvalSha);
        let multi = self.slab.get(index).and_then(|c| c.multi.as_ref());
        let over = match multi.map_or(0, |multi| multi.grows_by(frame)) {
            grown if grown > CHUNK => !self.has_room_for(grown, nodes, core),
            _ => self.is_over_memory(nodes, core),
        };
        let Some(multi) = self.slab.get_mut(index).and_then(|c| c.multi.as_mut()) else {
            return;
        };
        if over {
            multi.break_off();
            core.stats.limits_hit[LimitHit::Memory as usize] += 1;
            let failure = buffers_full(&core.settings);
            return self.answer_own_error(index, command, &failure, core);
        }
        if !multi.broken {
            multi.read_only &= read_only;
            multi.by_sha |= by_sha;
            multi.publishes |= publishes;
            multi.scattered |= !matches!(place, Place::Slot(_) | Place::Any);
            multi.push(frame, command, place);
        }
        self.answer_plain(index, b"+QUEUED\r\n", core);
    }

    /// Where a command goes when EXEC comes. `Err`: it is refused now, and EXEC will be.
    fn place_in_transaction(
        &mut self,
        index: usize,
        command: CommandId,
        args: &Args,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Result<Place, Failure> {
        let split = core.settings.split_transactions;
        let table = core.router.table();
        let spec = table.get(command);
        if command == core.router.unknown() || (spec.container && args.len() > 1) {
            return Err(unknown_command(&spec.name, args));
        }
        let name = &spec.name;
        if !spec.arity_fits(args.len()) {
            return Err(Failure::WrongArity { command: name.clone() });
        }
        if spec.flags.contains(Flags::NO_MULTI) {
            return Err(match nodes.topology.identity.product {
                Product::Redis => Failure::NotInMultiRedis,
                Product::Valkey => Failure::NotInMultiValkey { command: name.clone() },
            });
        }
        let upper = || name.to_ascii_uppercase().replace('|', " ");
        let plan = core.router.plan(command, args, &mut core.spare.keys);
        let place = match self.filtered_for(index, plan) {
            Plan::Slot(slot) | Plan::Block(Some(slot)) => Place::Slot(slot.0),
            Plan::Several(slot) => match core.refused_in_multi(name, args) {
                Some(failure) => return Err(failure),
                None => Place::Slot(slot.0),
            },
            Plan::Any | Plan::Block(None) | Plan::Wait | Plan::Transaction(_) => Place::Any,
            Plan::Script(script, slot) => {
                match script.fan() {
                    Some((to, merge)) if split => Place::Fan(to, merge),
                    // One node that has it is enough.
                    None | Some((Fan::Reached, _)) => {
                        slot.map_or(Place::Any, |slot| Place::Slot(slot.0))
                    }
                    Some(_) => return Err(Failure::AllShardsInMulti { command: upper().into() }),
                }
            }
            Plan::Local(Local::Ping | Local::Echo) => Place::Any,
            Plan::Local(Local::Hello | Local::ClientReply | Local::SlowLog | Local::Proxy) => {
                return Err(Failure::NotInMulti { command: upper().into() });
            }
            Plan::Local(local) => Place::Local(local),
            Plan::PubSub(PubSub::Publish, _) => Place::Any,
            Plan::PubSub(PubSub::ShardPublish, Some(slot)) => Place::Slot(slot.0),
            Plan::Split { merge, .. } => Place::Split(merge),
            Plan::Fan { to, merge } if split || to == Fan::One => Place::Fan(to, merge),
            Plan::Join if split => Place::Fan(Fan::Primaries, Merge::Concat),
            Plan::Fan { .. } | Plan::Join => {
                return Err(Failure::AllShardsInMulti { command: upper().into() });
            }
            Plan::Refuse(why) => return Err(core.router.refusal(command, why)),
            _ => {
                return Err(Failure::NotInMulti { command: upper().into() });
            }
        };
        if let Place::Slot(_) | Place::Split(_) = place
            && let Some(multi) = self.slab.get_mut(index).and_then(|c| c.multi.as_mut())
        {
            // The usual command has one key, and its slot is known.
            let same = |slot| multi.first.as_ref().is_some_and(|(first, _)| *first == slot);
            if !matches!(place, Place::Slot(slot) if same(slot)) {
                let mut keys = Vec::new();
                // An argument list without keys was planned as such.
                let _ = key_positions(spec, args, &mut keys);
                let keys = keys.iter().filter_map(|&at| args.get(at as usize));
                let mut slots: Vec<(u16, &[u8])> = keys.map(|key| (slot_of(key).0, key)).collect();
                if let (Place::Slot(slot), true) = (place, slots.is_empty()) {
                    // It names its slot by number.
                    slots.push((slot, args.get(2).unwrap_or_default()));
                }
                for (slot, key) in slots {
                    let (first, first_key) = multi.first.get_or_insert_with(|| (slot, key.into()));
                    if *first != slot {
                        multi.scattered = true;
                        if !split {
                            return Err(cross_slot(first_key, *first, key, slot));
                        }
                    }
                }
            }
        }
        Ok(place)
    }

    /// MULTI is forgotten, and so are the watched keys.
    pub(super) fn drop_transaction(&mut self, index: usize, nodes: &mut Nodes, core: &mut Core) {
        if let Some(multi) = self.take_multi(index) {
            core.spare_multi(multi);
        }
        self.unwatch(index, nodes, core);
    }

    pub(super) fn take_multi(&mut self, index: usize) -> Option<Box<Multi>> {
        let client = self.slab.get_mut(index)?;
        client.session.modes &= !mode::MULTI;
        client.multi.take()
    }

    /// A null reply to EXEC: a watched key changed.
    pub(super) fn answer_null_array(&mut self, index: usize, command: CommandId, core: &mut Core) {
        let resp3 = self.slab.get(index).is_some_and(|c| c.session.protocol == Protocol::Resp3);
        self.answer_own(index, command, if resp3 { b"_\r\n" } else { b"*-1\r\n" }, core);
    }

    /// The client's next command waits until all its replies are there.
    pub(super) fn pause_until_replied(&mut self, index: usize, core: &mut Core) -> Flow {
        if let Some(client) = self.slab.get_mut(index) {
            client.paused = Paused::Replies;
            self.mark_client(index, core);
        }
        Flow::Pause
    }
}

impl Operations {
    /// One of these commands, outside a transaction.
    pub(super) fn transaction(
        &mut self,
        index: usize,
        command: CommandId,
        which: Transaction,
        frame: &[u8],
        args: &Args,
        base: &mut Base<'_>,
    ) -> Flow {
        match which {
            Transaction::Multi => {
                let spare = base.core.spare.multis.pop().unwrap_or_default();
                let Some(client) = base.clients.slab.get_mut(index) else { return Flow::Stop };
                let watched = client.lent.as_ref().and_then(|l| l.watches.first());
                let mut multi = spare;
                // A cluster's transaction is one slot's, and the watched keys are part of it.
                multi.first = watched.map(|w| (w.slot, w.key.clone()));
                client.multi = Some(multi);
                client.session.modes |= mode::MULTI;
                base.clients.answer_own(index, command, b"+OK\r\n", base.core);
            }
            Transaction::Exec => {
                base.clients.answer_own_error(index, command, &Failure::ExecWithoutMulti, base.core)
            }
            Transaction::Discard => {
                base.clients.answer_own_error(
                    index,
                    command,
                    &Failure::DiscardWithoutMulti,
                    base.core,
                );
            }
            Transaction::Watch => return self.watch(index, command, frame, args, base),
            Transaction::Unwatch => {
                base.clients.unwatch(index, base.nodes, base.core);
                base.clients.answer_own(index, command, b"+OK\r\n", base.core);
            }
        }
        Flow::Next
    }

    /// The usual transaction: one batch on the shared connection.
    fn exec_batch(
        &mut self,
        index: usize,
        command: CommandId,
        slot: u16,
        base: &mut Base<'_>,
    ) -> Flow {
        let node = match slot {
            NO_SLOT => base.nodes.any_primary(index),
            slot => base.nodes.route(slot),
        };
        let admitted = match node {
            Some(node) => match self.admit(index, command, slot, node, base) {
                Some(admitted) => Some(admitted),
                None => return Flow::Pause,
            },
            None => None,
        };
        let Some(mut multi) = base.clients.take_multi(index) else { return Flow::Next };
        base.core.stats.transactions[TransactionKind::OneSlot as usize] += 1;
        multi.frames.extend_from_slice(EXEC);
        let before = multi.queue.len() as u32 + 1;
        let flags = multi.flags();
        match admitted {
            Some((mut pending, u)) => {
                pending.before = before;
                base.core.mark_batch(&mut pending, flags);
                if let Some(client) = base.clients.slab.get_mut(index) {
                    client.session.corked = true;
                }
                if multi.by_sha {
                    base.scripts.scripts_before_batch(
                        u,
                        &mut pending,
                        &multi.frames,
                        base.nodes,
                        base.core,
                    );
                }
                if multi.frames.len() < CHUNK / 2 {
                    base.nodes.send(u, pending, &multi.frames, base.core);
                } else {
                    base.nodes.send_owned(u, pending, std::mem::take(&mut multi.frames), base.core);
                }
            }
            None if slot == NO_SLOT && base.nodes.topology.snapshot.generation == 0 => {
                base.clients.answer_own_error(
                    index,
                    command,
                    &base.nodes.no_cluster_failure(base.core),
                    base.core,
                );
            }
            None if !base.nodes.placement.slots.holds.fits(
                slot,
                multi.frames.len(),
                base.core.settings.held,
            ) =>
            {
                base.core.stats.limits_hit[LimitHit::Held as usize] += 1;
                base.clients.answer_own_error(
                    index,
                    command,
                    &Failure::HoldsFull { slot },
                    base.core,
                );
            }
            None => {
                let Some(client) = base.clients.slab.get_mut(index) else { return Flow::Stop };
                let (protocol, generation) = (client.session.protocol, client.generation);
                let seq = client.expect(&mut base.core.spare.replies);
                let dest = Dest::Client { index: index as u32, generation, seq };
                let mut pending = self.pending(
                    dest,
                    command,
                    slot,
                    protocol,
                    base.access,
                    base.clients,
                    base.core,
                );
                pending.before = before;
                let by_sha = if multi.by_sha { flag::SCRIPT } else { 0 };
                base.core.mark_batch(&mut pending, flags | by_sha);
                let lane = ClientId::new(index, generation);
                self.hold_pending(
                    pending,
                    lane,
                    std::mem::take(&mut multi.frames),
                    base.nodes,
                    base.core,
                );
            }
        }
        base.core.spare_multi(multi);
        Flow::Next
    }

    /// The transaction on the one connection that watches.
    fn exec_watched(&mut self, index: usize, command: CommandId, base: &mut Base<'_>) -> Flow {
        let Some(mut multi) = base.clients.take_multi(index) else { return Flow::Next };
        base.core.stats.transactions[TransactionKind::OneSlot as usize] += 1;
        multi.frames.extend_from_slice(EXEC);
        let before = multi.queue.len() as u32 + 1;
        let frame = std::mem::take(&mut multi.frames);
        let flags = multi.flags() & flag::PUBLISHES;
        self.exec_where_watched(index, command, frame, before, flags, base);
        Flow::Next
    }
}

impl Worker {
    /// A command of a client that has said MULTI.
    pub(super) fn dispatch_in_multi(&mut self, index: usize, frame: &[u8], args: &Args) -> Flow {
        let command = self.core.router.command(args);
        if let Some(client) = self.clients.slab.get_mut(index) {
            client.session.last_command = command;
        }
        let spec = self.core.router.table().get(command);
        let fits = spec.arity_fits(args.len());
        // Valkey refuses MULTI and WATCH as other commands that it does not queue.
        let no_multi = spec.flags.contains(Flags::NO_MULTI);
        let denied = spec.class == Class::Transaction
            && matches!(
                self.core.router.plan(command, args, &mut self.core.spare.keys),
                Plan::Refuse(_)
            );
        match &*spec.name {
            _ if denied => {}
            "exec" if fits => return self.exec(index, command),
            "exec" => {
                let cause = "wrong number of arguments for 'exec' command".to_owned();
                self.clients.drop_transaction(index, &mut self.nodes, &mut self.core);
                self.clients.answer_own_error(
                    index,
                    command,
                    &Failure::Discarded { cause },
                    &mut self.core,
                );
                return Flow::Next;
            }
            "discard" if fits => {
                self.clients.drop_transaction(index, &mut self.nodes, &mut self.core);
                self.clients.answer_own(index, command, b"+OK\r\n", &mut self.core);
                return Flow::Next;
            }
            "multi" if fits && !no_multi => {
                self.clients.answer_own_error(
                    index,
                    command,
                    &Failure::NestedMulti,
                    &mut self.core,
                );
                return Flow::Next;
            }
            "watch" if fits && !no_multi => {
                self.clients.answer_own_error(
                    index,
                    command,
                    &Failure::WatchInsideMulti,
                    &mut self.core,
                );
                return Flow::Next;
            }
            "reset" | "quit" if fits => return self.dispatch(index, frame, args),
            _ => {}
        }
        let placed = self.clients.place_in_transaction(
            index,
            command,
            args,
            &mut self.nodes,
            &mut self.core,
        );
        if placed.is_ok()
            && let Some(script) = self.core.router.script(command)
        {
            self.scripts.script_in_transaction(script, args, &mut self.core);
        }
        match placed {
            Ok(place) => {
                self.clients.queue(index, command, place, frame, &mut self.nodes, &mut self.core)
            }
            Err(failure) => {
                if let Some(multi) = self.clients.slab.get_mut(index).and_then(|c| c.multi.as_mut())
                {
                    multi.break_off();
                }
                self.clients.answer_own_error(index, command, &failure, &mut self.core);
            }
        }
        Flow::Next
    }

    fn exec(&mut self, index: usize, command: CommandId) -> Flow {
        let Some(client) = self.clients.slab.get_mut(index) else { return Flow::Stop };
        let Some(multi) = client.multi.as_ref() else { return Flow::Next };
        // Its commands leave as one.
        client.transfer_sizes.begin(multi.frames.len());
        if self.clients.has_to_change_connection(index, &mut self.core) {
            return Flow::Pause;
        }
        let Some(client) = self.clients.slab.get(index) else { return Flow::Stop };
        let Some(multi) = client.multi.as_ref() else { return Flow::Next };
        if multi.broken {
            self.clients.drop_transaction(index, &mut self.nodes, &mut self.core);
            self.clients.answer_own_error(
                index,
                command,
                &Failure::DiscardedByErrors,
                &mut self.core,
            );
            return Flow::Next;
        }
        let publishes = multi.publishes;
        if self.clients.is_over_memory(&mut self.nodes, &mut self.core) {
            self.clients.drop_transaction(index, &mut self.nodes, &mut self.core);
            self.core.stats.limits_hit[LimitHit::Memory as usize] += 1;
            let cause = buffers_full(&self.core.settings).to_string();
            self.clients.answer_own_error(
                index,
                command,
                &Failure::Discarded { cause },
                &mut self.core,
            );
            return Flow::Next;
        }
        if publishes && self.exec_waits(index) {
            return Flow::Pause;
        }
        let Some(client) = self.clients.slab.get(index) else { return Flow::Stop };
        let Some(multi) = client.multi.as_ref() else { return Flow::Next };
        let watches = client.lent.as_ref().map_or(&[][..], |l| &l.watches);
        let one_slot = multi.first.as_ref().map_or(NO_SLOT, |(slot, _)| *slot);
        if !watches.is_empty() {
            // On a connection of its own it could overtake what was sent before.
            if !client.is_drained() {
                return self.clients.pause_until_replied(index, &mut self.core);
            }
            if watches.iter().any(|w| w.upstream.is_none()) {
                // The connection that watched was lost: something may have changed unseen.
                self.clients.drop_transaction(index, &mut self.nodes, &mut self.core);
                self.clients.answer_null_array(index, command, &mut self.core);
                return Flow::Next;
            }
            let simple = !multi.scattered
                && matches!(watches, [w] if w.slot == one_slot || one_slot == NO_SLOT);
            return if simple {
                self.ops.exec_watched(index, command, &mut base!(self))
            } else {
                self.ops.check_watches(index, command, &mut base!(self))
            };
        }
        if multi.scattered {
            return self.exec_scattered(index, command, None);
        }
        if multi.queue.is_empty() {
            self.clients.drop_transaction(index, &mut self.nodes, &mut self.core);
            self.clients.answer_own(index, command, b"*0\r\n", &mut self.core);
            return Flow::Next;
        }
        self.ops.exec_batch(index, command, one_slot, &mut base!(self))
    }
}

/// The arguments of a queued command.
pub(super) fn scan<'a>(
    frame: &'a [u8],
    limits: &crate::resp::RequestLimits,
    ranges: &'a mut Vec<ArgRange>,
) -> Args<'a> {
    ranges.clear();
    // It was scanned when it came.
    let _ = scan_request(frame, limits, &mut RequestProgress::default(), ranges);
    Args::new(frame, ranges)
}

pub(super) fn cross_slot(first: &[u8], first_slot: u16, key: &[u8], slot: u16) -> Failure {
    keys_apart(((first, first_slot), (key, slot)), CrossSlotRemedy::Transaction)
}

/// Redis's own words, and its bytes: arguments as they are, up to their first zero byte.
pub(super) fn unknown_command(container: &str, args: &Args) -> Failure {
    let shown = |i: usize, most: usize| {
        let arg = args.get(i).unwrap_or_default();
        let end = memchr::memchr(0, arg).unwrap_or(arg.len());
        arg.get(..end.min(most)).unwrap_or_default()
    };
    if !container.is_empty() && args.is(0, container) {
        return Failure::unknown_subcommand(shown(1, 128), &container.to_ascii_uppercase());
    }
    let mut list = Vec::new();
    for i in 1..args.len() {
        if list.len() >= 128 {
            break;
        }
        let most = 128 - list.len();
        list.push(b'\'');
        list.extend_from_slice(shown(i, most));
        list.extend_from_slice(b"' ");
    }
    Failure::unknown_command(shown(0, 128), &list)
}

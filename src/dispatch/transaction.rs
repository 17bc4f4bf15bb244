//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! Commands after MULTI are checked and queued here; a node receives none of them before EXEC. Then
//! they are sent as one batch, MULTI … EXEC, on the shared connection for their slot: commands of
//! other clients precede or follow it, never interrupt it. If a node refuses one of the commands
//! (the slot has moved), it also refuses EXEC: nothing was executed, and the batch can be sent
//! elsewhere.
//!
//! Exceptions are transactions over several slots (one batch each), commands that slotway answers
//! or that go to all shards, and watched keys (the batch uses the connection that watches them).

use crate::base::{Base, base};
use crate::clients::Flow;
use crate::clients::answers::buffers_full;
use crate::command::{Class, CommandId, Flags};
use crate::dispatch::Dispatcher;
use crate::errors::Failure;
use crate::metrics::LimitHit;
use crate::resp::Args;
use crate::route::Plan;

impl Dispatcher<'_> {
    /// Queues or carries out a command of a client that has sent MULTI.
    pub(super) fn dispatch_in_multi(&mut self, index: usize, frame: &[u8], args: &Args) -> Flow {
        let command = self.engine.core.router.command(args);
        if let Some(client) = self.engine.clients.slab.get_mut(index) {
            client.session.last_command = command;
        }
        let spec = self.engine.core.router.table().get(command);
        let fits = spec.arity_fits(args.len());
        // Valkey refuses MULTI and WATCH like other commands that it does not queue.
        let no_multi = spec.flags.contains(Flags::NO_MULTI);
        let denied = spec.class == Class::Transaction
            && matches!(
                self.engine.core.router.plan(
                    self.engine.clients.view_of(index),
                    command,
                    args,
                    &mut self.engine.core.spare.keys
                ),
                Plan::Refuse(_)
            );
        match &*spec.name {
            _ if denied => {}
            "exec" if fits => return self.exec(index, command),
            "exec" => {
                let cause = "wrong number of arguments for 'exec' command".to_owned();
                self.engine.clients.transactions().forget(
                    index,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                );
                self.engine.clients.answer_own_error(
                    index,
                    command,
                    &Failure::Discarded { cause },
                    &mut self.engine.core,
                );
                return Flow::Next;
            }
            "discard" if fits => {
                self.engine.clients.transactions().forget(
                    index,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                );
                self.engine.clients.answer_own(index, command, b"+OK\r\n", &mut self.engine.core);
                return Flow::Next;
            }
            "multi" if fits && !no_multi => {
                self.engine.clients.answer_own_error(
                    index,
                    command,
                    &Failure::NestedMulti,
                    &mut self.engine.core,
                );
                return Flow::Next;
            }
            "watch" if fits && !no_multi => {
                self.engine.clients.answer_own_error(
                    index,
                    command,
                    &Failure::WatchInsideMulti,
                    &mut self.engine.core,
                );
                return Flow::Next;
            }
            "reset" | "quit" if fits => return self.dispatch(index, frame, args),
            _ => {}
        }
        let placed = self.engine.clients.transactions().place(
            index,
            command,
            args,
            &mut self.engine.nodes,
            &mut self.engine.core,
        );
        if placed.is_ok()
            && let Some(script) = self.engine.core.router.script(command)
        {
            self.engine.scripts.script_in_transaction(script, args, &mut self.engine.core);
        }
        match placed {
            Ok(place) => self.engine.clients.transactions().queue(
                index,
                command,
                place,
                frame,
                &mut self.engine.nodes,
                &mut self.engine.core,
            ),
            Err(failure) => {
                if let Some(multi) =
                    self.engine.clients.slab.get_mut(index).and_then(|c| c.multi.as_mut())
                {
                    multi.discard();
                }
                self.engine.clients.answer_own_error(
                    index,
                    command,
                    &failure,
                    &mut self.engine.core,
                );
            }
        }
        Flow::Next
    }

    /// Carries out EXEC.
    fn exec(&mut self, index: usize, command: CommandId) -> Flow {
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return Flow::Stop };
        let Some(multi) = client.multi.as_ref() else { return Flow::Next };
        // The queued commands are one transfer.
        client.transfer_sizes.begin(multi.frames.len());
        if self.engine.clients.fairness().has_to_change_connection(index, &mut self.engine.core) {
            return Flow::Pause;
        }
        let Some(client) = self.engine.clients.slab.get(index) else { return Flow::Stop };
        let Some(multi) = client.multi.as_ref() else { return Flow::Next };
        if multi.broken {
            self.engine.clients.transactions().forget(
                index,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
            self.engine.clients.answer_own_error(
                index,
                command,
                &Failure::DiscardedByErrors,
                &mut self.engine.core,
            );
            return Flow::Next;
        }
        let publishes = multi.publishes;
        if self.engine.clients.memory().is_over_limit(&mut self.engine.nodes, &mut self.engine.core)
        {
            self.engine.clients.transactions().forget(
                index,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
            self.engine.core.stats.limits_hit[LimitHit::Memory as usize] += 1;
            let cause = buffers_full(&self.engine.core.settings).to_string();
            self.engine.clients.answer_own_error(
                index,
                command,
                &Failure::Discarded { cause },
                &mut self.engine.core,
            );
            return Flow::Next;
        }
        if publishes && self.exec_waits(index) {
            return Flow::Pause;
        }
        let Some(client) = self.engine.clients.slab.get(index) else { return Flow::Stop };
        let Some(multi) = client.multi.as_ref() else { return Flow::Next };
        let watches = client.lent.as_ref().map_or(&[][..], |l| &l.watches);
        let keyless = self.engine.core.router.view(client.session.view).keyless();
        let one_slot = multi.first.as_ref().map_or(keyless, |(slot, _)| *slot);
        if !watches.is_empty() {
            // On a dedicated connection it could overtake earlier commands.
            if !client.is_drained() {
                return self.engine.clients.pause_until_replied(index, &mut self.engine.core);
            }
            if watches.iter().any(|w| w.upstream.is_none()) {
                // A watching connection was lost: a change may have been missed.
                self.engine.clients.transactions().forget(
                    index,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                );
                self.engine.clients.transactions().answer_null_array(
                    index,
                    command,
                    &mut self.engine.core,
                );
                return Flow::Next;
            }
            let simple = !multi.scattered
                && matches!(watches, [w] if w.slot == one_slot || one_slot.is_keyless());
            return if simple {
                self.engine.ops.transactions().exec_watched(index, command, &mut base!(self.engine))
            } else {
                self.engine.ops.transactions().check_watches(
                    index,
                    command,
                    &mut base!(self.engine),
                )
            };
        }
        if multi.scattered {
            return self.exec_scattered(index, command, None);
        }
        if multi.queue.is_empty() {
            self.engine.clients.transactions().forget(
                index,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
            self.engine.clients.answer_own(index, command, b"*0\r\n", &mut self.engine.core);
            return Flow::Next;
        }
        self.engine.ops.transactions().exec_batch(index, command, one_slot, &mut base!(self.engine))
    }
}

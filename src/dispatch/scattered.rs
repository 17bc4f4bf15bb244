//! Transactions that do not fit into one batch: one MULTI … EXEC per slot, commands for all shards,
//! and commands that slotway answers. All pieces are sent at the same time; [`ExecGather`] puts the
//! replies into the order of the commands.

use crate::base::{Base, base};
use crate::client::{Context, MULTI, Multi, Place, Question, answer};
use crate::clients::Flow;
use crate::cluster::Slot;
use crate::command::CommandId;
use crate::common::requests;
use crate::dest::{ClientId, Dest, NodeId};
use crate::dispatch::Dispatcher;
use crate::hash::IntMap;
use crate::metrics::TransactionKind;
use crate::nodes::shards::MissingTarget;
use crate::operations::Gathering;
use crate::operations::scattered::Batch;
use crate::ops::Parts;
use crate::resp::ArgRange;
use crate::route::{ExecGather, Local, PendingFlags, Script};

/// A command for one node outside of all batches.
#[derive(Debug)]
struct Single {
    /// The node, or the reason why there is none.
    at: Result<NodeId, MissingTarget>,
    /// Index of the queued command.
    command: usize,
    group: u32,
}

/// A question to all workers: CLIENT LIST and the like.
#[derive(Debug)]
struct Asked {
    question: Question,
    group: u32,
}

impl Dispatcher<'_> {
    /// Sends a transaction in several pieces at the same time. `seq` is the number of its reply, if
    /// it has one already.
    pub(crate) fn exec_scattered(
        &mut self,
        index: usize,
        command: CommandId,
        seq: Option<u32>,
    ) -> Flow {
        let Some(client) = self.engine.clients.slab.get(index) else { return Flow::Stop };
        let Some(multi) = client.multi.as_ref() else { return Flow::Next };
        let (protocol, generation) = (client.session.protocol, client.generation);
        let slots = multi.queue.iter().filter_map(|q| match q.place {
            Place::Slot(slot) => Some(slot),
            _ => None,
        });
        let full = slots
            .filter_map(|slot| self.engine.nodes.route(slot))
            .find_map(|node| self.full_upstream(node, protocol, index));
        if let (Some(conn), None) = (full, seq) {
            return self.engine.clients.fairness().pause(
                index,
                conn,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        }
        let Some(multi) = self.engine.clients.transactions().take(index) else { return Flow::Next };
        let mut exec = Box::new(ExecGather::new(protocol, multi.queue.len()));
        let (batches, singles, asked) = self.pieces(index, &multi, &mut exec);
        let kind =
            if batches.len() > 1 { TransactionKind::Split } else { TransactionKind::OneSlot };
        self.engine.core.stats.transactions[kind as usize] += 1;
        // All are announced before any is sent: one may fail at once, and must not complete the
        // gathering.
        let groups: Vec<u32> =
            batches.iter().map(|b| exec.group(b.places.clone(), false)).collect();
        let done = exec.is_done();
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return Flow::Stop };
        client.session.cork();
        let seq = seq.unwrap_or_else(|| client.expect(&mut self.engine.core.spare.replies));
        let to = Dest::Client { index: index as u32, generation, seq };
        let lane = ClientId::new(index, generation);
        let gathering = Gathering::new(
            lane,
            command,
            to,
            Parts::Transaction(exec),
            &self.engine.clients,
            &self.engine.core,
        );
        let g = self.engine.ops.gatherings.insert(gathering);
        for (batch, group) in batches.into_iter().zip(groups) {
            self.engine.ops.transactions().send_batch(
                index,
                command,
                g,
                group,
                batch,
                &mut base!(self.engine),
            );
        }
        for single in singles {
            let dest = Dest::Part { gather: g as u32, first: single.group };
            let command = multi.queue.get(single.command).map_or(command, |q| q.command);
            let mut pending = self.engine.ops.pending(
                dest,
                command,
                Slot::NONE,
                protocol,
                &self.engine.access,
                &self.engine.clients,
                &self.engine.core,
            );
            let frame = multi.frame(single.command);
            match single.at {
                Ok(node) => {
                    pending.flags.insert(PendingFlags::NODE_BOUND);
                    let conn = base!(self.engine).upstream_for(node, protocol, index);
                    self.engine.nodes.checks().send_part(
                        conn,
                        pending,
                        frame,
                        &mut self.engine.core,
                    );
                }
                Err(missing) => self.engine.ops.hold_part(
                    pending,
                    &missing,
                    frame,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                ),
            }
        }
        for Asked { question, group } in asked {
            let to = Dest::Part { gather: g as u32, first: group };
            self.engine.clients.ask_for(index, command, question, to, &mut self.engine.core);
        }
        self.engine.clients.watches().end_with_exec(
            index,
            &mut self.engine.nodes,
            &mut self.engine.core,
        );
        if done {
            self.engine.finish_gathering(g);
        }
        Flow::Next
    }

    /// Divides a transaction into batches by slot, commands for single nodes, and questions to all
    /// workers. The replies to commands that slotway answers are added to `exec`.
    fn pieces(
        &mut self,
        index: usize,
        multi: &Multi,
        exec: &mut ExecGather,
    ) -> (Vec<Batch>, Vec<Single>, Vec<Asked>) {
        let mut batches: Vec<Batch> = Vec::new();
        let mut by_slot: IntMap<Slot, usize> = IntMap::default();
        let mut singles = Vec::new();
        let mut asked = Vec::new();
        let mut ranges: Vec<ArgRange> = Vec::new();
        let view = self.engine.clients.view_of(index);
        let keyless = self.engine.core.router.view(view).keyless();
        let home = multi.first.as_ref().map_or(keyless, |(slot, _)| *slot);
        let mut push = |slot: Slot, frame: &[u8], place: usize, read_only: bool| {
            let at = *by_slot.entry(slot).or_insert_with(|| {
                batches.push(Batch {
                    slot,
                    frame: MULTI.to_vec(),
                    places: Vec::new(),
                    read_only: true,
                    by_sha: multi.by_sha,
                    publishes: multi.publishes,
                });
                batches.len() - 1
            });
            if let Some(batch) = batches.get_mut(at) {
                batch.frame.extend_from_slice(frame);
                batch.places.push(place);
                batch.read_only &= read_only;
            }
        };
        for (i, queued) in multi.queue.iter().enumerate() {
            let frame = multi.frame(i);
            let read_only = self.engine.core.router.is_read_only(queued.command);
            match queued.place {
                Place::Slot(slot) => push(slot, frame, i, read_only),
                Place::Any => push(home, frame, i, read_only),
                Place::Local(local @ (Local::ClientInfo | Local::ClientEveryone)) => {
                    let args =
                        requests::scan(frame, &self.engine.core.settings.accepted, &mut ranges);
                    match self.client_in_exec(index, local, &args) {
                        Ok(reply) => exec.place(i, reply),
                        Err(question) => {
                            asked.push(Asked { question, group: exec.group(vec![i], true) });
                        }
                    }
                }
                Place::Local(local) => {
                    let args =
                        requests::scan(frame, &self.engine.core.settings.accepted, &mut ranges);
                    let mut reply = Vec::new();
                    if let Some(client) = self.engine.clients.slab.get_mut(index) {
                        let announced = self.engine.core.settings.announced(client);
                        let context = Context {
                            identity: &self.engine.nodes.topology.identity,
                            databases: &self.engine.core.settings.databases,
                            announced: &announced,
                            announce_mode: self.engine.core.settings.announce_mode,
                        };
                        answer(local, &args, &mut client.session, context, &mut reply);
                    }
                    exec.place(i, reply);
                }
                Place::Split(merge) => {
                    let args =
                        requests::scan(frame, &self.engine.core.settings.accepted, &mut ranges);
                    let nested = exec.nest(i, merge);
                    self.engine.core.in_slots(view, queued.command, &args, |slot, frame, keys| {
                        let place = exec.piece(nested, keys);
                        push(slot, frame, place, read_only);
                    });
                }
                Place::Fan(to, merge) => {
                    if self.engine.core.router.script(queued.command) == Some(Script::Flush) {
                        self.engine.scripts.flush_scripts();
                    }
                    let nested = exec.nest(i, merge);
                    for target in
                        self.engine.nodes.fan_targets_for((index, view), to, &mut self.engine.core)
                    {
                        let name = match &target {
                            Ok(node) => self.engine.nodes.list.get(node.at()).map(|n| &n.addr),
                            Err(_) => None,
                        };
                        let name = name.map(ToString::to_string);
                        let name = name.or_else(|| target.as_ref().err().map(MissingTarget::name));
                        let piece = exec.piece_at(nested, name.unwrap_or_default());
                        let group = exec.group(vec![piece], true);
                        singles.push(Single { at: target, command: i, group });
                    }
                }
            }
        }
        (batches, singles, asked)
    }
}

//! A command's plan is carried out: forwarded, split, sent to many, answered here.

use std::sync::atomic::Ordering::Relaxed;

use crate::base::{Base, base};
use crate::buf::CHUNK;
use crate::client::{AfterReply, AnnouncedNode, Context, Paused, answer, mode};
use crate::clients::Flow;
use crate::cluster::NO_SLOT;
use crate::command::CommandId;
use crate::resp::Args;
use crate::route::{Local, Plan, PubSub};
use crate::users::OWN_REALM;
use crate::worker::Worker;

impl Worker {
    /// One command that has been looked up.
    pub(super) fn dispatch_known(
        &mut self,
        index: usize,
        command: CommandId,
        frame: &[u8],
        args: &Args,
    ) -> Flow {
        let plan = self.core.router.plan(command, args, &mut self.core.spare.keys);
        match plan {
            Plan::Slot(slot) => self.ops.forward(index, command, slot.0, frame, &mut base!(self)),
            other => self.dispatch_rare(index, command, other, frame, args),
        }
    }

    /// One command of a client whose session is in a mode of [`mode`], or may be.
    pub(super) fn dispatch_in_mode(&mut self, index: usize, frame: &[u8], args: &Args) -> Flow {
        let Some(client) = self.clients.slab.get(index) else { return Flow::Stop };
        let modes = client.session.modes;
        if modes & mode::RESTRICTED != 0
            && let Some(flow) = self.check_user(index, args)
        {
            return flow;
        }
        if modes & mode::SUBSCRIBED != 0
            && let Some(flow) =
                self.clients.subscribed().refuse(index, args, &mut self.nodes, &mut self.core)
        {
            return flow;
        }
        if modes & mode::MULTI != 0 {
            return self.dispatch_in_multi(index, frame, args);
        }
        // Connections of the cluster's users are to primaries.
        if modes & (mode::READONLY | mode::READ_FROM) != 0
            && self.clients.realm_of(index) == OWN_REALM
        {
            return self.dispatch_read(index, frame, args);
        }
        self.dispatch(index, frame, args)
    }

    /// Everything but the forwarding of one frame to one slot's node.
    pub(super) fn dispatch_rare(
        &mut self,
        index: usize,
        command: CommandId,
        plan: Plan,
        frame: &[u8],
        args: &Args,
    ) -> Flow {
        if let Some(client) = self.clients.slab.get_mut(index) {
            client.session.last_command = command;
        }
        let frees = matches!(plan, Plan::Local(_) | Plan::PubSub(PubSub::Unsubscribe(_), _));
        if self.clients.memory().is_over_limit(&mut self.nodes, &mut self.core) && !frees {
            return self.clients.refusals().for_memory(index, command, &mut self.core);
        }
        // A topic is more than the command that brings it. It is refused while there is room for
        // that, or its client would be closed for being the one that holds most.
        let lasting = matches!(plan, Plan::PubSub(PubSub::Subscribe(_), _));
        if lasting
            && !self.clients.memory().has_room_for(
                self.core.settings.memory / 4,
                &mut self.nodes,
                &mut self.core,
            )
        {
            return self.clients.refusals().for_memory(index, command, &mut self.core);
        }
        match self.clients.filtered_for(index, plan) {
            Plan::Slot(slot) => self.ops.forward(index, command, slot.0, frame, &mut base!(self)),
            // A browser or a form that was led to a Redis port: it is closed without a word, as
            // Redis does. A node would close its connection, which is everybody's.
            Plan::Any if args.is(0, "post") || args.is(0, "host:") => {
                self.clients.close(index, &mut self.core);
                Flow::Stop
            }
            Plan::Any => {
                let other =
                    self.core.settings.emulate.then(|| self.core.without_number(command, args));
                let other = other.flatten();
                let frame = other.as_deref().unwrap_or(frame);
                match self.nodes.any_primary(index) {
                    Some(node) => {
                        self.ops.forward_to(index, command, NO_SLOT, node, frame, &mut base!(self))
                    }
                    None => self.ops.wait_for_a_node(index, command, frame, &mut base!(self)),
                }
            }
            Plan::Script(script, slot) => self.script(index, command, (script, slot), frame, args),
            Plan::Split { merge, step } => self.split(index, command, merge, step, args),
            Plan::CrossSlot(slot) => self.several_slots(index, command, slot.0, frame, args),
            Plan::Fan { to, merge } => {
                let flow = self.fan(index, command, to, merge, frame);
                if args.is(0, "config") {
                    self.ops.gatherings.set_when_agreed(index, args, &mut self.clients);
                }
                flow
            }
            Plan::Scan => self.scan(index, command, args),
            Plan::RandomKey => self.random_key(index, command, frame),
            Plan::Block(slot) => self.ops.errands().block(
                index,
                command,
                slot.map_or(NO_SLOT, |slot| slot.0),
                frame,
                &mut base!(self),
            ),
            Plan::Transaction(which) => self.ops.transactions().command(
                index,
                command,
                which,
                frame,
                args,
                &mut base!(self),
            ),
            Plan::Join => self.ops.joining().start(index, command, frame, &mut base!(self)),
            Plan::Wait => self.ops.fleets().wait(index, command, frame, args, &mut base!(self)),
            Plan::OutOfBand(merge) => {
                self.ops.fleets().aside(index, command, merge, frame, &mut base!(self))
            }
            Plan::Monitor => self.ops.fleets().monitor(index, command, &mut base!(self)),
            Plan::PubSub(which, slot) => self.pubsub(index, command, which, slot, frame, args),
            Plan::Local(local) if self.seeing.look_from == 0 => {
                let begun = std::time::Instant::now();
                let flow = self.local(index, command, local, args);
                if flow != Flow::Pause {
                    self.seeing.note_own(
                        index,
                        command,
                        args,
                        begun,
                        &mut self.clients,
                        &mut self.core,
                    );
                }
                flow
            }
            Plan::Local(local) => self.local(index, command, local, args),
            Plan::Refuse(why) => {
                self.clients.refusals().refuse(index, command, why, &mut self.core)
            }
        }
    }

    fn local(&mut self, index: usize, command: CommandId, local: Local, args: &Args) -> Flow {
        let Some(client) = self.clients.slab.get_mut(index) else { return Flow::Stop };
        // Another protocol is another upstream connection: what went before must be answered
        // first, or the two could overtake each other.
        let account = client.session.account.is_some();
        // ECHO and PING: what they are given comes back.
        if self.core.turn.unread > CHUNK
            && !self.clients.memory().has_room_for(
                args.iter().map(<[u8]>::len).sum(),
                &mut self.nodes,
                &mut self.core,
            )
        {
            return self.clients.refusals().for_memory(index, command, &mut self.core);
        }
        let Some(client) = self.clients.slab.get_mut(index) else { return Flow::Stop };
        let somebody_else = account && local == Local::Auth;
        if (matches!(local, Local::Hello | Local::Reset) || somebody_else) && !client.is_drained() {
            client.paused = Paused::Replies;
            self.clients.mark_client(index, &mut self.core);
            return Flow::Pause;
        }
        if account
            && matches!(local, Local::Auth | Local::Hello)
            && let Some(flow) = self.login(index, command, local, args)
        {
            return flow;
        }
        let shown = self.core.shared.monitors.load(Relaxed) > 0;
        if let Local::ClientInfo | Local::ClientReply | Local::ClientEveryone = local {
            if shown {
                self.clients.monitors().show(index, command, args, false, &mut self.core);
            }
            return base!(self).client_command(index, command, local, args);
        }
        if let Local::SlowLog | Local::Proxy = local {
            if shown {
                self.clients.monitors().show(index, command, args, false, &mut self.core);
            }
            return self.seen_command(index, command, local, args);
        }
        if local == Local::Reset {
            self.clients.transactions().forget(index, &mut self.nodes, &mut self.core);
            self.release_lent(index);
            self.subscribers.leave_all(index, &mut self.clients, &mut self.core);
        }
        let Some(client) = self.clients.slab.get_mut(index) else { return Flow::Stop };
        let announced = match local {
            Local::Cluster | Local::ClusterMyShardId => self.core.settings.announced(client),
            _ => AnnouncedNode::default(),
        };
        let context = Context {
            identity: &self.nodes.topology.identity,
            announced: &announced,
            announce_mode: self.core.settings.announce_mode,
        };
        self.core.spare.reply.clear();
        let before = client.session.protocol;
        let after = answer(local, args, &mut client.session, context, &mut self.core.spare.reply);
        let is_error = self.core.spare.reply.first() == Some(&b'-');
        client.answer_owned(
            &mut self.core.spare.reply,
            &mut self.core.spare.pool,
            &mut self.core.spare.replies,
        );
        if account && local == Local::Reset {
            base!(self).begin_account(index);
        }
        let Some(client) = self.clients.slab.get_mut(index) else { return Flow::Stop };
        if client.session.protocol != before && client.lent.is_some() {
            self.clients.watches().follow_protocol(index, &mut self.nodes, &mut self.core);
        }
        if let Some(stats) = self.core.stats.commands.get_mut(command.index()) {
            match is_error {
                true => stats.error += 1,
                false => stats.ok += 1,
            }
        }
        if self.core.spare.reply.capacity() > CHUNK {
            self.core.spare.reply = Vec::new();
        }
        self.clients.mark_client(index, &mut self.core);
        match after {
            AfterReply::Continue => {
                if shown {
                    self.clients.monitors().show(index, command, args, true, &mut self.core);
                }
                Flow::Next
            }
            AfterReply::Close => {
                self.clients.stop_reading(index, &mut self.core);
                Flow::Stop
            }
        }
    }
}

//! Carrying out plans: forwarding, splitting, sending to several nodes, answering.

use crate::base::{Base, base};
use crate::buf::CHUNK;
use crate::client::{AfterReply, AnnouncedNode, Client, Context, Paused, SessionModes, answer};
use crate::clients::Flow;
use crate::cluster::Slot;
use crate::command::CommandId;
use crate::dispatch::Dispatcher;
use crate::errors::Failure;
use crate::resp::Args;
use crate::route::{Local, Plan, PubSub};
use crate::users::OWN_REALM;
use std::sync::atomic::Ordering::Relaxed;

impl Dispatcher<'_> {
    /// Dispatches a command that has been looked up in the command table.
    pub(super) fn dispatch_known(
        &mut self,
        index: usize,
        command: CommandId,
        frame: &[u8],
        args: &Args,
    ) -> Flow {
        let view = self.engine.clients.view_of(index);
        let core = &mut self.engine.core;
        let plan = core.router.plan(view, command, args, &mut core.spare.keys);
        match plan {
            Plan::Slot(slot) => {
                self.engine.ops.forward(index, command, slot, frame, &mut base!(self.engine))
            }
            other => self.dispatch_rare(index, command, other, frame, args),
        }
    }

    /// Dispatches a command of a client whose session may be in modes of [`mode`] other than those
    /// of CLIENT PAUSE and CLIENT REPLY.
    pub(super) fn dispatch_in_mode(&mut self, index: usize, frame: &[u8], args: &Args) -> Flow {
        let Some(client) = self.engine.clients.slab.get(index) else { return Flow::Stop };
        let modes = client.session.modes;
        if modes.contains(SessionModes::RESTRICTED)
            && let Some(flow) = self.check_user(index, args)
        {
            return flow;
        }
        if modes.contains(SessionModes::SUBSCRIBED)
            && let Some(flow) = self.engine.clients.subscribed().refuse(
                index,
                args,
                &mut self.engine.nodes,
                &mut self.engine.core,
            )
        {
            return flow;
        }
        if modes.contains(SessionModes::MULTI) {
            return self.dispatch_in_multi(index, frame, args);
        }
        // Users of the cluster have connections to primaries only.
        if modes.intersects(SessionModes::READONLY | SessionModes::READ_FROM)
            && self.engine.clients.realm_of(index) == OWN_REALM
        {
            return self.dispatch_read(index, frame, args);
        }
        self.dispatch(index, frame, args)
    }

    /// Stands for the slot of the client's commands without keys.
    pub(super) fn keyless(&self, index: usize) -> Slot {
        self.engine.core.router.view(self.engine.clients.view_of(index)).keyless()
    }

    /// Carries out a plan of any kind. Most [`Plan::Slot`]s do not come here: see `walk`.
    pub(super) fn dispatch_rare(
        &mut self,
        index: usize,
        command: CommandId,
        plan: Plan,
        frame: &[u8],
        args: &Args,
    ) -> Flow {
        if let Some(client) = self.engine.clients.slab.get_mut(index) {
            client.session.last_command = command;
        }
        let frees = matches!(plan, Plan::Local(_) | Plan::PubSub(PubSub::Unsubscribe(_), _));
        if self.engine.clients.memory().is_over_limit(&mut self.engine.nodes, &mut self.engine.core)
            && !frees
        {
            return self.engine.clients.refusals().for_memory(
                index,
                command,
                &mut self.engine.core,
            );
        }
        // A subscription occupies more memory than its command. It is refused while a quarter of
        // the limit is left; at the limit its client could be closed for occupying the most.
        let lasting = matches!(plan, Plan::PubSub(PubSub::Subscribe(_), _));
        if lasting
            && !self.engine.clients.memory().has_room_for(
                self.engine.core.settings.memory / 4,
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
        match self.engine.clients.filtered_for(index, plan) {
            Plan::Slot(slot) => {
                self.engine.ops.forward(index, command, slot, frame, &mut base!(self.engine))
            }
            // HTTP on the Redis port: the client is closed without a reply, as Redis does. A node
            // would close its connection, which clients share.
            Plan::Any if args.is(0, "post") || args.is(0, "host:") => {
                self.engine.clients.close(index, &mut self.engine.core);
                Flow::Stop
            }
            Plan::Any => {
                let other = self
                    .engine
                    .core
                    .settings
                    .emulate
                    .then(|| self.engine.core.without_number(command, args));
                let other = other.flatten();
                let frame = other.as_deref().unwrap_or(frame);
                let keyless = self.keyless(index);
                match self.engine.nodes.any_primary(index, keyless) {
                    Some(node) => self.engine.ops.forward_to(
                        index,
                        command,
                        keyless,
                        node,
                        frame,
                        &mut base!(self.engine),
                    ),
                    None => self.engine.ops.wait_for_a_node(
                        index,
                        command,
                        keyless,
                        frame,
                        &mut base!(self.engine),
                    ),
                }
            }
            Plan::Script(script, slot) => self.script(index, command, (script, slot), frame, args),
            Plan::Split { merge, step } => self.split(index, command, merge, step, args),
            Plan::CrossSlot(slot) => self.several_slots(index, command, slot, frame, args),
            Plan::Fan { to, merge } => {
                let flow = self.fan(index, command, to, merge, frame);
                if args.is(0, "config") {
                    self.engine.ops.gatherings.set_when_agreed(
                        index,
                        args,
                        &mut self.engine.clients,
                    );
                }
                flow
            }
            Plan::Scan => self.scan(index, command, args),
            Plan::RandomKey => self.random_key(index, command, frame),
            Plan::Block(slot) => self.engine.ops.errands().block(
                index,
                command,
                slot,
                frame,
                &mut base!(self.engine),
            ),
            Plan::Transaction(which) => self.engine.ops.transactions().command(
                index,
                command,
                which,
                frame,
                args,
                &mut base!(self.engine),
            ),
            Plan::Join => {
                self.engine.ops.joining().start(index, command, frame, &mut base!(self.engine))
            }
            Plan::Wait => {
                self.engine.ops.fleets().wait(index, command, frame, args, &mut base!(self.engine))
            }
            Plan::OutOfBand(merge) => self.engine.ops.fleets().aside(
                index,
                command,
                merge,
                frame,
                &mut base!(self.engine),
            ),
            Plan::Monitor => {
                self.engine.ops.fleets().monitor(index, command, &mut base!(self.engine))
            }
            Plan::PubSub(which, slot) => self.pubsub(index, command, which, slot, frame, args),
            Plan::Local(local) if self.engine.seeing.look_from == 0 => {
                let begun = std::time::Instant::now();
                let flow = self.local(index, command, local, args);
                if flow != Flow::Pause {
                    self.engine.seeing.note_own(
                        index,
                        command,
                        args,
                        begun,
                        &mut self.engine.clients,
                        &mut self.engine.core,
                    );
                }
                flow
            }
            Plan::Local(local) => self.local(index, command, local, args),
            Plan::Refuse(why) => {
                self.engine.clients.refusals().refuse(index, command, why, &mut self.engine.core)
            }
        }
    }

    /// Carries out a command that slotway answers. Most replies are made by [`answer`].
    fn local(&mut self, index: usize, command: CommandId, local: Local, args: &Args) -> Flow {
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return Flow::Stop };
        let account = client.session.account.is_some();
        // ECHO and PING return their arguments.
        if self.engine.core.turn.unread > CHUNK
            && !self.engine.clients.memory().has_room_for(
                args.iter().map(<[u8]>::len).sum(),
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
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return Flow::Stop };
        // Another protocol, database or user means another upstream connection: earlier commands
        // have to be answered first, or later ones could overtake them.
        let another_user = account && local == Local::Auth;
        let another_connection =
            matches!(local, Local::Hello | Local::Reset | Local::Select) || another_user;
        if another_connection && !client.is_drained() {
            client.paused = Paused::Replies;
            self.engine.clients.mark_client(index, &mut self.engine.core);
            return Flow::Pause;
        }
        if account
            && matches!(local, Local::Auth | Local::Hello)
            && let Some(flow) = self.login(index, command, local, args)
        {
            return flow;
        }
        if local == Local::Select
            && self.engine.clients.slab.get(index).is_some_and(Client::has_watches)
        {
            let failure = Failure::SelectWhileWatching;
            self.engine.clients.answer_own_error(index, command, &failure, &mut self.engine.core);
            return Flow::Next;
        }
        if local == Local::Select
            && let Some(failure) = self.refused_select(index, args)
        {
            self.engine.clients.answer_own_error(index, command, &failure, &mut self.engine.core);
            return Flow::Next;
        }
        let shown = self.engine.core.shared.monitors.load(Relaxed) > 0;
        if let Local::ClientInfo | Local::ClientReply | Local::ClientEveryone = local {
            if shown {
                self.engine.clients.monitors().show(
                    index,
                    command,
                    args,
                    false,
                    &mut self.engine.core,
                );
            }
            return base!(self.engine).client_command(index, command, local, args);
        }
        if let Local::SlowLog | Local::Proxy = local {
            if shown {
                self.engine.clients.monitors().show(
                    index,
                    command,
                    args,
                    false,
                    &mut self.engine.core,
                );
            }
            return self.seen_command(index, command, local, args);
        }
        if local == Local::Reset {
            self.engine.clients.transactions().forget(
                index,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
            self.engine.release_lent(index);
            self.engine.subscribers.leave_all(
                index,
                &mut self.engine.clients,
                &mut self.engine.core,
            );
        }
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return Flow::Stop };
        let announced = match local {
            Local::Cluster | Local::ClusterMyShardId => self.engine.core.settings.announced(client),
            _ => AnnouncedNode::default(),
        };
        let context = Context {
            identity: &self.engine.nodes.topology.identity,
            databases: &self.engine.core.settings.databases,
            announced: &announced,
            announce_mode: self.engine.core.settings.announce_mode,
        };
        self.engine.core.spare.reply.clear();
        let (before, database) = (client.session.protocol, client.session.database);
        let view = client.session.view;
        let after =
            answer(local, args, &mut client.session, context, &mut self.engine.core.spare.reply);
        let is_error = self.engine.core.spare.reply.first() == Some(&b'-');
        client.answer_owned(
            &mut self.engine.core.spare.reply,
            &mut self.engine.core.spare.pool,
            &mut self.engine.core.spare.replies,
        );
        if account && local == Local::Reset {
            base!(self.engine).begin_account(index);
        }
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return Flow::Stop };
        let selected = client.session.database;
        if client.session.view != view {
            // WAIT is about what it has written to the upstreams that it sees.
            client.wrote = 0;
        }
        if selected != database {
            self.engine.access.change_database(database, selected, &mut self.engine.core);
        }
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return Flow::Stop };
        if client.session.protocol != before && client.lent.is_some() {
            self.engine.clients.watches().follow_protocol(
                index,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        }
        if let Some(stats) = self.engine.core.stats.commands.get_mut(command.index()) {
            match is_error {
                true => stats.error += 1,
                false => stats.ok += 1,
            }
        }
        if self.engine.core.spare.reply.capacity() > CHUNK {
            self.engine.core.spare.reply = Vec::new();
        }
        self.engine.clients.mark_client(index, &mut self.engine.core);
        match after {
            AfterReply::Continue => {
                if shown {
                    self.engine.clients.monitors().show(
                        index,
                        command,
                        args,
                        true,
                        &mut self.engine.core,
                    );
                }
                Flow::Next
            }
            AfterReply::Close => {
                self.engine.clients.stop_reading(index, &mut self.engine.core);
                Flow::Stop
            }
        }
    }
}

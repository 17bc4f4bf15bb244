//! A command's plan is carried out: forwarded, split, sent to many, answered here.

use super::state::base;
use super::state::{Access, Base, Clients, Core, Nodes, Operations};
use std::sync::atomic::Ordering::Relaxed;

use super::Worker;
use super::downstream::Flow;
use super::no_room::buffers_full;
use crate::buf::CHUNK;
use crate::client::{After, Announced, Context, Paused, answer, mode};
use crate::cluster::NO_SLOT;
use crate::command::CommandId;
use crate::dest::{ClientId, Dest};
use crate::errors::Failure;
use crate::metrics::LimitHit;
use crate::placement::Held;
use crate::resp::{ArgRange, Args, Protocol};
use crate::route::{Local, Plan, PubSub, Refused, flag};
use crate::upstream::{Pending, State, Waiting};
use crate::users::OWN;

impl Nodes {
    #[inline]
    pub(super) fn route(&self, slot: u16) -> Option<u16> {
        self.placement.slots.route(slot)
    }

    /// Puts a command into a connection's queue.
    #[inline]
    pub(super) fn send(&mut self, u: usize, mut pending: Pending, frame: &[u8], core: &mut Core) {
        let Some(up) = self.upstreams.get_mut(u) else { return };
        pending.len = frame.len() as u32;
        up.queue.push(frame, &mut core.spare.pool);
        up.pending.push_back(pending);
        self.mark_upstream(u, core);
    }

    pub(super) fn send_owned(
        &mut self,
        u: usize,
        mut pending: Pending,
        frame: Vec<u8>,
        core: &mut Core,
    ) {
        let Some(up) = self.upstreams.get_mut(u) else { return };
        pending.len = frame.len() as u32;
        up.queue.push_owned(frame, &mut core.spare.pool);
        up.pending.push_back(pending);
        self.mark_upstream(u, core);
    }

    /// The same primary for the same client, so that what it sends one after the other is
    /// answered in that order; another one only while that one is not reached.
    pub(super) fn any_primary(&self, index: usize) -> Option<u16> {
        let first = index.checked_rem(self.placement.slots.primaries().len())?;
        let in_turn = || {
            self.placement
                .slots
                .primaries()
                .iter()
                .cycle()
                .skip(first)
                .take(self.placement.slots.primaries().len())
        };
        let reached = in_turn().find(|&&node| self.is_reached(node));
        reached.or_else(|| in_turn().next()).copied()
    }

    /// No connection to it is waiting for its next attempt, or for a sign of life.
    pub(super) fn is_reached(&self, node: u16) -> bool {
        let shared = self.list.get(usize::from(node)).map(|n| &n.shared);
        let mut ours = shared.into_iter().flatten().flatten().flatten();
        ours.all(|&u| {
            self.upstreams.get(u).is_none_or(|up| up.state != State::Backoff && !up.suspect)
        })
    }

    /// A shared connection to the node stands, and is not suspected of being dead.
    pub(super) fn is_connected(&self, node: u16) -> bool {
        let shared = self.list.get(usize::from(node)).map(|n| &n.shared);
        let mut ours = shared.into_iter().flatten().flatten().flatten();
        ours.any(|&u| {
            self.upstreams.get(u).is_some_and(|up| up.state == State::Ready && !up.suspect)
        })
    }

    /// Why no node is known.
    pub(super) fn no_cluster_failure(&self, core: &Core) -> Failure {
        match self.topology.snapshot.generation {
            0 => core.shared.no_cluster_yet(),
            _ => Failure::NoNodeOnline,
        }
    }
}

impl Clients {
    fn refuse(&mut self, index: usize, command: CommandId, why: Refused, core: &mut Core) -> Flow {
        let failure = core.router.refusal(command, why);
        self.answer_own_error(index, command, &failure, core);
        Flow::Next
    }

    /// A command that needs to know nodes, and none is known.
    #[cold]
    pub(super) fn no_cluster(
        &mut self,
        index: usize,
        command: CommandId,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Flow {
        let failure = nodes.no_cluster_failure(core);
        self.answer_own_error(index, command, &failure, core);
        Flow::Next
    }

    #[cold]
    pub(super) fn refuse_for_memory(
        &mut self,
        index: usize,
        command: CommandId,
        core: &mut Core,
    ) -> Flow {
        core.stats.limits_hit[LimitHit::Memory as usize] += 1;
        let failure = buffers_full(&core.settings);
        self.answer_own_error(index, command, &failure, core);
        Flow::Next
    }

    /// An error of slotway's own instead of a reply, counted as refused.
    pub(super) fn answer_own_error(
        &mut self,
        index: usize,
        command: CommandId,
        failure: &Failure,
        core: &mut Core,
    ) {
        if let Some(stats) = core.stats.commands.get_mut(command.index()) {
            stats.refused += 1;
        }
        self.answer_error(index, failure, core);
    }

    /// A reply of slotway's own, counted as answered.
    pub(super) fn answer_own(
        &mut self,
        index: usize,
        command: CommandId,
        reply: &[u8],
        core: &mut Core,
    ) {
        if let Some(stats) = core.stats.commands.get_mut(command.index()) {
            stats.ok += 1;
        }
        self.answer_plain(index, reply, core);
    }

    pub(super) fn answer_plain(&mut self, index: usize, reply: &[u8], core: &mut Core) {
        if let Some(client) = self.slab.get_mut(index) {
            client.answer(reply, &mut core.spare.pool, &mut core.spare.replies);
        }
        self.mark_client(index, core);
    }

    pub(super) fn answer_error(&mut self, index: usize, failure: &Failure, core: &mut Core) {
        core.count_failure(failure);
        let mut reply = std::mem::take(&mut core.spare.reply);
        reply.clear();
        failure.write(&mut reply);
        if let Some(client) = self.slab.get_mut(index) {
            client.answer(&reply, &mut core.spare.pool, &mut core.spare.replies);
        }
        core.spare.reply = reply;
        self.mark_client(index, core);
    }
}

impl Operations {
    /// A large command in a buffer of its own. Gives the buffer back where the command is of a
    /// kind that needs it as bytes.
    pub(super) fn dispatch_owned(
        &mut self,
        index: usize,
        frame: Vec<u8>,
        ranges: &[ArgRange],
        base: &mut Base<'_>,
    ) -> Result<Flow, Vec<u8>> {
        let args = Args::new(&frame, ranges);
        let command = base.core.router.command(&args);
        let modes = base.clients.slab.get(index).map_or(0, |client| client.session.modes);
        if modes != 0 && base.core.router.is_read_only(command) {
            return Err(frame); // it may go elsewhere
        }
        let slot = match base.core.router.plan(command, &args, &mut base.core.spare.keys) {
            Plan::Slot(slot) => slot.0,
            _ => return Err(frame),
        };
        if base.clients.is_over_memory(base.nodes, base.core) {
            return Err(frame);
        }
        let Some(node) = base.nodes.route(slot) else { return Err(frame) };
        let Some(pending) = self.admit(index, command, slot, node, base) else { return Err(frame) };
        let u = pending.1;
        base.nodes.send_owned(u, pending.0, frame, base.core);
        Ok(Flow::Next)
    }

    #[inline]
    pub(super) fn forward(
        &mut self,
        index: usize,
        command: CommandId,
        slot: u16,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        if base.clients.is_over_memory(base.nodes, base.core) {
            return base.clients.refuse_for_memory(index, command, base.core);
        }
        let Some(node) = base.nodes.route(slot) else {
            return self.hold_fresh(index, command, slot, frame, base);
        };
        self.forward_to(index, command, slot, node, frame, base)
    }

    #[inline]
    pub(super) fn forward_to(
        &mut self,
        index: usize,
        command: CommandId,
        slot: u16,
        node: u16,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        match self.admit(index, command, slot, node, base) {
            Some((pending, u)) => {
                base.nodes.send(u, pending, frame, base.core);
                Flow::Next
            }
            None => Flow::Pause,
        }
    }

    /// Makes the entry of a client's command for `node`, and gives it with the connection; `None`:
    /// the connection is full and the client was paused.
    #[inline]
    pub(super) fn admit(
        &mut self,
        index: usize,
        command: CommandId,
        slot: u16,
        node: u16,
        base: &mut Base<'_>,
    ) -> Option<(Pending, usize)> {
        let client = base.clients.slab.get(index)?;
        let (protocol, generation) = (client.session.protocol, client.generation);
        let u = base.upstream_for(node, protocol, index);
        self.admit_on(index, command, slot, u, (protocol, generation), base)
    }

    /// The same for a connection that is chosen already.
    #[inline]
    pub(super) fn admit_on(
        &mut self,
        index: usize,
        command: CommandId,
        slot: u16,
        u: usize,
        (protocol, generation): (Protocol, u32),
        base: &mut Base<'_>,
    ) -> Option<(Pending, usize)> {
        if base.clients.has_to_wait(index, u, base.nodes, base.core) {
            base.clients.pause(index, u, base.nodes, base.core);
            return None;
        }
        let node = base.nodes.upstreams.get(u)?.node;
        let dest = Dest::Client { index: index as u32, generation, seq: 0 };
        let mut pending =
            self.pending(dest, command, slot, protocol, base.access, base.clients, base.core);
        let client = base.clients.slab.get_mut(index)?;
        client.session.last_command = command;
        let seq = client.expect(&mut base.core.spare.replies);
        pending.dest = Dest::Client { index: index as u32, generation, seq };
        pending.expected = client.transfer_sizes.expected();
        client.transfer_sizes.ask();
        if !pending.has(flag::READ_ONLY) {
            client.wrote |= 1 << (node & 63);
        }
        Some((pending, u))
    }

    #[inline]
    pub(super) fn pending(
        &self,
        dest: Dest,
        command: CommandId,
        slot: u16,
        protocol: Protocol,
        access: &Access,
        clients: &Clients,
        core: &Core,
    ) -> Pending {
        let mut flags = core.router.flags(command);
        if protocol == Protocol::Resp3 {
            flags |= flag::RESP3;
        }
        // Hardly ever is there any user of the cluster.
        let realm = if access.realms.is_empty() { OWN } else { self.realm_of_dest(&dest, clients) };
        let started = match flags & flag::PUBLISHES {
            0 => core.now,
            _ => core.publish_time(),
        };
        // A client's own is set where the client is at hand.
        let expected = match dest {
            Dest::Part { gather, .. } => self.expected_of_part(gather, clients),
            _ => 0,
        };
        Pending {
            dest,
            len: 0,
            slot,
            command,
            flags,
            realm,
            tries: 0,
            refused: None,
            before: 0,
            checks_shard: false,
            started,
            expected,
        }
    }

    /// The slot is in motion or has no primary: the command waits in its client's lane.
    #[cold]
    pub(super) fn hold_fresh(
        &mut self,
        index: usize,
        command: CommandId,
        slot: u16,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        if frame.len() > CHUNK && !base.clients.has_room_for(frame.len(), base.nodes, base.core) {
            return base.clients.refuse_for_memory(index, command, base.core);
        }
        if !base.nodes.placement.slots.holds.fits(slot, frame.len(), base.core.settings.held) {
            base.core.stats.limits_hit[LimitHit::Held as usize] += 1;
            base.clients.answer_own_error(index, command, &Failure::HoldsFull { slot }, base.core);
            return Flow::Next;
        }
        let Some(client) = base.clients.slab.get_mut(index) else { return Flow::Stop };
        let (protocol, generation) = (client.session.protocol, client.generation);
        client.session.last_command = command;
        let seq = client.expect(&mut base.core.spare.replies);
        let expected = client.transfer_sizes.expected();
        let dest = Dest::Client { index: index as u32, generation, seq };
        let mut pending =
            self.pending(dest, command, slot, protocol, base.access, base.clients, base.core);
        pending.expected = expected;
        self.hold_pending(
            pending,
            ClientId::new(index, generation),
            frame.to_vec(),
            base.nodes,
            base.core,
        );
        Flow::Next
    }

    /// Puts a command that has not been sent into its lane, and sends it on if it may go.
    pub(super) fn hold_pending(
        &mut self,
        mut pending: Pending,
        lane: ClientId,
        frame: Vec<u8>,
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let slot = pending.slot;
        pending.len = frame.len() as u32;
        if !nodes.placement.slots.holds.contains(slot) {
            self.hold_slot(slot, nodes, core);
        }
        let meta = Waiting { pending, lane };
        nodes.placement.slots.holds.push_fresh(slot, lane, Held { meta, frame });
        core.arm_tick();
        core.run_lane(slot, lane);
    }

    /// A command that any node could take, and none is there: it waits, if there ever was one.
    #[cold]
    pub(super) fn wait_for_a_node(
        &mut self,
        index: usize,
        command: CommandId,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        if base.nodes.topology.snapshot.generation == 0 {
            return base.clients.no_cluster(index, command, base.nodes, base.core);
        }
        self.hold_fresh(index, command, NO_SLOT, frame, base)
    }
}

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
        if modes & mode::RULED != 0
            && let Some(flow) = self.check_user(index, args)
        {
            return flow;
        }
        if modes & mode::SUBSCRIBED != 0
            && let Some(flow) =
                self.clients.refuse_to_subscriber(index, args, &mut self.nodes, &mut self.core)
        {
            return flow;
        }
        if modes & mode::MULTI != 0 {
            return self.dispatch_in_multi(index, frame, args);
        }
        // Connections of the cluster's users are to primaries.
        if modes & (mode::READONLY | mode::READ_FROM) != 0 && self.clients.realm_of(index) == OWN {
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
        if self.clients.is_over_memory(&mut self.nodes, &mut self.core) && !frees {
            return self.clients.refuse_for_memory(index, command, &mut self.core);
        }
        // A topic is more than the command that brings it. It is refused while there is room for
        // that, or its client would be closed for being the one that holds most.
        let lasting = matches!(plan, Plan::PubSub(PubSub::Subscribe(_), _));
        if lasting
            && !self.clients.has_room_for(
                self.core.settings.memory / 4,
                &mut self.nodes,
                &mut self.core,
            )
        {
            return self.clients.refuse_for_memory(index, command, &mut self.core);
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
            Plan::Several(slot) => self.several_slots(index, command, slot.0, frame, args),
            Plan::Fan { to, merge } => {
                let flow = self.fan(index, command, to, merge, frame);
                if args.is(0, "config") {
                    self.ops.set_when_agreed(index, args, &mut self.clients);
                }
                flow
            }
            Plan::Scan => self.scan(index, command, args),
            Plan::RandomKey => self.random_key(index, command, frame),
            Plan::Block(slot) => self.ops.block(
                index,
                command,
                slot.map_or(NO_SLOT, |slot| slot.0),
                frame,
                &mut base!(self),
            ),
            Plan::Transaction(which) => {
                self.ops.transaction(index, command, which, frame, args, &mut base!(self))
            }
            Plan::Join => self.ops.join(index, command, frame, &mut base!(self)),
            Plan::Wait => self.ops.wait(index, command, frame, args, &mut base!(self)),
            Plan::Aside(merge) => self.ops.aside(index, command, merge, frame, &mut base!(self)),
            Plan::Monitor => self.ops.monitor(index, command, &mut base!(self)),
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
            Plan::Refuse(why) => self.clients.refuse(index, command, why, &mut self.core),
        }
    }

    fn local(&mut self, index: usize, command: CommandId, local: Local, args: &Args) -> Flow {
        let Some(client) = self.clients.slab.get_mut(index) else { return Flow::Stop };
        // Another protocol is another upstream connection: what went before must be answered
        // first, or the two could overtake each other.
        let account = client.session.account.is_some();
        // ECHO and PING: what they are given comes back.
        if self.core.turn.unread > CHUNK
            && !self.clients.has_room_for(
                args.iter().map(<[u8]>::len).sum(),
                &mut self.nodes,
                &mut self.core,
            )
        {
            return self.clients.refuse_for_memory(index, command, &mut self.core);
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
                self.clients.show_to_monitors(index, command, args, false, &mut self.core);
            }
            return base!(self).client_command(index, command, local, args);
        }
        if let Local::SlowLog | Local::Proxy = local {
            if shown {
                self.clients.show_to_monitors(index, command, args, false, &mut self.core);
            }
            return self.seen_command(index, command, local, args);
        }
        if local == Local::Reset {
            self.clients.drop_transaction(index, &mut self.nodes, &mut self.core);
            self.release_lent(index);
            self.subscribers.leave_all(index, &mut self.clients, &mut self.core);
        }
        let Some(client) = self.clients.slab.get_mut(index) else { return Flow::Stop };
        let announced = match local {
            Local::Cluster | Local::ClusterMyShardId => self.core.settings.announced(client),
            _ => Announced::default(),
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
            self.clients.watch_in_protocol(index, &mut self.nodes, &mut self.core);
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
            After::Go => {
                if shown {
                    self.clients.show_to_monitors(index, command, args, true, &mut self.core);
                }
                Flow::Next
            }
            After::Close => {
                self.clients.stop_reading(index, &mut self.core);
                Flow::Stop
            }
        }
    }
}

//! A command's plan is carried out: forwarded, split, sent to many, answered here.

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

impl Worker {
    /// One command that has been looked up.
    pub(super) fn dispatch_known(
        &mut self,
        index: usize,
        command: CommandId,
        frame: &[u8],
        args: &Args,
    ) -> Flow {
        let plan = self.router.plan(command, args, &mut self.spare.keys);
        match plan {
            Plan::Slot(slot) => self.forward(index, command, slot.0, frame),
            other => self.dispatch_rare(index, command, other, frame, args),
        }
    }

    /// One command of a client whose session is in a mode of [`mode`], or may be.
    pub(super) fn dispatch_in_mode(&mut self, index: usize, frame: &[u8], args: &Args) -> Flow {
        let Some(client) = self.clients.get(index) else { return Flow::Stop };
        let modes = client.session.modes;
        if modes & mode::RULED != 0
            && let Some(flow) = self.check_user(index, args)
        {
            return flow;
        }
        if modes & mode::SUBSCRIBED != 0
            && let Some(flow) = self.refuse_to_subscriber(index, args)
        {
            return flow;
        }
        if modes & mode::MULTI != 0 {
            return self.dispatch_in_multi(index, frame, args);
        }
        // Connections of the cluster's users are to primaries.
        if modes & (mode::READONLY | mode::READ_FROM) != 0 && self.realm_of(index) == OWN {
            return self.dispatch_read(index, frame, args);
        }
        self.dispatch(index, frame, args)
    }

    /// A large command in a buffer of its own. Gives the buffer back where the command is of a
    /// kind that needs it as bytes.
    pub(super) fn dispatch_owned(
        &mut self,
        index: usize,
        frame: Vec<u8>,
        ranges: &[ArgRange],
    ) -> Result<Flow, Vec<u8>> {
        let args = Args::new(&frame, ranges);
        let command = self.router.command(&args);
        let modes = self.clients.get(index).map_or(0, |client| client.session.modes);
        if modes != 0 && self.router.is_read_only(command) {
            return Err(frame); // it may go elsewhere
        }
        let slot = match self.router.plan(command, &args, &mut self.spare.keys) {
            Plan::Slot(slot) => slot.0,
            _ => return Err(frame),
        };
        if self.is_over_memory() {
            return Err(frame);
        }
        let Some(node) = self.route(slot) else { return Err(frame) };
        let Some(pending) = self.admit(index, command, slot, node) else { return Err(frame) };
        let u = pending.1;
        self.send_owned(u, pending.0, frame);
        Ok(Flow::Next)
    }

    #[inline]
    pub(super) fn route(&self, slot: u16) -> Option<u16> {
        self.placement.slots.route(slot)
    }

    #[inline]
    pub(super) fn forward(
        &mut self,
        index: usize,
        command: CommandId,
        slot: u16,
        frame: &[u8],
    ) -> Flow {
        if self.is_over_memory() {
            return self.refuse_for_memory(index, command);
        }
        let Some(node) = self.route(slot) else {
            return self.hold_fresh(index, command, slot, frame);
        };
        self.forward_to(index, command, slot, node, frame)
    }

    #[inline]
    pub(super) fn forward_to(
        &mut self,
        index: usize,
        command: CommandId,
        slot: u16,
        node: u16,
        frame: &[u8],
    ) -> Flow {
        match self.admit(index, command, slot, node) {
            Some((pending, u)) => {
                self.send(u, pending, frame);
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
    ) -> Option<(Pending, usize)> {
        let client = self.clients.get(index)?;
        let (protocol, generation) = (client.session.protocol, client.generation);
        let u = self.upstream_for(node, protocol, index);
        self.admit_on(index, command, slot, u, (protocol, generation))
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
    ) -> Option<(Pending, usize)> {
        if self.has_to_wait(index, u) {
            self.pause(index, u);
            return None;
        }
        let node = self.upstreams.get(u)?.node;
        let dest = Dest::Client { index: index as u32, generation, seq: 0 };
        let mut pending = self.pending(dest, command, slot, protocol);
        let client = self.clients.get_mut(index)?;
        client.session.last_command = command;
        let seq = client.expect(&mut self.spare.replies);
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
    ) -> Pending {
        let mut flags = self.router.flags(command);
        if protocol == Protocol::Resp3 {
            flags |= flag::RESP3;
        }
        // Hardly ever is there any user of the cluster.
        let realm = if self.access.realms.is_empty() { OWN } else { self.realm_of_dest(&dest) };
        let started = match flags & flag::PUBLISHES {
            0 => self.now,
            _ => self.publish_time(),
        };
        // A client's own is set where the client is at hand.
        let expected = match dest {
            Dest::Part { gather, .. } => self.expected_of_part(gather),
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

    /// Puts a command into a connection's queue.
    #[inline]
    pub(super) fn send(&mut self, u: usize, mut pending: Pending, frame: &[u8]) {
        let Some(up) = self.upstreams.get_mut(u) else { return };
        pending.len = frame.len() as u32;
        up.queue.push(frame, &mut self.spare.pool);
        up.pending.push_back(pending);
        self.mark_upstream(u);
    }

    pub(super) fn send_owned(&mut self, u: usize, mut pending: Pending, frame: Vec<u8>) {
        let Some(up) = self.upstreams.get_mut(u) else { return };
        pending.len = frame.len() as u32;
        up.queue.push_owned(frame, &mut self.spare.pool);
        up.pending.push_back(pending);
        self.mark_upstream(u);
    }

    /// The slot is in motion or has no primary: the command waits in its client's lane.
    #[cold]
    pub(super) fn hold_fresh(
        &mut self,
        index: usize,
        command: CommandId,
        slot: u16,
        frame: &[u8],
    ) -> Flow {
        if frame.len() > CHUNK && !self.has_room_for(frame.len()) {
            return self.refuse_for_memory(index, command);
        }
        if !self.placement.slots.holds.fits(slot, frame.len(), self.settings.held) {
            self.stats.limits_hit[LimitHit::Held as usize] += 1;
            self.answer_own_error(index, command, &Failure::HoldsFull { slot });
            return Flow::Next;
        }
        let Some(client) = self.clients.get_mut(index) else { return Flow::Stop };
        let (protocol, generation) = (client.session.protocol, client.generation);
        client.session.last_command = command;
        let seq = client.expect(&mut self.spare.replies);
        let expected = client.transfer_sizes.expected();
        let dest = Dest::Client { index: index as u32, generation, seq };
        let mut pending = self.pending(dest, command, slot, protocol);
        pending.expected = expected;
        self.hold_pending(pending, ClientId::new(index, generation), frame.to_vec());
        Flow::Next
    }

    /// Puts a command that has not been sent into its lane, and sends it on if it may go.
    pub(super) fn hold_pending(&mut self, mut pending: Pending, lane: ClientId, frame: Vec<u8>) {
        let slot = pending.slot;
        pending.len = frame.len() as u32;
        if !self.placement.slots.holds.contains(slot) {
            self.hold_slot(slot);
        }
        let meta = Waiting { pending, lane };
        self.placement.slots.holds.push_fresh(slot, lane, Held { meta, frame });
        self.arm_tick();
        self.run_lane(slot, lane);
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
        if let Some(client) = self.clients.get_mut(index) {
            client.session.last_command = command;
        }
        let frees = matches!(plan, Plan::Local(_) | Plan::PubSub(PubSub::Unsubscribe(_), _));
        if self.is_over_memory() && !frees {
            return self.refuse_for_memory(index, command);
        }
        // A topic is more than the command that brings it. It is refused while there is room for
        // that, or its client would be closed for being the one that holds most.
        let lasting = matches!(plan, Plan::PubSub(PubSub::Subscribe(_), _));
        if lasting && !self.has_room_for(self.settings.memory / 4) {
            return self.refuse_for_memory(index, command);
        }
        match self.filtered_for(index, plan) {
            Plan::Slot(slot) => self.forward(index, command, slot.0, frame),
            // A browser or a form that was led to a Redis port: it is closed without a word, as
            // Redis does. A node would close its connection, which is everybody's.
            Plan::Any if args.is(0, "post") || args.is(0, "host:") => {
                self.close(index);
                Flow::Stop
            }
            Plan::Any => {
                let other = self.settings.emulate.then(|| self.without_number(command, args));
                let other = other.flatten();
                let frame = other.as_deref().unwrap_or(frame);
                match self.any_primary(index) {
                    Some(node) => self.forward_to(index, command, NO_SLOT, node, frame),
                    None => self.wait_for_a_node(index, command, frame),
                }
            }
            Plan::Script(script, slot) => self.script(index, command, (script, slot), frame, args),
            Plan::Split { merge, step } => self.split(index, command, merge, step, args),
            Plan::Several(slot) => self.several_slots(index, command, slot.0, frame, args),
            Plan::Fan { to, merge } => {
                let flow = self.fan(index, command, to, merge, frame);
                if args.is(0, "config") {
                    self.set_when_agreed(index, args);
                }
                flow
            }
            Plan::Scan => self.scan(index, command, args),
            Plan::RandomKey => self.random_key(index, command, frame),
            Plan::Block(slot) => {
                self.block(index, command, slot.map_or(NO_SLOT, |slot| slot.0), frame)
            }
            Plan::Transaction(which) => self.transaction(index, command, which, frame, args),
            Plan::Join => self.join(index, command, frame),
            Plan::Wait => self.wait(index, command, frame, args),
            Plan::Aside(merge) => self.aside(index, command, merge, frame),
            Plan::Monitor => self.monitor(index, command),
            Plan::PubSub(which, slot) => self.pubsub(index, command, which, slot, frame, args),
            Plan::Local(local) if self.seeing.look_from == 0 => {
                let begun = std::time::Instant::now();
                let flow = self.local(index, command, local, args);
                if flow != Flow::Pause {
                    self.note_own(index, command, args, begun);
                }
                flow
            }
            Plan::Local(local) => self.local(index, command, local, args),
            Plan::Refuse(why) => self.refuse(index, command, why),
        }
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
        let shared = self.nodes.get(usize::from(node)).map(|n| &n.shared);
        let mut ours = shared.into_iter().flatten().flatten().flatten();
        ours.all(|&u| {
            self.upstreams.get(u).is_none_or(|up| up.state != State::Backoff && !up.suspect)
        })
    }

    /// A shared connection to the node stands, and is not suspected of being dead.
    pub(super) fn is_connected(&self, node: u16) -> bool {
        let shared = self.nodes.get(usize::from(node)).map(|n| &n.shared);
        let mut ours = shared.into_iter().flatten().flatten().flatten();
        ours.any(|&u| {
            self.upstreams.get(u).is_some_and(|up| up.state == State::Ready && !up.suspect)
        })
    }

    fn refuse(&mut self, index: usize, command: CommandId, why: Refused) -> Flow {
        let failure = self.router.refusal(command, why);
        self.answer_own_error(index, command, &failure);
        Flow::Next
    }

    /// A command that any node could take, and none is there: it waits, if there ever was one.
    #[cold]
    pub(super) fn wait_for_a_node(
        &mut self,
        index: usize,
        command: CommandId,
        frame: &[u8],
    ) -> Flow {
        if self.topology.snapshot.generation == 0 {
            return self.no_cluster(index, command);
        }
        self.hold_fresh(index, command, NO_SLOT, frame)
    }

    /// A command that needs to know nodes, and none is known.
    #[cold]
    pub(super) fn no_cluster(&mut self, index: usize, command: CommandId) -> Flow {
        let failure = self.no_cluster_failure();
        self.answer_own_error(index, command, &failure);
        Flow::Next
    }

    /// Why no node is known.
    pub(super) fn no_cluster_failure(&self) -> Failure {
        match self.topology.snapshot.generation {
            0 => self.shared.no_cluster_yet(),
            _ => Failure::NoNodeOnline,
        }
    }

    #[cold]
    pub(super) fn refuse_for_memory(&mut self, index: usize, command: CommandId) -> Flow {
        self.stats.limits_hit[LimitHit::Memory as usize] += 1;
        let failure = buffers_full(&self.settings);
        self.answer_own_error(index, command, &failure);
        Flow::Next
    }

    /// An error of slotway's own instead of a reply, counted as refused.
    pub(super) fn answer_own_error(&mut self, index: usize, command: CommandId, failure: &Failure) {
        if let Some(stats) = self.stats.commands.get_mut(command.index()) {
            stats.refused += 1;
        }
        self.answer_error(index, failure);
    }

    /// A reply of slotway's own, counted as answered.
    pub(super) fn answer_own(&mut self, index: usize, command: CommandId, reply: &[u8]) {
        if let Some(stats) = self.stats.commands.get_mut(command.index()) {
            stats.ok += 1;
        }
        self.answer_plain(index, reply);
    }

    pub(super) fn answer_plain(&mut self, index: usize, reply: &[u8]) {
        if let Some(client) = self.clients.get_mut(index) {
            client.answer(reply, &mut self.spare.pool, &mut self.spare.replies);
        }
        self.mark_client(index);
    }

    pub(super) fn answer_error(&mut self, index: usize, failure: &Failure) {
        self.count_failure(failure);
        let mut reply = std::mem::take(&mut self.spare.reply);
        reply.clear();
        failure.write(&mut reply);
        if let Some(client) = self.clients.get_mut(index) {
            client.answer(&reply, &mut self.spare.pool, &mut self.spare.replies);
        }
        self.spare.reply = reply;
        self.mark_client(index);
    }

    fn local(&mut self, index: usize, command: CommandId, local: Local, args: &Args) -> Flow {
        let Some(client) = self.clients.get_mut(index) else { return Flow::Stop };
        // Another protocol is another upstream connection: what went before must be answered
        // first, or the two could overtake each other.
        let account = client.session.account.is_some();
        // ECHO and PING: what they are given comes back.
        if self.turn.unread > CHUNK && !self.has_room_for(args.iter().map(<[u8]>::len).sum()) {
            return self.refuse_for_memory(index, command);
        }
        let Some(client) = self.clients.get_mut(index) else { return Flow::Stop };
        let somebody_else = account && local == Local::Auth;
        if (matches!(local, Local::Hello | Local::Reset) || somebody_else) && !client.is_drained() {
            client.paused = Paused::Replies;
            self.mark_client(index);
            return Flow::Pause;
        }
        if account
            && matches!(local, Local::Auth | Local::Hello)
            && let Some(flow) = self.login(index, command, local, args)
        {
            return flow;
        }
        let shown = self.shared.monitors.load(Relaxed) > 0;
        if let Local::ClientInfo | Local::ClientReply | Local::ClientEveryone = local {
            if shown {
                self.show_to_monitors(index, command, args, false);
            }
            return self.client_command(index, command, local, args);
        }
        if let Local::SlowLog | Local::Proxy = local {
            if shown {
                self.show_to_monitors(index, command, args, false);
            }
            return self.seen_command(index, command, local, args);
        }
        if local == Local::Reset {
            self.drop_transaction(index);
            self.release_lent(index);
            self.leave_all(index);
        }
        let Some(client) = self.clients.get_mut(index) else { return Flow::Stop };
        let announced = match local {
            Local::Cluster | Local::ClusterMyShardId => self.settings.announced(client),
            _ => Announced::default(),
        };
        let context = Context {
            identity: &self.topology.identity,
            announced: &announced,
            announce_mode: self.settings.announce_mode,
        };
        self.spare.reply.clear();
        let before = client.session.protocol;
        let after = answer(local, args, &mut client.session, context, &mut self.spare.reply);
        let is_error = self.spare.reply.first() == Some(&b'-');
        client.answer_owned(&mut self.spare.reply, &mut self.spare.pool, &mut self.spare.replies);
        if account && local == Local::Reset {
            self.begin_account(index);
        }
        let Some(client) = self.clients.get_mut(index) else { return Flow::Stop };
        if client.session.protocol != before && client.lent.is_some() {
            self.watch_in_protocol(index);
        }
        if let Some(stats) = self.stats.commands.get_mut(command.index()) {
            match is_error {
                true => stats.error += 1,
                false => stats.ok += 1,
            }
        }
        if self.spare.reply.capacity() > CHUNK {
            self.spare.reply = Vec::new();
        }
        self.mark_client(index);
        match after {
            After::Go => {
                if shown {
                    self.show_to_monitors(index, command, args, true);
                }
                Flow::Next
            }
            After::Close => {
                self.stop_reading(index);
                Flow::Stop
            }
        }
    }
}

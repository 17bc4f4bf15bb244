//! Reads from replicas: `read_from`, and clients that said READONLY.
//!
//! They go over connections of their own, on which slotway has said READONLY, too: an ordinary
//! connection to a node that became a replica must answer MOVED, not with old data. What a replica
//! does not answer goes to the primary. Which node it is, is chosen in [`crate::placement`].

use super::state::base;
use super::state::{Base, Clients, Core, Nodes, Operations};
use std::sync::Arc;

use super::downstream::Flow;

use super::{Node, Worker};
use crate::client::{Client, mode};
use crate::cluster::{Health, NO_SLOT};
use crate::config::ReadFrom;
use crate::dest::{ClientId, Dest};
use crate::hash::{IntMap, IntSet};
use crate::mailbox::ToControl;
use crate::metrics::RetryReason;
use crate::placement::{Choice, Moment, ReadTo, Readable, choose, is_unreachable, seat};
use crate::resp::{Args, Protocol};
use crate::route::{Plan, flag};
use crate::upstream::{ConnectionEnd, Pending, State, Upstream};
use crate::users::OWN;

/// A read that has been tried so often waits for its primary.
const MOST_TRIES: u8 = 3;
/// A primary that answered so lately is there, microseconds.
const HEARD: u64 = 1_000_000;

impl Core {
    /// From where the client wants to read; `None`: from primaries, whatever else is said.
    fn wish_of(&self, client: &Client) -> Option<ReadFrom> {
        // What WATCH watches is the primary's: EXEC finds nothing changed, and what was read from
        // a replica after WATCH would be older all the same.
        let watches = client.lent.as_ref().is_some_and(|lent| !lent.watches.is_empty());
        match client.session.modes {
            _ if watches => None,
            modes if modes & mode::READONLY != 0 => Some(self.settings.reads.for_readonly()),
            modes if modes & mode::READ_FROM != 0 => Some(self.settings.reads.from),
            _ => None,
        }
    }
}

impl Nodes {
    /// What the control thread has found out about the nodes.
    pub(super) fn set_health(&mut self, health: Arc<Health>, core: &mut Core) {
        self.reads.health = health;
        self.set_readable(core);
        // What was sent to replicas that do not answer any more is not waited for.
        let unreachable = |node: u16| {
            let node = self.list.get(usize::from(node));
            node.is_some_and(|node| is_unreachable(&self.reads.health, &node.addr))
        };
        let waits = |up: &Upstream| up.read_only && !up.pending.is_empty();
        let all = self.upstreams.iter().filter(|(_, up)| waits(up) && unreachable(up.node));
        for u in all.map(|(u, _)| u).collect::<Vec<_>>() {
            core.lose(u, ConnectionEnd::ReplicaSilent);
        }
    }

    /// From snapshot and health: whom reads may go to.
    pub(super) fn set_readable(&mut self, core: &mut Core) {
        let snapshot = Arc::clone(&self.topology.snapshot);
        let node = |i: u16| snapshot.nodes.get(usize::from(i));
        let mut all = Vec::with_capacity(snapshot.shards.len());
        for shard in &snapshot.shards {
            let primary = shard.primary.and_then(node).map(|n| &n.addr);
            let online = shard.replicas.iter().filter_map(|&i| node(i)).filter(|n| n.is_online());
            let replicas: Vec<_> = online.map(|n| (self.node_at(&n.addr, core), &n.addr)).collect();
            let wishes = &core.settings.reads;
            all.push(Readable::new(wishes, &self.reads.health, primary, replicas.into_iter()));
        }
        self.reads.readable = all;
    }

    /// A reply from `node` to `pending`, for `read_from = "lowest_latency"`.
    #[cold]
    pub(super) fn measure(&mut self, u: usize, pending: &Pending, core: &mut Core) {
        let Some(up) = self.upstreams.get(u) else { return };
        let plain = pending.has(flag::READ_ONLY)
            && pending.tries == 0
            && pending.slot != NO_SLOT
            && up.dedicated.is_none()
            && matches!(pending.dest, Dest::Client { .. });
        if plain && let Some(node) = self.list.get_mut(usize::from(up.node)) {
            node.latency.measured(core.now.saturating_sub(pending.started), core.now);
        }
    }
}

impl Clients {
    /// A step of an emulated command that reads, for a client whose reads may go elsewhere than to
    /// primaries. `false`: it goes to the primary.
    pub(super) fn read_step(
        &mut self,
        lane: ClientId,
        pending: Pending,
        frame: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> bool {
        let index = lane.at();
        let Some(client) = self.slab.get(index).filter(|c| c.generation == lane.generation) else {
            return false;
        };
        let protocol = client.session.protocol;
        let Some(from) = core.wish_of(client).filter(|_| pending.realm == OWN) else {
            return false;
        };
        if !std::mem::replace(&mut nodes.reads.watches_replicas, true) {
            // Control may be gone at the very end: nobody to look at replicas then.
            let _ = core.link.control.send(ToControl::WatchReplicas);
        }
        match self.choose_node(from, index, pending.slot, protocol, nodes, core) {
            Choice::Primary(to) => {
                core.stats.reads[to as usize] += 1;
                false
            }
            Choice::Replica(node, to) => {
                core.stats.reads[to as usize] += 1;
                let u = self.replica_upstream(node, protocol, index, nodes, core);
                nodes.send(u, pending, frame, core);
                true
            }
        }
    }

    fn choose_node(
        &mut self,
        from: ReadFrom,
        client: usize,
        slot: u16,
        protocol: Protocol,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Choice {
        let fallback = Choice::Primary(ReadTo::PrimaryFallback);
        let Some(&shard) = nodes.topology.snapshot.slots.get(usize::from(slot)) else {
            return fallback;
        };
        let Some(readable) = nodes.reads.readable.get(usize::from(shard)) else { return fallback };
        let primary = self.reached_primary(from, client, slot, protocol, nodes, core);
        if primary.is_some() && nodes.placement.slots.holds.contains(slot) {
            // The slot is in motion: a replica says of keys that have moved that there are none.
            return fallback;
        }
        let which = self.connection_of(client, core);
        let connection = |node: u16, replica: bool| {
            let node = nodes.list.get(usize::from(node))?;
            let all = if replica { &node.replica } else { &node.shared };
            nodes.upstreams.get((*all[protocol as usize].get(which)?)?)
        };
        // One that was lost is not waited for while it is tried again: a frozen or cut off
        // replica would keep each read for the whole of timeouts.connect.
        let reached = |node: u16| {
            connection(node, true).is_none_or(|up| up.state == State::Ready || up.failures == 0)
        };
        let speed = |node: u16| {
            let oldest = connection(node, Some(node) != primary).and_then(|up| up.pending.front());
            let waiting = oldest.map_or(0, |pending| core.now.saturating_sub(pending.started));
            let latency = nodes.list.get(usize::from(node)).map(|node| node.latency);
            latency.unwrap_or_default().speed(waiting, core.now)
        };
        let seat = seat(client, slot);
        let moment = Moment { primary, reached: &reached, speed: &speed, seat };
        let choice = choose(from, readable, &moment);
        if from == ReadFrom::LowestLatency {
            let node = match choice {
                Choice::Replica(node, _) => Some(node),
                Choice::Primary(_) => primary,
            };
            if let Some(node) = node.and_then(|node| nodes.list.get_mut(usize::from(node))) {
                node.latency.ask(core.now);
            }
        }
        choice
    }

    /// The slot's primary, if it is there and answers.
    fn reached_primary(
        &self,
        from: ReadFrom,
        client: usize,
        slot: u16,
        protocol: Protocol,
        nodes: &Nodes,
        core: &Core,
    ) -> Option<u16> {
        let owner = nodes.placement.slots.owner(slot)?;
        let node = nodes.list.get(usize::from(owner))?;
        let shared = node.shared[protocol as usize].get(self.connection_of(client, core))?;
        // Who wants to read from primaries is only led elsewhere when more than a connection was
        // lost.
        let patience = u32::from(from == ReadFrom::Primary);
        let up = shared.and_then(|u| nodes.upstreams.get(u));
        // The control thread may have had no answer for another reason, such as maxclients.
        let heard = |up: &Upstream| core.now.saturating_sub(up.last_read) < HEARD;
        if is_unreachable(&nodes.reads.health, &node.addr) && !up.is_some_and(heard) {
            return None;
        }
        up.is_none_or(|up| up.state == State::Ready || up.failures <= patience).then_some(owner)
    }

    fn replica_upstream(
        &mut self,
        node: u16,
        protocol: Protocol,
        client: usize,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> usize {
        let which = self.connection_of(client, core);
        let place = |nodes: &mut Vec<Node>| {
            let node = nodes.get_mut(usize::from(node))?;
            Some(*node.replica[protocol as usize].get_mut(which)?)
        };
        if let Some(Some(u)) = place(&mut nodes.list) {
            return u;
        }
        let mut up = Upstream::new(node, protocol);
        up.read_only = true;
        up.bulk = which >= core.settings.connections;
        let u = nodes.upstreams.insert(up);
        if let Some(node) = nodes.list.get_mut(usize::from(node))
            && let Some(place) = node.replica[protocol as usize].get_mut(which)
        {
            *place = Some(u);
        }
        nodes.connect(u, core);
        u
    }

    /// Reads that wait for a primary whose connection is lost go to replicas, where their clients
    /// may read there; but none that waits behind a write of its client.
    fn leave_primary(&mut self, u: usize, nodes: &mut Nodes, core: &mut Core) {
        let Some(up) = nodes.upstreams.get(u) else { return };
        if up.dedicated.is_some() || up.pending.is_empty() {
            return;
        }
        let protocol = up.protocol;
        let mut written: IntSet<(u32, u16)> = IntSet::default();
        let mut wanted: Vec<(u32, u32, u16, ReadFrom)> = Vec::new();
        for pending in up.pending.iter() {
            let Dest::Client { index, generation, seq } = pending.dest else { continue };
            let key = (index, pending.slot);
            if !pending.has(flag::READ_ONLY) {
                written.insert(key);
            }
            let plain = pending.slot != NO_SLOT
                && !core.router.has_node_cursor(pending.command)
                && pending.before == 0
                && pending.tries <= MOST_TRIES
                && !pending.has(flag::SPECIAL | flag::ASKING | flag::NODE_BOUND | flag::SCRIPT);
            let client = self.slab.get(index as usize).filter(|c| c.generation == generation);
            if plain
                && !written.contains(&key)
                && let Some(from) = client.and_then(|client| core.wish_of(client))
            {
                wanted.push((index, seq, pending.slot, from));
            }
        }
        let mut chosen: IntMap<(u32, u32), u16> = IntMap::default();
        for (index, seq, slot, from) in wanted {
            let choice = self.choose_node(from, index as usize, slot, protocol, nodes, core);
            if let Choice::Replica(node, to) = choice {
                core.stats.reads[to as usize] += 1;
                chosen.insert((index, seq), node);
            }
        }
        if chosen.is_empty() {
            return;
        }
        let node_of = |pending: &Pending| match pending.dest {
            Dest::Client { index, seq, .. } => chosen.get(&(index, seq)).copied(),
            _ => None,
        };
        let Some(up) = nodes.upstreams.get_mut(u) else { return };
        for (pending, frame) in up.take_unsent(&mut core.spare.pool, |p| node_of(p).is_some()) {
            let (Some(node), Dest::Client { index, .. }) = (node_of(&pending), pending.dest) else {
                continue;
            };
            core.count_retry(RetryReason::Lost);
            let replica = self.replica_upstream(node, protocol, index as usize, nodes, core);
            nodes.send_owned(replica, pending, frame, core);
        }
    }
}

impl Operations {
    /// A connection is lost, or its node has left the cluster. A replica's: what it was not sent,
    /// or may be sent again, goes to the primaries. A primary's: reads may go to its replicas.
    pub(super) fn leave_replica(&mut self, u: usize, base: &mut Base<'_>) {
        let Some(up) = base.nodes.upstreams.get_mut(u) else { return };
        if !up.read_only {
            return base.clients.leave_primary(u, base.nodes, base.core);
        }
        for (pending, frame) in up.take_unsent(&mut base.core.spare.pool, |_| true) {
            base.core.count_retry(RetryReason::Lost);
            self.send_to_primary(pending, frame, base);
        }
    }

    /// A read that a replica did not answer. It keeps no order with others, so no lane is asked.
    pub(super) fn send_to_primary(
        &mut self,
        mut pending: Pending,
        frame: Vec<u8>,
        base: &mut Base<'_>,
    ) {
        let lane = self.lane_of(&pending);
        pending.flags &= !flag::SPECIAL;
        match base.nodes.placement.slots.owner(pending.slot) {
            Some(owner) => base.send_to(owner, pending, frame, lane.index),
            None => self.hold_pending(pending, lane, frame, base.nodes, base.core),
        }
    }
}

impl Worker {
    /// One command of a client whose reads may go elsewhere than to primaries.
    pub(super) fn dispatch_read(&mut self, index: usize, frame: &[u8], args: &Args) -> Flow {
        let command = self.core.router.command(args);
        if !self.core.router.is_read_only(command)
            || self.clients.is_over_memory(&mut self.nodes, &mut self.core)
        {
            return self.dispatch_known(index, command, frame, args);
        }
        let plan = self.core.router.plan(command, args, &mut self.core.spare.keys);
        let Plan::Slot(slot) = plan else {
            return self.dispatch_rare(index, command, plan, frame, args);
        };
        // The node is chosen by connection, and the cursor may come from another connection's.
        if self.core.router.has_node_cursor(command) {
            self.core.stats.reads[ReadTo::Primary as usize] += 1;
            return self.ops.forward(index, command, slot.0, frame, &mut base!(self));
        }
        if !std::mem::replace(&mut self.nodes.reads.watches_replicas, true) {
            // Control may be gone at the very end: nobody to look at replicas then.
            let _ = self.core.link.control.send(ToControl::WatchReplicas);
        }
        let Some(client) = self.clients.slab.get(index) else { return Flow::Stop };
        let (protocol, generation) = (client.session.protocol, client.generation);
        let choice = match self.core.wish_of(client) {
            Some(from) => self.clients.choose_node(
                from,
                index,
                slot.0,
                protocol,
                &mut self.nodes,
                &mut self.core,
            ),
            None => return self.ops.forward(index, command, slot.0, frame, &mut base!(self)),
        };
        match choice {
            Choice::Primary(to) => {
                self.core.stats.reads[to as usize] += 1;
                self.ops.forward(index, command, slot.0, frame, &mut base!(self))
            }
            Choice::Replica(node, to) => {
                let u = self.clients.replica_upstream(
                    node,
                    protocol,
                    index,
                    &mut self.nodes,
                    &mut self.core,
                );
                let client = (protocol, generation);
                let Some((pending, u)) =
                    self.ops.admit_on(index, command, slot.0, u, client, &mut base!(self))
                else {
                    return Flow::Pause;
                };
                self.core.stats.reads[to as usize] += 1;
                self.nodes.send(u, pending, frame, &mut self.core);
                Flow::Next
            }
        }
    }
}

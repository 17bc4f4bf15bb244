//! Which replica a client reads from.

use crate::clients::Clients;
use crate::cluster::Slot;
use crate::common::Core;
use crate::config::ReadFrom;
use crate::dest::{ClientId, ConnId, Dest, NodeId};
use crate::hash::{IntMap, IntSet};
use crate::mailbox::ToControl;
use crate::metrics::RetryReason;
use crate::nodes::{Node, Nodes};
use crate::placement::{
    Choice, Micros, Moment, ReadContext, ReadTo, affinity, choose, is_unreachable,
};
use crate::resp::Protocol;
use crate::route::PendingFlags;
use crate::upstream::{ConnectionState, Pending, Upstream};
use crate::users::OWN_REALM;

/// A read that has been tried so often waits for its primary.
const MOST_TRIES: u8 = 3;
/// A primary that answered so lately is there, microseconds.
const HEARD: u64 = 1_000_000;

/// The reads of clients that replicas may answer.
pub(crate) struct ReplicaReads<'a> {
    clients: &'a mut Clients,
}

impl Clients {
    /// The reads of clients, which replicas may answer.
    pub(crate) fn reads(&mut self) -> ReplicaReads<'_> {
        ReplicaReads { clients: self }
    }
}

impl ReplicaReads<'_> {
    /// A step of an emulated command that reads, for a client whose reads may go elsewhere than to
    /// primaries. `false`: it goes to the primary.
    pub(crate) fn step(
        &mut self,
        lane: ClientId,
        pending: Pending,
        frame: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> bool {
        let index = lane.at();
        let Some(client) = self.clients.slab.get(index).filter(|c| c.generation == lane.generation)
        else {
            return false;
        };
        let protocol = client.session.protocol;
        let Some(from) = core.wish_of(client, pending.slot).filter(|_| pending.realm == OWN_REALM)
        else {
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
                let conn = self.replica_upstream(node, protocol, index, nodes, core);
                nodes.send(conn, pending, frame, core);
                true
            }
        }
    }

    /// The node that answers a read of this slot for the client.
    pub(crate) fn choose_node(
        &mut self,
        from: ReadFrom,
        client: usize,
        slot: Slot,
        protocol: Protocol,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Choice {
        let fallback = Choice::Primary(ReadTo::PrimaryFallback);
        let Some(&shard) = nodes.topology.snapshot.slots.get(slot.at()) else {
            return fallback;
        };
        let Some(readable) = nodes.reads.readable.get(usize::from(shard)) else { return fallback };
        let primary = self.reached_primary(from, client, slot, protocol, nodes, core);
        if primary.is_some() && nodes.placement.slots.holds.contains(slot) {
            // The slot is in motion: a replica says of keys that have moved that there are none.
            return fallback;
        }
        let which = self.clients.connection_of(client, core);
        let connection = |node: NodeId, replica: bool| {
            let node = nodes.list.get(node.at())?;
            let all = if replica { &node.replica } else { &node.shared };
            nodes.upstreams.get((*all[protocol as usize].get(which)?)?)
        };
        // One that was lost is not waited for while it is tried again: a frozen or cut off
        // replica would keep each read for the whole of timeouts.connect.
        let reached = |node: NodeId| {
            connection(node, true)
                .is_none_or(|up| up.state == ConnectionState::Ready || up.failures == 0)
        };
        let now = Moment(core.now);
        let speed = |node: NodeId| {
            let oldest = connection(node, Some(node) != primary).and_then(|up| up.pending.front());
            let waiting = oldest.map_or(Micros(0), |pending| now - Moment(pending.started));
            let latency = nodes.list.get(node.at()).map(|node| node.latency);
            latency.unwrap_or_default().speed(waiting, now)
        };
        let affinity = affinity(client, slot);
        let moment = ReadContext { primary, reached: &reached, speed: &speed, affinity };
        let choice = choose(from, readable, &moment);
        if from == ReadFrom::LowestLatency {
            let node = match choice {
                Choice::Replica(node, _) => Some(node),
                Choice::Primary(_) => primary,
            };
            if let Some(node) = node.and_then(|node| nodes.list.get_mut(node.at())) {
                node.latency.ask(now);
            }
        }
        choice
    }

    /// The slot's primary, if it is there and answers.
    fn reached_primary(
        &self,
        from: ReadFrom,
        client: usize,
        slot: Slot,
        protocol: Protocol,
        nodes: &Nodes,
        core: &Core,
    ) -> Option<NodeId> {
        let owner = nodes.placement.slots.owner(slot)?;
        let node = nodes.list.get(owner.at())?;
        let shared =
            node.shared[protocol as usize].get(self.clients.connection_of(client, core))?;
        // Who wants to read from primaries is only led elsewhere when more than a connection was
        // lost.
        let patience = u32::from(from == ReadFrom::Primary);
        let up = shared.and_then(|conn| nodes.upstreams.get(conn));
        // The control thread may have had no answer for another reason, such as maxclients.
        let heard = |up: &Upstream| core.now.saturating_sub(up.last_read) < HEARD;
        if is_unreachable(&nodes.reads.health, &node.addr) && !up.is_some_and(heard) {
            return None;
        }
        up.is_none_or(|up| up.state == ConnectionState::Ready || up.failures <= patience)
            .then_some(owner)
    }

    /// The connection to a replica that the client uses, made if there is none.
    pub(crate) fn replica_upstream(
        &mut self,
        node: NodeId,
        protocol: Protocol,
        client: usize,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> ConnId {
        let which = self.clients.connection_of(client, core);
        let place = |nodes: &mut Vec<Node>| {
            let node = nodes.get_mut(node.at())?;
            Some(*node.replica[protocol as usize].get_mut(which)?)
        };
        if let Some(Some(conn)) = place(&mut nodes.list) {
            return conn;
        }
        let mut up = Upstream::new(node, protocol);
        up.read_only = true;
        up.bulk = which >= core.settings.connections;
        let conn = nodes.upstreams.insert(up);
        if let Some(node) = nodes.list.get_mut(node.at())
            && let Some(place) = node.replica[protocol as usize].get_mut(which)
        {
            *place = Some(conn);
        }
        nodes.connections().connect(conn, core);
        conn
    }

    /// Reads that wait for a primary whose connection is lost go to replicas, where their clients
    /// may read there; but none that waits behind a write of its client.
    pub(crate) fn leave_primary(&mut self, conn: ConnId, nodes: &mut Nodes, core: &mut Core) {
        let Some(up) = nodes.upstreams.get(conn) else { return };
        if up.dedicated.is_some() || up.pending.is_empty() {
            return;
        }
        let protocol = up.protocol;
        let mut written: IntSet<(u32, Slot)> = IntSet::default();
        let mut wanted: Vec<(u32, u32, Slot, ReadFrom)> = Vec::new();
        for pending in up.pending.iter() {
            let Dest::Client { index, generation, seq } = pending.dest else { continue };
            let key = (index, pending.slot);
            if !pending.flags.contains(PendingFlags::READ_ONLY) {
                written.insert(key);
            }
            let plain = !pending.slot.is_keyless()
                && !core.router.has_node_cursor(pending.command)
                && pending.before == 0
                && pending.tries <= MOST_TRIES
                && !pending.flags.intersects(
                    PendingFlags::SPECIAL
                        | PendingFlags::ASKING
                        | PendingFlags::NODE_BOUND
                        | PendingFlags::SCRIPT,
                );
            let client =
                self.clients.slab.get(index as usize).filter(|c| c.generation == generation);
            if plain
                && !written.contains(&key)
                && let Some(from) = client.and_then(|client| core.wish_of(client, pending.slot))
            {
                wanted.push((index, seq, pending.slot, from));
            }
        }
        let mut chosen: IntMap<(u32, u32), NodeId> = IntMap::default();
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
        let Some(up) = nodes.upstreams.get_mut(conn) else { return };
        for (pending, frame) in up.take_unsent(&mut core.spare.pool, |p| node_of(p).is_some()) {
            let (Some(node), Dest::Client { index, .. }) = (node_of(&pending), pending.dest) else {
                continue;
            };
            core.stats.count_retry(RetryReason::Lost);
            let replica = self.replica_upstream(node, protocol, index as usize, nodes, core);
            nodes.send_owned(replica, pending, frame, core);
        }
    }
}

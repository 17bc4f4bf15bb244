//! Reads from replicas, for clients that said READONLY.
//!
//! They go over connections of their own, on which slotway has said READONLY, too: an ordinary
//! connection to a node that became a replica must answer MOVED, not with old data. What a replica
//! does not answer goes to the primary.

use super::downstream::Flow;
use super::{NOBODY, Worker};
use crate::resp::{Args, Protocol};
use crate::route::Plan;
use crate::upstream::{Pending, State, Upstream, flag};

impl Worker {
    /// A command of a client that said READONLY; `None`: it goes the usual way.
    pub(super) fn read_from_replica(
        &mut self,
        index: usize,
        frame: &[u8],
        args: &Args,
    ) -> Option<Flow> {
        let command = self.router.command(args);
        if !self.router.is_read_only(command) || self.is_over_memory() {
            return None;
        }
        let Plan::Slot(slot) = self.router.plan(command, args, &mut self.keys) else { return None };
        let client = self.clients.get(index)?;
        // What WATCH watches is the primary's: EXEC finds nothing changed, and what was read from
        // a replica after WATCH would be older all the same.
        if client.lent.as_ref().is_some_and(|lent| !lent.watches.is_empty()) {
            return None;
        }
        let (protocol, generation) = (client.session.protocol, client.generation);
        let node = self.replica_for(index, slot.0, protocol)?;
        let u = self.replica_upstream(node, protocol, index);
        let Some((pending, u)) = self.admit_on(index, command, slot.0, u, (protocol, generation))
        else {
            return Some(Flow::Pause);
        };
        self.stats.replica_reads += 1;
        self.send(u, pending, frame);
        Some(Flow::Next)
    }

    /// The same replica for the same client while it is reached; another client's may be another.
    fn replica_for(&self, client: usize, slot: u16, protocol: Protocol) -> Option<u16> {
        let shard = *self.snapshot.slots.get(usize::from(slot))?;
        let replicas = self.replicas.get(usize::from(shard))?;
        let first = client.checked_rem(replicas.len())?;
        let reached = |&&node: &&u16| {
            let shared = self.nodes.get(usize::from(node)).map(|n| &n.replica[protocol as usize]);
            let u = shared.and_then(|s| *s.get(client % self.settings.connections)?);
            let up = u.and_then(|u| self.upstreams.get(u));
            // One that was lost is not waited for while it is tried again: a frozen or cut off
            // replica would keep each read for the whole of timeouts.connect.
            up.is_none_or(|up| up.state == State::Ready || up.failures == 0)
        };
        replicas.iter().cycle().skip(first).take(replicas.len()).find(reached).copied()
    }

    fn replica_upstream(&mut self, node: u16, protocol: Protocol, client: usize) -> usize {
        let which = client % self.settings.connections;
        let place = |worker: &mut Worker| {
            let node = worker.nodes.get_mut(usize::from(node))?;
            Some(*node.replica[protocol as usize].get_mut(which)?)
        };
        if let Some(Some(u)) = place(self) {
            return u;
        }
        let mut up = Upstream::new(node, protocol);
        up.read_only = true;
        let u = self.upstreams.insert(up);
        if let Some(node) = self.nodes.get_mut(usize::from(node))
            && let Some(place) = node.replica[protocol as usize].get_mut(which)
        {
            *place = Some(u);
        }
        self.connect(u);
        u
    }

    /// A connection to a replica is lost, or the replica has left the cluster: what it was not
    /// sent, or may be sent again, goes to the primaries.
    pub(super) fn leave_replica(&mut self, u: usize) {
        let Some(up) = self.upstreams.get_mut(u) else { return };
        if up.read_only {
            for (pending, frame) in up.take_unsent(&mut self.pool, |_| true) {
                self.stats.retries += 1;
                self.send_to_primary(pending, frame);
            }
        }
    }

    /// A read that a replica did not answer. It keeps no order with others, so no lane is asked.
    pub(super) fn send_to_primary(&mut self, mut pending: Pending, frame: Vec<u8>) {
        let lane = self.lane_of(&pending);
        pending.flags &= !flag::SPECIAL;
        let owner = self.owners.get(usize::from(pending.slot)).copied();
        match owner.filter(|&n| n != NOBODY) {
            Some(owner) => self.send_to(owner, pending, frame, lane.0),
            None => self.hold_pending(pending, lane, frame),
        }
    }
}

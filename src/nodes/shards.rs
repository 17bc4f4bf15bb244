//! Parts of commands for a whole shard, and which node serves it.

use std::sync::Arc;

use crate::cluster::{NodeAddr, Slot};
use crate::common::Core;
use crate::dest::{ConnId, Dest, NodeId};
use crate::nodes::Nodes;
use crate::placement::{AfterRefusal, Refusal, Work, after_refusal};
use crate::route::PendingFlags;
use crate::upstream::{ConnectionEnd, ConnectionState, Pending, Upstream};

/// A target of a command for several nodes that cannot be asked now.
#[derive(Debug, Clone)]
pub(crate) enum MissingTarget {
    /// The primary of the shard that owns this slot, among others.
    Primary(Slot),
    /// The owners of so many slots, which belong to no shard: nothing mends that within a deadline.
    Owners(usize),
    /// A node that has failed, as the cluster says, and does not answer.
    Failed(NodeAddr),
}

impl MissingTarget {
    /// The slot whose primary is missing; [`Slot::NONE`] where that is not what is missing.
    pub fn slot(&self) -> Slot {
        match self {
            MissingTarget::Primary(slot) => *slot,
            MissingTarget::Owners(_) | MissingTarget::Failed(_) => Slot::NONE,
        }
    }

    /// The target in an error text.
    pub fn name(&self) -> String {
        match self {
            MissingTarget::Primary(slot) => format!("the shard of slot {slot}"),
            MissingTarget::Owners(slots) => format!("{slots} slots without a shard"),
            MissingTarget::Failed(addr) => addr.to_string(),
        }
    }
}

/// Which node serves a shard, and what becomes of what was for another.
pub(crate) struct Shards<'a> {
    nodes: &'a mut Nodes,
}

impl Nodes {
    /// The methods about shards and who serves them.
    #[inline]
    pub(crate) fn shards(&mut self) -> Shards<'_> {
        Shards { nodes: self }
    }
}

impl Shards<'_> {
    /// A part that was for this node's shard, and was not executed: it is for whoever is or will be
    /// the shard's primary. `false`: it is this node's and no other's.
    pub(crate) fn bind(&self, node: NodeId, pending: &mut Pending, core: &Core) -> bool {
        if !core.router.is_for_shards(pending.command) {
            return false;
        }
        let slot = self.nodes.list.get(node.at()).map_or(Slot::NONE, |n| n.shard_slot);
        if slot.is_keyless() {
            return false;
        }
        pending.slot = slot;
        pending.flags.remove(PendingFlags::NODE_BOUND);
        true
    }

    /// The same for the first command of connection `conn`, where the node refuses it for now.
    pub(crate) fn rebind_refused(
        &mut self,
        conn: ConnId,
        refusal: &Refusal,
        core: &mut Core,
    ) -> bool {
        let Some(up) = self.nodes.upstreams.get(conn) else { return false };
        let node = up.node;
        let Some(mut pending) = up.pending.front().copied() else { return false };
        let reads = pending.flags.contains(PendingFlags::READ_ONLY);
        let work = Work::ShardPart { reads, behind_check: pending.checks_shard };
        let told = after_refusal(work, refusal, false, pending.tries) == AfterRefusal::PassedOn;
        if told || pending.dest == Dest::Discard || !self.bind(node, &mut pending, core) {
            return false;
        }
        if let Some(front) =
            self.nodes.upstreams.get_mut(conn).and_then(|up| up.pending.front_mut())
        {
            *front = pending;
        }
        true
    }

    /// The node has failed, and another is primary in its place. One that has failed and has no
    /// successor may come back and answer what it owes.
    pub(crate) fn is_superseded(&self, node: NodeId) -> bool {
        self.nodes.is_failed(node)
            && self.owner_of(node).is_none_or(|owner| owner.is_some_and(|owner| owner != node))
    }

    /// Another is primary of its shard.
    pub(crate) fn is_deposed(&self, node: NodeId) -> bool {
        self.owner_of(node).flatten().is_some_and(|owner| owner != node)
    }

    /// The primary of the node's shard, if there is one; `None`: its shard is not known.
    fn owner_of(&self, node: NodeId) -> Option<Option<NodeId>> {
        let slot = self.nodes.list.get(node.at()).map_or(Slot::NONE, |n| n.shard_slot);
        (!slot.is_keyless()).then(|| self.nodes.placement.slots.owner(slot))
    }

    /// Shared connections to nodes that have failed are given up before anything is sent elsewhere:
    /// what was sent and not answered will not be any more, and need not wait for its deadline.
    pub(crate) fn leave_failed(&mut self, core: &mut Core) {
        let owing = |up: &Upstream| {
            up.dedicated.is_none() && up.state == ConnectionState::Ready && !up.pending.is_empty()
        };
        let owing =
            self.nodes.upstreams.iter().filter(|(_, up)| owing(up) && self.is_superseded(up.node));
        for conn in owing.map(|(conn, _)| conn).collect::<Vec<_>>() {
            core.lose(conn, ConnectionEnd::NodeFailed);
        }
    }

    /// Notes for every node a slot of its shard, by which its shard is found again when the cluster
    /// has put another node in its place.
    pub(crate) fn note_slots(&mut self, core: &mut Core) {
        let snapshot = Arc::clone(&self.nodes.topology.snapshot);
        for (shard, first) in snapshot.shards.iter().zip(snapshot.first_slots()) {
            let Some(slot) = first else { continue };
            for n in shard.primary.iter().chain(&shard.replicas) {
                let Some(node) = snapshot.nodes.get(usize::from(*n)) else { continue };
                let id = self.nodes.node_at(&node.addr, core);
                if let Some(node) = self.nodes.list.get_mut(id.at()) {
                    node.shard_slot = slot;
                }
            }
        }
    }
}

//! Parts of commands for every primary whose shard has none at the moment, or another one than a
//! moment ago: they wait for it as commands for one of its slots do.

use super::Worker;
use super::dispatch::held_full;
use crate::cluster::Shard;
use crate::metrics::{LimitHit, Redirection};
use crate::route::Refusal;
use crate::upstream::{Dest, NO_SLOT, Pending, flag};

/// A shard without a primary.
#[derive(Debug, Clone)]
pub(super) struct Orphan {
    /// One of its slots; [`NO_SLOT`] where slots belong to no shard at all, which nothing will
    /// mend within a deadline.
    pub slot: u16,
    /// For error texts.
    pub name: String,
}

impl Worker {
    /// A part for the primary that `orphan` does not have yet.
    pub(super) fn hold_part(&mut self, mut pending: Pending, orphan: &Orphan, frame: &[u8]) {
        pending.flags &= !flag::NODE_BOUND;
        if orphan.slot == NO_SLOT {
            let text = "CLUSTERDOWN its slots have no primary at the moment";
            self.fail(&pending, &orphan.name, text);
        } else if !self.holds.fits(orphan.slot, frame.len(), self.settings.held) {
            self.stats.limits_hit[LimitHit::Held as usize] += 1;
            self.fail(&pending, &orphan.name, &held_full(orphan.slot));
        } else {
            let lane = self.lane_of(&pending);
            pending.slot = orphan.slot;
            self.hold_pending(pending, lane, frame.to_vec());
        }
    }

    /// A part that was for this node's shard, and was not executed: it is for whoever is or will be
    /// the shard's primary. `false`: it is this node's and no other's.
    pub(super) fn bind_to_shard(&self, node: u16, pending: &mut Pending) -> bool {
        if !self.router.is_for_shards(pending.command) {
            return false;
        }
        let Some(slot) = self.slot_of_shard(node) else { return false };
        pending.slot = slot;
        pending.flags &= !flag::NODE_BOUND;
        true
    }

    /// The same for the first command of connection `u`, where the node refuses it for now.
    pub(super) fn rebind_refused(&mut self, u: usize, refusal: &Refusal) -> bool {
        use Redirection::{ClusterDown, Loading, MasterDown, ReadOnly};
        let passes = [ClusterDown, Loading, MasterDown, ReadOnly];
        if !matches!(refusal, Refusal::Later(kind) if passes.contains(kind)) {
            return false;
        }
        let Some(up) = self.upstreams.get(u) else { return false };
        let node = up.node;
        let Some(mut pending) = up.pending.front().copied() else { return false };
        if pending.dest == Dest::Discard || !self.bind_to_shard(node, &mut pending) {
            return false;
        }
        if let Some(front) = self.upstreams.get_mut(u).and_then(|up| up.pending.front_mut()) {
            *front = pending;
        }
        true
    }

    fn slot_of_shard(&self, node: u16) -> Option<u16> {
        let first = |wanted: u16| {
            let at = self.snapshot.slots.iter().position(|&shard| shard == wanted)?;
            u16::try_from(at).ok()
        };
        let (at, _) = self.shard_of(node)?;
        first(u16::try_from(at).ok()?)
    }

    /// The shard that the node belongs to, as its primary or as a replica.
    fn shard_of(&self, node: u16) -> Option<(usize, &Shard)> {
        let addr = &self.nodes.get(usize::from(node))?.addr;
        let is =
            |&n: &u16| self.snapshot.nodes.get(usize::from(n)).is_some_and(|n| n.addr == *addr);
        let mut shards = self.snapshot.shards.iter().enumerate();
        shards.find(|(_, shard)| shard.primary.iter().chain(&shard.replicas).any(is))
    }

    /// The node has failed, and its shard has another primary, or it has left its shard. One that
    /// has failed and has no successor may come back and answer what it owes.
    pub(super) fn is_superseded(&self, node: u16) -> bool {
        self.is_failed(node) && self.shard_of(node).is_none_or(|(_, shard)| shard.primary.is_some())
    }
}

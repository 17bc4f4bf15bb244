//! How fast nodes answer, and whom reads may go to.

use std::sync::Arc;

use crate::cluster::{Health, UpstreamId};
use crate::common::Core;
use crate::dest::{ConnId, Dest, NodeId};
use crate::nodes::Nodes;
use crate::placement::{Moment, ReadCandidates, is_unreachable};
use crate::route::PendingFlags;
use crate::upstream::{ConnectionEnd, Pending, Upstream};

impl Nodes {
    /// What the control thread has found out about the nodes.
    pub(crate) fn set_health(&mut self, health: Arc<Health>, core: &mut Core) {
        self.reads.health = health;
        self.set_readable(core);
        // What was sent to replicas that do not answer any more is not waited for.
        let unreachable = |node: NodeId| {
            let node = self.list.get(node.at());
            node.is_some_and(|node| is_unreachable(&self.reads.health, &node.addr))
        };
        let waits = |up: &Upstream| up.read_only && !up.pending.is_empty();
        let all = self.upstreams.iter().filter(|(_, up)| waits(up) && unreachable(up.node));
        for conn in all.map(|(conn, _)| conn).collect::<Vec<_>>() {
            core.lose(conn, ConnectionEnd::ReplicaSilent);
        }
    }

    /// From snapshot and health: whom reads may go to.
    pub(crate) fn set_readable(&mut self, core: &mut Core) {
        let snapshot = Arc::clone(&self.topology.snapshot);
        let node = |i: u16| snapshot.nodes.get(usize::from(i));
        let mut all = Vec::with_capacity(snapshot.shards.len());
        for shard in &snapshot.shards {
            let primary = shard.primary.and_then(node).map(|n| &n.addr);
            let online = shard.replicas.iter().filter_map(|&i| node(i)).filter(|n| n.is_online());
            let replicas: Vec<_> = online.map(|n| (self.node_at(&n.addr, core), &n.addr)).collect();
            let any = shard.primary.iter().chain(&shard.replicas).copied().find_map(node);
            let upstream = any.map_or(UpstreamId::FIRST, |node| node.upstream);
            let own = core.settings.upstream(upstream);
            // There is always a first upstream.
            let own = own.or_else(|| core.settings.upstream(UpstreamId::FIRST));
            let Some(own) = own else { return };
            let (health, replicas) = (&self.reads.health, replicas.into_iter());
            all.push(ReadCandidates::new(&own.reads, health, primary, replicas));
        }
        self.reads.readable = all;
    }

    /// A reply from `node` to `pending`, for `read_from = "lowest_latency"`.
    #[cold]
    pub(crate) fn measure(&mut self, conn: ConnId, pending: &Pending, core: &mut Core) {
        let Some(up) = self.upstreams.get(conn) else { return };
        let plain = pending.flags.contains(PendingFlags::READ_ONLY)
            && pending.tries == 0
            && !pending.slot.is_keyless()
            && up.dedicated.is_none()
            && matches!(pending.dest, Dest::Client { .. });
        if plain && let Some(node) = self.list.get_mut(up.node.at()) {
            let now = Moment(core.now);
            node.latency.measured(now - Moment(pending.started), now);
        }
    }
}

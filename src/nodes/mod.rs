//! The nodes of the cluster as one worker reaches them, and its connections to them.

pub(crate) mod connections;
pub(crate) mod half_moved;
pub(crate) mod queues;
pub(crate) mod reach;
pub(crate) mod replicas;
pub(crate) mod retries;
pub(crate) mod shard_check;
pub(crate) mod shards;
pub(crate) mod silence;
pub(crate) mod topology;
pub(crate) mod upstreams;

use std::sync::Arc;

use crate::cluster::{Health, Identity, Slot, SlotSpace, Snapshot, UpstreamId, UpstreamSet};
use crate::dest::ConnId;
use crate::nodes::upstreams::Upstreams;
use crate::placement::{Latency, ReadCandidates, Retries, SlotTable};
use crate::upstream::LaneCommand;

/// A node as this worker reaches it. Kept by address, never removed from its place while
/// something refers to it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) addr: crate::cluster::NodeAddr,
    /// The number by which pub/sub knows it.
    pub(crate) ident: u64,
    /// The name that its certificate is to be for.
    pub(crate) name: Box<str>,
    /// Its ID, which a connection to it is verified by; empty where it is not known.
    pub(crate) id: Box<str>,
    pub(crate) socket: Option<std::net::SocketAddr>,
    /// Where it belongs to, and the slots there.
    pub(crate) upstream: UpstreamId,
    pub(crate) slots: SlotSpace,
    /// Stands in the current snapshot.
    pub(crate) known: bool,
    /// Since when no shared connection to it could be made or kept, microseconds; 0: it is reached.
    pub(crate) unreached_since: u64,
    /// A slot of the shard that it was last seen in.
    pub(crate) shard_slot: Slot,
    /// The connections to it, by protocol, then by connection number. The last one of each is for
    /// large transfers ([`Client::bulk`]).
    pub(crate) shared: [Vec<Option<ConnId>>; 2],
    /// The same for reads from it as a replica: connections that said READONLY.
    pub(crate) replica: [Vec<Option<ConnId>>; 2],
    /// Measured for `read_from = "lowest_latency"` only.
    pub(crate) latency: Latency,
}

/// Something holds `held` bytes now, of which `place` were on the account `total`.
#[inline]
pub(crate) fn reaccount(total: &mut usize, place: &mut usize, held: usize) {
    *total = (*total + held).saturating_sub(*place);
    *place = held;
}

/// The cluster's nodes, the connections to them, and what goes where.
pub(crate) struct Nodes {
    pub(crate) list: Vec<Node>,
    pub upstreams: Upstreams,
    /// Connections that are lent to one client at a time.
    pub dedicated: DedicatedPool,
    /// What the cluster is.
    pub topology: Topology,
    /// Where commands go, and what becomes of those that do not get there.
    pub placement: Placement,
    /// Whom reads may go to.
    pub reads: Reads,
}

/// What the cluster is.
pub(crate) struct Topology {
    pub snapshot: Arc<Snapshot>,
    /// What the cluster's servers are.
    pub identity: Arc<Identity>,
    /// The slots as SCAN goes through them; made when it is asked for.
    pub layouts: Vec<(UpstreamSet, crate::route::Layout)>,
}

/// Where commands go, and what becomes of those that do not get there.
pub(crate) struct Placement {
    /// Which node serves each slot, and what waits for it.
    pub slots: SlotTable<LaneCommand>,
    pub retries: Retries<retries::Want>,
}

/// Whom reads may go to.
pub(crate) struct Reads {
    /// By shard of the snapshot: whom reads may go to.
    pub(crate) readable: Vec<ReadCandidates>,
    /// From which that was made, beside the snapshot.
    pub health: Arc<Health>,
    /// Control was told to look at replicas.
    pub(crate) watches_replicas: bool,
}

/// Connections that are lent to one client at a time.
pub(crate) struct DedicatedPool {
    /// Dedicated connections that are not lent to anybody.
    pub idle: Vec<ConnId>,
    /// Dedicated connections that are closed; their indexes become free at the end of the turn.
    pub dead: Vec<ConnId>,
}

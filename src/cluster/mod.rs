//! Slots, nodes and shards; parsing and comparing topologies. A snapshot is immutable. No I/O.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>

mod coverage;
mod health;
mod identity;
mod parse;
pub mod server;
mod slot;
pub mod trust;
mod upstream_id;
mod upstreams;
mod views;

pub use coverage::{SlotRange, diff, listed};
pub use health::{
    Health, LagLimits, NodeHealth, Replication, Unfit, parse_replication, parse_zone,
};
pub use identity::{ClientFields, Identity, Product};
pub use parse::{
    Info, ParseError, Replies, parse_databases, parse_info, parse_node_timeout, parse_replies,
    parse_shards, parse_shards_tls, parse_slots,
};
pub use slot::{SLOTS, Slot, SlotSpace, hash_tag, key_in_slot, slot_of};
pub use upstream_id::UpstreamId;
pub use upstreams::{KeyRoutes, SlotCount, SlotMap, TooManyUpstreams};
pub use views::{UpstreamSet, View, ViewId, Views};

use std::net::SocketAddr;

/// The address of a node: host (IP address or DNS name) and port. Connections are keyed by it, not
/// by the node's ID: a node at a new address needs a new connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeAddr {
    /// IP address (no brackets) or DNS name.
    pub host: Box<str>,
    /// TCP port.
    pub port: u16,
}

impl std::fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serves writes for its shard's slots.
    Primary,
    /// Replicates its shard's primary.
    Replica,
}

/// The state of a node, as seen by the node that reported it. Ordered: better states are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeState {
    /// Failed: unreachable for the other nodes.
    Failed,
    /// A replica that has received nothing from its primary yet: it may have no data, or the
    /// primary had nothing to send. It answers.
    Loading,
    /// In service.
    Online,
}

/// One node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The 40-character node ID, empty where the reply has none.
    pub id: Box<str>,
    /// The address.
    pub addr: NodeAddr,
    /// The announced name (`cluster-announce-hostname`); empty if there is none.
    pub hostname: Box<str>,
    /// `addr` resolved by the creator of the snapshot; `None` if DNS does not answer.
    pub socket: Option<SocketAddr>,
    /// Primary or replica.
    pub role: Role,
    /// The state according to the cluster.
    pub state: NodeState,
    /// Where it belongs to.
    pub upstream: UpstreamId,
}

/// Whether `id` has the form of a node ID: 40 hexadecimal digits.
pub fn is_node_id(id: &str) -> bool {
    id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Node {
    /// Whether the node is in service: neither failed nor loading.
    pub fn is_online(&self) -> bool {
        self.state == NodeState::Online
    }

    /// The name that its certificate is checked for: the announced one, or the address's host.
    pub fn server_name(&self) -> &str {
        if self.hostname.is_empty() { &self.addr.host } else { &self.hostname }
    }
}

/// Index of a node in [`Snapshot::nodes`].
type NodeIdx = u16;
/// Index of a shard in [`Snapshot::shards`].
pub type ShardIdx = u16;
/// Value in [`Snapshot::slots`] for a slot without a shard.
pub const NO_SHARD: ShardIdx = ShardIdx::MAX;

/// A primary and its replicas. [`Snapshot::slots`] has its slots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shard {
    /// The node that serves writes, unless it has failed.
    pub primary: Option<NodeIdx>,
    /// The other nodes.
    pub replicas: Vec<NodeIdx>,
}

/// The topology as reported by one node at one moment. Immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Increases by 1 with every snapshot that differs from the previous one; 0: empty.
    pub generation: u64,
    /// All nodes, including primaries without slots.
    pub nodes: Vec<Node>,
    /// All shards, including those without slots.
    pub shards: Vec<Shard>,
    /// The shard of each slot, or [`NO_SHARD`]: [`SLOTS`] entries, of several upstreams as many as
    /// [`SlotMap`] says.
    pub slots: Box<[ShardIdx]>,
}

impl Snapshot {
    /// The empty snapshot, before the first reply.
    pub fn empty() -> Self {
        Snapshot {
            generation: 0,
            nodes: Vec::new(),
            shards: Vec::new(),
            slots: vec![NO_SHARD; SLOTS as usize].into(),
        }
    }

    /// The primary that owns `slot`.
    pub fn primary_of(&self, slot: Slot) -> Option<&Node> {
        let shard = *self.slots.get(slot.at())?;
        self.nodes.get(self.shards.get(shard as usize)?.primary? as usize)
    }
}

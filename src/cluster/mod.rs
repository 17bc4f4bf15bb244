//! Slots, nodes, shards; parsing of topology replies; diffing. A snapshot is immutable. No I/O.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>

mod coverage;
mod crc16;
mod health;
mod identity;
mod parse;
mod slot;
pub mod trust;

pub use coverage::{SlotRange, diff, listed};
pub use health::{
    Health, LagLimits, NodeHealth, Replication, Unfit, parse_replication, parse_zone,
};
pub use identity::{ClientFields, Identity, Product};
pub use parse::{
    Info, ParseError, Replies, parse_info, parse_node_timeout, parse_replies, parse_shards,
    parse_shards_tls, parse_slots,
};
pub use slot::{NO_SLOT, SLOTS, Slot, hash_tag, key_in_slot, slot_of};

use std::net::SocketAddr;

/// How a node is reached: host (an IP address or a DNS name) and port. This, not the node's ID, is
/// what connections are kept by: a node that moved is a new connection.
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

/// What the cluster says a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes writes for its shard's slots.
    Primary,
    /// Copies its shard's primary.
    Replica,
}

/// How a node stands, as the node that was asked sees it; a better state is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeState {
    /// Failed: the other nodes do not reach it.
    Failed,
    /// A replica that has not received anything from its primary yet: it may be without data, or
    /// its primary may have had nothing to send. It answers.
    Loading,
    /// In service.
    Online,
}

/// One node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The 40-character node ID, empty where the reply has none.
    pub id: Box<str>,
    /// Where it is reached.
    pub addr: NodeAddr,
    /// The name that the cluster announces for it (`cluster-announce-hostname`); empty if it has
    /// none.
    pub hostname: Box<str>,
    /// `addr` resolved, by whoever made the snapshot; `None` while DNS does not answer.
    pub socket: Option<SocketAddr>,
    /// Primary or replica.
    pub role: Role,
    /// How the node stands, as the cluster says.
    pub state: NodeState,
}

/// Whether `id` is one that a real node has: 40 hexadecimal digits.
pub fn is_node_id(id: &str) -> bool {
    id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Node {
    /// Whether the node is in service: neither failed nor loading.
    pub fn is_online(&self) -> bool {
        self.state == NodeState::Online
    }

    /// The name that its certificate is to be for: the announced one, or its address's host.
    pub fn server_name(&self) -> &str {
        if self.hostname.is_empty() { &self.addr.host } else { &self.hostname }
    }
}

/// Index of a node in [`Snapshot::nodes`].
type NodeIdx = u16;
/// Index of a shard in [`Snapshot::shards`].
pub type ShardIdx = u16;
/// In [`Snapshot::slots`]: no shard owns this slot.
pub const NO_SHARD: ShardIdx = ShardIdx::MAX;

/// A primary, its replicas, and (by [`Snapshot::slots`]) its slots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shard {
    /// The node that takes writes, if there is one that is not failed.
    pub primary: Option<NodeIdx>,
    /// The others.
    pub replicas: Vec<NodeIdx>,
}

/// The topology as one node told it, at one moment. Never changed, only replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Grows by one with every snapshot that differs from the one before; 0 is "nothing known yet".
    pub generation: u64,
    /// All nodes, primaries without slots included.
    pub nodes: Vec<Node>,
    /// All shards. Shards without slots are in here too.
    pub shards: Vec<Shard>,
    /// For each slot its shard, or [`NO_SHARD`]. Always [`SLOTS`] entries.
    pub slots: Box<[ShardIdx]>,
}

impl Snapshot {
    /// What is known before the first answer: nothing.
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
        let shard = *self.slots.get(slot.0 as usize)?;
        self.nodes.get(self.shards.get(shard as usize)?.primary? as usize)
    }
}

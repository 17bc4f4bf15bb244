//! The hub's metrics, written by the hub's thread only and read by scrapes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use crate::channel::TopicKind;

/// Why messages may have been lost (label `reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// A subscription connection was lost, or its node did not answer.
    ConnectionLost,
    /// The node has failed or left the cluster.
    NodeLeft,
    /// A shard channel's slot has moved to another node.
    SlotMoved,
    /// A shard has a new primary, which now sends its keyspace notifications.
    NewPrimary,
    /// The hub itself has failed.
    HubFailed,
}

impl GapReason {
    /// Number of reasons.
    pub const COUNT: usize = 5;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["connection_lost", "node_left", "slot_moved", "new_primary", "hub_failed"];
}

/// The hub's metrics: counters, unless marked as a gauge.
#[derive(Debug, Default)]
pub struct HubStats {
    /// Gauge: topics to which this process subscribes, by [`TopicKind`].
    pub topics: [AtomicU64; TopicKind::COUNT],
    /// Gauge: subscriptions that nodes have confirmed, by [`TopicKind`].
    pub upstream: [AtomicU64; TopicKind::COUNT],
    /// Gauge: established subscription connections.
    pub connections: AtomicU64,
    /// Messages read from nodes, by [`TopicKind`] of the subscription.
    pub messages: [AtomicU64; TopicKind::COUNT],
    /// Messages that were not passed on: another node's copy, or no listener any more.
    pub ignored: AtomicU64,
    /// Bytes read from nodes.
    pub bytes: AtomicU64,
    /// Gaps in which a topic may have lost messages, by [`GapReason`]; one per topic each time.
    pub gaps: [AtomicU64; GapReason::COUNT],
    /// Subscriptions restored after a gap.
    pub resubscriptions: AtomicU64,
    /// Subscription connections that failed or were lost.
    pub failures: AtomicU64,
    /// Subscription connections that reached another node than the intended one.
    pub strangers: AtomicU64,
    /// Restarts of the hub after a failure.
    pub restarts: AtomicU64,
    /// Gauge: bytes of messages that are still referenced ([`super::Frames`]).
    pub held: Arc<AtomicUsize>,
    /// Gauge: bytes of messages that nodes have sent incompletely so far.
    pub unfinished: Arc<AtomicUsize>,
}

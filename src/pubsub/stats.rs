//! The hub's counters. Its thread alone counts, whoever scrapes reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use crate::channel::Kind;

/// Why messages may have been missed (label `reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// A subscription connection was lost, or its node did not answer.
    ConnectionLost,
    /// The node has failed or left the cluster.
    NodeLeft,
    /// A shard channel's slot has moved to another node.
    SlotMoved,
    /// Another node is a shard's primary now: its keyspace notifications come from there.
    NewPrimary,
    /// The hub itself has failed.
    HubFailed,
}

impl GapReason {
    /// How many reasons there are.
    pub const COUNT: usize = 5;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["connection_lost", "node_left", "slot_moved", "new_primary", "hub_failed"];
}

/// What the hub counts. Counters unless marked as a gauge.
#[derive(Debug, Default)]
pub struct HubStats {
    /// Gauge: topics by [`Kind`] that this process listens to.
    pub topics: [AtomicU64; Kind::COUNT],
    /// Gauge: subscriptions by [`Kind`] that nodes have confirmed and hold.
    pub upstream: [AtomicU64; Kind::COUNT],
    /// Gauge: subscription connections that are up.
    pub connections: AtomicU64,
    /// Messages read from nodes, by [`Kind`] of the subscription.
    pub messages: [AtomicU64; Kind::COUNT],
    /// Of these, those that were not handed on: another node's copy, or nobody listens any more.
    pub ignored: AtomicU64,
    /// Bytes read from nodes.
    pub bytes: AtomicU64,
    /// Topics that may have missed messages, by [`GapReason`]: one per topic each time.
    pub gaps: [AtomicU64; GapReason::COUNT],
    /// Subscriptions that were made again after a gap.
    pub resubscriptions: AtomicU64,
    /// Subscription connections that could not be made or were lost.
    pub failures: AtomicU64,
    /// Of these, connections to another node than the one that was meant.
    pub strangers: AtomicU64,
    /// Times that the hub itself failed and began anew.
    pub restarts: AtomicU64,
    /// Gauge: bytes of messages that somebody still has ([`super::Frames`]).
    pub held: Arc<AtomicUsize>,
    /// Gauge: of these, those of messages that nodes have begun and not ended.
    pub unfinished: Arc<AtomicUsize>,
}

//! What the control thread counts, as one scrape finds it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::reloads::ReloadStats;
use crate::cluster::trust::RejectReason;
use crate::cluster::{Health, Role, Snapshot, Unfit};
use crate::tls::TlsCounts;

/// Counters and gauges of the control thread.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct ControlStats {
    pub clients_rejected: u64,
    pub accept_errors: u64,
    pub upstreams: Vec<UpstreamStats>,
    pub workers: usize,
    pub worker_failures: u64,
    /// Tasks of the control thread that failed and were restarted.
    pub task_failures: u64,
    pub script_bytes: usize,
    /// Commands found to block although COMMAND does not say so.
    pub learned_blocking: usize,
    /// By [`ReloadOutcome`](super::ReloadOutcome).
    pub reloads: [u64; 3],
    pub config_in_use: bool,
    /// Seconds since 1970.
    pub config_loaded_seconds: f64,
    pub restart_keys: u64,
    pub slow_commands: u64,
    /// Spans exported, dropped and failed.
    pub spans: [u64; 3],
    pub tls: TlsCounts,
    pub descriptors_reserved: usize,
    /// By [`ProxyHeaderOutcome`](super::ProxyHeaderOutcome).
    pub proxy_headers: [u64; super::ProxyHeaderOutcome::COUNT],
    /// Replicas that are fit, offline, and unfit by [`Unfit`].
    pub replicas: [u64; 2 + Unfit::COUNT],
}

/// Counters and gauges of the refreshes of one upstream's topology.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct UpstreamStats {
    pub name: Box<str>,
    pub refreshes_ok: u64,
    pub refreshes_failed: u64,
    pub changes: u64,
    pub views_refused: [u64; RejectReason::LABELS],
    pub exceptions: [u64; 3],
    pub age_seconds: Option<f64>,
    /// The nodes' `cluster-node-timeout`; `None` if unknown.
    pub node_timeout_seconds: Option<f64>,
    pub generation: u64,
    pub slots_covered: usize,
}

impl ControlStats {
    /// Copies the figures about reloads.
    pub fn count_reloads(&mut self, reloads: &ReloadStats) {
        self.reloads = loaded(&reloads.outcomes);
        self.config_in_use = reloads.in_use.load(Relaxed);
        self.config_loaded_seconds = reloads.taken.load(Relaxed) as f64 / 1000.0;
        self.restart_keys = reloads.restart_keys.load(Relaxed);
    }

    /// Counts the replicas of `snapshot` by their state.
    pub fn count_replicas(&mut self, snapshot: &Snapshot, health: &Health) {
        for node in snapshot.nodes.iter().filter(|node| node.role == Role::Replica) {
            let unfit = health.get(&node.addr).and_then(|health| health.unfit);
            let state = match (node.is_online(), unfit) {
                (false, _) => 1,
                (true, None) => 0,
                (true, Some(unfit)) => 2 + unfit as usize,
            };
            if let Some(count) = self.replicas.get_mut(state) {
                *count += 1;
            }
        }
    }
}

/// The values of counters.
pub(super) fn loaded<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    counters.each_ref().map(|counter| counter.load(Relaxed))
}

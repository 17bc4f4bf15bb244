//! The state of the control thread, for `/readyz`, `/metrics` and the status page.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cluster::{Health, NodeAddr, Snapshot, trust::RejectReason};
use crate::command::CommandTable;
use crate::lines::LogLimit;
use crate::metrics::{ProxyHeaderOutcome, ReloadStats};

/// Why a primary is not reachable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    /// Its host name does not resolve.
    #[error("its name does not resolve")]
    Unresolved,
    /// It did not answer, for this reason.
    #[error("{0}")]
    Asked(String),
}

/// State and counters that tasks of the control thread write and the admin listener reads.
#[derive(Debug)]
pub struct Status {
    /// Slotway was told to stop.
    pub draining: AtomicBool,
    /// Clients that were rejected over `limits.clients`.
    pub clients_rejected: AtomicU64,
    /// Failed accepts.
    pub accept_errors: AtomicU64,
    /// Headers of the PROXY protocol, by [`ProxyHeaderOutcome`].
    pub proxy_headers: [AtomicU64; ProxyHeaderOutcome::COUNT],
    /// Workers that ended unexpectedly.
    pub worker_failures: AtomicU64,
    /// Tasks of the control thread that panicked and were restarted.
    pub task_failures: AtomicU64,
    /// Reloads of the configuration.
    pub reloads: ReloadStats,
    /// Limits log lines about connections without a PROXY protocol header.
    header_lines: Mutex<LogLimit>,
    topology: Mutex<TopologyStatus>,
}

/// The state of the refresher.
#[derive(Debug, Clone)]
pub struct TopologyStatus {
    /// The topology in use.
    pub snapshot: Arc<Snapshot>,
    /// The health of replicas.
    pub health: Arc<Health>,
    /// The command table.
    pub commands: Arc<CommandTable>,
    /// When a refresh last succeeded.
    pub answered: Option<Instant>,
    /// Successful refreshes.
    pub refreshes_ok: u64,
    /// Failed refreshes.
    pub refreshes_failed: u64,
    /// Refreshes that changed the topology.
    pub changes: u64,
    /// The nodes' `cluster-node-timeout`; `None` while unknown.
    pub node_timeout: Option<Duration>,
    /// Views that were rejected, by [`RejectReason::NAMES`].
    pub views_refused: [u64; RejectReason::LABELS],
    /// Views that were adopted by an exceptional rule, by [`crate::cluster::trust::AdoptionRule`].
    pub exceptions: [u64; 3],
    /// Why the last refresh has failed; `None` if it succeeded.
    pub error: Option<String>,
    /// For each primary with slots: reachable, or why not.
    pub reached: BTreeMap<NodeAddr, Result<(), Unreached>>,
}

impl Status {
    /// The state at the start: no topology, the built-in commands.
    pub fn new(commands: Arc<CommandTable>) -> Self {
        Status {
            draining: AtomicBool::new(false),
            clients_rejected: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            proxy_headers: Default::default(),
            worker_failures: AtomicU64::new(0),
            task_failures: AtomicU64::new(0),
            reloads: ReloadStats::default(),
            header_lines: Mutex::default(),
            topology: Mutex::new(TopologyStatus {
                snapshot: Arc::new(Snapshot::empty()),
                health: Arc::default(),
                commands,
                answered: None,
                refreshes_ok: 0,
                refreshes_failed: 0,
                changes: 0,
                node_timeout: None,
                views_refused: [0; RejectReason::LABELS],
                exceptions: [0; 3],
                error: None,
                reached: BTreeMap::new(),
            }),
        }
    }

    /// The state of the refresher. The guard must not be held across an await.
    pub fn topology(&self) -> MutexGuard<'_, TopologyStatus> {
        self.topology.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a line about a connection without a PROXY protocol header, if the limit allows.
    pub fn header_lines(&self, write: impl FnOnce(&mut LogLimit)) {
        write(&mut self.header_lines.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether slotway was told to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}

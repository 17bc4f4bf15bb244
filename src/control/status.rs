//! What the control thread knows, for `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cluster::{Health, NodeAddr, Snapshot, trust::Reason};
use crate::command::CommandTable;
use crate::lines::Lines;
use crate::metrics::{ProxyHeader, ReloadStats};

/// Why a primary was not reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    /// Its name has no address.
    #[error("its name does not resolve")]
    Unresolved,
    /// It was asked in vain.
    #[error("{0}")]
    Asked(String),
}

/// Written by the acceptor, the refresher and the one who stops everything; read by the admin
/// listener.
#[derive(Debug)]
pub struct Status {
    /// Told to stop.
    pub draining: AtomicBool,
    /// Clients turned away over `limits.clients`.
    pub clients_rejected: AtomicU64,
    /// Connections that could not be accepted.
    pub accept_errors: AtomicU64,
    /// Headers of the PROXY protocol, by [`ProxyHeader`].
    pub proxy_headers: [AtomicU64; ProxyHeader::COUNT],
    /// Workers that ended unexpectedly.
    pub worker_failures: AtomicU64,
    /// Parts of the control thread that failed and were started anew.
    pub task_failures: AtomicU64,
    /// The configuration, read anew while slotway runs.
    pub reloads: ReloadStats,
    /// Of connections that are closed for want of a header.
    header_lines: Mutex<Lines>,
    topology: Mutex<TopologyStatus>,
}

/// What the refresher knows.
#[derive(Debug, Clone)]
pub struct TopologyStatus {
    /// What the workers route by.
    pub snapshot: Arc<Snapshot>,
    /// By what the workers choose among replicas.
    pub health: Arc<Health>,
    /// What the workers look commands up in.
    pub commands: Arc<CommandTable>,
    /// When a node last answered.
    pub answered: Option<Instant>,
    /// Refreshes that a node answered.
    pub refreshes_ok: u64,
    /// Refreshes that none did.
    pub refreshes_failed: u64,
    /// Answers that differed from the one before.
    pub changes: u64,
    /// The nodes' `cluster-node-timeout`; `None` while it is not known.
    pub node_timeout: Option<Duration>,
    /// Answers that were not used, by [`Reason::NAMES`].
    pub views_refused: [u64; Reason::LABELS],
    /// Answers that were taken by an exceptional rule, by [`crate::cluster::trust::Rule`].
    pub exceptions: [u64; 3],
    /// Why the last refresh failed; `None` if it did not.
    pub error: Option<String>,
    /// For each primary with slots that the refresher tried itself: reached, or why not.
    pub reached: BTreeMap<NodeAddr, Result<(), Unreached>>,
}

impl Status {
    /// Nothing known yet but the built-in commands.
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
                views_refused: [0; Reason::LABELS],
                exceptions: [0; 3],
                error: None,
                reached: BTreeMap::new(),
            }),
        }
    }

    /// What the refresher knows. Held for a moment only, never across an await.
    pub fn topology(&self) -> MutexGuard<'_, TopologyStatus> {
        self.topology.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line about a connection that is closed for want of a header, sparsely.
    pub fn header_lines(&self, write: impl FnOnce(&mut Lines)) {
        write(&mut self.header_lines.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Told to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}

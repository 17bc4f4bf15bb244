//! The state of the control thread, for `/readyz`, `/metrics` and the status page.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cluster::{Health, NodeAddr, Snapshot, UpstreamId, trust::RejectReason};
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
    commands: Mutex<Arc<CommandTable>>,
    /// The first upstream, and the others.
    first: Mutex<UpstreamStatus>,
    others: Box<[Mutex<UpstreamStatus>]>,
}

/// The state of all upstreams.
#[derive(Debug, Clone)]
pub struct TopologyStatus {
    /// That of each, by ID; at least one.
    pub upstreams: Vec<UpstreamStatus>,
    /// The command table.
    pub commands: Arc<CommandTable>,
}

/// The state of an upstream: of its refresher, and of the health of its nodes.
#[derive(Debug, Clone)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: Box<str>,
    /// The topology in use, in its own slots.
    pub snapshot: Arc<Snapshot>,
    /// The health of replicas.
    pub health: Arc<Health>,
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

impl TopologyStatus {
    /// The number of the topology in use, which grows with every change of any upstream's; 0: none
    /// is known.
    pub fn generation(&self) -> u64 {
        self.upstreams.iter().map(|upstream| upstream.snapshot.generation).sum()
    }

    /// Number of slots of all upstreams whose primary is not failed.
    pub fn slots_covered(&self) -> usize {
        self.upstreams.iter().map(|upstream| upstream.snapshot.slots_covered()).sum()
    }

    /// When the upstream that was asked in vain for longest last answered; `None`: one has not
    /// answered yet.
    pub fn answered(&self) -> Option<Instant> {
        // `None` is the least.
        self.upstreams.iter().map(|upstream| upstream.answered).min().flatten()
    }

    /// Why the last refresh has failed, of the first upstream of which it has.
    pub fn error(&self) -> Option<String> {
        self.named().find_map(|(name, up)| up.error.as_ref().map(|error| of_upstream(name, error)))
    }

    /// The upstreams, each with its name where there are several.
    pub fn named(&self) -> impl Iterator<Item = (Option<&str>, &UpstreamStatus)> {
        let several = self.upstreams.len() > 1;
        self.upstreams.iter().map(move |up| (several.then_some(&*up.name), up))
    }
}

/// The text, about the upstream called `name` where there are several.
pub fn of_upstream(name: Option<&str>, text: &str) -> String {
    match name {
        Some(name) => format!("upstream {name}: {text}"),
        None => text.to_owned(),
    }
}

impl UpstreamStatus {
    fn new(name: &str) -> Self {
        UpstreamStatus {
            name: name.into(),
            snapshot: Arc::new(Snapshot::empty()),
            health: Arc::default(),
            answered: None,
            refreshes_ok: 0,
            refreshes_failed: 0,
            changes: 0,
            node_timeout: None,
            views_refused: [0; RejectReason::LABELS],
            exceptions: [0; 3],
            error: None,
            reached: BTreeMap::new(),
        }
    }
}

impl Status {
    /// The state at the start: no topology, the built-in commands. `upstreams`: the names of all.
    pub fn new(upstreams: &[&str], commands: Arc<CommandTable>) -> Self {
        let one = |name: &&str| Mutex::new(UpstreamStatus::new(name));
        Status {
            draining: AtomicBool::new(false),
            clients_rejected: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            proxy_headers: Default::default(),
            worker_failures: AtomicU64::new(0),
            task_failures: AtomicU64::new(0),
            reloads: ReloadStats::default(),
            header_lines: Mutex::default(),
            commands: Mutex::new(commands),
            first: upstreams.first().map_or_else(|| one(&""), one),
            others: upstreams.iter().skip(1).map(one).collect(),
        }
    }

    /// The state of an upstream. The guard must not be held across an await.
    pub fn upstream(&self, id: UpstreamId) -> MutexGuard<'_, UpstreamStatus> {
        let other = id.at().checked_sub(1).and_then(|at| self.others.get(at));
        other.unwrap_or(&self.first).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of all upstreams at the moment.
    pub fn topology(&self) -> TopologyStatus {
        let all = std::iter::once(&self.first).chain(&self.others);
        let one =
            |up: &Mutex<UpstreamStatus>| up.lock().unwrap_or_else(PoisonError::into_inner).clone();
        TopologyStatus { upstreams: all.map(one).collect(), commands: self.commands() }
    }

    /// The command table.
    pub fn commands(&self) -> Arc<CommandTable> {
        Arc::clone(&self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the command table.
    pub(super) fn set_commands(&self, commands: Arc<CommandTable>) {
        *self.commands.lock().unwrap_or_else(PoisonError::into_inner) = commands;
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

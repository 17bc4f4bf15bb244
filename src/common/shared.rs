//! What the workers of a process share. Nothing of it is touched for ordinary commands.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;

use crate::config::Config;
use crate::descriptors::{DescriptorBudget, MAX_IDLE_DEDICATED};
use crate::errors::{Failure, Last};
use crate::hub::Hub;
use crate::mailbox::{PendingSubscriptions, WorkerHandle};
use crate::observe::{SLOW_LOG_OFF, SlowLog, SpanCounts, Trace};
use crate::scripts::ScriptStore;
use crate::tls::Tls;
use crate::users::Throttle;

/// Traced commands that wait for the exporter.
const SPANS: usize = 2048;

/// What the limit on open files leaves of the limits of the configuration.
#[derive(Debug)]
struct Ceilings {
    pub(crate) clients: AtomicUsize,
    pub(crate) dedicated: AtomicUsize,
    idle_dedicated: AtomicUsize,
    pub(crate) users: AtomicUsize,
    pub(crate) bulk: AtomicBool,
}

/// Shared by all workers.
#[derive(Debug)]
pub struct Shared {
    /// Dedicated connections that are lent, of all workers (`limits.dedicated`).
    pub(crate) dedicated: AtomicUsize,
    /// What the limit on open files leaves of the limits of the configuration.
    ceilings: Ceilings,
    /// Clients that workers serve.
    pub clients: AtomicUsize,
    /// Of these, those that wait in a blocking command.
    pub blocked: AtomicUsize,
    /// Clients that watch by MONITOR.
    pub(crate) monitors: AtomicUsize,
    /// Who has failed to log in lately.
    pub(crate) throttle: Mutex<Throttle>,
    /// The zero of the workers' clocks.
    pub started: Instant,
    /// Lua scripts.
    pub scripts: Arc<ScriptStore>,
    /// Slow commands.
    pub slow: SlowLog,
    /// Spans of traced commands, on their way to a collector; `None`: nothing is traced.
    pub spans: Option<mpsc::Sender<Trace>>,
    /// The other end, until the exporter takes it.
    spans_out: Mutex<Option<mpsc::Receiver<Trace>>>,
    /// What became of spans.
    pub span_counts: Arc<SpanCounts>,
    /// The pub/sub hub.
    pub hub: Hub,
    /// Subscriptions that the cluster has not confirmed yet.
    pub(crate) pending_subscriptions: Arc<PendingSubscriptions>,
    /// Certificates and what they are for.
    pub tls: Arc<Tls>,
    /// The workers, by index.
    pub(crate) workers: Mutex<Vec<(usize, WorkerHandle)>>,
    /// Why nothing is known of the cluster.
    pub(crate) trouble: Mutex<Option<String>>,
}

impl Shared {
    /// What workers share that run by `config`.
    pub fn new(config: &Config, tls: Arc<Tls>, hub: Hub) -> Self {
        let scripts = Arc::new(ScriptStore::new(config.limits.scripts));
        let traces = !config.tracing.endpoint.is_empty();
        let (spans, spans_out) = mpsc::channel(SPANS);
        Shared {
            spans: traces.then_some(spans),
            spans_out: Mutex::new(traces.then_some(spans_out)),
            span_counts: Arc::default(),
            dedicated: AtomicUsize::new(0),
            ceilings: Ceilings {
                clients: AtomicUsize::new(config.limits.clients),
                dedicated: AtomicUsize::new(usize::MAX),
                idle_dedicated: AtomicUsize::new(MAX_IDLE_DEDICATED),
                users: AtomicUsize::new(usize::MAX),
                bulk: AtomicBool::new(true),
            },
            clients: AtomicUsize::new(0),
            blocked: AtomicUsize::new(0),
            monitors: AtomicUsize::new(0),
            throttle: Mutex::default(),
            started: Instant::now(),
            scripts,
            slow: SlowLog::new(
                config.slowlog.slower_than.map_or(SLOW_LOG_OFF, |d| d.as_micros() as u64),
                config.slowlog.max_len,
            ),
            hub,
            pending_subscriptions: Arc::default(),
            tls,
            workers: Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    /// The workers, by index.
    pub fn workers(&self) -> MutexGuard<'_, Vec<(usize, WorkerHandle)>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where spans come out; the first who asks gets it.
    pub fn take_spans(&self) -> Option<mpsc::Receiver<Trace>> {
        self.spans_out.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Why nothing is known of the cluster; `None` once it is.
    pub fn set_trouble(&self, why: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why nothing is known of the cluster, if somebody has asked.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The error for a command that nobody knows where to send.
    pub(crate) fn no_cluster_yet(&self) -> Failure {
        Failure::NoTopology { last: Last(self.trouble()) }
    }

    /// Sets what the limit on open files leaves for clients, dedicated connections and users.
    pub fn set_budget(&self, budget: &DescriptorBudget) {
        self.ceilings.clients.store(budget.clients, Relaxed);
        self.ceilings.dedicated.store(budget.dedicated, Relaxed);
        self.ceilings.idle_dedicated.store(budget.idle_dedicated, Relaxed);
        self.ceilings.users.store(budget.users, Relaxed);
        self.ceilings.bulk.store(budget.bulk, Relaxed);
    }

    /// Whether clients with large transfers have connections of their own.
    pub(crate) fn has_bulk_connections(&self) -> bool {
        self.ceilings.bulk.load(Relaxed)
    }

    /// The limit on clients in force, of all workers.
    pub fn max_clients(&self) -> usize {
        self.ceilings.clients.load(Relaxed)
    }

    /// What the limit on open files leaves of `limits.dedicated`.
    pub(crate) fn max_dedicated(&self) -> usize {
        self.ceilings.dedicated.load(Relaxed)
    }

    /// Idle dedicated connections that each worker may keep.
    pub(crate) fn max_idle_dedicated(&self) -> usize {
        self.ceilings.idle_dedicated.load(Relaxed)
    }

    /// What the limit on open files leaves of `limits.users`.
    pub(crate) fn max_users(&self) -> usize {
        self.ceilings.users.load(Relaxed)
    }

    /// One more dedicated connection is lent. `false`: `most` are.
    pub(crate) fn lend(&self, most: usize) -> bool {
        let more = |n: usize| (n < most).then_some(n + 1);
        self.dedicated.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// One that was lent is not any more.
    pub fn give_back(&self) {
        // Each was counted when it was lent, so there is one to take off.
        let _ = self.dedicated.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
    }
}

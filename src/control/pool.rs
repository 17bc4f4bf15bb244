//! The pool of workers: starts and replaces them, distributes clients, sends them messages.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::debug;

use super::briefing::Briefing;
use super::export::Exporter;
use super::upstreams::Upstreams;
use crate::cluster::UpstreamId;
use crate::command::CommandTable;
use crate::config::{Auth, Config};
use crate::descriptors::{DescriptorDemand, Descriptors};
use crate::mailbox::ToHub;
use crate::mailbox::{Arrival, ToControl, ToWorker, WorkerHandle};
use crate::metrics::{Totals, WorkerStats};
use crate::observe::SlowLog;
use crate::pubsub::HubStats;
use crate::tls::Tls;

/// All workers. Shared by the tasks of the control thread.
#[derive(Debug)]
pub struct Pool {
    tls: Arc<Tls>,
    shared: Arc<crate::common::shared::Shared>,
    to_control: mpsc::UnboundedSender<ToControl>,
    /// How the limit on open files is shared out; see [`Pool::descriptors`].
    pub(super) descriptors: Mutex<Descriptors>,
    /// Number of connections whose PROXY protocol header is awaited.
    pub arriving: AtomicUsize,
    /// Whether replicas are checked.
    pub replicas: super::replica_watch::ReplicaWatch,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    /// The configuration in use.
    pub(super) config: Arc<Config>,
    /// The upstreams, and what is known of each.
    pub(super) upstreams: Upstreams,
    pub(super) running: Vec<Running>,
    /// The index of the next worker. Indices are never reused, so that a late message from an ended
    /// worker is not taken for one from its replacement.
    next: usize,
    /// What the workers have been told.
    pub(super) told: Briefing,
    /// Counters of ended workers.
    pub(super) ended: Totals,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) index: usize,
    pub(super) handle: WorkerHandle,
    started: Instant,
    /// It gets no new clients, and ends when the last one has gone.
    pub(super) retiring: bool,
    /// Its counters as of the last scrape: all that is left of them if it fails.
    pub(super) last: Box<WorkerStats>,
}

/// What file descriptors are needed for.
pub(super) fn demand(
    inner: &Inner,
    replicas: &super::replica_watch::ReplicaWatch,
) -> DescriptorDemand {
    let config = &inner.config;
    DescriptorDemand {
        workers: inner.running.len().max(config.workers.count()),
        nodes: inner.upstreams.sizes().sum(),
        connections: config.upstream_of(UpstreamId::FIRST).connections,
        replicas: replicas.is_on(),
        listeners: config.listen.len() + config.tls.downstream.listen.len() + 1,
        clients: config.limits.clients,
        dedicated: config.limits.dedicated,
        users: (config.auth == Auth::Passthrough).then_some(config.limits.users),
    }
}

impl Pool {
    /// A pool without workers; starts the pub/sub hub.
    ///
    /// # Errors
    /// The operating system gives no event loop or no thread.
    pub fn new(
        config: Arc<Config>,
        tls: Arc<Tls>,
        commands: Arc<CommandTable>,
        to_control: mpsc::UnboundedSender<ToControl>,
    ) -> std::io::Result<Self> {
        let users = crate::config::files::users(&config)
            .map_err(|(key, why)| std::io::Error::other(format!("{key}: {why}")))?;
        let inner = Inner {
            upstreams: Upstreams::new(&config, Arc::clone(&commands)),
            config: Arc::clone(&config),
            running: Vec::new(),
            next: 0,
            // The file of users was valid when the configuration was read; if it is not any more,
            // starting fails rather than serving without it.
            told: Briefing::new(commands, Arc::new(users)),
            ended: Totals::default(),
        };
        let hub = crate::hub::spawn(Arc::clone(&config), Arc::clone(&tls), to_control.clone())?;
        let shared = Arc::new(crate::common::shared::Shared::new(&config, Arc::clone(&tls), hub));
        let replicas = super::replica_watch::ReplicaWatch::new(&config);
        let descriptors = Descriptors::new(demand(&inner, &replicas));
        shared.set_budget(&descriptors.budget());
        let (descriptors, inner) = (Mutex::new(descriptors), Mutex::new(inner));
        let arriving = AtomicUsize::new(0);
        Ok(Pool { tls, shared, to_control, descriptors, arriving, replicas, inner })
    }

    pub(super) fn shared(&self) -> &crate::common::shared::Shared {
        &self.shared
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a worker and sends it what the others know.
    pub fn start_one(&self) -> std::io::Result<()> {
        let mut inner = self.inner();
        let index = inner.next;
        let handle = crate::worker::spawn(
            index,
            Arc::clone(&inner.config),
            Arc::clone(&inner.told.commands),
            Arc::clone(&self.shared),
            self.to_control.clone(),
        )?;
        inner.next += 1;
        if !inner.told.users.is_open() {
            handle.send(ToWorker::Users(Arc::clone(&inner.told.users)));
        }
        self.tell_hub(ToHub::Worker { index, handle: handle.clone() });
        inner.told.tell(&handle);
        inner.running.push(Running {
            index,
            handle,
            started: Instant::now(),
            retiring: false,
            last: Box::default(),
        });
        Ok(())
    }

    /// TLS, for connections of the control thread.
    pub fn tls(&self) -> &Arc<Tls> {
        &self.tls
    }

    /// The name that the certificate of the node at `socket` should have.
    pub fn server_name(&self, socket: std::net::SocketAddr) -> String {
        let inner = self.inner();
        let mut nodes = inner.told.topology.iter().flat_map(|snapshot| &snapshot.nodes);
        let node = nodes.find(|node| node.socket == Some(socket));
        node.map_or_else(|| socket.ip().to_string(), |node| node.server_name().to_owned())
    }

    /// Sets why workers cannot serve for want of a topology; `None`: they can. Without effect once
    /// some upstream is known.
    pub fn set_trouble(&self, why: Option<String>) {
        let known =
            self.inner().told.topology.as_ref().is_some_and(|whole| !whole.nodes.is_empty());
        if why.is_none() || !known {
            self.shared.set_trouble(why);
        }
    }

    /// Memory of the scripts that are kept, bytes.
    pub fn script_bytes(&self) -> usize {
        self.shared.scripts.bytes()
    }

    /// The exporter of spans, if a collector is configured.
    pub fn exporter(&self) -> Option<Exporter> {
        let counts = Arc::clone(&self.shared.span_counts);
        Exporter::new(&self.config().tracing, self.shared.take_spans()?, counts)
    }

    /// Counts of spans: exported, dropped, failed.
    pub fn span_counts(&self) -> [u64; 3] {
        let counts = &self.shared.span_counts;
        [&counts.exported, &counts.dropped, &counts.failed].map(|count| count.load(Relaxed))
    }

    /// The slow log.
    pub fn slowlog(&self) -> &SlowLog {
        &self.shared.slow
    }

    /// The pub/sub hub's counters.
    pub fn hub_stats(&self) -> &HubStats {
        &self.shared.hub.stats
    }

    /// Tells the pub/sub hub to end.
    pub fn stop_hub(&self) {
        self.tell_hub(ToHub::Stop);
    }

    pub(super) fn tell_hub(&self, message: ToHub) {
        if self.shared.hub.handle.send(message).is_err() {
            tracing::error!("the pub/sub hub has ended");
        }
    }

    /// Number of workers that run.
    pub fn running(&self) -> usize {
        self.inner().running.len()
    }

    /// Number of clients of all workers.
    pub fn clients(&self) -> usize {
        self.inner().running.iter().map(|w| w.handle.clients.load(Relaxed)).sum()
    }

    /// Number of clients of each worker, with the worker's index.
    pub fn clients_by_worker(&self) -> Vec<(usize, usize)> {
        self.inner().running.iter().map(|w| (w.index, w.handle.clients.load(Relaxed))).collect()
    }

    /// Sends a client to the worker with the fewest. Returns it if there is no worker.
    pub fn hand_over(&self, client: Arrival) -> Result<(), Arrival> {
        let inner = self.inner();
        let open = inner.running.iter().filter(|w| !w.retiring);
        let Some(least) = open.min_by_key(|w| w.handle.clients.load(Relaxed)) else {
            return Err(client);
        };
        least.handle.clients.fetch_add(1, Relaxed);
        if !least.handle.send(ToWorker::Accept(client)) {
            // The client is closed, dropped with the message; the next one gets another worker.
            self.lost(least.index);
        }
        Ok(())
    }

    /// Number of commands that were learned to block.
    pub fn learned_blocking(&self) -> usize {
        self.inner().told.learned()
    }

    /// Makes the first worker panic.
    #[cfg(debug_assertions)]
    pub fn fail_one(&self) {
        if let Some(worker) = self.inner().running.first() {
            worker.handle.send(ToWorker::Fail);
        }
    }

    /// Tells all workers to drain until `by`.
    pub fn drain(&self, by: Instant) {
        self.tell(|| ToWorker::Drain { by });
    }

    pub(super) fn tell(&self, message: impl Fn() -> ToWorker) {
        for worker in &self.inner().running {
            if !worker.handle.send(message()) {
                self.lost(worker.index);
            }
        }
    }

    /// Reports the end of a worker that takes no more messages, in case it could not itself.
    fn lost(&self, worker: usize) {
        debug!(worker, "worker does not listen any more");
        // It fails only while the control thread itself ends.
        let _ = self.to_control.send(ToControl::Exited { worker });
    }

    /// Removes worker `index`, which has ended. Returns how long it had run; `None` if it was
    /// removed before.
    pub fn remove(&self, index: usize) -> Option<Duration> {
        let mut inner = self.inner();
        let at = inner.running.iter().position(|w| w.index == index)?;
        let ended = inner.running.remove(at);
        self.tell_hub(ToHub::WorkerGone { index });
        inner.ended.add_ended(&ended.last);
        if ended.retiring {
            // Limits of the process are divided among fewer workers.
            inner.tell_config();
        }
        Some(ended.started.elapsed())
    }
}

//! Start, main loop and shutdown: listeners, workers, refresher, admin, signals.
//!
//! Start: on addresses that another slotway or systemd holds already (`hand_over`, socket
//! activation), clients are accepted only once the topology is known; until then the other process
//! serves them, or they wait in its accept queue.
//!
//! Shutdown, in this order: `/readyz` fails, listeners are closed, workers answer the commands in
//! flight and end, the admin listener is closed last, so that the drain can be observed.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::accept::Acceptor;
use super::error::RunError;
use super::files::Files;
use super::listeners::{AdminListeners, Listeners, OpenSet};
use super::notify;
use super::reload::{Reload, ReloadCause, ReloadWatch};
use super::sockets::SocketSource;
use crate::admin::Admin;
use crate::command::CommandTable;
use crate::config::{Config, HandOver, Listen};
use crate::control::BlockWatcher;
use crate::control::Pool;
use crate::control::Prober;
use crate::control::Replicas;
use crate::control::SentinelWatcher;
use crate::control::Status;
use crate::control::Verifier;
use crate::control::supervise;
use crate::control::{AllRequests, Refresher};
use crate::mailbox::ToControl;
use crate::tls::{Fault, Tls};

/// How long the first topology refresh may delay readiness.
const FIRST_REFRESH: Duration = Duration::from_secs(2);
/// How often a process that is to take over checks whether the topology is known.
const TOPOLOGY_POLL: Duration = Duration::from_millis(20);
/// How long workers have to end after `timeouts.drain`.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// A worker that ends sooner than this after its start is replaced only after [`RESTART_PAUSE`]:
/// one that fails at its first step would otherwise be a busy loop.
const SHORT_LIFE: Duration = Duration::from_secs(10);
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The addresses that slotway listens on, with actual ports where the configuration has 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundAddrs {
    /// Client listeners without TLS.
    pub listen: Vec<Listen>,
    /// Client listeners with TLS.
    pub tls: Vec<Listen>,
    /// The admin listener, unless it is off.
    pub admin: Option<SocketAddr>,
}

/// Runs slotway until SIGTERM or SIGINT.
pub fn run(config: Config) -> Result<(), RunError> {
    run_until(config, |_| (), std::future::pending())
}

/// Runs slotway until SIGTERM or SIGINT, and reloads the configuration at SIGHUP or when its file
/// changes.
pub fn run_reloading(config: Config, reload: Reload) -> Result<(), RunError> {
    start(config, Some(reload), |_| (), std::future::pending())
}

/// Runs slotway until SIGTERM, SIGINT or the end of `stop`; returns when the last worker has ended.
/// `ready` is called once, when all listeners are open and the first topology refresh has ended or
/// taken two seconds; the cluster need not be known (`/readyz` says whether it is).
pub fn run_until(
    config: Config,
    ready: impl FnOnce(BoundAddrs),
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    start(config, None, ready, stop)
}

fn start(
    config: Config,
    reload: Option<Reload>,
    ready: impl FnOnce(BoundAddrs),
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| RunError::Start("the runtime", e))?;
    let result = runtime.block_on(async {
        let (mut supervisor, bound) = Supervisor::start(config, reload).await?;
        supervisor.serve(bound, ready, stop).await
    });
    // Does not wait for a DNS lookup that hangs in its thread.
    runtime.shutdown_background();
    result
}

/// Logs a warning if `limits.memory` exceeds the memory of the machine or container.
pub(super) fn warn_of_memory(config: &Config) {
    if let Some(warning) = config.limits.memory.warning() {
        warn!("{warning}");
    }
}

/// The parts of a running process.
pub(super) struct Supervisor {
    pub(super) pool: Arc<Pool>,
    pub(super) status: Arc<Status>,
    pub(super) requests: AllRequests,
    prober: Prober,
    watcher: BlockWatcher,
    pub(super) verifier: Arc<Verifier>,
    /// Files of users and secrets.
    pub(super) files: Arc<Files>,
    from_workers: mpsc::UnboundedReceiver<ToControl>,
    signals: Signals,
    /// `None` if the configuration cannot be reloaded.
    pub(super) watch: Option<ReloadWatch>,
    /// One for each upstream.
    first_refreshes: Vec<Arc<Notify>>,
    pub(super) acceptor: Acceptor,
    /// Closed first at shutdown.
    pub(super) listeners: Listeners,
    /// Whether all listeners are open.
    pub(super) is_open: bool,
    pub(super) admin: Arc<Admin>,
    pub(super) admin_listeners: AdminListeners,
    /// Tasks that run until the end of the process, such as the refresher.
    background: JoinSet<()>,
}

impl Supervisor {
    async fn start(
        config: Config,
        reload: Option<Reload>,
    ) -> Result<(Supervisor, BoundAddrs), RunError> {
        warn_of_memory(&config);
        let config = Arc::new(config);
        let told = |e| RunError::Start("the signal handlers", e);
        let signals = Signals::new().map_err(told)?;
        let watch = |reload| ReloadWatch::new(reload, &config);
        let reloading = reload.map(watch).transpose().map_err(told)?;

        // Everything that the configuration can make fail comes first.
        let tls = Arc::new(Tls::load(&config).map_err(|faults| RunError::Tls(join(&faults)))?);
        let mut sockets = SocketSource::from_environment(&config);
        let (mut listeners, mut admin_listeners) = (Listeners::default(), AdminListeners::new());
        let prepared = listeners.prepare(&config, &mut sockets).await?;
        let admin_sockets = admin_listeners.prepare(config.admin.as_ref(), &mut sockets).await?;
        sockets.warn_of_unused();
        listeners.protect(&config, &prepared)?;
        let admin_sockets = admin_sockets.unwrap_or_default();
        let (secured, plain) = listeners.add(prepared).into_iter().partition(|(_, tls)| *tls);
        let addresses =
            |all: Vec<(Listen, bool)>| all.into_iter().map(|(bound, _)| bound).collect();
        let bound = BoundAddrs {
            admin: admin_sockets.first().map(|(_, addr, _)| *addr),
            listen: addresses(plain),
            tls: addresses(secured),
        };

        let commands = Arc::new(CommandTable::builtin());
        let status = Status::new(&config.upstream_names(), Arc::clone(&commands));
        let status = Arc::new(status);
        let (to_control, from_workers) = mpsc::unbounded_channel();
        let pool = Pool::new(Arc::clone(&config), Arc::clone(&tls), commands, to_control)
            .map_err(|e| RunError::Start("the pub/sub hub", e))?;
        let pool = Arc::new(pool);
        for _ in 0..config.workers.count() {
            pool.start_one().map_err(|e| RunError::Start("a worker", e))?;
        }

        let mut background = JoinSet::new();
        let admin = Arc::new(Admin::new(Arc::clone(&pool), Arc::clone(&status)));
        if !admin_sockets.is_empty() {
            let admin = Arc::clone(&admin);
            let watch = move || Arc::clone(&admin).watch();
            background.spawn(supervise("status".to_owned(), Arc::clone(&status), watch));
        }
        admin_listeners
            .open(config.admin.clone(), admin_sockets, &admin)
            .map_err(|e| RunError::Start("the admin listener", e))?;
        let watch = {
            let tls = Arc::clone(&tls);
            move || Arc::clone(&tls).watch()
        };
        background.spawn(supervise("certificates".to_owned(), Arc::clone(&status), watch));
        let requests = AllRequests::new(pool.upstreams().count());
        let first_refreshes = watch_upstreams(&pool, &status, &requests, &mut background);

        let files = Arc::new(Files::new(Arc::clone(&config)));
        let watch_files = {
            let (files, pool) = (Arc::clone(&files), Arc::clone(&pool));
            move || {
                let (files, pool) = (Arc::clone(&files), Arc::clone(&pool));
                async move { files.run(|users| pool.announce().users(Arc::new(users))).await }
            }
        };
        background.spawn(supervise("files".to_owned(), Arc::clone(&status), watch_files));
        let verifier = Verifier::new(Arc::clone(&pool), Arc::clone(&status));
        if let Some(exporter) = pool.exporter() {
            let exporter = Arc::new(exporter);
            let export = move || Arc::clone(&exporter).run();
            background.spawn(supervise("tracing".to_owned(), Arc::clone(&status), export));
        }
        let alive = {
            let (pool, status) = (Arc::clone(&pool), Arc::clone(&status));
            move || notify::watchdog(Arc::clone(&pool), Arc::clone(&status))
        };
        background.spawn(supervise("watchdog".to_owned(), Arc::clone(&status), alive));

        let prober = Prober::new(Arc::clone(&pool), requests.clone());
        let watcher = BlockWatcher::new(Arc::clone(&pool));
        let acceptor = Acceptor { pool: Arc::clone(&pool), status: Arc::clone(&status) };
        listeners.open(&acceptor, OpenSet::Exclusive);
        let supervisor = Supervisor {
            pool,
            status,
            requests,
            prober,
            watcher,
            verifier,
            files,
            from_workers,
            signals,
            watch: reloading,
            first_refreshes,
            acceptor,
            listeners,
            is_open: false,
            admin,
            admin_listeners,
            background,
        };
        Ok((supervisor, bound))
    }

    async fn serve(
        &mut self,
        bound: BoundAddrs,
        ready: impl FnOnce(BoundAddrs),
        stop: impl Future<Output = ()>,
    ) -> Result<(), RunError> {
        let workers = self.pool.running();
        let listen: Vec<String> = bound.listen.iter().map(ToString::to_string).collect();
        if !bound.tls.is_empty() {
            let listen: Vec<String> = bound.tls.iter().map(ToString::to_string).collect();
            info!(listen = listen.join(", "), "slotway serves clients with TLS");
        }
        let admin = bound.admin.map_or_else(|| "off".to_owned(), |addr| addr.to_string());
        info!(listen = listen.join(", "), admin, workers, "slotway runs");

        let mut ready = Some(move || ready(bound));
        let first_refreshes = std::mem::take(&mut self.first_refreshes);
        let (pool, status) = (Arc::clone(&self.pool), Arc::clone(&self.status));
        let hand_over = self.pool.config().hand_over == HandOver::On;
        let first = async move {
            let all = async {
                for first_refresh in first_refreshes {
                    first_refresh.notified().await;
                }
            };
            // Readiness does not depend on their success.
            let _ = tokio::time::timeout(FIRST_REFRESH, all).await;
            let is_known = |id| status.upstream(id).snapshot.generation > 0;
            while hand_over && !pool.upstreams().all(|id| is_known(id) || pool.is_optional(id)) {
                tokio::time::sleep(TOPOLOGY_POLL).await;
            }
        };
        let mut first = std::pin::pin!(first);
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                name = self.signals.next() => {
                    info!(signal = name, "stopping");
                    break;
                }
                () = &mut stop => {
                    info!("stopping");
                    break;
                }
                _ = &mut first, if ready.is_some() => {
                    if let Some(ready) = ready.take() {
                        self.listeners.open(&self.acceptor, OpenSet::All);
                        self.is_open = true;
                        info!("clients are accepted");
                        notify::ready(self.pool.running());
                        ready();
                    }
                }
                Some(message) = self.from_workers.recv() => self.handle(message),
                cause = next_cause(&mut self.watch) => self.reload(cause).await,
            }
        }
        self.drain().await
    }

    fn handle(&self, message: ToControl) {
        match message {
            ToControl::RefreshTopology { hint, upstream } => {
                let hinted = || hint.as_ref().and_then(|hint| self.pool.upstream_at(hint));
                self.requests.topology(upstream.or_else(hinted), hint.as_ref());
            }
            ToControl::WatchReplicas => {
                self.pool.replicas.start();
                self.pool.descriptors().update();
            }
            ToControl::RefreshCommands => self.requests.commands(),
            ToControl::Silent { node } => self.prober.probe(node),
            ToControl::Blocked { node, own, module } => {
                self.watcher.check(node, own, module);
            }
            ToControl::AskEveryone(inquiry) => self.pool.announce().inquiry(inquiry),
            ToControl::UserQuestion(question) => {
                tokio::spawn(Arc::clone(&self.verifier).answer(*question));
            }
            ToControl::UserRecheck(recheck) => {
                tokio::spawn(Arc::clone(&self.verifier).recheck(*recheck));
            }
            ToControl::Exited { worker } => self.replace_worker(worker),
        }
    }

    /// Replaces a worker that has failed, and lets one that was retired go.
    fn replace_worker(&self, worker: usize) {
        let retired = self.pool.is_retiring(worker);
        let Some(lived) = self.pool.remove(worker) else { return };
        if retired {
            info!(worker, "a surplus worker has ended");
            return;
        }
        self.status.worker_failures.fetch_add(1, Relaxed);
        error!(
            worker,
            ?lived,
            "a worker ended unexpectedly; its clients are closed, a new one starts"
        );
        let pool = Arc::clone(&self.pool);
        let status = Arc::clone(&self.status);
        tokio::spawn(async move {
            let mut pause = if lived < SHORT_LIFE { RESTART_PAUSE } else { Duration::ZERO };
            loop {
                tokio::time::sleep(pause).await;
                if status.is_draining() {
                    return;
                }
                match pool.set_workers(pool.config().workers.count()) {
                    Ok(()) => return,
                    Err(error) => error!(%error, "cannot start a worker"),
                }
                pause = RESTART_PAUSE;
            }
        });
    }

    async fn drain(&mut self) -> Result<(), RunError> {
        let limit = self.pool.config().timeouts.drain;
        self.status.draining.store(true, Relaxed);
        notify::stopping();
        self.admin_listeners.hand_over();
        self.listeners.close().await;
        let clients = self.pool.clients();
        info!(clients, limit_ms = limit.as_millis() as u64, "draining");
        let by = Instant::now() + limit;
        self.pool.drain(by);
        let overdue = tokio::time::sleep_until((by + DRAIN_GRACE).into());
        let mut overdue = std::pin::pin!(overdue);
        while self.pool.running() > 0 {
            tokio::select! {
                Some(message) = self.from_workers.recv() => match message {
                    ToControl::Exited { worker } => {
                        self.pool.remove(worker);
                    }
                    // Commands in flight may still be redirected.
                    other => self.handle(other),
                },
                name = self.signals.next() => {
                    warn!(signal = name, "stopping at once");
                    return Err(RunError::Interrupted);
                }
                () = &mut overdue => {
                    warn!(workers = self.pool.running(), "workers do not end, leaving them behind");
                    break;
                }
            }
        }
        self.pool.stop_hub();
        self.background.shutdown().await;
        self.admin_listeners.shutdown().await;
        info!("stopped");
        Ok(())
    }
}

/// Starts the tasks that watch each upstream, and returns what each notifies after its first refresh
/// of the topology.
fn watch_upstreams(
    pool: &Arc<Pool>,
    status: &Arc<Status>,
    requests: &AllRequests,
    background: &mut JoinSet<()>,
) -> Vec<Arc<Notify>> {
    let mut first_refreshes = Vec::new();
    for (id, requests) in requests.each() {
        let part = |what: &str| match pool.log_name(id) {
            Some(name) => format!("{what} of {name}"),
            None => what.to_owned(),
        };
        let first_refresh = Arc::new(Notify::new());
        let refresh = {
            let (pool, status) = (Arc::clone(pool), Arc::clone(status));
            let (requests, first) = (Arc::clone(requests), Arc::clone(&first_refresh));
            move || {
                let (pool, status) = (Arc::clone(&pool), Arc::clone(&status));
                Refresher::new(id, pool, status, Arc::clone(&requests)).run(Arc::clone(&first))
            }
        };
        background.spawn(supervise(part("topology"), Arc::clone(status), refresh));
        let watch_sentinels = {
            let (pool, requests) = (Arc::clone(pool), Arc::clone(requests));
            move || SentinelWatcher::new(id, Arc::clone(&pool), Arc::clone(&requests)).run()
        };
        background.spawn(supervise(part("sentinels"), Arc::clone(status), watch_sentinels));
        let watch_replicas = {
            let (pool, status) = (Arc::clone(pool), Arc::clone(status));
            move || Replicas::new(id, Arc::clone(&pool), Arc::clone(&status)).run()
        };
        background.spawn(supervise(part("replicas"), Arc::clone(status), watch_replicas));
        first_refreshes.push(first_refresh);
    }
    first_refreshes
}

/// Waits for the next reason to reload; for ever if the configuration cannot be reloaded.
async fn next_cause(watch: &mut Option<ReloadWatch>) -> ReloadCause {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// All faults in one line.
pub(super) fn join(faults: &[Fault]) -> String {
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    faults.join("; ")
}

/// Receives SIGTERM and SIGINT.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

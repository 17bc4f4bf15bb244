//! Where the parts are put together: listeners, workers, refresher, admin, signals; and taken
//! apart again.
//!
//! The end, in this order: not ready, no more accepting, the workers answer what is in flight and
//! end, the admin listener goes last, so that the drain can be watched.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::accept::{self, Acceptor, Listener};
use super::link::ToControl;
use super::notify;
use super::pool::Pool;
use super::probe::Prober;
use super::replicas::Replicas;
use super::status::Status;
use super::supervise::supervise;
use super::topology::{Refresher, Requests};
use super::verify::Verifier;
use crate::admin::Admin;
use crate::command::CommandTable;
use crate::config::{ClientAuth, Config, Listen};
use crate::tls::Tls;
use crate::users::Files;

/// How long the first refresh may keep `ready` waiting.
const FIRST_REFRESH: Duration = Duration::from_secs(2);
/// After the drain's end the workers have this long to notice it.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// A worker that lived shorter than this is not replaced at once, or a worker that fails at its
/// first step would be a busy loop.
const SHORT_LIFE: Duration = Duration::from_secs(10);
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Why slotway does not run, or did not end well.
#[derive(Debug, Error)]
pub enum RunError {
    /// Anybody could use it.
    #[error("protected_mode: {0}")]
    Unprotected(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// As configured.
        address: String,
        /// The reason and the way out.
        reason: String,
    },
    /// The files of `[tls.downstream]` or `[tls.upstream]` cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// A thread, the runtime or the signals cannot be had.
    #[error("cannot start {0}: {1}")]
    Start(&'static str, io::Error),
    /// Told to stop a second time: clients were not waited for.
    #[error("stopped at once by a second signal")]
    Interrupted,
}

impl RunError {
    pub(super) fn bind(key: &'static str, address: &str, error: io::Error) -> Self {
        let variable = format!("SLOTWAY_{}", key.replace('.', "__").to_uppercase());
        let flag = if key.contains('.') { format!("--set {key}") } else { format!("--{key}") };
        let elsewhere =
            format!("choose another with `{key}` in the configuration, {flag} or {variable}");
        let reason = match error.kind() {
            ErrorKind::AddrInUse => format!(
                "it is taken; stop the process that listens there (ss -lptn shows it), or {elsewhere}"
            ),
            ErrorKind::AddrNotAvailable => {
                format!("this machine does not have that address; {elsewhere}")
            }
            ErrorKind::PermissionDenied => {
                format!("not permitted (ports below 1024, folders of others); {elsewhere}")
            }
            _ => format!("{error}; {elsewhere}"),
        };
        RunError::Bind { address: address.to_owned(), reason }
    }
}

/// What slotway listens on, ports filled in where the configuration says 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundAddrs {
    /// For clients.
    pub listen: Vec<Listen>,
    /// For clients with TLS.
    pub tls: Vec<Listen>,
    /// For HTTP, if it is on.
    pub admin: Option<SocketAddr>,
}

/// Runs slotway until SIGTERM or SIGINT.
pub fn run(config: Config) -> Result<(), RunError> {
    run_until(config, |_| (), std::future::pending())
}

/// Runs slotway until SIGTERM, SIGINT or the end of `stop`; returns when the last worker has
/// ended. `ready` is called once: everything listens and the cluster was asked, which may have
/// failed (`/readyz` knows).
pub fn run_until(
    config: Config,
    ready: impl FnOnce(BoundAddrs),
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| RunError::Start("the runtime", e))?;
    let result = runtime.block_on(async {
        let (mut control, bound) = Control::start(config).await?;
        control.serve(bound, ready, stop).await
    });
    // A DNS lookup that hangs in its thread is not waited for.
    runtime.shutdown_background();
    result
}

/// The parts while they run.
struct Control {
    config: Arc<Config>,
    pool: Arc<Pool>,
    status: Arc<Status>,
    requests: Arc<Requests>,
    prober: Prober,
    verifier: Arc<Verifier>,
    from_workers: mpsc::UnboundedReceiver<ToControl>,
    signals: Signals,
    first_refresh: Arc<Notify>,
    /// Stopped first.
    acceptors: JoinSet<()>,
    /// Refresher and admin; they run to the end.
    others: JoinSet<()>,
}

impl Control {
    async fn start(config: Config) -> Result<(Control, BoundAddrs), RunError> {
        let config = Arc::new(config);
        accept::raise_file_limit(config.limits.clients, config.limits.dedicated);
        let signals = Signals::new().map_err(|e| RunError::Start("the signal handlers", e))?;

        // Everything that can fail for a reason of the user's comes first.
        let tls = Arc::new(Tls::load(&config).map_err(|faults| {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            RunError::Tls(faults.join("; "))
        })?);
        let mut listeners: Vec<Listener> = Vec::new();
        for listen in &config.listen {
            listeners.extend(accept::bind(listen).await?);
        }
        let mut secured: Vec<Listener> = Vec::new();
        for address in &config.tls.downstream.listen {
            secured.extend(accept::bind_tls(address).await?);
        }
        // Whoever has to show a certificate has shown who he is.
        if config.tls.downstream.client_auth != ClientAuth::Required {
            protect(&config, &secured)?;
        }
        protect(&config, &listeners)?;
        let mut admin_sockets = Vec::new();
        if let Some(address) = &config.admin {
            admin_sockets = accept::bind_tcp(address, "admin").await?;
        }
        let bound = BoundAddrs {
            listen: listeners.iter().map(|l| l.bound.clone()).collect(),
            tls: secured.iter().map(|l| l.bound.clone()).collect(),
            admin: admin_sockets.first().map(|(_, addr)| *addr),
        };

        let commands = Arc::new(CommandTable::builtin());
        let status = Arc::new(Status::new(Arc::clone(&commands)));
        let (to_control, from_workers) = mpsc::unbounded_channel();
        let pool = Pool::new(Arc::clone(&config), Arc::clone(&tls), commands, to_control)
            .map_err(|e| RunError::Start("the pub/sub hub", e))?;
        let pool = Arc::new(pool);
        for _ in 0..config.workers.count() {
            pool.start_one().map_err(|e| RunError::Start("a worker", e))?;
        }

        let mut others = JoinSet::new();
        let admin = Arc::new(Admin::new(&config, Arc::clone(&pool), Arc::clone(&status)));
        if !admin_sockets.is_empty() {
            let admin = Arc::clone(&admin);
            let watch = move || Arc::clone(&admin).watch();
            others.spawn(supervise("status".to_owned(), Arc::clone(&status), watch));
        }
        for (socket, _) in admin_sockets {
            let listener = tokio::net::TcpListener::from_std(socket.into())
                .map_err(|e| RunError::Start("the admin listener", e))?;
            let (admin, listener) = (Arc::clone(&admin), Arc::new(listener));
            let serve = move || Arc::clone(&admin).serve(Arc::clone(&listener));
            others.spawn(supervise("admin".to_owned(), Arc::clone(&status), serve));
        }
        let watch = {
            let tls = Arc::clone(&tls);
            move || Arc::clone(&tls).watch()
        };
        others.spawn(supervise("certificates".to_owned(), Arc::clone(&status), watch));
        let requests = Arc::new(Requests::default());
        let first_refresh = Arc::new(Notify::new());
        let refresh = {
            let (config, pool) = (Arc::clone(&config), Arc::clone(&pool));
            let (status, requests) = (Arc::clone(&status), Arc::clone(&requests));
            let first = Arc::clone(&first_refresh);
            move || {
                let (config, pool) = (Arc::clone(&config), Arc::clone(&pool));
                let (status, requests) = (Arc::clone(&status), Arc::clone(&requests));
                Refresher::new(config, pool, status, requests).run(Arc::clone(&first))
            }
        };
        others.spawn(supervise("topology".to_owned(), Arc::clone(&status), refresh));
        let watch = {
            let (config, pool, status) =
                (Arc::clone(&config), Arc::clone(&pool), Arc::clone(&status));
            move || {
                let (config, pool) = (Arc::clone(&config), Arc::clone(&pool));
                Replicas::new(config, pool, Arc::clone(&status)).run()
            }
        };
        others.spawn(supervise("replicas".to_owned(), Arc::clone(&status), watch));

        let files = Arc::new(Files::new(Arc::clone(&config)));
        let watch_files = {
            let (files, pool) = (Arc::clone(&files), Arc::clone(&pool));
            move || {
                let (files, pool) = (Arc::clone(&files), Arc::clone(&pool));
                async move { files.run(|users| pool.set_users(Arc::new(users))).await }
            }
        };
        others.spawn(supervise("files".to_owned(), Arc::clone(&status), watch_files));
        let verifier = Verifier::new(Arc::clone(&config), Arc::clone(&tls), Arc::clone(&status));
        if let Some(exporter) = pool.exporter() {
            let exporter = Arc::new(exporter);
            let export = move || Arc::clone(&exporter).run();
            others.spawn(supervise("tracing".to_owned(), Arc::clone(&status), export));
        }
        let alive = {
            let (pool, status) = (Arc::clone(&pool), Arc::clone(&status));
            move || notify::watchdog(Arc::clone(&pool), Arc::clone(&status))
        };
        others.spawn(supervise("watchdog".to_owned(), Arc::clone(&status), alive));

        let connect = config.timeouts.connect;
        let prober = Prober::new(Arc::clone(&pool), Arc::clone(&requests), connect);
        let acceptor = Acceptor {
            pool: Arc::clone(&pool),
            status: Arc::clone(&status),
            limit: config.limits.clients,
            keepalive: config.timeouts.keepalive,
        };
        let mut acceptors = JoinSet::new();
        for listener in listeners.into_iter().chain(secured) {
            let (acceptor, name) = (acceptor.clone(), listener.bound.to_string());
            let listener = Arc::new(listener);
            let accept = move || acceptor.clone().run(Arc::clone(&listener));
            acceptors.spawn(supervise(name, Arc::clone(&status), accept));
        }
        let control = Control {
            config,
            pool,
            status,
            requests,
            prober,
            verifier,
            from_workers,
            signals,
            first_refresh,
            acceptors,
            others,
        };
        Ok((control, bound))
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
        let first_refresh = Arc::clone(&self.first_refresh);
        let mut first =
            std::pin::pin!(tokio::time::timeout(FIRST_REFRESH, first_refresh.notified()));
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
                        notify::ready(self.pool.running());
                        ready();
                    }
                }
                Some(message) = self.from_workers.recv() => self.heard(message),
            }
        }
        self.drain().await
    }

    fn heard(&self, message: ToControl) {
        match message {
            ToControl::RefreshTopology { hint } => self.requests.topology(hint),
            ToControl::WatchReplicas => self.pool.replicas.start(),
            ToControl::RefreshCommands => self.requests.commands(),
            ToControl::Silent { node } => self.prober.look(node),
            ToControl::AskEveryone(inquiry) => self.pool.ask(inquiry),
            ToControl::Verify(verify) => {
                tokio::spawn(Arc::clone(&self.verifier).answer(*verify));
            }
            ToControl::Exited { worker } => self.replace(worker),
        }
    }

    /// A worker has ended that nobody told to: its clients are gone, the next ones need another.
    fn replace(&self, worker: usize) {
        let Some(lived) = self.pool.remove(worker) else { return };
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
                match pool.start_one() {
                    Ok(()) => return,
                    Err(error) => error!(%error, "cannot start a worker"),
                }
                pause = RESTART_PAUSE;
            }
        });
    }

    async fn drain(&mut self) -> Result<(), RunError> {
        let limit = self.config.timeouts.drain;
        self.status.draining.store(true, Relaxed);
        notify::stopping();
        self.acceptors.shutdown().await;
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
                    // What is in flight may still be redirected.
                    other => self.heard(other),
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
        self.others.shutdown().await;
        info!("stopped");
        Ok(())
    }
}

/// A name that stands for a public address was not known to be one when the configuration was read.
fn protect(config: &Config, listeners: &[Listener]) -> Result<(), RunError> {
    let public = |listener: &&Listener| match &listener.bound {
        Listen::Tcp(bound) => bound.host.parse().is_ok_and(crate::config::is_public),
        Listen::Unix(_) => false,
    };
    match listeners.iter().find(public) {
        Some(listener) if config.protected_mode && !config.asks_for_login() => {
            Err(RunError::Unprotected(crate::config::unprotected(&listener.bound.to_string())))
        }
        _ => Ok(()),
    }
}

/// SIGTERM and SIGINT.
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

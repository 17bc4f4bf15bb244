//! Applying a changed configuration: the one place that passes it to every part of the process.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::RunError;
use super::accept::ListenAddress;
use super::listeners::OpenSet;
use super::notify;
use super::reload::{self, ReloadCause};
use super::run::{Supervisor, warn_of_memory};
use super::sockets::SocketSource;
use crate::config::{Config, ReloadPlan, load};
use crate::metrics::ReloadOutcome;
use crate::tls::{Prepared, Tls};

/// A reason why a configuration does not take effect.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    /// An address cannot be listened on.
    #[error("{0}")]
    Run(#[from] RunError),
    /// The admin address cannot be listened on.
    #[error("the admin listener: {0}")]
    Admin(String),
    /// The files of `[tls.downstream]` or `[tls.upstream]` cannot be used.
    #[error("{0}")]
    Tls(String),
    /// The task that reads these files failed.
    #[error("looking at certificates failed: {0}")]
    Certificates(#[from] tokio::task::JoinError),
}

impl Supervisor {
    /// Reads the configuration again and applies it. An invalid one is logged and changes nothing.
    pub(super) async fn reload(&mut self, cause: ReloadCause) {
        // Until the start has finished, READY=1 would tell the service manager that it has.
        let tells = self.is_open && matches!(cause, ReloadCause::Signal | ReloadCause::File);
        if tells {
            notify::reloading();
        }
        let (outcome, restart) = match self.take(cause).await {
            Ok(outcome) => {
                if let Some(watch) = &mut self.watch {
                    watch.accepted();
                }
                outcome
            }
            Err(problems) => {
                let Some(watch) = &mut self.watch else { return };
                // A retry that fails for the same reason is not logged again.
                if !watch.rejected(&problems) && cause == ReloadCause::Retry {
                    return;
                }
                for problem in &problems {
                    error!(%problem, "the configuration is not valid");
                }
                error!("nothing is changed, the previous configuration stays in use");
                (ReloadOutcome::Invalid, 0)
            }
        };
        reload::count(&self.status.reloads, cause, outcome, restart);
        if tells {
            match outcome {
                ReloadOutcome::Invalid => notify::reload_rejected(self.pool.running()),
                _ => notify::ready(self.pool.running()),
            }
        }
    }

    /// The outcome, and the number of keys that differ and need a restart. `Err`: the problems.
    async fn take(&mut self, cause: ReloadCause) -> Result<(ReloadOutcome, usize), Vec<String>> {
        let Some(watch) = &self.watch else { return Ok((ReloadOutcome::Unchanged, 0)) };
        let loaded = load(&watch.reload.sources);
        let loaded = loaded.and_then(|loaded| loaded.require_seeds().map(|()| loaded));
        let wanted = match loaded {
            Ok(loaded) => loaded.config,
            Err(error) => return Err(error.problems.iter().map(ToString::to_string).collect()),
        };
        let running = self.pool.config();
        let plan = ReloadPlan::new(&running, &wanted);
        let upstreams =
            |config: &Config| config.upstream_names().iter().map(|&name| name.to_owned()).collect();
        let (were, are): (Vec<String>, Vec<String>) =
            (upstreams(&running), upstreams(&plan.config));
        if were != are || running.slot_map() != plan.config.slot_map() {
            let (were, are) = (were.join(", "), are.join(", "));
            return Err(vec![format!(
                "upstreams: which there are, in which order and of which kinds needs a restart to \
                 change; there are {were}, and were to be {are}"
            )]);
        }
        if !plan.changes.is_empty() {
            self.apply(Arc::new(plan.config)).await.map_err(|why| vec![why.to_string()])?;
        } else if cause == ReloadCause::Signal {
            info!("the configuration was read again and has not changed");
            // workers = "auto": the number of cores may have changed.
            self.set_workers();
        }
        if cause == ReloadCause::Signal {
            self.check_files().await;
        }
        for difference in &plan.restart {
            let (key, old, new) = (&difference.path, &difference.old, &difference.new);
            warn!(key, old, new, "this key needs a restart; the old value stays in use");
        }
        for difference in &plan.changes {
            let (key, old, new) = (&difference.path, &difference.old, &difference.new);
            info!(key, old, new, "the configuration has changed");
        }
        let outcome =
            if plan.changes.is_empty() { ReloadOutcome::Unchanged } else { ReloadOutcome::Changed };
        Ok((outcome, plan.restart.len()))
    }

    /// Applies `config`. Everything that can fail comes first, so that an error changes nothing.
    async fn apply(&mut self, config: Arc<Config>) -> Result<(), ApplyError> {
        let tls = Arc::clone(self.pool.tls());
        let secured = match tls.is_of(&config) {
            true => None,
            false => Some(prepare_tls(&config).await?),
        };
        let mut sockets = SocketSource::new(&config);
        let listeners = self.listeners.prepare(&config, &mut sockets).await?;
        self.listeners.protect(&config, &listeners)?;
        let admin = self.admin_listeners.prepare(config.admin.as_ref(), &mut sockets).await;
        if let Some(prepared) = admin? {
            let opened = self.admin_listeners.open(config.admin.clone(), prepared, &self.admin);
            opened.map_err(|error| ApplyError::Admin(error.to_string()))?;
        }

        if let Some(watch) = &mut self.watch {
            (watch.reload.log_level)(&config.log.level);
            watch.watch_files_of(&config);
        }
        if let Some(prepared) = secured {
            tls.take(prepared);
        }
        if self.pool.config().limits.memory != config.limits.memory {
            warn_of_memory(&config);
        }
        self.pool.set_config(Arc::clone(&config));
        self.set_workers();
        // Old listeners are closed before the users change, new ones opened after: a client must
        // not log in at an address under the users of a configuration without that address.
        self.listeners.retain(&ListenAddress::all(&config));
        self.listeners.wait_closed().await;
        let pool = &self.pool;
        self.files.change(Arc::clone(&config), |users| pool.announce().users(Arc::new(users)));
        self.verifier.renew();
        self.listeners.add(listeners);
        if self.is_open {
            self.listeners.open(&self.acceptor, OpenSet::All);
        }
        // The refreshers and the watchers of replicas read the configuration once per round: start
        // one.
        self.requests.topology(None, None);
        self.pool.replicas.reconsider(&config);
        self.pool.descriptors().update();
        Ok(())
    }

    /// Reads the files that the configuration names again.
    async fn check_files(&self) {
        self.files.check(|users| self.pool.announce().users(Arc::new(users)));
        Arc::clone(self.pool.tls()).reload().await;
    }

    fn set_workers(&self) {
        if let Err(error) = self.pool.set_workers(self.pool.config().workers.count()) {
            error!(%error, "cannot start a worker");
        }
    }
}

/// Reads the certificates of `config` on another thread, because a disk may hang.
async fn prepare_tls(config: &Arc<Config>) -> Result<Prepared, ApplyError> {
    let config = Arc::clone(config);
    let prepared = tokio::task::spawn_blocking(move || Tls::prepare(&config)).await;
    match prepared {
        Ok(prepared) => prepared.map_err(|faults| ApplyError::Tls(super::run::join(&faults))),
        Err(error) => Err(error.into()),
    }
}

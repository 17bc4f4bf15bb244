//! A new configuration takes effect: the one place that tells every part.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::accept;
use super::listeners::Tenures;
use super::reload::{Cause, Outcome};
use super::run::Control;
use super::sockets::Sockets;
use crate::config::{Config, Plan, load};

impl Control {
    /// Reads the sources anew and uses what they say. What is wrong with them changes nothing.
    pub(super) async fn reload(&mut self, cause: Cause) {
        let (outcome, restart) = self.take(cause).await;
        self.status.reloads.count(cause, outcome, restart);
    }

    /// What it came to, and how many keys wait for a restart.
    async fn take(&mut self, cause: Cause) -> (Outcome, usize) {
        let Some(watch) = &self.watch else { return (Outcome::Unchanged, 0) };
        let loaded = load(&watch.reload.sources);
        let loaded = loaded.and_then(|loaded| loaded.need_seeds().map(|()| loaded));
        let wanted = match loaded {
            Ok(loaded) => loaded.config,
            Err(error) => {
                for problem in &error.problems {
                    error!(%problem, "the configuration is not valid");
                }
                error!("nothing is changed, the configuration from before stays in use");
                return (Outcome::Invalid, 0);
            }
        };
        let plan = Plan::new(&self.pool.config(), &wanted);
        for difference in &plan.restart {
            let (key, old, new) = (difference.key.path, &difference.old, &difference.new);
            warn!(key, old, new, "this key needs a restart, the old value stays in use");
        }
        let restart = plan.restart.len();
        if plan.changes.is_empty() {
            if cause == Cause::Asked {
                info!("the configuration was read anew, and nothing in it has changed");
                // As many as there are cores: that may be another number by now.
                self.set_workers();
            }
            return (Outcome::Unchanged, restart);
        }
        if let Err(why) = self.apply(Arc::new(plan.config)).await {
            error!(why, "nothing is changed, the configuration from before stays in use");
            return (Outcome::Invalid, restart);
        }
        for difference in &plan.changes {
            let (key, old, new) = (difference.key.path, &difference.old, &difference.new);
            info!(key, old, new, "the configuration has changed");
        }
        (Outcome::Changed, restart)
    }

    /// What can fail comes first. `Err`: why nothing was changed.
    async fn apply(&mut self, config: Arc<Config>) -> Result<(), String> {
        let mut sockets = Sockets::new(&config);
        let failed = |error: super::RunError| error.to_string();
        let listeners = self.listeners.prepare(&config.listen, &mut sockets).await;
        let listeners = listeners.map_err(failed)?;
        let admin = self.admin_listeners.prepare(config.admin.as_ref(), &mut sockets).await;
        let admin = admin.map_err(failed)?;
        if let Some(prepared) = admin {
            let opened = self.admin_listeners.open(config.admin.clone(), prepared, &self.admin);
            opened.map_err(|error| format!("the admin listener: {error}"))?;
        }

        if let Some(watch) = &self.watch {
            (watch.reload.log_level)(&config.log.level);
        }
        accept::raise_file_limit(config.limits.clients, config.limits.dedicated);
        self.pool.set_config(Arc::clone(&config));
        self.set_workers();
        self.listeners.add(listeners);
        if self.is_open {
            self.listeners.open(&self.acceptor, Tenures::All);
        }
        self.listeners.retain(&config.listen);
        // The refresher and the one that looks at replicas read the configuration at the beginning
        // of each round.
        self.requests.topology(None);
        self.pool.replicas.reconsider(&config);
        Ok(())
    }

    fn set_workers(&self) {
        if let Err(error) = self.pool.set_workers(self.pool.config().workers.count()) {
            error!(%error, "cannot start a worker");
        }
    }
}

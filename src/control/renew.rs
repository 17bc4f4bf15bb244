//! The pool under a new configuration, and with a new number of workers.

use std::sync::Arc;

use tracing::debug;

use super::pool::{Inner, Pool};
use crate::config::Config;
use crate::mailbox::ToHub;
use crate::mailbox::ToWorker;
use crate::observe::SlowLogSettings;

impl Pool {
    /// The configuration in use.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.inner().config)
    }

    /// Uses `config` from now on, except for the number of workers ([`Pool::set_workers`]).
    pub fn set_config(&self, config: Arc<Config>) {
        self.shared().scripts.set_limit(config.limits.scripts);
        self.tell_hub(ToHub::Config(Arc::clone(&config)));
        let mut inner = self.inner();
        // Values set by CONFIG SET stay until those of the file change.
        if inner.config.slowlog != config.slowlog {
            self.shared().slow.set(SlowLogSettings::configured(
                config.slowlog.slower_than,
                config.slowlog.max_len,
            ));
        }
        inner.upstreams.set_config(&config);
        inner.config = config;
        inner.tell_config();
        drop(inner);
        self.descriptors().update();
    }

    /// Starts workers, or retires those that were started last, until `wanted` workers get new
    /// clients. A retiring worker ends when its last client has gone.
    ///
    /// # Errors
    /// A worker cannot be started; the others go on.
    pub fn set_workers(&self, wanted: usize) -> std::io::Result<()> {
        let before = self.serving();
        if wanted == before {
            return Ok(());
        }
        debug!(before, wanted, "another number of workers");
        for _ in before..wanted {
            self.start_one()?;
        }
        let mut inner = self.inner();
        let superfluous = before.saturating_sub(wanted);
        let open = inner.running.iter_mut().rev().filter(|worker| !worker.retiring);
        for worker in open.take(superfluous) {
            worker.retiring = true;
            // If it has ended already, control has been told.
            worker.handle.send(ToWorker::Retire);
        }
        inner.tell_config();
        drop(inner);
        self.descriptors().update();
        Ok(())
    }

    /// Number of workers that get new clients.
    fn serving(&self) -> usize {
        self.inner().running.iter().filter(|worker| !worker.retiring).count()
    }

    /// Whether the worker is retiring.
    pub fn is_retiring(&self, index: usize) -> bool {
        self.inner().running.iter().any(|worker| worker.index == index && worker.retiring)
    }
}

impl Inner {
    /// Sends the configuration to all workers, with the number among which limits are divided;
    /// retiring ones count.
    pub(super) fn tell_config(&self) {
        let workers = self.running.len();
        for worker in &self.running {
            let config = Arc::clone(&self.config);
            // A worker that has ended is noticed elsewhere.
            worker.handle.send(ToWorker::Config { config, workers });
        }
    }
}

//! The workers under another configuration, and another number of them.

use std::sync::Arc;

use tracing::debug;

use super::pool::{Inner, Pool};
use crate::config::Config;
use crate::mailbox::ToHub;
use crate::mailbox::ToWorker;
use crate::seen::SlowSetting;

impl Pool {
    /// What is in use now.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.inner().config)
    }

    /// Runs by `config` from now on; the number of workers is said apart.
    pub fn set_config(&self, config: Arc<Config>) {
        self.shared().scripts.set_limit(config.limits.scripts);
        self.tell_hub(ToHub::Config(Arc::clone(&config)));
        let mut inner = self.inner();
        // What CONFIG SET has said stays until the file says something else.
        if inner.config.slowlog != config.slowlog {
            self.shared()
                .slow
                .set(SlowSetting::configured(config.slowlog.slower_than, config.slowlog.max_len));
        }
        inner.config = config;
        inner.tell_config();
        drop(inner);
        self.share_descriptors();
    }

    /// So many workers get new clients: more are started, or those that were started last get no
    /// new ones and end when they have none.
    ///
    /// # Errors
    /// One cannot be started; the others go on.
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
            // One that has ended already has told control so.
            worker.handle.send(ToWorker::Retire);
        }
        inner.tell_config();
        drop(inner);
        self.share_descriptors();
        Ok(())
    }

    /// Workers that get clients.
    fn serving(&self) -> usize {
        self.inner().running.iter().filter(|worker| !worker.retiring).count()
    }

    /// It was told to end.
    pub fn is_retiring(&self, index: usize) -> bool {
        self.inner().running.iter().any(|worker| worker.index == index && worker.retiring)
    }
}

impl Inner {
    /// Each worker has its share of what is limited for all together, the leaving ones as well.
    pub(super) fn tell_config(&self) {
        let workers = self.running.len();
        for worker in &self.running {
            let config = Arc::clone(&self.config);
            // One that has ended is found out elsewhere.
            worker.handle.send(ToWorker::Config { config, workers });
        }
    }
}

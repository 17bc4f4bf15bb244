//! What the workers of a process share. Nothing of it is touched for ordinary commands.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::config::Config;
use crate::pubsub::Hub;
use crate::scripts::ScriptStore;
use crate::tls::Tls;
use crate::users::Throttle;

/// Shared by all workers.
#[derive(Debug)]
pub struct Shared {
    /// Dedicated connections that are lent, of all workers (`limits.dedicated`).
    dedicated: AtomicUsize,
    /// Clients that watch by MONITOR.
    pub monitors: AtomicUsize,
    /// Who has failed to log in lately.
    pub throttle: Mutex<Throttle>,
    /// The zero of the workers' clocks.
    pub started: Instant,
    /// Lua scripts.
    pub scripts: Arc<ScriptStore>,
    /// The pub/sub hub.
    pub hub: Hub,
    /// Certificates and what they are for.
    pub tls: Arc<Tls>,
    /// Why nothing is known of the cluster.
    trouble: Mutex<Option<String>>,
}

impl Shared {
    /// What workers share that run by `config`.
    pub fn new(config: &Config, tls: Arc<Tls>, hub: Hub) -> Self {
        let scripts = Arc::new(ScriptStore::new(config.limits.scripts));
        Shared {
            dedicated: AtomicUsize::new(0),
            monitors: AtomicUsize::new(0),
            throttle: Mutex::default(),
            started: Instant::now(),
            scripts,
            hub,
            tls,
            trouble: Mutex::default(),
        }
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
    pub fn no_cluster_yet(&self) -> String {
        let why = self.trouble().map(|why| format!("; last: {why}")).unwrap_or_default();
        format!(
            "CLUSTERDOWN slotway does not know the cluster: no seed has answered yet \
             (configuration key: seeds){why}"
        )
    }

    /// One more dedicated connection is lent. `false`: `most` are.
    pub fn lend(&self, most: usize) -> bool {
        let more = |n: usize| (n < most).then_some(n + 1);
        self.dedicated.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// One that was lent is not any more.
    pub fn give_back(&self) {
        // Each was counted when it was lent, so there is one to take off.
        let _ = self.dedicated.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
    }
}

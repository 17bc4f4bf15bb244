//! Whether, and when, the health of replicas is checked.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::Notify;

use crate::config::{Config, InFailover, ReadFrom};

/// Whether replicas are checked, and the signal to check them now.
#[derive(Debug, Default)]
pub struct ReplicaWatch {
    wanted: AtomicBool,
    pub(super) wake: Notify,
}

impl ReplicaWatch {
    /// On if `config` reads from replicas.
    pub fn new(config: &Config) -> Self {
        let wanted = config.read_from != ReadFrom::Primary
            || config.replicas.in_failover == InFailover::Read;
        ReplicaWatch { wanted: AtomicBool::new(wanted), wake: Notify::new() }
    }

    /// Whether replicas are checked.
    pub(super) fn is_on(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    /// Checks replicas from now on: a client reads from them.
    pub fn start(&self) {
        if !self.wanted.swap(true, Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Checks replicas from now on if `config` reads from them, and at once.
    pub fn reconsider(&self, config: &Config) {
        if ReplicaWatch::new(config).wanted.into_inner() {
            self.wanted.store(true, Relaxed);
        }
        self.changed();
    }

    /// Has replicas checked now: the topology has changed.
    pub fn changed(&self) {
        if self.wanted.load(Relaxed) {
            self.wake.notify_one();
        }
    }
}

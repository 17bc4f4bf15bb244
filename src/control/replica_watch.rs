//! Whether replicas are to be looked at.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::Notify;

use crate::config::{Config, InFailover, ReadFrom};

/// Whether replicas are to be looked at, and when.
#[derive(Debug, Default)]
pub struct ReplicaWatch {
    wanted: AtomicBool,
    pub(super) wake: Notify,
}

impl ReplicaWatch {
    /// What the configuration wishes.
    pub fn new(config: &Config) -> Self {
        let wanted = config.read_from != ReadFrom::Primary
            || config.replicas.in_failover == InFailover::Read;
        ReplicaWatch { wanted: AtomicBool::new(wanted), wake: Notify::new() }
    }

    /// Replicas are looked at.
    pub(super) fn is_on(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    /// Somebody reads from replicas from now on.
    pub fn start(&self) {
        if !self.wanted.swap(true, Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Another configuration.
    pub fn reconsider(&self, config: &Config) {
        if ReplicaWatch::new(config).wanted.into_inner() {
            self.wanted.store(true, Relaxed);
        }
        self.changed();
    }

    /// The topology has changed.
    pub fn changed(&self) {
        if self.wanted.load(Relaxed) {
            self.wake.notify_one();
        }
    }
}

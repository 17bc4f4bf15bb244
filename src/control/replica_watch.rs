//! Whether, and when, the health of replicas is checked.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::Notify;

use crate::cluster::UpstreamId;
use crate::config::{Config, InFailover, ReadFrom};

/// Whether replicas are checked, by upstream, and the signal to check them now.
#[derive(Debug)]
pub struct ReplicaWatch(Box<[UpstreamWatch]>);

#[derive(Debug)]
struct UpstreamWatch {
    wanted: AtomicBool,
    wake: Notify,
}

impl ReplicaWatch {
    /// On where `config` reads from replicas.
    pub fn new(config: &Config) -> Self {
        let one = |at| UpstreamWatch {
            wanted: AtomicBool::new(reads_from_replicas(config, UpstreamId(at as u8))),
            wake: Notify::new(),
        };
        ReplicaWatch((0..config.upstream_names().len()).map(one).collect())
    }

    /// Whether replicas of any upstream are checked.
    pub(super) fn is_on(&self) -> bool {
        self.0.iter().any(|one| one.wanted.load(Relaxed))
    }

    /// Whether replicas of this upstream are checked.
    pub(super) fn is_on_at(&self, id: UpstreamId) -> bool {
        self.0.get(id.at()).is_some_and(|one| one.wanted.load(Relaxed))
    }

    /// Waits until replicas of this upstream are to be checked at once.
    pub(super) async fn woken(&self, id: UpstreamId) {
        match self.0.get(id.at()) {
            Some(one) => one.wake.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Checks replicas from now on: a client reads from them.
    pub fn start(&self) {
        for one in self.0.iter().filter(|one| !one.wanted.swap(true, Relaxed)) {
            one.wake.notify_one();
        }
    }

    /// Checks replicas from now on where `config` reads from them, and at once.
    pub fn reconsider(&self, config: &Config) {
        for (at, one) in self.0.iter().enumerate() {
            let id = UpstreamId(at as u8);
            if reads_from_replicas(config, id) {
                one.wanted.store(true, Relaxed);
            }
            self.changed(id);
        }
    }

    /// Has replicas of an upstream checked now: its topology has changed.
    pub fn changed(&self, id: UpstreamId) {
        if let Some(one) = self.0.get(id.at()).filter(|one| one.wanted.load(Relaxed)) {
            one.wake.notify_one();
        }
    }
}

fn reads_from_replicas(config: &Config, id: UpstreamId) -> bool {
    let read_from = config.named_upstream(id).map_or(config.read_from, |named| named.read_from);
    read_from != ReadFrom::Primary || config.replicas.in_failover == InFailover::Read
}

//! What the workers ask of the refresher.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cluster::NodeAddr;

/// For so long a node counts as silent after it was asked in vain; while it owes an answer it is
/// asked more often than that.
const SILENT_FOR: Duration = Duration::from_secs(3);

/// What the workers asked for and the refresher has not seen to yet. Any number of requests is one.
#[derive(Debug, Default)]
pub struct Requests {
    pending: Mutex<Pending>,
    pub(super) wake: Notify,
    /// Nodes that were asked for a sign of life in vain, and when.
    silent: Mutex<HashMap<SocketAddr, Instant>>,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    pub topology: bool,
    /// A worker asked: it is told the topology again even if it is the same, for it may have
    /// learned otherwise from a redirection.
    pub(super) by_worker: bool,
    pub hint: Option<NodeAddr>,
    pub commands: bool,
}

impl Requests {
    /// The topology may have changed; `hint` is likely to know.
    pub fn topology(&self, hint: Option<NodeAddr>) {
        self.put(|pending| {
            pending.topology = true;
            pending.by_worker = true;
            if hint.is_some() {
                pending.hint = hint;
            }
        });
    }

    /// This node was asked for a sign of life and gave none: what does the cluster say of it?
    pub fn silent(&self, node: SocketAddr) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.insert(node, Instant::now());
        drop(silent);
        self.put(|pending| pending.topology = true);
    }

    /// The nodes that gave none a short while ago.
    pub(super) fn silent_now(&self) -> HashSet<SocketAddr> {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|_, at| at.elapsed() < SILENT_FOR);
        silent.keys().copied().collect()
    }

    /// There may be commands that the table does not have.
    pub fn commands(&self) {
        self.put(|pending| pending.commands = true);
    }

    fn put(&self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }

    pub(super) fn take(&self) -> Pending {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

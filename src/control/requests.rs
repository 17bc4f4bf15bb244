//! Requests to the refresher, and the nodes that are silent.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cluster::NodeAddr;

/// How long a node counts as silent after a probe without an answer. While it owes a reply it is
/// probed more often than that.
const SILENT_FOR: Duration = Duration::from_secs(3);

/// Requests that the refresher has not taken yet. Any number of them are merged into one.
#[derive(Debug, Default)]
pub struct Requests {
    pending: Mutex<Pending>,
    pub(super) wake: Notify,
    /// Silent nodes, with the time of their last probe.
    silent: Mutex<HashMap<SocketAddr, Instant>>,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    pub topology: bool,
    /// A worker has asked. It is sent the topology even if that has not changed, because a
    /// redirection may have changed the worker's view.
    pub(super) by_worker: bool,
    pub hint: Option<NodeAddr>,
    pub commands: bool,
}

impl Requests {
    /// Requests a refresh of the topology; `hint` is a node that is likely to have the new one.
    pub fn topology(&self, hint: Option<NodeAddr>) {
        self.put(|pending| {
            pending.topology = true;
            pending.by_worker = true;
            if hint.is_some() {
                pending.hint = hint;
            }
        });
    }

    /// Notes that a node did not answer a probe, and requests a refresh: the cluster may have
    /// replaced the node.
    pub fn silent(&self, node: SocketAddr) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.insert(node, Instant::now());
        drop(silent);
        self.put(|pending| pending.topology = true);
    }

    /// The nodes that count as silent now.
    pub(super) fn silent_now(&self) -> HashSet<SocketAddr> {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|_, at| at.elapsed() < SILENT_FOR);
        silent.keys().copied().collect()
    }

    /// Requests a refresh of the command table.
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

//! Requests to the refresher, and the nodes that are silent.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cluster::{NodeAddr, UpstreamId};

/// How long a node counts as silent after a probe without an answer. While it owes a reply it is
/// probed more often than that.
const SILENT_FOR: Duration = Duration::from_secs(3);

/// Requests to the refreshers of all upstreams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AllRequests(Arc<[Arc<Requests>]>);

impl AllRequests {
    /// No requests to the refreshers of so many upstreams.
    pub fn new(upstreams: usize) -> AllRequests {
        AllRequests((0..upstreams).map(|_| Arc::default()).collect())
    }

    /// Those of each upstream, by ID.
    pub fn each(&self) -> impl Iterator<Item = (UpstreamId, &Arc<Requests>)> {
        self.0.iter().enumerate().map(|(at, requests)| (UpstreamId(at as u8), requests))
    }

    /// Requests a refresh of the topology of an upstream; `None`: of all, as it is not known which
    /// one is concerned. For `hint` see [`Requests::topology`].
    pub fn topology(&self, upstream: Option<UpstreamId>, hint: Option<&NodeAddr>) {
        self.concerned(upstream).for_each(|requests| requests.topology(hint.cloned()));
    }

    /// Requests a refresh of the command tables.
    pub fn commands(&self) {
        self.concerned(None).for_each(|requests| requests.commands());
    }

    /// Notes that a node of an upstream is silent; see [`Requests::silent`].
    pub(super) fn silent(&self, upstream: UpstreamId, node: SocketAddr) {
        self.concerned(Some(upstream)).for_each(|requests| requests.silent(node));
    }

    fn concerned(&self, upstream: Option<UpstreamId>) -> impl Iterator<Item = &Requests> {
        self.each().filter(move |(id, _)| upstream.is_none_or(|up| up == *id)).map(|(_, r)| &**r)
    }
}

/// Requests that the refresher of an upstream has not taken yet. Any number of them are merged into one.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_concerned_is_not_asked() {
        let all = AllRequests::new(3);
        let hint = NodeAddr { host: "a".into(), port: 1 };
        let taken = || {
            let taken: Vec<Pending> = all.each().map(|(_, requests)| requests.take()).collect();
            taken.iter().map(|p| (p.topology, p.hint.is_some(), p.commands)).collect::<Vec<_>>()
        };
        all.topology(Some(UpstreamId(1)), Some(&hint));
        let nothing = (false, false, false);
        assert_eq!(taken(), [nothing, (true, true, false), nothing]);
        all.topology(None, None);
        assert_eq!(taken(), [(true, false, false); 3]);
        all.commands();
        assert_eq!(taken(), [(false, false, true); 3]);
        let node = SocketAddr::from(([127, 0, 0, 1], 1));
        all.silent(UpstreamId(2), node);
        let silent: Vec<usize> = all.each().map(|(_, r)| r.silent_now().len()).collect();
        assert_eq!(silent, [0, 0, 1]);
    }
}

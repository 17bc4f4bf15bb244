//! How the limit on open files is shared out among a pool's workers and their clients.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{MutexGuard, PoisonError};

use super::pool::{Pool, demand};
use crate::descriptors::{DescriptorBudget, Descriptors};
use crate::mailbox::ToWorker;

/// The distribution of file descriptors in a pool.
pub(crate) struct DescriptorShares<'a> {
    pool: &'a Pool,
}

impl Pool {
    /// The distribution of file descriptors.
    pub(crate) fn descriptors(&self) -> DescriptorShares<'_> {
        DescriptorShares { pool: self }
    }
}

impl DescriptorShares<'_> {
    fn lock(&self) -> MutexGuard<'_, Descriptors> {
        self.pool.descriptors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current distribution of file descriptors.
    pub(crate) fn budget(&self) -> DescriptorBudget {
        self.lock().budget()
    }

    /// Distributes file descriptors anew if the limit on open files was changed from outside.
    pub(crate) fn check(&self) {
        let outdated = self.lock().is_outdated();
        if outdated {
            self.update();
        }
    }

    /// Distributes file descriptors anew, after a change of the topology, the workers, the
    /// configuration or the limit on open files. If fewer are left for clients than there are, the
    /// clients that have been idle longest are closed: nodes could not be reached otherwise.
    pub(crate) fn update(&self) {
        let (demand, configured) = {
            let inner = self.pool.inner();
            (demand(&inner, &self.pool.replicas), inner.config.limits.clients)
        };
        let budget = {
            let mut descriptors = self.lock();
            descriptors.update(demand);
            descriptors.budget()
        };
        self.pool.shared().set_budget(&budget);
        if budget.clients < configured {
            self.shed(budget.clients);
        }
    }

    /// Closes clients down to `most`, in each worker the same proportion.
    fn shed(&self, most: usize) {
        let inner = self.pool.inner();
        let counts: Vec<usize> =
            inner.running.iter().map(|w| w.handle.clients.load(Relaxed)).collect();
        let total: usize = counts.iter().sum();
        let (mut clients, mut stay) = (total, most);
        if total <= most {
            return;
        }
        for (worker, count) in inner.running.iter().zip(counts) {
            // A share of what is left of `stay`, so that the shares add up.
            let keep = (count * stay).checked_div(clients).unwrap_or(0);
            (clients, stay) = (clients - count, stay - keep);
            worker.handle.send(ToWorker::Shed { keep });
        }
    }
}

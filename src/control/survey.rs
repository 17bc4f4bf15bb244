//! Questions to all workers, which answer within a time limit or not at all.

use std::time::Duration;

use tokio::sync::oneshot;

use super::pool::{Pool, Running};
use crate::client::Census;
use crate::mailbox::ToWorker;
use crate::metrics::Totals;
use crate::observe::ObservedKeys;

/// The result of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// The counters of all workers, ended ones included.
    pub totals: Totals,
    /// Number of workers that run.
    pub running: usize,
    /// Number of workers that answered in time; for the others the last known counters are used.
    pub answered: usize,
}

impl Scrape {
    /// Whether all workers respond. During a drain it is normal that they end.
    pub fn is_well(&self, draining: bool) -> bool {
        self.answered >= self.running && (self.running > 0 || draining)
    }
}

/// Questions to the workers of a pool.
pub(crate) struct Survey<'a> {
    pool: &'a Pool,
}

impl Pool {
    /// Questions to the workers.
    pub(crate) fn survey(&self) -> Survey<'_> {
        Survey { pool: self }
    }
}

impl Survey<'_> {
    /// Asks all workers, and passes on the answers that come within `limit`, with the workers'
    /// indexes.
    async fn ask<T>(
        &self,
        limit: Duration,
        question: fn(oneshot::Sender<T>) -> ToWorker,
        mut take: impl FnMut(usize, T),
    ) {
        let asked: Vec<_> = {
            let inner = self.pool.inner();
            let ask = |w: &Running| {
                let (sender, receiver) = oneshot::channel();
                w.handle.send(question(sender));
                (w.index, receiver)
            };
            inner.running.iter().map(ask).collect()
        };
        let deadline = tokio::time::Instant::now() + limit;
        for (index, receiver) in asked {
            if let Ok(Ok(answer)) = tokio::time::timeout_at(deadline, receiver).await {
                take(index, answer);
            }
        }
    }

    /// What the workers have observed of keys, as far as they answer within `limit`.
    pub(crate) async fn seen(&self, limit: Duration) -> ObservedKeys {
        let mut seen = ObservedKeys::default();
        self.ask(limit, ToWorker::Seen, |_, one| seen.merge(*one)).await;
        seen
    }

    /// A summary of all clients, as far as workers answer within `limit`.
    pub(crate) async fn census(&self, limit: Duration) -> Census {
        let mut all = Census::default();
        self.ask(limit, ToWorker::Census, |_, census| all.merge(*census)).await;
        all
    }

    /// Collects the counters of all workers, waiting no longer than `limit`.
    pub(crate) async fn scrape(&self, limit: Duration) -> Scrape {
        let mut answered = 0;
        let keep = |index, stats| {
            answered += 1;
            let mut inner = self.pool.inner();
            if let Some(worker) = inner.running.iter_mut().find(|w| w.index == index) {
                worker.last = stats;
            }
        };
        self.ask(limit, ToWorker::Scrape, keep).await;
        let inner = self.pool.inner();
        let mut totals = Totals::default();
        for worker in &inner.running {
            totals.add(&worker.last);
        }
        // Of ended workers' nodes only those that are still in use count.
        let mut ended = inner.ended.clone();
        ended.nodes.retain(|addr, _| totals.nodes.contains_key(addr));
        totals.merge(&ended);
        Scrape { totals, running: inner.running.len(), answered }
    }
}

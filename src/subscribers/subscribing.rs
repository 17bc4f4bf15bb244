//! PUBLISHes that wait for subscriptions before them.

use std::sync::Arc;

use crate::clients::subscribers::{Progress, WaitingPublisher};
use crate::common::Core;
use crate::hash::IntMap;
use crate::mailbox::{ReadBarrier, Serial, ToWorker};
use crate::subscribers::Subscribers;

/// Clients whose PUBLISH waits.
#[derive(Debug, Default)]
pub(crate) struct WaitingPublishers {
    /// For the barrier that is sent when the turn ends.
    pub(crate) unsent: Vec<WaitingPublisher>,
    /// By barrier: until all other workers have read what had arrived.
    pub(crate) by_barrier: IntMap<u64, Vec<WaitingPublisher>>,
    last_barrier: u64,
    /// By the subscription command that is waited for.
    pub(crate) by_serial: IntMap<Serial, Vec<WaitingPublisher>>,
    /// How far the client has come that is being resumed.
    pub(crate) resumed: Option<Progress>,
}

impl Subscribers {
    /// The turn ends: the other workers are told of those that have begun to wait in it.
    pub(crate) fn send_barrier(&mut self, core: &mut Core) {
        let waiting = &mut self.waiting_publishers;
        if waiting.unsent.is_empty() {
            return;
        }
        waiting.last_barrier += 1;
        let id = waiting.last_barrier;
        waiting.by_barrier.insert(id, std::mem::take(&mut waiting.unsent));
        let barrier = Arc::new(ReadBarrier { id, worker: core.link.own.clone() });
        for (_, worker) in
            core.shared.workers().iter().filter(|(index, _)| *index != core.link.index)
        {
            // One that has ended lets go of it at once.
            let _ = worker.send(ToWorker::Read(Arc::clone(&barrier)));
        }
    }

    /// All that the last poll said is readable has been read. What arrived before a barrier may not
    /// have been among it when the barrier came in this very turn.
    #[inline]
    pub(crate) fn release_barriers(&mut self, core: &mut Core) {
        if !self.barriers.is_empty() {
            let turn = core.stats.turns;
            self.barriers.retain(|(came, _)| *came == turn);
        }
    }
}

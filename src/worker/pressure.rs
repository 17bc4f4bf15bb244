//! At `limits.memory`: new commands are refused, and clients that hold much of it have to go, so
//! that the others can go on.
//!
//! What fills the memory may be nobody's fault (a node that takes no commands): that passes, and
//! refusing is enough. But what clients do not take, and what they do not finish, stays until they
//! are closed: the largest first, while clients' buffers are more than half of the limit.

use crate::client::Client;
use crate::common::clock::{Job, Timer};
use crate::metrics::LimitHit;
use crate::sparsely;
use crate::worker::Worker;
use std::sync::atomic::Ordering::Relaxed;

/// Nobody is closed for holding so little: it is less than what closing one by one would win.
const LITTLE: usize = 2 << 10;

/// When nobody was closed, the clients are not looked through again for so long, microseconds.
const PAUSE: u64 = 10_000;

/// How long freed pages are kept, microseconds.
const PURGE_AFTER: u64 = 1_000_000;

impl Worker {
    /// At the end of a turn.
    #[inline]
    pub(super) fn relieve(&mut self) {
        self.engine.core.keep_or_give_back(self.engine.nodes.placement.slots.holds.bytes());
        // The steady state neither allocates nor frees. What other threads free of what this one
        // allocated is not counted here; it was told to them within the second that is waited for.
        if self
            .engine
            .core
            .memory
            .purged_at
            .is_some_and(|activity| activity != self.engine.core.memory.meter.activity())
        {
            self.engine.core.memory.purged_at = None;
            self.engine
                .core
                .clock
                .timers
                .push(Timer { due: self.engine.core.now + PURGE_AFTER, job: Job::Purge });
        }
        if self.engine.core.memory.accounted
            + self.engine.nodes.placement.slots.holds.bytes()
            + self.engine.core.spare.pool.bytes()
            > self.engine.core.settings.memory
        {
            self.make_room();
        }
    }

    #[cold]
    fn make_room(&mut self) {
        self.engine.nodes.trim(&mut self.engine.core);
        if self.engine.core.now < self.engine.core.clock.next_relief
            || !self
                .engine
                .clients
                .memory()
                .is_over_limit(&mut self.engine.nodes, &mut self.engine.core)
        {
            return;
        }
        let (held, limit) = (
            self.engine.core.memory.accounted + self.engine.nodes.placement.slots.holds.bytes(),
            self.engine.core.settings.memory,
        );
        sparsely!(
            self.engine.core.lines.memory,
            warn,
            worker = self.engine.core.link.index,
            held,
            limit,
            "limits.memory is reached: new commands are refused"
        );
        let all = self.engine.clients.slab.iter().filter(|(_, c)| !c.gone);
        // Messages to subscribers are held once, and each of them keeps them.
        let weight = |c: &Client| c.memory().max(c.output());
        let mut largest: Vec<(usize, usize)> =
            all.map(|(i, c)| (weight(c), i)).filter(|(weight, _)| *weight > LITTLE).collect();
        largest.sort_unstable();
        let mut by_clients: usize = self.engine.clients.slab.iter().map(|(_, c)| c.accounted).sum();
        // What a node has begun and not ended is no client's.
        let unfinished = self.engine.core.shared.hub.stats.unfinished.load(Relaxed)
            / self.engine.core.settings.workers;
        let mut nobody = true;
        while self
            .engine
            .clients
            .memory()
            .is_over_limit(&mut self.engine.nodes, &mut self.engine.core)
            && by_clients + self.engine.core.memory.accounted_messages.saturating_sub(unfinished)
                > limit / 2
        {
            let Some((weight, index)) = largest.pop() else { break };
            by_clients = by_clients
                .saturating_sub(self.engine.clients.slab.get(index).map_or(0, |c| c.accounted));
            self.close_for_memory(index, weight);
            nobody = false;
        }
        if nobody {
            self.engine.core.clock.next_relief = self.engine.core.now + PAUSE;
        }
    }

    fn close_for_memory(&mut self, index: usize, held: usize) {
        self.engine.core.stats.limits_hit[LimitHit::Memory as usize] += 1;
        let Some(client) = self.engine.clients.slab.get(index) else { return };
        sparsely!(
            self.engine.core.lines.closed,
            warn,
            client = client.session.id,
            held,
            limit = LimitHit::NAMES[LimitHit::Memory as usize],
            "a client is closed: its buffers are among the largest, and limits.memory is reached"
        );
        self.engine.core.stats.messages_dropped += client.items() as u64;
        self.engine.clients.close(index, &mut self.engine.core);
        self.delivery().follow_up();
        self.engine.subscribers.account_messages(&mut self.engine.core);
    }
}

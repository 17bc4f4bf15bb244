//! `limits.memory`: at the limit new commands are refused, and clients that occupy much memory are
//! closed, so that the others can continue.
//!
//! Memory may be full without any client's fault (a node that accepts no commands): this passes,
//! and refusing commands is enough. But replies that clients do not read, and requests that they do
//! not complete, stay until the clients are closed: the largest first, while clients' buffers
//! occupy more than half of the limit.

use crate::client::Client;
use crate::common::clock::{Job, Timer};
use crate::metrics::LimitHit;
use crate::sparsely;
use crate::worker::Worker;
use std::sync::atomic::Ordering::Relaxed;

/// Memory in bytes up to which a client is not closed: closing such clients one by one would gain
/// too little.
const TOO_SMALL: usize = 2 << 10;

/// Pause in microseconds before the clients are examined again when none could be closed.
const EXAMINE_PAUSE: u64 = 10_000;

/// How long freed pages are kept, in microseconds.
const PURGE_AFTER: u64 = 1_000_000;

impl Worker {
    /// Enforces `limits.memory` at the end of a turn, and arranges for freed pages to be returned
    /// to the operating system.
    #[inline]
    pub(super) fn relieve(&mut self) {
        self.engine.core.keep_or_give_back(self.engine.nodes.placement.slots.holds.bytes());
        // In the steady state this thread neither allocates nor frees. What other threads free of
        // its allocations is not counted here; they do so within the second before the purge.
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

    /// Trims buffers, and closes the largest clients while clients occupy too much.
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
        // Messages to subscribers are stored once, and each subscriber keeps them in memory.
        let weight = |c: &Client| c.memory().max(c.output());
        let mut largest: Vec<(usize, usize)> =
            all.map(|(i, c)| (weight(c), i)).filter(|(weight, _)| *weight > TOO_SMALL).collect();
        largest.sort_unstable();
        let mut by_clients: usize = self.engine.clients.slab.iter().map(|(_, c)| c.accounted).sum();
        // A message that a node has not completed belongs to no client.
        let unfinished = self.engine.core.shared.hub.stats.unfinished.load(Relaxed)
            / self.engine.core.settings.workers;
        let mut none_closed = true;
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
            none_closed = false;
        }
        if none_closed {
            self.engine.core.clock.next_relief = self.engine.core.now + EXAMINE_PAUSE;
        }
    }

    /// Closes a client that occupies `held` bytes.
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

//! At `limits.memory`: new commands are refused, and clients that hold much of it have to go, so
//! that the others can go on.
//!
//! What fills the memory may be nobody's fault (a node that takes no commands): that passes, and
//! refusing is enough. But what clients do not take, and what they do not finish, stays until they
//! are closed: the largest first, while clients' buffers are more than half of the limit.

use std::sync::atomic::Ordering::Relaxed;

use crate::client::Client;
use crate::common::clock::{Job, Timer};
use crate::metrics::LimitHit;
use crate::sparsely;
use crate::worker::Worker;

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
        self.core.keep_or_give_back(self.nodes.placement.slots.holds.bytes());
        // The steady state neither allocates nor frees. What other threads free of what this one
        // allocated is not counted here; it was told to them within the second that is waited for.
        if self
            .core
            .memory
            .purged_at
            .is_some_and(|activity| activity != self.core.memory.meter.activity())
        {
            self.core.memory.purged_at = None;
            self.core
                .clock
                .timers
                .push(Timer { due: self.core.now + PURGE_AFTER, job: Job::Purge });
        }
        if self.core.memory.accounted
            + self.nodes.placement.slots.holds.bytes()
            + self.core.spare.pool.bytes()
            > self.core.settings.memory
        {
            self.make_room();
        }
    }

    #[cold]
    fn make_room(&mut self) {
        self.nodes.trim(&mut self.core);
        if self.core.now < self.core.clock.next_relief
            || !self.clients.memory().is_over_limit(&mut self.nodes, &mut self.core)
        {
            return;
        }
        let (held, limit) = (
            self.core.memory.accounted + self.nodes.placement.slots.holds.bytes(),
            self.core.settings.memory,
        );
        sparsely!(
            self.core.lines.memory,
            warn,
            worker = self.core.link.index,
            held,
            limit,
            "limits.memory is reached: new commands are refused"
        );
        let all = self.clients.slab.iter().filter(|(_, c)| !c.gone);
        // Messages to subscribers are held once, and each of them keeps them.
        let weight = |c: &Client| c.memory().max(c.output());
        let mut largest: Vec<(usize, usize)> =
            all.map(|(i, c)| (weight(c), i)).filter(|(weight, _)| *weight > LITTLE).collect();
        largest.sort_unstable();
        let mut by_clients: usize = self.clients.slab.iter().map(|(_, c)| c.accounted).sum();
        // What a node has begun and not ended is no client's.
        let unfinished =
            self.core.shared.hub.stats.unfinished.load(Relaxed) / self.core.settings.workers;
        let mut nobody = true;
        while self.clients.memory().is_over_limit(&mut self.nodes, &mut self.core)
            && by_clients + self.core.memory.accounted_messages.saturating_sub(unfinished)
                > limit / 2
        {
            let Some((weight, index)) = largest.pop() else { break };
            by_clients =
                by_clients.saturating_sub(self.clients.slab.get(index).map_or(0, |c| c.accounted));
            self.close_for_memory(index, weight);
            nobody = false;
        }
        if nobody {
            self.core.clock.next_relief = self.core.now + PAUSE;
        }
    }

    fn close_for_memory(&mut self, index: usize, held: usize) {
        self.core.stats.limits_hit[LimitHit::Memory as usize] += 1;
        let Some(client) = self.clients.slab.get(index) else { return };
        sparsely!(
            self.core.lines.closed,
            warn,
            client = client.session.id,
            held,
            limit = LimitHit::NAMES[LimitHit::Memory as usize],
            "a client is closed: its buffers are among the largest, and limits.memory is reached"
        );
        self.core.stats.messages_dropped += client.items() as u64;
        self.clients.close(index, &mut self.core);
        self.follow_up();
        self.subscribers.account_messages(&mut self.core);
    }
}

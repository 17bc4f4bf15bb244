//! At `limits.memory`: new commands are refused, and clients that hold much of it have to go, so
//! that the others can go on.
//!
//! What fills the memory may be nobody's fault (a node that takes no commands): that passes, and
//! refusing is enough. But what clients do not take, and what they do not finish, stays until they
//! are closed: the largest first, while clients' buffers are more than half of the limit.

use super::state::{Clients, Core, Nodes};
use std::sync::atomic::Ordering::Relaxed;

use super::clock::{Job, Timer};
use super::{Worker, reaccount};
use crate::buf::CHUNK;
use crate::client::Client;
use crate::metrics::LimitHit;
use crate::sparsely;

/// Nobody is closed for holding so little: it is less than what closing one by one would win.
const LITTLE: usize = 2 << 10;
/// When nobody was closed, the clients are not looked through again for so long, microseconds.
const PAUSE: u64 = 10_000;
/// No freed pages are kept by a worker whose buffers take more than this. Giving back 128 MiB takes
/// some 10 ms.
const MAX_KEPT: usize = 128 << 20;
/// How long freed pages are kept, microseconds.
const PURGE_AFTER: u64 = 1_000_000;

impl Core {
    /// Bytes of buffers up to which freed pages are kept for a while. Beyond half of the share, what
    /// is kept could add up with what is in use to more than the share; and giving back very much at
    /// once would hold everybody up.
    fn keeps_pages_up_to(&self) -> usize {
        (self.settings.memory / 2).min(MAX_KEPT)
    }

    /// The allocator's freed pages go back to the system, a second after the first of them was freed.
    pub(super) fn purge(&mut self) {
        self.memory.arena.purge();
        self.memory.purged_at = Some(self.memory.meter.activity());
    }
}

impl Nodes {
    /// So many bytes more are about to be taken.
    fn keep_or_give_back(&mut self, bytes: usize, core: &mut Core) {
        let taken = core.memory.accounted + self.placement.slots.holds.bytes() + bytes;
        let enough = core.keeps_pages_up_to();
        if core.memory.arena.keeps() {
            if taken > enough {
                core.memory.arena.give_back();
            }
        } else if taken < enough / 2 {
            core.memory.arena.keep();
        }
    }

    /// What is only kept for reuse.
    fn trim(&mut self, core: &mut Core) {
        core.spare.pool.clear();
        core.spare.replies = Vec::new();
        core.spare.gathers = Vec::new();
        core.spare.multis = Vec::new();
        for (_, up) in self.upstreams.iter_mut().filter(|(_, up)| up.pending.is_empty()) {
            up.pending.shrink_to_fit();
            let held = up.held();
            reaccount(&mut core.memory.accounted, &mut up.accounted, held);
        }
    }
}

impl Clients {
    /// This worker's share of `limits.memory` is used up. What was taken since the buffers were last
    /// looked at counts, too.
    #[inline]
    pub(super) fn is_over_memory(&mut self, nodes: &mut Nodes, core: &mut Core) -> bool {
        core.memory.accounted + nodes.placement.slots.holds.bytes() + core.memory.meter.grown()
            > core.settings.memory
            && !self.has_room_up_to_date(0, nodes, core)
    }

    /// So many bytes more are within this worker's share of `limits.memory`.
    pub(super) fn has_room_for(
        &mut self,
        bytes: usize,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> bool {
        nodes.keep_or_give_back(core.memory.meter.grown() + bytes, core);
        core.memory.accounted
            + nodes.placement.slots.holds.bytes()
            + core.memory.meter.grown()
            + bytes
            <= core.settings.memory
            || self.has_room_up_to_date(bytes, nodes, core)
    }

    /// The same with the account brought up to date, where that may make a difference.
    #[cold]
    fn has_room_up_to_date(&mut self, bytes: usize, nodes: &mut Nodes, core: &mut Core) -> bool {
        let limit = core.settings.memory;
        if core.memory.accounted + nodes.placement.slots.holds.bytes() + bytes > limit {
            return false;
        }
        // Looking at all that has changed in this turn has a price: so much has to have come of it.
        if core.memory.meter.grown() <= CHUNK {
            return true;
        }
        self.bring_up_to_date(nodes, core);
        core.memory.accounted + nodes.placement.slots.holds.bytes() + bytes <= limit
    }

    /// Brings the account up to date in the middle of a turn.
    fn bring_up_to_date(&mut self, nodes: &mut Nodes, core: &mut Core) {
        let clients = std::mem::take(&mut core.turn.dirty_clients);
        clients.iter().for_each(|&index| self.account_client(index, core));
        core.turn.dirty_clients = clients;
        let upstreams = std::mem::take(&mut core.turn.dirty_upstreams);
        for &u in upstreams.iter().filter(|u| **u != core.turn.reading) {
            if let Some(up) = nodes.upstreams.get_mut(u) {
                let held = up.held();
                reaccount(&mut core.memory.accounted, &mut up.accounted, held);
            }
        }
        core.turn.dirty_upstreams = upstreams;
        core.memory.meter.reset();
    }
}

impl Worker {
    /// At the end of a turn.
    #[inline]
    pub(super) fn relieve(&mut self) {
        self.nodes.keep_or_give_back(0, &mut self.core);
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
            || !self.clients.is_over_memory(&mut self.nodes, &mut self.core)
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
        let weight = |c: &Client| c.held().max(c.output());
        let mut largest: Vec<(usize, usize)> =
            all.map(|(i, c)| (weight(c), i)).filter(|(weight, _)| *weight > LITTLE).collect();
        largest.sort_unstable();
        let mut by_clients: usize = self.clients.slab.iter().map(|(_, c)| c.accounted).sum();
        // What a node has begun and not ended is no client's.
        let unfinished =
            self.core.shared.hub.stats.unfinished.load(Relaxed) / self.core.settings.workers;
        let mut nobody = true;
        while self.clients.is_over_memory(&mut self.nodes, &mut self.core)
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

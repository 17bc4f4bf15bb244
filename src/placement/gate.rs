//! The gate of a slot: while nodes refuse the slot as such, one command probes and the others wait.

use std::collections::VecDeque;

use crate::dest::ClientId;

/// What a closed gate lets happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateNext {
    /// Nothing: it is open, nobody waits, or answers are awaited.
    Nothing,
    /// The next probe goes at this time.
    At(u64),
    /// This lane's command may go. `paid`: an answer has paid for it, otherwise it needs the
    /// worker's budget. It is still the first in the queue: see [`super::Holds::admit`].
    Try {
        /// The lane.
        lane: ClientId,
        /// No budget is needed.
        paid: bool,
    },
}

/// Of one slot and [`Class`].
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Nodes refuse the slot.
    pub closed: bool,
    /// When it was closed, microseconds.
    pub since: u64,
    /// Probes refused, one after the other.
    pub failures: u8,
    /// When the next probe goes.
    pub not_before: u64,
    /// Commands that went through the closed gate and are not answered.
    pub(super) under_way: u32,
    /// How many may be under way.
    pub width: u32,
    /// Commands that may go without budget.
    pub(super) paid: u32,
    /// The last to go was a blocking command, which is answered by not being refused.
    pub(super) trial: bool,
    /// The lanes that wait, each once.
    pub queue: VecDeque<ClientId>,
    /// The worker will look at it again.
    pub(super) armed: bool,
}

impl Gate {
    pub fn answered(&mut self, now: u64) {
        self.failures = 0;
        self.trial = false;
        self.not_before = now;
        self.width = self.width.saturating_add(1);
        self.paid = self.paid.saturating_add(2);
        if self.queue.is_empty() {
            self.closed = false;
        }
    }
}

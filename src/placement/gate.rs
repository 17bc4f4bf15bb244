//! The gate of a slot: while nodes refuse the slot, one command probes it and the others wait.

use std::collections::VecDeque;

use crate::dest::ClientId;

use super::{Micros, Moment};

/// What the worker does next at a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateNext {
    /// Nothing: the gate is open, no lane waits, or answers are outstanding.
    Nothing,
    /// Check again at this time; no probe may go before it.
    At(Moment),
    /// This lane's command may go. The lane stays first in the queue until [`super::Holds::admit`].
    Try {
        /// The lane's client.
        lane: ClientId,
        /// An answer has already paid for the command; otherwise it needs budget.
        paid: bool,
    },
}

/// The gate for one slot and one [`GateClass`](super::GateClass) of commands.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Nodes refuse the slot.
    pub closed: bool,
    /// When the gate was closed.
    pub since: Moment,
    /// Number of consecutive refused probes.
    pub failures: u8,
    /// Earliest time of the next probe.
    pub not_before: Moment,
    /// Number of admitted commands that are not answered.
    pub(super) under_way: u32,
    /// Maximum number of admitted, unanswered commands: 1, and 1 more with each answer.
    pub width: u32,
    /// Number of commands that may go without taking from the budget.
    pub(super) paid: u32,
    /// The last admitted command was a blocking one. Its answer may take forever, so it counts as
    /// answered when it is not refused by `not_before`.
    pub(super) trial: bool,
    /// The waiting lanes, each at most once.
    pub queue: VecDeque<ClientId>,
    /// The worker has set a timer for this gate.
    pub(super) armed: bool,
}

impl Gate {
    /// Records an answer: two more commands may go without budget; if none waits the gate opens.
    pub fn answered(&mut self, now: Moment) {
        self.failures = 0;
        self.trial = false;
        self.not_before = now;
        self.width = self.width.saturating_add(1);
        self.paid = self.paid.saturating_add(2);
        if self.queue.is_empty() {
            self.closed = false;
        }
    }

    /// Closes the gate after a refusal; `true` if it was open. The next probe goes after
    /// `pause(failures)`. Refusals that arrive before that do not extend the pause.
    pub(super) fn close(&mut self, now: Moment, pause: impl FnOnce(u8) -> Micros) -> bool {
        let opened = !self.closed;
        (self.width, self.paid, self.trial) = (1, 0, false);
        if opened {
            (self.closed, self.since, self.failures, self.not_before) = (true, now, 0, now);
        }
        if now >= self.not_before {
            self.failures = self.failures.saturating_add(1);
            self.not_before = now + pause(self.failures);
        }
        opened
    }

    /// Makes the next probe due now. `paid`: without taking from the budget. `false`: the gate is
    /// open.
    pub(super) fn probe_now(&mut self, now: Moment, paid: bool) -> bool {
        if self.closed {
            (self.not_before, self.failures) = (now, 0);
            self.paid = self.paid.max(u32::from(paid));
        }
        self.closed
    }
}

//! A worker's queue of retries that wait for the retry budget, and the slots that each node has
//! refused.

use std::collections::{BTreeSet, VecDeque};
use std::hash::Hash;

use super::policy::GateClass;
use super::{Budget, Micros};
use crate::cluster::Slot;
use crate::dest::NodeId;
use crate::hash::{IntMap, KeyedSet};

/// Number of a node's refused slots that are probed after the node has answered for another one.
const NEIGHBOURS: usize = 2;

/// A worker's retries. `W` identifies what is to be resent.
///
/// The worker asks before each retry ([`Retries::allows`]). A retry that has to wait is returned by
/// [`Retries::take`] once the budget has room; when the worker then asks again, it is allowed.
#[derive(Debug)]
pub struct Retries<W> {
    /// The retry budget.
    pub budget: Budget,
    waiting: VecDeque<W>,
    /// The elements of `waiting`, each of which is unique.
    queued: KeyedSet<W>,
    armed: bool,
    /// The retry returned by `take` is already allowed.
    granted: bool,
    /// Per node, the slots and classes whose gates its refusals have closed.
    refused: IntMap<NodeId, BTreeSet<(Slot, u8)>>,
}

/// Whether a retry may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// The retry may be sent now.
    Now,
    /// The retry waits for the budget.
    Queued {
        /// The retry was not in the queue before.
        first: bool,
    },
}

impl<W: Copy + Eq + Hash> Retries<W> {
    /// An empty queue.
    pub fn new(budget: Budget) -> Retries<W> {
        Retries {
            budget,
            waiting: VecDeque::new(),
            queued: KeyedSet::default(),
            armed: false,
            granted: false,
            refused: IntMap::default(),
        }
    }

    /// Takes the retry from the budget, or queues it if others wait or the budget is used up.
    pub fn allows(&mut self, want: W) -> Allowance {
        if std::mem::take(&mut self.granted) {
            return Allowance::Now;
        }
        if self.waiting.is_empty() && self.budget.has() {
            self.budget.take(1);
            return Allowance::Now;
        }
        let first = self.queued.insert(want);
        if first {
            self.waiting.push_back(want);
        }
        Allowance::Queued { first }
    }

    /// Delay after which [`Retries::wake`] is to be called; `None`: no retry waits, or a
    /// timer is already set.
    pub fn arm(&mut self) -> Option<Micros> {
        let due = !self.waiting.is_empty() && !std::mem::replace(&mut self.armed, true);
        due.then(|| self.budget.wait())
    }

    /// Records that the timer of [`Retries::arm`] has expired.
    pub fn wake(&mut self) {
        self.armed = false;
    }

    /// Takes the next retry out of the queue; `None`: the queue is empty or the budget used up.
    /// [`Retries::carried_out`] must follow.
    pub fn take(&mut self) -> Option<W> {
        if !self.budget.has() {
            return None;
        }
        let want = self.waiting.pop_front()?;
        self.queued.remove(&want);
        self.granted = true;
        Some(want)
    }

    /// Charges the budget for the retry that [`Retries::take`] returned, unless its command no
    /// longer exists and [`Retries::allows`] was not called for it.
    pub fn carried_out(&mut self) {
        if !std::mem::take(&mut self.granted) {
            self.budget.take(1);
        }
    }

    /// Records that `node` refuses `slot` to commands of `class`. It may refuse others too.
    pub fn note_refused(&mut self, node: NodeId, slot: Slot, class: GateClass) {
        self.refused.entry(node).or_default().insert((slot, class as u8));
    }

    /// Called when `node` has answered a command of `slot`: takes out a few of the other slots that
    /// it had refused, to be probed. Slots whose gate is open again (`is_closed` is false) are
    /// skipped.
    pub fn take_refused(
        &mut self,
        node: NodeId,
        slot: Slot,
        mut is_closed: impl FnMut(Slot, GateClass) -> bool,
    ) -> Vec<(Slot, GateClass)> {
        let mut found = Vec::new();
        let Some(slots) = self.refused.get_mut(&node) else { return found };
        while found.len() < NEIGHBOURS
            && let Some((other, class)) = slots.pop_first()
        {
            let Some(&class) = GateClass::ALL.get(usize::from(class)) else { continue };
            if other != slot && is_closed(other, class) {
                found.push((other, class));
            }
        }
        if slots.is_empty() {
            self.refused.remove(&node);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue with a budget of `retries` tokens.
    fn with(retries: usize) -> Retries<u8> {
        Retries::new(Budget::new(0, retries))
    }

    const NEW: Allowance = Allowance::Queued { first: true };
    const AGAIN: Allowance = Allowance::Queued { first: false };

    #[test]
    fn a_retry_within_the_budget_goes_at_once() {
        let mut retries = with(2);
        assert_eq!(retries.allows(1), Allowance::Now);
        assert_eq!(retries.allows(2), Allowance::Now);
        assert_eq!(retries.allows(3), NEW);
    }

    #[test]
    fn a_retry_waits_once() {
        let mut retries = with(0);
        assert_eq!((retries.allows(1), retries.allows(1)), (NEW, AGAIN));
        assert_eq!(retries.waiting.len(), 1);
    }

    #[test]
    fn a_retry_does_not_overtake_one_that_waits() {
        let mut retries = with(0);
        assert_eq!(retries.allows(1), NEW);
        retries.budget = Budget::new(0, 5);
        assert_eq!(retries.allows(2), NEW);
    }

    #[test]
    fn what_waited_comes_out_in_order_and_is_allowed() {
        let mut retries = with(0);
        retries.allows(1);
        retries.allows(2);
        retries.budget = Budget::new(0, 5);
        for want in [1, 2] {
            assert_eq!(retries.take(), Some(want));
            assert_eq!(retries.allows(want), Allowance::Now);
            retries.carried_out();
        }
        assert_eq!(retries.take(), None);
    }

    #[test]
    fn nothing_comes_out_without_budget() {
        let mut retries = with(0);
        retries.allows(1);
        assert_eq!(retries.take(), None);
    }

    #[test]
    fn a_retry_that_was_carried_out_costs() {
        let mut retries = with(0);
        retries.allows(1);
        retries.budget = Budget::new(0, 1);
        retries.take();
        retries.allows(1);
        retries.carried_out();
        assert!(!retries.budget.has());
    }

    #[test]
    fn a_retry_that_nobody_wants_any_more_costs_nothing() {
        let mut retries = with(0);
        retries.allows(1);
        retries.budget = Budget::new(0, 1);
        retries.take();
        retries.carried_out();
        assert!(retries.budget.has());
        retries.allows(2);
        assert!(!retries.budget.has(), "the grant was not left behind");
    }

    #[test]
    fn a_retry_that_came_out_may_wait_again() {
        let mut retries = with(0);
        retries.allows(1);
        retries.budget = Budget::new(0, 1);
        retries.take();
        retries.allows(1);
        retries.carried_out();
        assert_eq!(retries.allows(1), NEW);
    }

    #[test]
    fn a_timer_is_set_once() {
        let mut retries = with(0);
        assert_eq!(retries.arm(), None, "nothing waits");
        retries.allows(1);
        assert_eq!(retries.arm(), Some(Micros(1_000_000)));
        assert_eq!(retries.arm(), None);
        retries.wake();
        assert_eq!(retries.arm(), Some(Micros(1_000_000)));
    }

    #[test]
    fn an_answer_leads_to_two_more_slots() {
        let mut retries = with(0);
        for slot in 1..=4 {
            retries.note_refused(NodeId(7), Slot(slot), GateClass::Write);
        }
        let all = |retries: &mut Retries<u8>| retries.take_refused(NodeId(7), Slot(1), |_, _| true);
        assert_eq!(all(&mut retries), [(Slot(2), GateClass::Write), (Slot(3), GateClass::Write)]);
        assert_eq!(all(&mut retries), [(Slot(4), GateClass::Write)]);
        assert_eq!(all(&mut retries), []);
        assert!(retries.refused.is_empty());
    }

    #[test]
    fn slots_that_are_served_again_are_skipped() {
        let mut retries = with(0);
        for slot in 1..=4 {
            retries.note_refused(NodeId(7), Slot(slot), GateClass::Read);
        }
        assert_eq!(
            retries.take_refused(NodeId(7), Slot(9), |slot, _| slot == Slot(4)),
            [(Slot(4), GateClass::Read)]
        );
    }

    #[test]
    fn another_nodes_slots_are_not_tried() {
        let mut retries = with(0);
        retries.note_refused(NodeId(7), Slot(1), GateClass::Write);
        assert_eq!(retries.take_refused(NodeId(8), Slot(2), |_, _| true), []);
    }

    #[test]
    fn classes_are_apart() {
        let mut retries = with(0);
        retries.note_refused(NodeId(7), Slot(1), GateClass::Read);
        retries.note_refused(NodeId(7), Slot(1), GateClass::Publish);
        retries.note_refused(NodeId(7), Slot(1), GateClass::Publish);
        let both = [(Slot(1), GateClass::Read), (Slot(1), GateClass::Publish)];
        assert_eq!(retries.take_refused(NodeId(7), Slot(2), |_, _| true), both);
    }
}

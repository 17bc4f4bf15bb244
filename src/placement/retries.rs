//! The retries of one worker that wait for its budget, and which slots each node has refused.

use std::collections::{BTreeSet, VecDeque};
use std::hash::Hash;

use super::Budget;
use super::policy::Class;
use crate::hash::{IntMap, KeyedSet};

/// Slots of a node that are tried after the node has answered for one of them.
const NEIGHBOURS: usize = 2;

/// The retries of one worker. `W` says what is to be sent again.
///
/// Its user asks before each retry ([`Retries::allows`]); what has to wait comes out of
/// [`Retries::take`] when the budget has room, and is allowed when it is asked for then.
#[derive(Debug)]
pub struct Retries<W> {
    /// How many may be sent.
    pub budget: Budget,
    waiting: VecDeque<W>,
    /// What stands in it: each once.
    queued: KeyedSet<W>,
    armed: bool,
    /// The retry that is being carried out has been allowed.
    granted: bool,
    /// By node: slots whose gates its refusals have closed.
    refused: IntMap<u16, BTreeSet<(u16, u8)>>,
}

/// Whether a retry may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// It may be sent now.
    Now,
    /// It waits for the budget. `first`: it has not waited before.
    Queued {
        /// It was not in the queue yet.
        first: bool,
    },
}

impl<W: Copy + Eq + Hash> Retries<W> {
    /// None waits.
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

    /// Whether the budget has room for this retry, behind those that wait; otherwise it waits.
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

    /// Microseconds after which [`Retries::wake`] is to be called, if retries wait and it is not
    /// going to be called anyway.
    pub fn arm(&mut self) -> Option<u64> {
        let due = !self.waiting.is_empty() && !std::mem::replace(&mut self.armed, true);
        due.then(|| self.budget.wait())
    }

    /// The time has come.
    pub fn wake(&mut self) {
        self.armed = false;
    }

    /// The next retry to be carried out, which is allowed; `None`: none waits, or the budget has no
    /// room. [`Retries::carried_out`] follows.
    pub fn take(&mut self) -> Option<W> {
        if !self.budget.has() {
            return None;
        }
        let want = self.waiting.pop_front()?;
        self.queued.remove(&want);
        self.granted = true;
        Some(want)
    }

    /// What [`Retries::take`] gave was carried out, or what wanted it is gone, so that it costs
    /// nothing.
    pub fn carried_out(&mut self) {
        if !std::mem::take(&mut self.granted) {
            self.budget.take(1);
        }
    }

    /// `node` has refused the slot to commands of `class`, and most likely its other slots as well.
    pub fn note_refused(&mut self, node: u16, slot: u16, class: Class) {
        self.refused.entry(node).or_default().insert((slot, class as u8));
    }

    /// `node` has answered a command of `slot`: some of the other slots that it had refused, each
    /// once. Those that `is_closed` does not hold for are no longer refused, and are skipped.
    pub fn take_refused(
        &mut self,
        node: u16,
        slot: u16,
        mut is_closed: impl FnMut(u16, Class) -> bool,
    ) -> Vec<(u16, Class)> {
        let mut found = Vec::new();
        let Some(slots) = self.refused.get_mut(&node) else { return found };
        while found.len() < NEIGHBOURS
            && let Some((other, class)) = slots.pop_first()
        {
            let Some(&class) = Class::ALL.get(usize::from(class)) else { continue };
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

    /// So many retries may be sent at once.
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
        assert_eq!(retries.arm(), Some(1_000_000));
        assert_eq!(retries.arm(), None);
        retries.wake();
        assert_eq!(retries.arm(), Some(1_000_000));
    }

    #[test]
    fn an_answer_leads_to_two_more_slots() {
        let mut retries = with(0);
        for slot in 1..=4 {
            retries.note_refused(7, slot, Class::Write);
        }
        let all = |retries: &mut Retries<u8>| retries.take_refused(7, 1, |_, _| true);
        assert_eq!(all(&mut retries), [(2, Class::Write), (3, Class::Write)]);
        assert_eq!(all(&mut retries), [(4, Class::Write)]);
        assert_eq!(all(&mut retries), []);
        assert!(retries.refused.is_empty());
    }

    #[test]
    fn slots_that_are_served_again_are_skipped() {
        let mut retries = with(0);
        for slot in 1..=4 {
            retries.note_refused(7, slot, Class::Read);
        }
        assert_eq!(retries.take_refused(7, 9, |slot, _| slot == 4), [(4, Class::Read)]);
    }

    #[test]
    fn another_nodes_slots_are_not_tried() {
        let mut retries = with(0);
        retries.note_refused(7, 1, Class::Write);
        assert_eq!(retries.take_refused(8, 2, |_, _| true), []);
    }

    #[test]
    fn classes_are_apart() {
        let mut retries = with(0);
        retries.note_refused(7, 1, Class::Read);
        retries.note_refused(7, 1, Class::Publish);
        retries.note_refused(7, 1, Class::Publish);
        let both = [(1, Class::Read), (1, Class::Publish)];
        assert_eq!(retries.take_refused(7, 2, |_, _| true), both);
    }
}

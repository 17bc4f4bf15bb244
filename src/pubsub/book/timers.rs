//! Timers: when refused subscriptions are tried again, topics without listeners dropped, former
//! homes left, and ended subscriptions no longer counted.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use super::{Book, Entry};
use crate::placement::{Budget, Moment};
use crate::pubsub::Topic;

/// What is due, and when, in microseconds.
#[derive(Debug)]
pub(super) struct Timers {
    /// When to look at which entry. It says itself what is due; the timer may be stale.
    entries: BinaryHeap<Reverse<(u64, usize)>>,
    /// Topics unsubscribed at a node, and until when that subscription is still counted.
    ended: VecDeque<(u64, Arc<Topic>)>,
    /// Budget for retries.
    budget: Budget,
    /// Entries whose retry is due and waits for the budget.
    overdue: VecDeque<usize>,
}

impl Timers {
    /// No timers, and a budget of so many retries per second.
    pub(super) fn new(per_second: usize) -> Self {
        Timers {
            entries: BinaryHeap::new(),
            ended: VecDeque::new(),
            budget: Budget::new(0, per_second),
            overdue: VecDeque::new(),
        }
    }

    /// Changes the number of retries per second.
    pub(super) fn configure(&mut self, per_second: usize) {
        self.budget.configure(0, per_second);
    }

    /// Has the entry looked at when it is `due`.
    pub(super) fn set(&mut self, due: u64, entry: usize) {
        self.entries.push(Reverse((due, entry)));
    }

    /// Has an ended subscription of the topic counted until it is `due`.
    pub(super) fn count_until(&mut self, due: u64, topic: &Arc<Topic>) {
        self.ended.push_back((due, Arc::clone(topic)));
    }

    fn next_due(&self, now: u64) -> Option<u64> {
        let entry = self.entries.peek().map(|Reverse((due, _))| *due);
        let ended = self.ended.front().map(|(due, _)| *due);
        let overdue = (!self.overdue.is_empty()).then(|| now + self.budget.wait().0);
        entry.into_iter().chain(ended).chain(overdue).min()
    }

    /// Takes a topic of which an ended subscription is no longer counted.
    fn take_ended(&mut self, now: u64) -> Option<Arc<Topic>> {
        if self.ended.front()?.0 > now {
            return None;
        }
        self.ended.pop_front().map(|(_, topic)| topic)
    }

    /// Takes an entry that is due, with the time.
    fn take_due(&mut self, now: u64) -> Option<(u64, usize)> {
        let &Reverse((due, _)) = self.entries.peek()?;
        if due > now {
            return None;
        }
        self.entries.pop().map(|Reverse(timer)| timer)
    }
}

impl Book {
    /// When [`Book::tick`] has work next, in microseconds.
    pub fn next_due(&self) -> Option<u64> {
        self.timers.next_due(self.now)
    }

    /// Does what is due: retries, and drops topics without listeners.
    pub fn tick(&mut self) {
        while let Some(topic) = self.timers.take_ended(self.now) {
            self.uncount(&topic);
        }
        self.timers.budget.earn(Moment(self.now), 0);
        while self.timers.budget.has() && !self.timers.overdue.is_empty() {
            if self.retry_next() {
                self.timers.budget.take(1);
            }
        }
        while let Some((due, at)) = self.timers.take_due(self.now) {
            // The timer may be stale: replaced by another, or of an entry that is gone.
            let Some(entry) = self.entries.get_mut(at) else { continue };
            if entry.leave_at == Some(due) && entry.listeners.is_empty() {
                self.forget(at);
            } else if entry.former.as_ref().is_some_and(|former| former.until == due) {
                self.formers().leave(at);
                self.place(at);
            } else if entry.retry == Some(due) {
                self.timers.overdue.push_back(at);
                if self.timers.overdue.len() == 1 && self.timers.budget.has() && self.retry_next() {
                    self.timers.budget.take(1);
                }
            }
        }
    }

    /// Retries the first overdue entry. Returns whether there was one to retry.
    pub(super) fn retry_next(&mut self) -> bool {
        let Some(at) = self.timers.overdue.pop_front() else { return false };
        let now = self.now;
        let is_due = |entry: &&mut Entry| entry.retry.is_some_and(|due| due <= now);
        let Some(entry) = self.entries.get_mut(at).filter(is_due) else { return false };
        entry.retry = None;
        self.place(at);
        true
    }
}

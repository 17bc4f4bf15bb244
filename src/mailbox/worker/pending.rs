//! Pending subscriptions: requested by clients of this process and not yet confirmed by the
//! cluster.
//!
//! A server confirms a SUBSCRIBE before it reads a PUBLISH that arrives later on another
//! connection. Slotway has to ask a node first, so a PUBLISH that a pending subscription can match
//! waits for it, whichever workers have read the two.
//!
//! Workers read their sockets independently: the one with the PUBLISH may be ahead of the one whose
//! socket holds the SUBSCRIBE. The PUBLISH therefore first waits until the other workers have read
//! what had arrived ([`ReadBarrier`]), but only within [`ACTIVE`] of a subscription command or of a
//! new connection, on which most subscriptions are made. Otherwise a PUBLISH costs two relaxed
//! loads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ToWorker, WorkerHandle};
use crate::channel::{TopicKind, matches};
use crate::hash::KeyedMap;

/// Limit on patterns that are compared with one channel. Beyond it the next older subscription is
/// taken for a match: a PUBLISH that waits in vain is late, one that does not wait may be lost.
const MAX_PATTERNS_COMPARED: usize = 1_000;

/// Approximate memory of one topic of a pending subscription, bytes, its name not included.
pub const BYTES_PER_TOPIC: usize = 192;

/// How long after a subscription command or a new connection another subscription is likely,
/// microseconds.
const ACTIVE: u64 = 1_000_000;

/// The number of a subscription command, in order of arrival.
pub type Serial = u64;

/// The pending subscriptions of this process.
#[derive(Debug, Default)]
pub struct PendingSubscriptions {
    /// The length of `State::tickets`, readable without the lock.
    count: AtomicUsize,
    /// Until when subscriptions are likely, microseconds of the workers' clock.
    active_until: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Serial,
    tickets: BTreeMap<Serial, Entry>,
    /// Channels and shard channels, by [`TopicKind`].
    names: [KeyedMap<Arc<[u8]>, BTreeSet<Serial>>; 2],
    /// The commands with patterns.
    patterns: BTreeSet<Serial>,
}

/// One subscription command.
#[derive(Debug)]
struct Entry {
    topics: Vec<(TopicKind, Arc<[u8]>)>,
    /// Workers with a PUBLISH that waits for the command, by index.
    waiters: Vec<(usize, WorkerHandle)>,
}

/// A pending subscription command. Dropped when the command is confirmed, refused or given up,
/// which releases what waits for it.
#[derive(Debug)]
pub struct Ticket {
    pending: Arc<PendingSubscriptions>,
    serial: Serial,
}

/// The index in [`State::names`].
fn place(kind: TopicKind) -> Option<usize> {
    match kind {
        TopicKind::Channel => Some(0),
        TopicKind::Shard => Some(1),
        TopicKind::Pattern => None,
    }
}

impl PendingSubscriptions {
    /// Whether no subscription is pending or likely at `now`, microseconds of the workers' clock.
    #[inline]
    pub fn is_quiet(&self, now: u64) -> bool {
        self.count.load(Relaxed) == 0 && now >= self.active_until.load(Relaxed)
    }

    /// Notes that a subscription is likely from `now` on, for [`ACTIVE`].
    pub fn expect(&self, now: u64) {
        self.active_until.fetch_max(now + ACTIVE, Relaxed);
    }

    /// The number of the last subscription command.
    pub fn last(&self) -> Serial {
        self.state().last
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a command that subscribes to `topics`.
    pub fn begin(self: &Arc<Self>, topics: Vec<(TopicKind, Arc<[u8]>)>) -> Ticket {
        let mut guard = self.state();
        let state = &mut *guard;
        state.last += 1;
        let serial = state.last;
        for (kind, name) in &topics {
            match place(*kind).and_then(|at| state.names.get_mut(at)) {
                Some(names) => {
                    names.entry(Arc::clone(name)).or_default().insert(serial);
                }
                None => {
                    state.patterns.insert(serial);
                }
            }
        }
        state.tickets.insert(serial, Entry { topics, waiters: Vec::new() });
        self.count.store(state.tickets.len(), Relaxed);
        Ticket { pending: Arc::clone(self), serial }
    }

    /// The latest subscription command up to `limit` that a message for `channel` can match.
    /// `waiter`, a worker's index and handle, is told [`ToWorker::SubscriptionEnded`] when it ends.
    pub fn wait_for(
        &self,
        kind: TopicKind,
        channel: &[u8],
        limit: Serial,
        waiter: (usize, &WorkerHandle),
    ) -> Option<Serial> {
        let mut state = self.state();
        let serial = state.find(kind, channel, limit)?;
        let waiters = &mut state.tickets.get_mut(&serial)?.waiters;
        if waiters.iter().all(|(index, _)| *index != waiter.0) {
            waiters.push((waiter.0, waiter.1.clone()));
        }
        Some(serial)
    }

    fn end(&self, serial: Serial) {
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(entry) = state.tickets.remove(&serial) else { return };
        state.patterns.remove(&serial);
        for (kind, name) in &entry.topics {
            let Some(names) = place(*kind).and_then(|at| state.names.get_mut(at)) else { continue };
            if let Some(serials) = names.get_mut(name) {
                serials.remove(&serial);
                if serials.is_empty() {
                    names.remove(name);
                }
            }
        }
        if state.tickets.is_empty() {
            state.names = Default::default();
        }
        self.count.store(state.tickets.len(), Relaxed);
        drop(guard);
        for (_, worker) in entry.waiters {
            // If the worker has ended, so have its clients.
            let _ = worker.send(ToWorker::SubscriptionEnded(serial));
        }
    }
}

impl State {
    fn find(&self, kind: TopicKind, channel: &[u8], limit: Serial) -> Option<Serial> {
        let names = place(kind).and_then(|at| self.names.get(at))?;
        let named = names.get(channel).and_then(|s| s.range(..=limit).next_back().copied());
        if kind != TopicKind::Channel {
            return named;
        }
        named.max(self.find_pattern(channel, limit, named.unwrap_or(0)))
    }

    /// The latest command above `floor` and up to `limit` with a pattern that matches.
    fn find_pattern(&self, channel: &[u8], limit: Serial, floor: Serial) -> Option<Serial> {
        let mut left = MAX_PATTERNS_COMPARED;
        for serial in self.patterns.range(..=limit).rev().take_while(|s| **s > floor) {
            let topics = self.tickets.get(serial).map_or(&[][..], |entry| &entry.topics);
            for (_, pattern) in topics.iter().filter(|(kind, _)| *kind == TopicKind::Pattern) {
                if left == 0 || matches(pattern, channel) {
                    return Some(*serial);
                }
                left -= 1;
            }
        }
        None
    }
}

/// Tells a worker when all others have read what had arrived at their sockets. Each of them holds a
/// reference until then; dropping the last one, also by the end of a worker, sends
/// [`ToWorker::OthersHaveRead`].
#[derive(Debug)]
pub struct ReadBarrier {
    /// The worker's number for the barrier.
    pub id: u64,
    /// The worker that waits.
    pub worker: WorkerHandle,
}

impl Drop for ReadBarrier {
    fn drop(&mut self) {
        // If the worker has ended, so have its clients.
        let _ = self.worker.send(ToWorker::OthersHaveRead(self.id));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pending.end(self.serial);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn worker() -> (WorkerHandle, mpsc::Receiver<ToWorker>, mio::Poll) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let (sender, inbox) = mpsc::channel();
        (WorkerHandle::new(sender, waker.into(), Arc::default()), inbox, poll)
    }

    fn topics(of: &[(TopicKind, &str)]) -> Vec<(TopicKind, Arc<[u8]>)> {
        of.iter().map(|(kind, name)| (*kind, name.as_bytes().into())).collect()
    }

    #[test]
    fn the_latest_match_up_to_the_limit_is_waited_for() {
        let pending = Arc::new(PendingSubscriptions::default());
        let (worker, inbox, _poll) = worker();
        let find =
            |kind, name: &str, limit| pending.wait_for(kind, name.as_bytes(), limit, (0, &worker));
        assert!(pending.is_quiet(0));
        assert_eq!(find(TopicKind::Channel, "a", u64::MAX), None);
        let first = pending.begin(topics(&[(TopicKind::Channel, "a"), (TopicKind::Shard, "s")]));
        let second =
            pending.begin(topics(&[(TopicKind::Pattern, "x*"), (TopicKind::Pattern, "a*")]));
        let third = pending.begin(topics(&[(TopicKind::Channel, "a")]));
        assert!(!pending.is_quiet(0));
        assert_eq!(pending.last(), 3);
        assert_eq!(find(TopicKind::Channel, "a", 3), Some(3));
        assert_eq!(find(TopicKind::Channel, "a", 2), Some(2));
        assert_eq!(find(TopicKind::Channel, "a", 2), Some(2));
        assert_eq!(find(TopicKind::Channel, "a", 1), Some(1));
        assert_eq!(find(TopicKind::Channel, "ab", 3), Some(2));
        assert_eq!(find(TopicKind::Channel, "s", 3), None);
        assert_eq!(find(TopicKind::Shard, "s", 3), Some(1));
        assert_eq!(find(TopicKind::Shard, "a", 3), None);
        let ended = || match inbox.try_recv() {
            Ok(ToWorker::SubscriptionEnded(serial)) => Some(serial),
            _ => None,
        };
        drop(third);
        assert_eq!((ended(), ended()), (Some(3), None));
        assert_eq!(find(TopicKind::Channel, "a", 9), Some(2));
        drop(second);
        drop(first);
        assert_eq!((ended(), ended(), ended()), (Some(2), Some(1), None));
        assert!(pending.is_quiet(0));
        pending.expect(7);
        assert_eq!((pending.is_quiet(7), pending.is_quiet(7 + ACTIVE)), (false, true));
    }

    #[test]
    fn more_patterns_than_are_compared_are_waited_for() {
        let pending = Arc::new(PendingSubscriptions::default());
        let (worker, _inbox, _poll) = worker();
        let find = || pending.wait_for(TopicKind::Channel, b"c", 9, (0, &worker));
        let many = |n| topics(&vec![(TopicKind::Pattern, "other*"); n]);
        let oldest = pending.begin(many(1));
        let _most = pending.begin(many(MAX_PATTERNS_COMPARED - 1));
        assert_eq!(find(), None);
        let more = pending.begin(many(1));
        assert_eq!(find(), Some(1));
        drop(oldest);
        assert_eq!(find(), None);
        drop(more);
    }
}

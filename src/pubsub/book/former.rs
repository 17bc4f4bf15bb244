//! The former home of a shard channel: the node from which it has moved away.
//!
//! After a migration it is heard until it ends the subscription by itself, as nodes do when they
//! learn that a slot is no longer theirs. The last messages published there are not forwarded to
//! the new home, which is in another shard.
//!
//! After a failover it is a replica of the new home: it keeps the subscription, accepts SPUBLISH,
//! and both forward messages to each other over the cluster bus once they know that they are in the
//! same shard. So neither stream alone is complete and ordered: at the new home, messages published
//! at the former one arrive late; the former home misses what was published at the new one before
//! that knew of its replica. Therefore only the former home is heard until it has answered two
//! PINGs sent after the new home's confirmation, and thus has delivered everything that it was sent
//! before; meanwhile the new home's messages are held back. From then on only the new home is
//! heard, and the topic's gap ends. The first PING waits until all workers follow the topology of
//! the failover, because the others still publish at the former home.

use std::sync::Arc;

use super::nodes::LinkState;
use super::{Action, Book, Class, Entry, Sent, SubState};
use crate::pubsub::{GapReason, Topic};

/// How long the former home is heard at most, in microseconds.
const MAX_HEARD: u64 = 1_000_000;
/// PINGs that the former home must answer, one after the other: everything in its sockets before
/// the first has been executed when it answers the second.
const PINGS: u8 = 2;
/// Bytes held back for one topic; beyond them the new home is heard at once.
const MAX_HELD: usize = 1 << 20;
/// Bytes held back for all topics together.
const MAX_HELD_TOTAL: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct FormerHome {
    pub node: usize,
    /// When to stop hearing it, in microseconds.
    pub until: u64,
    /// It is in the new home's shard.
    is_replica: bool,
    /// Generation of the topology that made it the former home.
    generation: u64,
    held: Option<HeldBack>,
}

/// Messages of the new home, held back while the former one is being asked.
#[derive(Debug, Default)]
struct HeldBack {
    bytes: Vec<u8>,
    starts: Vec<u32>,
    /// PINGs sent to the former home, and answered by it.
    sent: u8,
    answered: u8,
}

impl FormerHome {
    /// Whether it has to answer PINGs before the new home is heard.
    pub(in crate::pubsub) fn is_asked(&self) -> bool {
        self.held.is_some()
    }
}

impl HeldBack {
    fn frame(&self, i: usize) -> &[u8] {
        let start = self.starts.get(i).map_or(self.bytes.len(), |&start| start as usize);
        let end = self.starts.get(i + 1).map_or(self.bytes.len(), |&end| end as usize);
        self.bytes.get(start..end).unwrap_or_default()
    }
}

impl Entry {
    /// Whether `node` is the former home.
    pub(super) fn is_former(&self, node: usize) -> bool {
        self.former.as_ref().is_some_and(|former| former.node == node)
    }

    /// Whether `node` is the new home and its messages are held back.
    pub(super) fn is_held(&self, node: usize) -> bool {
        self.former.as_ref().is_some_and(FormerHome::is_asked) && self.home == Some(node)
    }
}

/// The former homes of all topics.
pub(super) struct Formers<'a> {
    book: &'a mut Book,
}

impl Book {
    /// The former homes.
    pub(super) fn formers(&mut self) -> Formers<'_> {
        Formers { book: self }
    }

    /// Worker `index` follows the topology of this generation.
    pub fn worker_follows(&mut self, index: usize, generation: u64) {
        self.workers.follows(index, generation);
        self.formers().ask_all();
    }
}

impl Formers<'_> {
    /// The entry is about to move to `home`.
    pub(super) fn home_changes(&mut self, at: usize, home: Option<usize>) {
        let Some(entry) = self.book.entries.get(at) else { return };
        let (Class::Shard(_), Some(from), Some(to)) = (entry.class, entry.home, home) else {
            return;
        };
        let heard = |s: &super::Sub| s.node == from && s.state == SubState::Confirmed;
        if from == to || !entry.subs.iter().any(heard) {
            return;
        }
        self.leave(at);
        let until = self.book.now + MAX_HEARD;
        let Some(entry) = self.book.entries.get_mut(at) else { return };
        let Some(node) = self.book.nodes.get_mut(from).filter(|n| n.link == LinkState::Ready)
        else {
            return;
        };
        node.leaving += 1;
        let is_replica = node.primary == Some(to);
        let generation = self.book.nodes.snapshot.generation;
        entry.former = Some(FormerHome { node: from, until, is_replica, generation, held: None });
        entry.echo.hear_both(true);
        self.book.timers.set(until, at);
    }

    /// The new home has confirmed the subscription: its messages are held back from now on if the
    /// former home is its replica.
    pub(super) fn home_confirmed(&mut self, at: usize) {
        let Some(entry) = self.book.entries.get_mut(at) else { return };
        let Some(former) = entry.former.as_mut().filter(|f| f.is_replica) else { return };
        if former.held.is_none() {
            former.held = Some(HeldBack::default());
            self.ask(at);
        }
    }

    /// Sends the PINGs that waited for a worker.
    pub(super) fn ask_all(&mut self) {
        if self.book.nodes.formers().next().is_none() {
            return;
        }
        let held = |e: &Entry| e.former.as_ref().is_some_and(FormerHome::is_asked);
        let all: Vec<usize> =
            self.book.entries.iter().filter(|(_, e)| held(e)).map(|(at, _)| at).collect();
        all.into_iter().for_each(|at| self.ask(at));
    }

    /// Sends the next PING to the former home, if it is time.
    fn ask(&mut self, at: usize) {
        let Some(entry) = self.book.entries.get_mut(at) else { return };
        let topic = Arc::clone(&entry.topic);
        let Some(former) = entry.former.as_mut() else { return };
        let (node, generation) = (former.node, former.generation);
        let Some(held) = former.held.as_mut().filter(|held| held.sent == held.answered) else {
            return;
        };
        if held.sent == 0 && !self.book.workers.all_follow(generation) {
            return;
        }
        if let Some(place) = self.book.nodes.get_mut(node) {
            held.sent += 1;
            place.fifo.push_back(Sent::FormerPing { entry: at, topic });
            self.book.nodes.actions.push(Action::Ping(node));
        }
    }

    /// `node` has answered a PING.
    pub(super) fn answered(&mut self, at: usize, node: usize, topic: Arc<Topic>) {
        let entry = self.book.entries.get_mut(at).filter(|e| Arc::ptr_eq(&e.topic, &topic));
        let former = entry.and_then(|e| e.former.as_mut()).filter(|f| f.node == node);
        let Some(held) = former.and_then(|former| former.held.as_mut()) else { return };
        held.answered += 1;
        if held.answered < PINGS {
            return self.ask(at);
        }
        self.leave(at);
        self.book.place(at);
    }

    /// Holds back a message of the new home.
    pub(super) fn hold(&mut self, at: usize, frame: &[u8]) {
        let former = self.book.entries.get_mut(at).and_then(|entry| entry.former.as_mut());
        let Some(held) = former.and_then(|former| former.held.as_mut()) else { return };
        held.starts.push(held.bytes.len() as u32);
        held.bytes.extend_from_slice(frame);
        self.book.held_back += frame.len();
        if held.bytes.len() > MAX_HELD || self.book.held_back > MAX_HELD_TOTAL {
            self.leave(at);
            self.book.place(at);
        }
    }

    /// Stops hearing the former home.
    pub(super) fn leave(&mut self, at: usize) {
        let Some(entry) = self.book.entries.get_mut(at) else { return };
        let Some(former) = entry.former.take() else { return };
        entry.echo.hear_both(false);
        if let Some(node) = self.book.nodes.get_mut(former.node) {
            node.leaving = node.leaving.saturating_sub(1);
        }
        if let Some(held) = former.held {
            self.book.held_back = self.book.held_back.saturating_sub(held.bytes.len());
            self.release(at, &held);
            self.book.settle(at, GapReason::SlotMoved);
        }
    }

    /// Passes on the messages held back, except those that the former home delivered as well and
    /// those before the last of these: their order relative to its messages is not known.
    fn release(&mut self, at: usize, held: &HeldBack) {
        let Some(entry) = self.book.entries.get_mut(at) else { return };
        let Some(home) = entry.home else { return };
        let now = self.book.now;
        let mut fresh = Vec::new();
        for i in 0..held.starts.len() {
            if entry.echo.is_echo(home, held.frame(i), now) {
                fresh.clear();
            } else {
                fresh.push(i);
            }
        }
        let dropped = held.starts.len() - fresh.len();
        self.book.stats.ignored.fetch_add(dropped as u64, std::sync::atomic::Ordering::Relaxed);
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for i in fresh {
            starts.push(bytes.len() as u32);
            bytes.extend_from_slice(held.frame(i));
        }
        if !starts.is_empty() {
            self.book.workers.deliver(&entry.listeners, &bytes, &starts, &self.book.stats.held);
        }
    }
}

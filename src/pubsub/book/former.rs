//! The node that a shard channel has moved away from.
//!
//! After a migration it is heard until it ends the subscription by itself, as nodes do when they
//! learn that a slot is not theirs any more: what was published there last is not told to the new
//! node, which is in another shard.
//!
//! After a failover it is a replica of the new node: it keeps the subscription, accepts SPUBLISH,
//! and each tells the other what it was sent, over the cluster's bus, as soon as it knows that the
//! other is in its shard. So neither stream alone is complete and in order: the new node hears last
//! what was published at the old one just before others' messages; the old one misses what was
//! published at the new one before that knew of its replica. Therefore the old one alone is heard
//! until it has answered two PINGs behind the new one's confirmation, and so has handed on all that
//! it was sent up to then; the new one's messages are held back meanwhile, and it alone is heard
//! from then on. The topic is in its gap until then. The first PING waits until every worker
//! follows the topology of the failover: one that does not yet publishes at the old node.

use std::cmp::Reverse;
use std::sync::Arc;

use super::nodes::Link;
use super::{Action, Book, Class, Sent, SubState};
use crate::pubsub::{GapReason, Topic};

/// A node that has not noticed by then is not heard any longer, microseconds.
const LONGEST: u64 = 1_000_000;
/// PINGs that the old node answers, one after the other: what was in its sockets before the first
/// is executed before it answers the second.
const PINGS: u8 = 2;
/// Bytes that are held back for one topic. With more, the new node is heard at once.
const MAX_HELD: usize = 1 << 20;
/// The same for all topics together.
const MAX_HELD_IN_ALL: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Former {
    pub node: usize,
    /// Until when it is heard at the latest.
    pub until: u64,
    /// It is in the new node's shard.
    is_replica: bool,
    /// The generation of the topology by which it is the former node.
    generation: u64,
    held: Option<Held>,
}

/// What the new node has sent while the old one is asked for all that it has.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    starts: Vec<u32>,
    /// PINGs that were sent to the old one and that it has answered.
    sent: u8,
    answered: u8,
}

impl Former {
    /// It is asked for all that it has, or will be.
    pub(in crate::pubsub) fn is_asked(&self) -> bool {
        self.held.is_some()
    }
}

impl Held {
    fn frame(&self, i: usize) -> &[u8] {
        let start = self.starts.get(i).map_or(self.bytes.len(), |&start| start as usize);
        let end = self.starts.get(i + 1).map_or(self.bytes.len(), |&end| end as usize);
        self.bytes.get(start..end).unwrap_or_default()
    }
}

impl Book {
    /// The entry is about to move to `home`.
    pub(super) fn home_changes(&mut self, at: usize, home: Option<usize>) {
        let Some(entry) = self.entries.get(at) else { return };
        let (Class::Shard(_), Some(from), Some(to)) = (entry.class, entry.home, home) else {
            return;
        };
        let heard = |s: &super::Sub| s.node == from && s.state == SubState::Confirmed;
        if from == to || !entry.subs.iter().any(heard) {
            return;
        }
        self.leave_former(at);
        let until = self.now + LONGEST;
        let Some(entry) = self.entries.get_mut(at) else { return };
        let Some(node) = self.nodes.get_mut(from).filter(|n| n.link == Link::Ready) else { return };
        node.leaving += 1;
        let is_replica = node.primary == Some(to);
        let generation = self.snapshot.generation;
        entry.former = Some(Former { node: from, until, is_replica, generation, held: None });
        entry.echo.hear_both(true);
        self.retries.push(Reverse((until, at)));
    }

    /// Whether the entry has moved away from `node` and hears it still.
    pub(super) fn is_former(&self, at: usize, node: usize) -> bool {
        let entry = self.entries.get(at);
        entry.and_then(|e| e.former.as_ref()).is_some_and(|former| former.node == node)
    }

    /// The new node has confirmed the subscription: if the old one is its replica, its messages are
    /// held back from now on.
    pub(super) fn home_confirmed(&mut self, at: usize) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        let Some(former) = entry.former.as_mut().filter(|f| f.is_replica) else { return };
        if former.held.is_none() {
            former.held = Some(Held::default());
            self.ask_former(at);
        }
    }

    /// Worker `index` follows the topology of this generation.
    pub fn worker_follows(&mut self, index: usize, generation: u64) {
        if let Some(worker) = self.workers.get_mut(&index) {
            worker.follows = Some(generation);
        }
        self.ask_formers();
    }

    /// Asks those that waited for a worker.
    pub(super) fn ask_formers(&mut self) {
        if self.formers().next().is_none() {
            return;
        }
        let held = |e: &super::Entry| e.former.as_ref().is_some_and(Former::is_asked);
        let all: Vec<usize> =
            self.entries.iter().filter(|(_, e)| held(e)).map(|(at, _)| at).collect();
        all.into_iter().for_each(|at| self.ask_former(at));
    }

    /// Asks the old node for all that it has: the next PING, if its time has come.
    fn ask_former(&mut self, at: usize) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        let topic = Arc::clone(&entry.topic);
        let Some(former) = entry.former.as_mut() else { return };
        let (node, generation) = (former.node, former.generation);
        let Some(held) = former.held.as_mut().filter(|held| held.sent == held.answered) else {
            return;
        };
        // A worker that knows of no topology publishes nowhere.
        let behind = |w: &super::Worker| w.follows.is_some_and(|known| known < generation);
        if held.sent == 0 && self.workers.values().any(behind) {
            return;
        }
        if let Some(place) = self.nodes.get_mut(node) {
            held.sent += 1;
            place.fifo.push_back(Sent::Farewell { entry: at, topic });
            self.actions.push(Action::Ping(node));
        }
    }

    /// `node` has answered such a PING.
    pub(super) fn former_answered(&mut self, at: usize, node: usize, topic: Arc<Topic>) {
        let entry = self.entries.get_mut(at).filter(|e| Arc::ptr_eq(&e.topic, &topic));
        let former = entry.and_then(|e| e.former.as_mut()).filter(|f| f.node == node);
        let Some(held) = former.and_then(|former| former.held.as_mut()) else { return };
        held.answered += 1;
        if held.answered < PINGS {
            return self.ask_former(at);
        }
        self.leave_former(at);
        self.place(at);
    }

    /// Whether `node` is the entry's new node and its messages are held back.
    pub(super) fn is_held(&self, at: usize, node: usize) -> bool {
        let Some(entry) = self.entries.get(at) else { return false };
        let holds = entry.former.as_ref().is_some_and(|former| former.held.is_some());
        holds && entry.home == Some(node)
    }

    /// Holds a message of the new node back.
    pub(super) fn hold(&mut self, at: usize, frame: &[u8]) {
        let former = self.entries.get_mut(at).and_then(|entry| entry.former.as_mut());
        let Some(held) = former.and_then(|former| former.held.as_mut()) else { return };
        held.starts.push(held.bytes.len() as u32);
        held.bytes.extend_from_slice(frame);
        self.held_back += frame.len();
        if held.bytes.len() > MAX_HELD || self.held_back > MAX_HELD_IN_ALL {
            self.leave_former(at);
            self.place(at);
        }
    }

    /// The node before is not heard any more.
    pub(super) fn leave_former(&mut self, at: usize) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        let Some(former) = entry.former.take() else { return };
        entry.echo.hear_both(false);
        if let Some(node) = self.nodes.get_mut(former.node) {
            node.leaving = node.leaving.saturating_sub(1);
        }
        if let Some(held) = former.held {
            self.held_back = self.held_back.saturating_sub(held.bytes.len());
            self.release(at, &held);
            self.settle(at, GapReason::SlotMoved);
        }
    }

    /// Hands on what was held back, but what the old node has sent, too, and what comes before the
    /// last of that: its order among the old node's messages is not known.
    fn release(&mut self, at: usize, held: &Held) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        let Some(home) = entry.home else { return };
        let now = self.now;
        let mut fresh = Vec::new();
        for i in 0..held.starts.len() {
            if entry.echo.is_echo(home, held.frame(i), now) {
                fresh.clear();
            } else {
                fresh.push(i);
            }
        }
        let dropped = held.starts.len() - fresh.len();
        self.stats.ignored.fetch_add(dropped as u64, std::sync::atomic::Ordering::Relaxed);
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for i in fresh {
            starts.push(bytes.len() as u32);
            bytes.extend_from_slice(held.frame(i));
        }
        if !starts.is_empty() {
            self.hand_on(at, &bytes, &starts);
        }
    }

    /// Nodes that topics have moved away from and hear still. What they have sent is older than
    /// what the topics' new nodes have.
    pub fn formers(&self) -> impl Iterator<Item = usize> + '_ {
        self.nodes.iter().enumerate().filter(|(_, n)| n.leaving > 0).map(|(i, _)| i)
    }
}

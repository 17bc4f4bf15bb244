//! The hub's state: which workers listen to which topics, and which subscriptions exist at which
//! nodes. Pure logic: events go in ([`Book::wish`], [`Book::topology`], …), actions for
//! the connections and news for the workers come out. The caller sets the time.
//!
//! - this file: topics, listeners, workers' requests
//! - `entries`: all topics, by index and by name
//! - `nodes`: nodes, their connections; `links`: what befalls them
//! - `timers`: retries, and what else is due later
//! - `subscriptions`: where a topic should be subscribed, and whether it is; every event ends there
//! - `join`: another subscriber of a live topic
//! - `replies`: nodes' replies to commands
//! - `messages`: published messages; `echo`: duplicates from two nodes
//! - `workers`: the workers, and the news for them
//! - `former`: a shard channel's former home, which is heard until it has sent everything

mod echo;
mod entries;
mod former;
mod join;
mod links;
mod messages;
mod nodes;
mod replies;
mod subscriptions;
#[cfg(test)]
mod tests;
mod timers;
mod workers;

use entries::Entries;
pub use messages::{Message, Run};
pub use nodes::HubNode;
use nodes::Nodes;
use timers::Timers;
use workers::Workers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{HubEvent, HubRequest, HubStats, Token, Topic};
use crate::backoff::Backoff;
use crate::channel::TopicKind;
use crate::channel::glob::NOTIFICATION_PREFIXES;
use crate::cluster::{NodeAddr, Slot, SlotMap, UpstreamId};

/// An action for the connections.
#[derive(Debug)]
pub enum Action {
    /// Connect to this node.
    Connect(usize),
    /// Close the connection to this node.
    Close(usize),
    /// Subscribe to the topic at this node.
    Subscribe(usize, Arc<Topic>),
    /// Unsubscribe from the topic at this node.
    Unsubscribe(usize, Arc<Topic>),
    /// Send a PING to this node.
    Ping(usize),
    /// Refresh the topology of this upstream, preferably from this node.
    Refresh(UpstreamId, Option<NodeAddr>),
}

/// A command that awaits its reply.
#[derive(Debug)]
enum Sent {
    Subscribe {
        entry: usize,
        serial: u64,
        topic: Arc<Topic>,
    },
    /// SUBSCRIBE for another subscriber; see `join`.
    Join {
        entry: usize,
        topic: Arc<Topic>,
    },
    Unsubscribe {
        topic: Arc<Topic>,
    },
    /// PING to a former home; see `former`.
    FormerPing {
        entry: usize,
        topic: Arc<Topic>,
    },
    Ping,
}

/// The source of a topic's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Any one node.
    Plain,
    /// The owner of the slot.
    Shard(Slot),
    /// Every primary, because the topic matches keyspace notifications. Unless it is `pure`, it
    /// also matches ordinary channels, whose messages are accepted from its home only.
    Narrow { pure: bool },
    /// Any one node; keyspace notifications that match come through the hub's own two patterns.
    Broad,
}

/// A subscription of one topic at one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sub {
    node: usize,
    /// Unique, so that the reply to an earlier subscription is not taken for this one's.
    serial: u64,
    state: SubState,
    /// Keyspace notifications are accepted from this node: it is a primary, or just was.
    notifies: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SubState {
    Wanted,
    Sent,
    Confirmed,
}

/// A worker that listens to a topic.
#[derive(Debug, Clone, Copy)]
struct Listener {
    worker: usize,
    token: Token,
    /// [`HubEvent::Live`] was sent: the worker gets messages.
    told: bool,
    /// The topic was live when the worker subscribed: see `join`.
    joins: bool,
}

#[derive(Debug)]
struct Entry {
    topic: Arc<Topic>,
    hash: u64,
    class: Class,
    /// The index in [`Entries::broad`], for a broad topic.
    broad_at: usize,
    listeners: Vec<Listener>,
    /// The node from which messages on ordinary and shard channels are accepted.
    home: Option<usize>,
    /// A node has confirmed that it has the slot; otherwise the topology decides.
    pinned: bool,
    /// The slot's owner in the last topology that had one.
    owner: Option<usize>,
    /// The previous home, while it is still heard: see `former`.
    former: Option<former::FormerHome>,
    subs: Vec<Sub>,
    /// For topics with one home.
    echo: echo::Echo,
    joining: join::Joining,
    /// All subscriptions are confirmed.
    live: bool,
    /// The topic was live, and may lose messages until it is so again.
    gapped: bool,
    /// Consecutive temporary refusals.
    tries: u32,
    /// When to try again, in microseconds.
    retry: Option<u64>,
    /// The nodes' error, if they refuse one of the hub's own patterns.
    refused: Option<Box<str>>,
    /// The entry is in [`Book::idle`].
    leaving: bool,
    /// When a topic without listeners is dropped, in microseconds.
    leave_at: Option<u64>,
    /// Messages rewritten for this broad topic (see `messages`), not yet passed on.
    made: Vec<u8>,
    starts: Vec<u32>,
}

/// Delays and limits of retries.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between attempts to connect to a node, and to subscribe where a node refuses it.
    pub backoff: Backoff,
    /// How long a topic without subscribers stays subscribed, in microseconds.
    pub linger: u64,
    /// Retries of refused subscriptions per second, over all topics (`retries.min_per_second`).
    pub per_second: usize,
}

/// The hub's state and logic; see the module.
#[derive(Debug)]
pub struct Book {
    stats: Arc<HubStats>,
    pace: Pace,
    /// The current time in microseconds, set by the caller before each event.
    pub now: u64,
    /// Bytes of all messages that are held back for former homes.
    held_back: usize,
    /// The nodes, and the actions for their connections.
    pub(crate) nodes: Nodes,
    entries: Entries,
    /// The workers, and the news for them.
    pub(crate) workers: Workers,
    /// Entries without listeners, to be dropped at the end of the turn.
    idle: Vec<usize>,
    timers: Timers,
    /// Kept for its capacity.
    spare_subs: Vec<Sub>,
}

impl Book {
    /// A book without topics, nodes or workers.
    pub fn new(stats: Arc<HubStats>, pace: Pace) -> Self {
        Book {
            stats,
            pace,
            now: 0,
            nodes: Nodes::new(),
            entries: Entries::default(),
            workers: Workers::default(),
            idle: Vec::new(),
            timers: Timers::new(pace.per_second),
            held_back: 0,
            spare_subs: Vec::new(),
        }
    }

    /// Sets where the slots of the upstreams lie.
    pub fn set_map(&mut self, map: SlotMap) {
        self.nodes.map = map;
    }

    /// Changes the delays and limits of retries.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
        self.timers.configure(pace.per_second);
    }

    /// Adds a worker, and tells it which topics exist.
    pub fn worker(&mut self, index: usize) {
        let known =
            self.entries.iter().map(|(_, e)| HubEvent::Known(Arc::clone(&e.topic))).collect();
        self.workers.add(index, known);
    }

    /// Removes a worker and its listeners.
    pub fn worker_gone(&mut self, index: usize) {
        let Some(tokens) = self.workers.remove(index) else { return };
        for (token, entry) in tokens {
            self.leave(index, token, entry);
        }
        self.formers().ask_all();
    }

    /// Handles a worker's request.
    pub fn wish(&mut self, worker: usize, wish: HubRequest) {
        match wish {
            HubRequest::Subscribe { token, of, kind, name } => {
                self.subscribe(worker, token, (of, kind), name)
            }
            HubRequest::Confirm { token } => {
                if let Some(at) = self.workers.entry_of(worker, token) {
                    self.start_join(at, Some((worker, token)));
                }
            }
            HubRequest::Unsubscribe { token } => {
                // The token of a refused subscription is already invalid.
                if let Some(entry) = self.workers.unsubscribed(worker, token) {
                    self.leave(worker, token, entry);
                }
            }
        }
    }

    fn subscribe(
        &mut self,
        worker: usize,
        token: Token,
        (of, kind): (UpstreamId, TopicKind),
        name: Arc<[u8]>,
    ) {
        if !self.workers.contains(worker) {
            return;
        }
        let at = self.entry(of, kind, name);
        let Some(entry) = self.entries.get_mut(at) else { return };
        if let Some(text) = entry.refused.clone() {
            return self.workers.tell(worker, HubEvent::Refused { token, text });
        }
        entry.leave_at = None;
        let joins = entry.live;
        let same = |l: &&mut Listener| l.worker == worker && l.token == token;
        match entry.listeners.iter_mut().find(same) {
            // Asked again after a failure of the hub, perhaps before the worker heard of it.
            Some(listener) => (listener.told, listener.joins) = (false, joins),
            None => {
                if entry.listeners.is_empty() {
                    count(&self.stats.topics, kind, 1);
                }
                entry.listeners.push(Listener { worker, token, told: false, joins });
                self.workers.subscribed(worker, token, at);
            }
        }
        if self.entries.get(at).is_some_and(|e| e.class == Class::Broad) {
            self.listen_for_broad(of);
        }
        self.place(at);
        self.settle(at, super::GapReason::ConnectionLost);
        if joins {
            self.start_join(at, Some((worker, token)));
        }
    }

    /// The entry of a topic, created if it does not exist.
    fn entry(&mut self, of: UpstreamId, kind: TopicKind, name: Arc<[u8]>) -> usize {
        if let Some(at) = self.entries.named(of, kind, &name) {
            return at;
        }
        let at = self.entries.insert(of, kind, name, &self.nodes);
        if let Some(entry) = self.entries.get(at) {
            self.workers.tell_all(|| HubEvent::Known(Arc::clone(&entry.topic)));
        }
        at
    }

    /// Subscribes to the hub's own patterns at an upstream, which broad topics need.
    fn listen_for_broad(&mut self, of: UpstreamId) {
        for which in 0..NOTIFICATION_PREFIXES.len() {
            if self.entries.own(of).get(which).is_some_and(Option::is_some) {
                continue;
            }
            let Some(prefix) = NOTIFICATION_PREFIXES.get(which) else { continue };
            let name: Vec<u8> = [prefix, b"*".as_slice()].concat();
            let at = self.entry(of, TopicKind::Pattern, name.into());
            if let Some(own) = self.entries.own_mut(of).get_mut(which) {
                *own = Some(at);
            }
            self.place(at);
            self.settle(at, super::GapReason::ConnectionLost);
        }
    }

    fn leave(&mut self, worker: usize, token: Token, at: usize) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        let before = entry.listeners.len();
        entry.listeners.retain(|l| l.worker != worker || l.token != token);
        if entry.listeners.is_empty() && before > 0 {
            count(&self.stats.topics, entry.topic.kind, -1);
            if !entry.leaving {
                entry.leaving = true;
                self.idle.push(at);
            }
        }
    }

    /// Ends a turn: drops topics without listeners. (Not at once, because one subscriber often
    /// leaves just before the next one comes.)
    pub fn end_turn(&mut self) {
        while let Some(at) = self.idle.pop() {
            let own = self.entries.is_own(at);
            let Some(entry) = self.entries.get_mut(at) else { continue };
            entry.leaving = false;
            if !entry.listeners.is_empty() || own {
                continue;
            }
            if self.pace.linger == 0 {
                self.forget(at);
                continue;
            }
            // A subscriber that returns soon costs nothing then, and the replies to PUBLISH
            // commands in progress are still corrected.
            let due = self.now + self.pace.linger;
            entry.leave_at = Some(due);
            self.timers.set(due, at);
        }
    }

    pub(super) fn forget(&mut self, at: usize) {
        self.withdraw(at);
        let Some(entry) = self.entries.remove(at) else { return };
        let topic = entry.topic;
        topic.set_live(false);
        if topic.upstream() == 0 {
            self.workers.tell_all(|| HubEvent::Forgotten(Arc::clone(&topic)));
        }
        if entry.class == Class::Broad && !self.entries.has_broad(topic.of) {
            for own in std::mem::take(self.entries.own_mut(topic.of)).into_iter().flatten() {
                if self.entries.get(own).is_some_and(|e| e.listeners.is_empty()) {
                    self.forget(own);
                }
            }
        }
    }
}

/// Adds to a gauge by kind.
fn count(gauges: &[AtomicU64; TopicKind::COUNT], kind: TopicKind, by: i64) {
    gauges[kind as usize].fetch_add(by as u64, Relaxed); // -1 wraps, as it should
}

type Fifo = VecDeque<Sent>;

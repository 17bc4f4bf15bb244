//! The hub's book: which workers listen to what, what is subscribed where, and what of it is
//! confirmed. Pure logic: events go in ([`Book::wish`], [`Book::topology`], [`Book::ready`], …),
//! actions for the connections and news for the workers come out. Time is what it is told.
//!
//! - here: topics, listeners, wishes
//! - `nodes`: nodes and their connections come and go; timers
//! - `keep`: where a topic should be subscribed, and whether that is so: every event ends there
//! - `again`: another subscriber of what is subscribed already
//! - `replies`: what nodes answer
//! - `messages`: what they send; `echo`: what two nodes send of the same
//! - `former`: a shard channel's last node, which is heard until it has said all

mod again;
mod echo;
mod former;
mod keep;
mod messages;
mod nodes;
mod replies;
#[cfg(test)]
mod tests;

pub use messages::{Message, Run};
pub use nodes::Node;

use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use slab::Slab;

use super::{HubStats, News, Token, Topic, Wish, hash};
use crate::channel::Kind;
use crate::channel::glob::{self, NOTIFICATIONS};
use crate::cluster::{NodeAddr, Slot, Snapshot, slot_of};
use crate::hash::{IntMap, KeyedMap};
use crate::placement::Budget;

/// What the connections are to do.
#[derive(Debug)]
pub enum Action {
    /// Connect to this node.
    Connect(usize),
    /// Leave it.
    Close(usize),
    /// Subscribe there.
    Subscribe(usize, Arc<Topic>),
    /// End that.
    Unsubscribe(usize, Arc<Topic>),
    /// Ask for a sign of life.
    Ping(usize),
    /// Ask for the topology; a node that is likely to know it.
    Refresh(Option<NodeAddr>),
}

/// A command that was sent and not answered.
#[derive(Debug)]
enum Sent {
    Subscribe {
        entry: usize,
        serial: u64,
        topic: Arc<Topic>,
    },
    /// See `again`.
    Again {
        entry: usize,
        topic: Arc<Topic>,
    },
    Unsubscribe {
        topic: Arc<Topic>,
    },
    /// A PING; see `former`.
    Farewell {
        entry: usize,
        topic: Arc<Topic>,
    },
    Ping,
}

/// Where a topic's messages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// One node, any of them will do.
    Plain,
    /// The owner of its slot.
    Shard(Slot),
    /// Every primary. Where it can match channels that are no notifications, too, those are
    /// accepted from its home alone (`pure`: it cannot).
    Narrow { pure: bool },
    /// One node, and what the two patterns of the book's own bring that match it.
    Broad,
}

/// A subscription of one topic at one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sub {
    node: usize,
    /// Never used twice: an answer to an earlier one is not taken for this one's.
    serial: u64,
    state: SubState,
    /// Notifications are taken from it: its node is a primary, or was until just now.
    notifies: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SubState {
    Wanted,
    Sent,
    Confirmed,
}

/// A worker that listens.
#[derive(Debug, Clone, Copy)]
struct Listener {
    worker: usize,
    token: Token,
    /// It was told [`News::Live`]: messages go to it.
    told: bool,
    /// It came when the topic was subscribed already: see `again`.
    joins: bool,
}

#[derive(Debug)]
struct Entry {
    topic: Arc<Topic>,
    hash: u64,
    class: Class,
    /// Its position in `broad`, if it is broad.
    broad_at: usize,
    listeners: Vec<Listener>,
    /// Where an ordinary or shard channel's messages come from.
    home: Option<usize>,
    /// A node has said that the slot is there; else the topology says.
    pinned: bool,
    /// Who had the slot by the last topology that knew.
    owner: Option<usize>,
    /// The home before this one, as long as it is heard: see `former`.
    former: Option<former::Former>,
    subs: Vec<Sub>,
    /// Of what comes from one node, its home.
    echo: echo::Echo,
    again: again::Again,
    /// All of it is confirmed.
    live: bool,
    /// It was, and messages may be missed until it is again.
    gapped: bool,
    /// Refusals that may pass, one after the other.
    tries: u32,
    /// Not tried before this time.
    retry: Option<u64>,
    /// One of the book's own patterns that the nodes do not allow.
    refused: Option<Box<str>>,
    /// Stands in `idle`.
    leaving: bool,
    /// Nobody listens any more: it is let go of at that time.
    leave_at: Option<u64>,
    /// Messages that were made for it here (see `messages`), not handed on yet.
    made: Vec<u8>,
    starts: Vec<u32>,
}

#[derive(Debug, Default)]
struct Worker {
    /// The generation of the topology that it routes by; `None`: it has said of none yet.
    follows: Option<u64>,
    news: Vec<News>,
    tokens: KeyedMap<Token, usize>,
}

/// How long to wait after failures.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// After the first, microseconds.
    pub min: u64,
    /// After many.
    pub max: u64,
    /// How long a topic stays subscribed that nobody listens to any more, microseconds.
    pub linger: u64,
    /// Refused subscriptions that are tried again per second, of all topics together
    /// (`retries.min_per_second`).
    pub per_second: usize,
}

impl Pace {
    /// Doubling from one to the other, less up to half of it at random.
    pub fn after(self, failures: u32) -> u64 {
        let doubled = self.min.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let doubled = doubled.min(self.max);
        doubled - fastrand::u64(0..=doubled / 2)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Book {
    stats: Arc<HubStats>,
    pace: Pace,
    /// Microseconds; set by whoever brings an event.
    pub now: u64,
    /// Bytes of all messages that are held back for former homes.
    held_back: usize,
    nodes: Vec<Node>,
    /// Primaries that are online.
    primaries: Vec<usize>,
    /// Every shard with slots has one.
    covered: bool,
    snapshot: Arc<Snapshot>,
    /// By node of the snapshot.
    by_index: Vec<usize>,
    entries: Slab<Entry>,
    names: [KeyedMap<Arc<[u8]>, usize>; Kind::COUNT],
    /// Broad topics.
    broad: Vec<usize>,
    /// The book's own patterns, while there are broad topics.
    own: [Option<usize>; NOTIFICATIONS.len()],
    workers: IntMap<usize, Worker>,
    /// Entries that nobody listens to any more; looked at when the turn ends.
    idle: Vec<usize>,
    /// Subscriptions that no node holds any more, and how long they are counted.
    ended: VecDeque<(u64, Arc<Topic>)>,
    retries: BinaryHeap<std::cmp::Reverse<(u64, usize)>>,
    /// The retries that may be sent.
    budget: Budget,
    /// Entries whose retry is due and waits for the budget.
    overdue: VecDeque<usize>,
    serial: u64,
    actions: Vec<Action>,
    /// Kept for their capacity.
    spare_subs: Vec<Sub>,
}

impl Book {
    /// An empty one.
    pub fn new(stats: Arc<HubStats>, pace: Pace) -> Self {
        Book {
            stats,
            pace,
            now: 0,
            nodes: Vec::new(),
            primaries: Vec::new(),
            covered: false,
            snapshot: Arc::new(Snapshot::empty()),
            by_index: Vec::new(),
            entries: Slab::new(),
            names: Default::default(),
            broad: Vec::new(),
            own: [None; NOTIFICATIONS.len()],
            workers: IntMap::default(),
            idle: Vec::new(),
            ended: VecDeque::new(),
            retries: BinaryHeap::new(),
            budget: Budget::new(0, pace.per_second),
            overdue: VecDeque::new(),
            serial: 0,
            actions: Vec::new(),
            held_back: 0,
            spare_subs: Vec::new(),
        }
    }

    /// Tries again at this pace from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
        self.budget.configure(0, pace.per_second);
    }

    /// A worker has started: it is told what the others listen to.
    pub fn worker(&mut self, index: usize) {
        let known = self.entries.iter().map(|(_, e)| News::Known(Arc::clone(&e.topic))).collect();
        self.workers.insert(index, Worker { news: known, ..Worker::default() });
    }

    /// A worker has ended.
    pub fn worker_gone(&mut self, index: usize) {
        let Some(worker) = self.workers.remove(&index) else { return };
        for (token, entry) in worker.tokens {
            self.leave(index, token, entry);
        }
        self.ask_formers();
    }

    /// What a worker wishes for.
    pub fn wish(&mut self, worker: usize, wish: Wish) {
        match wish {
            Wish::Subscribe { token, kind, name } => self.subscribe(worker, token, kind, name),
            Wish::Confirm { token } => {
                let at = self.workers.get(&worker).and_then(|w| w.tokens.get(&token).copied());
                if let Some(at) = at {
                    self.ask_again(at, Some((worker, token)));
                }
            }
            Wish::Unsubscribe { token } => {
                // A refused one is over already.
                let tokens = self.workers.get_mut(&worker).map(|w| &mut w.tokens);
                if let Some(entry) = tokens.and_then(|tokens| tokens.remove(&token)) {
                    self.leave(worker, token, entry);
                }
            }
        }
    }

    fn subscribe(&mut self, worker: usize, token: Token, kind: Kind, name: Arc<[u8]>) {
        if !self.workers.contains_key(&worker) {
            return;
        }
        let at = self.entry(kind, name);
        let Some(entry) = self.entries.get_mut(at) else { return };
        if let Some(text) = entry.refused.clone() {
            return self.say(worker, News::Refused { token, text });
        }
        entry.leave_at = None;
        let joins = entry.live;
        let same = |l: &&mut Listener| l.worker == worker && l.token == token;
        match entry.listeners.iter_mut().find(same) {
            // It asks again after a failure of the hub; it may have asked before it knew of it.
            Some(listener) => (listener.told, listener.joins) = (false, joins),
            None => {
                if entry.listeners.is_empty() {
                    count(&self.stats.topics, kind, 1);
                }
                entry.listeners.push(Listener { worker, token, told: false, joins });
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.tokens.insert(token, at);
                }
            }
        }
        if self.entries.get(at).is_some_and(|e| e.class == Class::Broad) {
            self.listen_for_broad();
        }
        self.place(at);
        self.settle(at, super::GapReason::ConnectionLost);
        if joins {
            self.ask_again(at, Some((worker, token)));
        }
    }

    /// The entry of a topic; a new one if nobody listens to it yet.
    fn entry(&mut self, kind: Kind, name: Arc<[u8]>) -> usize {
        if let Some(&at) = self.names[kind as usize].get(&name) {
            return at;
        }
        let class = classify(kind, &name);
        let owner = match class {
            Class::Shard(slot) => self.owner(slot),
            _ => None,
        };
        let everywhere = matches!(class, Class::Narrow { .. } | Class::Broad);
        let topic = Arc::new(Topic::new(kind, Arc::clone(&name), everywhere));
        let at = self.entries.insert(Entry {
            topic: Arc::clone(&topic),
            hash: hash(&name),
            class,
            broad_at: self.broad.len(),
            listeners: Vec::new(),
            home: None,
            pinned: false,
            owner,
            former: None,
            subs: Vec::new(),
            echo: Default::default(),
            again: Default::default(),
            live: false,
            gapped: false,
            tries: 0,
            retry: None,
            refused: None,
            leaving: false,
            leave_at: None,
            made: Vec::new(),
            starts: Vec::new(),
        });
        self.names[kind as usize].insert(name, at);
        if class == Class::Broad {
            self.broad.push(at);
        }
        self.say_all(|| News::Known(Arc::clone(&topic)));
        at
    }

    /// Broad topics need the book's own patterns.
    fn listen_for_broad(&mut self) {
        for which in 0..NOTIFICATIONS.len() {
            if self.own.get(which).is_some_and(Option::is_some) {
                continue;
            }
            let Some(prefix) = NOTIFICATIONS.get(which) else { continue };
            let name: Vec<u8> = [prefix, b"*".as_slice()].concat();
            let at = self.entry(Kind::Pattern, name.into());
            if let Some(own) = self.own.get_mut(which) {
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

    /// The turn's events are over: what nobody listens to any more is let go of. (Not at once:
    /// one subscriber often goes while the next one comes.)
    pub fn end_turn(&mut self) {
        while let Some(at) = self.idle.pop() {
            let Some(entry) = self.entries.get_mut(at) else { continue };
            entry.leaving = false;
            if !entry.listeners.is_empty() || self.own.contains(&Some(at)) {
                continue;
            }
            if self.pace.linger == 0 {
                self.forget(at);
                continue;
            }
            // A subscriber that comes back soon costs nothing so, and a PUBLISH that is on its way
            // is counted right.
            let due = self.now + self.pace.linger;
            entry.leave_at = Some(due);
            self.retries.push(std::cmp::Reverse((due, at)));
        }
    }

    pub(super) fn forget(&mut self, at: usize) {
        self.withdraw(at);
        let Some(entry) = self.entries.try_remove(at) else { return };
        let topic = entry.topic;
        self.names[topic.kind as usize].remove(&topic.name);
        topic.set_live(false);
        if topic.upstream() == 0 {
            self.say_all(|| News::Forgotten(Arc::clone(&topic)));
        }
        if entry.class == Class::Broad {
            self.broad.swap_remove(entry.broad_at);
            if let Some(&moved) = self.broad.get(entry.broad_at)
                && let Some(moved) = self.entries.get_mut(moved)
            {
                moved.broad_at = entry.broad_at;
            }
            if self.broad.is_empty() {
                for own in std::mem::take(&mut self.own).into_iter().flatten() {
                    if self.entries.get(own).is_some_and(|e| e.listeners.is_empty()) {
                        self.forget(own);
                    }
                }
            }
        }
    }

    fn say(&mut self, worker: usize, news: News) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.news.push(news);
        }
    }

    pub(super) fn say_all(&mut self, news: impl Fn() -> News) {
        for worker in self.workers.values_mut() {
            worker.news.push(news());
        }
    }

    /// What is to be told, worker by worker.
    pub fn take_news(&mut self) -> impl Iterator<Item = (usize, Vec<News>)> + '_ {
        let told = self.workers.iter_mut().filter(|(_, worker)| !worker.news.is_empty());
        told.map(|(&index, worker)| (index, std::mem::take(&mut worker.news)))
    }

    /// What is to be done.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }
}

fn classify(kind: Kind, name: &[u8]) -> Class {
    match kind {
        Kind::Shard => Class::Shard(slot_of(name)),
        _ if !glob::may_notify(kind, name) => Class::Plain,
        Kind::Channel => Class::Narrow { pure: true },
        Kind::Pattern => {
            let literal = glob::literal_prefix(name);
            if literal.starts_with(b"__key") {
                Class::Narrow { pure: glob::is_notification(&literal) }
            } else {
                Class::Broad
            }
        }
    }
}

/// A gauge by kind goes up or down.
fn count(gauges: &[AtomicU64; Kind::COUNT], kind: Kind, by: i64) {
    gauges[kind as usize].fetch_add(by as u64, Relaxed); // -1 wraps, as it should
}

type Fifo = VecDeque<Sent>;

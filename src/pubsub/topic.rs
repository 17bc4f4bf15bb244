//! What the hub and the workers know of a channel, pattern or shard channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// SUBSCRIBE.
    Channel,
    /// PSUBSCRIBE.
    Pattern,
    /// SSUBSCRIBE.
    Shard,
}

impl Kind {
    /// How many kinds there are.
    pub const COUNT: usize = 3;
    /// All, by discriminant.
    pub const ALL: [Kind; Self::COUNT] = [Kind::Channel, Kind::Pattern, Kind::Shard];
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] = ["channel", "pattern", "shard"];

    /// The command that begins to listen; its lower case is what the confirmation says.
    pub fn subscribe(self) -> &'static str {
        ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"][self as usize]
    }

    /// The command that ends it.
    pub fn unsubscribe(self) -> &'static str {
        ["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"][self as usize]
    }
}

/// One channel, pattern or shard channel that somebody of this process listens to. Made by the
/// hub, which tells all workers of it; shared, so that every worker can count its subscribers and
/// publish where it is listened to.
#[derive(Debug)]
pub struct Topic {
    /// What it is.
    pub kind: Kind,
    /// Its name, or the pattern.
    pub name: Arc<[u8]>,
    /// Subscribed at every primary: it can match keyspace notifications.
    pub everywhere: bool,
    subscribers: AtomicUsize,
    home: AtomicU64,
    live: AtomicBool,
    upstream: AtomicUsize,
}

impl Topic {
    /// One that nobody listens to yet.
    pub fn new(kind: Kind, name: Arc<[u8]>, everywhere: bool) -> Self {
        Topic {
            kind,
            name,
            everywhere,
            subscribers: AtomicUsize::new(0),
            home: AtomicU64::new(0),
            live: AtomicBool::new(false),
            upstream: AtomicUsize::new(0),
        }
    }

    /// Clients of all workers whose subscription is confirmed.
    pub fn subscribers(&self) -> usize {
        self.subscribers.load(Relaxed)
    }

    /// A worker has one more.
    pub fn join(&self) {
        self.subscribers.fetch_add(1, Relaxed);
    }

    /// A worker has one fewer.
    pub fn leave(&self) {
        // Each was counted when it came, so there is one to take off.
        let _ = self.subscribers.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
    }

    /// [`super::ident`] of the node where the hub is subscribed to it (or about to be), whatever
    /// the kind; 0: none, or only at every primary.
    pub fn home(&self) -> u64 {
        self.home.load(Relaxed)
    }

    /// Set by the hub.
    pub fn set_home(&self, ident: u64) {
        self.home.store(ident, Relaxed);
    }

    /// The cluster has confirmed it, and nothing was lost since. Set by the hub.
    pub fn is_live(&self) -> bool {
        self.live.load(Relaxed)
    }

    /// Set by the hub.
    pub fn set_live(&self, live: bool) {
        self.live.store(live, Relaxed);
    }

    /// At how many nodes the hub is subscribed to this very name, or was a moment ago: as many of
    /// the nodes' subscribers are slotway itself, or were when they counted.
    pub fn upstream(&self) -> usize {
        self.upstream.load(Relaxed)
    }

    /// Set by the hub.
    pub fn set_upstream(&self, nodes: usize) {
        self.upstream.store(nodes, Relaxed);
    }
}

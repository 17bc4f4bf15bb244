//! What the hub and the workers know of a channel, pattern or shard channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::channel::Kind;

/// Joins that a topic remembers the times of. With more of them while one PUBLISH is answered, its
/// count may be of some that came too late for it.
const REMEMBERED: usize = 8;

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
    joins: AtomicUsize,
    /// When the last of them were confirmed, by number of the join.
    joined: [AtomicU64; REMEMBERED],
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
            joins: AtomicUsize::new(0),
            joined: Default::default(),
            home: AtomicU64::new(0),
            live: AtomicBool::new(false),
            upstream: AtomicUsize::new(0),
        }
    }

    /// Clients of all workers whose subscription is confirmed.
    pub fn subscribers(&self) -> usize {
        self.subscribers.load(Relaxed)
    }

    /// Those of them that were confirmed at a time, microseconds of the workers' clock. A PUBLISH
    /// that was sent then may have passed a node before the others were, who get no message of it.
    pub fn subscribers_at(&self, time: u64) -> usize {
        let later = self.joined.iter().filter(|joined| joined.load(Relaxed) > time).count();
        self.subscribers().saturating_sub(later)
    }

    /// A worker has one more, since this time: microseconds of the workers' clock.
    pub fn join(&self, time: u64) {
        let number = self.joins.fetch_add(1, Relaxed);
        if let Some(joined) = self.joined.get(number % REMEMBERED) {
            joined.store(time, Relaxed);
        }
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
    pub(super) fn set_home(&self, ident: u64) {
        self.home.store(ident, Relaxed);
    }

    /// The cluster has confirmed it, and nothing was lost since. Set by the hub.
    pub fn is_live(&self) -> bool {
        self.live.load(Relaxed)
    }

    /// Set by the hub.
    pub(super) fn set_live(&self, live: bool) {
        self.live.store(live, Relaxed);
    }

    /// At how many nodes the hub is subscribed to this very name, or was a moment ago: as many of
    /// the nodes' subscribers are slotway itself, or were when they counted.
    pub fn upstream(&self) -> usize {
        self.upstream.load(Relaxed)
    }

    /// Set by the hub.
    pub(super) fn set_upstream(&self, nodes: usize) {
        self.upstream.store(nodes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_later_is_not_counted() {
        let topic = Topic::new(Kind::Channel, (*b"c").into(), false);
        for time in [10, 20, 20, 30] {
            topic.join(time);
        }
        let at = |time| topic.subscribers_at(time);
        assert_eq!([at(5), at(10), at(19), at(20), at(29), at(30), at(31)], [0, 1, 1, 3, 3, 4, 4]);
        topic.leave();
        assert_eq!((at(31), topic.subscribers()), (3, 3));
        for _ in 0..REMEMBERED {
            topic.join(40);
        }
        assert_eq!((at(39), at(40)), (3, 3 + REMEMBERED));
    }
}

//! State of a topic, shared by the hub and the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::channel::TopicKind;
use crate::cluster::UpstreamId;

/// Number of subscribers whose time of confirmation is kept. If more subscribe while one PUBLISH is
/// in progress, its reply may count some that came too late for its message.
const MAX_JOIN_TIMES: usize = 8;

/// A channel, pattern or shard channel to which this process subscribes. The hub creates it and
/// sends it to all workers, so that each can count subscribers and publish at the topic's home.
#[derive(Debug)]
pub struct Topic {
    /// The kind of topic.
    pub kind: TopicKind,
    /// The upstream whose channel or pattern it is.
    pub of: UpstreamId,
    /// The channel or pattern.
    pub name: Arc<[u8]>,
    /// Subscribed at every primary, because it can match keyspace notifications.
    pub everywhere: bool,
    subscribers: AtomicUsize,
    joins: AtomicUsize,
    /// When the last subscribers were confirmed, in a ring indexed by their number.
    joined: [AtomicU64; MAX_JOIN_TIMES],
    home: AtomicU64,
    live: AtomicBool,
    upstream: AtomicUsize,
}

impl Topic {
    /// A topic without subscribers.
    pub fn new(of: UpstreamId, kind: TopicKind, name: Arc<[u8]>, everywhere: bool) -> Self {
        Topic {
            kind,
            of,
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

    /// Number of confirmed subscribers, of all workers.
    pub fn subscribers(&self) -> usize {
        self.subscribers.load(Relaxed)
    }

    /// Number of subscribers confirmed by `time`, in microseconds of the workers' clock. A PUBLISH
    /// sent at that time may have reached the node before later subscribers, who get no message.
    pub fn subscribers_at(&self, time: u64) -> usize {
        let later = self.joined.iter().filter(|joined| joined.load(Relaxed) > time).count();
        self.subscribers().saturating_sub(later)
    }

    /// Adds a subscriber, confirmed at `time`, in microseconds of the workers' clock.
    pub fn join(&self, time: u64) {
        let number = self.joins.fetch_add(1, Relaxed);
        if let Some(joined) = self.joined.get(number % MAX_JOIN_TIMES) {
            joined.store(time, Relaxed);
        }
        self.subscribers.fetch_add(1, Relaxed);
    }

    /// Removes a subscriber.
    pub fn leave(&self) {
        // Each leaving subscriber has been counted, so this does not go below 0.
        let _ = self.subscribers.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
    }

    /// [`super::ident`] of the node at which the hub subscribes to the topic, whatever its kind; 0
    /// if there is none, or it is subscribed at every primary only.
    pub fn home(&self) -> u64 {
        self.home.load(Relaxed)
    }

    /// For the hub.
    pub(super) fn set_home(&self, ident: u64) {
        self.home.store(ident, Relaxed);
    }

    /// Whether the cluster has confirmed the subscription and nothing was lost since.
    pub fn is_live(&self) -> bool {
        self.live.load(Relaxed)
    }

    /// For the hub.
    pub(super) fn set_live(&self, live: bool) {
        self.live.store(live, Relaxed);
    }

    /// Number of nodes at which the hub is, or just was, subscribed to exactly this name: this many
    /// of the subscribers that the nodes count are slotway itself.
    pub fn upstream(&self) -> usize {
        self.upstream.load(Relaxed)
    }

    /// For the hub.
    pub(super) fn set_upstream(&self, nodes: usize) {
        self.upstream.store(nodes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_subscribers_are_not_counted() {
        let topic = Topic::new(UpstreamId::FIRST, TopicKind::Channel, (*b"c").into(), false);
        for time in [10, 20, 20, 30] {
            topic.join(time);
        }
        let at = |time| topic.subscribers_at(time);
        assert_eq!([at(5), at(10), at(19), at(20), at(29), at(30), at(31)], [0, 1, 1, 3, 3, 4, 4]);
        topic.leave();
        assert_eq!((at(31), topic.subscribers()), (3, 3));
        for _ in 0..MAX_JOIN_TIMES {
            topic.join(40);
        }
        assert_eq!((at(39), at(40)), (3, 3 + MAX_JOIN_TIMES));
    }
}

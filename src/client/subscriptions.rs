//! A client's subscriptions.

use crate::channel::TopicKind;
use crate::hash::IntMap;

/// The subscriptions of one client. Boxed, as few clients are subscribers.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// By the worker's index of the topic: the client's position among its subscribers.
    pub topics: IntMap<u32, u32>,
    /// Number of subscriptions, by [`TopicKind`].
    pub counts: [u32; TopicKind::COUNT],
    /// Memory of the names, here, in the worker and in the hub, in bytes.
    pub names: usize,
    /// Number of the last SUBSCRIBE that had to wait for the cluster; `None` once it is answered.
    pub asked: Option<u32>,
    /// Since when its output exceeds `pubsub.output_soft`, in microseconds of the worker's clock.
    pub above_soft: Option<u64>,
}

impl Subscriptions {
    /// Memory accounted to a subscription, in bytes: the worker and the hub keep the name and data
    /// about it, and the reply to SUBSCRIBE repeats it. A topic is counted once per subscriber,
    /// which is never too little.
    pub fn cost(name: &[u8]) -> usize {
        const PER_NAME: usize = 384;
        PER_NAME + 3 * name.len()
    }

    /// The count in a confirmation: channels and patterns together, shard channels separately.
    pub fn counted(&self, kind: TopicKind) -> u32 {
        let [channels, patterns, shard] = self.counts;
        match kind {
            TopicKind::Channel | TopicKind::Pattern => channels + patterns,
            TopicKind::Shard => shard,
        }
    }

    /// Whether there are no subscriptions.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Memory in bytes.
    pub fn memory(&self) -> usize {
        let topics = self.topics.capacity() * (size_of::<(u32, u32)>() + 1);
        size_of::<Self>() + topics + self.names
    }
}

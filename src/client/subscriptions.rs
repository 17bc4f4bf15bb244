//! What one client is subscribed to.

use crate::channel::TopicKind;
use crate::hash::IntMap;

/// A client's subscriptions. Boxed in the client, which is rarely a subscriber.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// By the worker's index of the topic: the client's place among its subscribers.
    pub topics: IntMap<u32, u32>,
    /// How many, by [`TopicKind`].
    pub counts: [u32; TopicKind::COUNT],
    /// Bytes that their names occupy, here, in the worker and in the hub.
    pub names: usize,
    /// The number of the last SUBSCRIBE that had to wait for the cluster; `None` once it is known
    /// to be answered.
    pub asked: Option<u32>,
    /// Since when it has not taken what is more than `pubsub.output_soft`: microseconds of the
    /// worker's clock.
    pub above_soft: Option<u64>,
}

impl Subscriptions {
    /// What a subscription of this name costs: the name is kept by the worker and by the hub, each
    /// with what it notes of it, and confirmed with all others in one reply. A topic of many
    /// subscribers is counted for each of them: it is no less than what is held.
    pub fn cost(name: &[u8]) -> usize {
        const NOTES: usize = 384;
        NOTES + 3 * name.len()
    }

    /// What a confirmation counts: channels and patterns together, shard channels by themselves.
    pub fn counted(&self, kind: TopicKind) -> u32 {
        let [channels, patterns, shard] = self.counts;
        match kind {
            TopicKind::Channel | TopicKind::Pattern => channels + patterns,
            TopicKind::Shard => shard,
        }
    }

    /// It is subscribed to nothing.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Bytes that it occupies.
    pub fn held(&self) -> usize {
        let topics = self.topics.capacity() * (size_of::<(u32, u32)>() + 1);
        size_of::<Self>() + topics + self.names
    }
}

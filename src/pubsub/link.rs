//! Messages between the hub and the workers.

use std::sync::Arc;

use super::{Frames, Topic};
use crate::channel::TopicKind;
use crate::cluster::UpstreamId;

/// A worker's identifier of one of its topics. The generation distinguishes successive
/// subscriptions that use the same index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Index among the worker's topics.
    pub index: u32,
    /// Number of the subscription that uses this index.
    pub generation: u32,
}

/// A request from a worker to the hub.
#[derive(Debug)]
pub enum HubRequest {
    /// A topic has its first subscriber. Answered by [`HubEvent::Live`] or [`HubEvent::Refused`].
    Subscribe {
        /// The worker's identifier of the topic.
        token: Token,
        /// The upstream whose topic it is.
        of: UpstreamId,
        /// The kind of topic.
        kind: TopicKind,
        /// The channel or pattern.
        name: Arc<[u8]>,
    },
    /// A live topic has another subscriber. Answered by another [`HubEvent::Live`], after all
    /// messages that were published before.
    Confirm {
        /// The token of [`HubRequest::Subscribe`].
        token: Token,
    },
    /// A topic has lost its last subscriber. Not answered.
    Unsubscribe {
        /// The token of [`HubRequest::Subscribe`].
        token: Token,
    },
}

/// An event that the hub reports to a worker.
#[derive(Debug)]
pub enum HubEvent {
    /// This process subscribes to a topic: sent to all workers, before any [`HubEvent::Live`].
    Known(Arc<Topic>),
    /// This process no longer subscribes to a topic: sent to all workers.
    Forgotten(Arc<Topic>),
    /// The cluster has confirmed the subscription: messages published from now on arrive. Sent
    /// again when the subscription is restored after a [`HubEvent::Gap`].
    Live {
        /// The worker's identifier of the topic.
        token: Token,
        /// The topic.
        topic: Arc<Topic>,
    },
    /// The cluster refuses the subscription. The token is no longer valid.
    Refused {
        /// The worker's identifier of the topic.
        token: Token,
        /// The node's error, without the leading `-`.
        text: Box<str>,
    },
    /// One or more messages, in order.
    Messages {
        /// The worker's identifier of the topic.
        token: Token,
        /// The messages.
        frames: Arc<Frames>,
    },
    /// Messages may be lost from here to the next [`HubEvent::Live`].
    Gap {
        /// The worker's identifier of the topic.
        token: Token,
    },
    /// The hub has failed and restarted: workers must subscribe to all topics again, with the same
    /// tokens; until then every topic is in a gap.
    Restarted,
}

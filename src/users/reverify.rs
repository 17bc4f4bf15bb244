//! Periodic re-verification of users of the cluster that have clients here: what a worker asks for.
//! The `control` room does the asking.

use std::sync::Arc;

use crate::channel::TopicKind;

/// A topic to which clients of the user are subscribed.
#[derive(Debug, Clone)]
pub struct SubscribedTopic {
    /// The kind of topic.
    pub kind: TopicKind,
    /// The channel or pattern.
    pub name: Arc<[u8]>,
    /// The worker's index and generation of the topic.
    pub place: (u32, u32),
}

/// The result of a re-verification.
#[derive(Debug)]
pub struct Reverified {
    /// The worker's number of the user.
    pub realm: u16,
    /// The user was removed or has another password: all nodes that answered say so.
    pub gone: bool,
    /// Topics that it may no longer subscribe to, by [`SubscribedTopic::place`].
    pub denied: Vec<(u32, u32)>,
}

/// Whether a node's error says that the user does not exist or has another password.
pub fn is_refusal(text: &[u8]) -> bool {
    text.starts_with(b"WRONGPASS") || text.starts_with(b"NOAUTH")
}

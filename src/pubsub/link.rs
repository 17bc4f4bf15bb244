//! What the hub and the workers say to each other.

use std::sync::Arc;

use super::{Frames, Topic};
use crate::channel::Kind;

/// A worker's name for one of its topics. A generation belongs to one subscription of the worker:
/// news of an earlier one are not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Index among the worker's topics.
    pub index: u32,
    /// Which one it was that had the index.
    pub generation: u32,
}

/// A worker's word to the hub.
#[derive(Debug)]
pub enum Wish {
    /// Its first subscriber of this topic. Answered by [`News::Live`] or [`News::Refused`].
    Subscribe {
        /// Its name for it.
        token: Token,
        /// What is listened to.
        kind: Kind,
        /// The channel or pattern.
        name: Arc<[u8]>,
    },
    /// It has another subscriber of a topic that it was told [`News::Live`] of. Answered by another
    /// one, behind all messages that were published before.
    Confirm {
        /// The name of [`Wish::Subscribe`].
        token: Token,
    },
    /// Its last one is gone. Not answered.
    Unsubscribe {
        /// The name of [`Wish::Subscribe`].
        token: Token,
    },
}

/// The hub's word to a worker.
#[derive(Debug)]
pub enum News {
    /// This process listens to a topic: said to all workers, before anybody's [`News::Live`].
    Known(Arc<Topic>),
    /// It does not any more: said to all workers.
    Forgotten(Arc<Topic>),
    /// The cluster has confirmed the subscription: a message published from now on comes. Said
    /// again when it is restored after a [`News::Gap`].
    Live {
        /// The worker's name for it.
        token: Token,
        /// What the hub knows of it.
        topic: Arc<Topic>,
    },
    /// The cluster refuses it. The token is over.
    Refused {
        /// The worker's name for it.
        token: Token,
        /// The node's own error, without the leading `-`.
        text: Box<str>,
    },
    /// One or several messages, in order.
    Messages {
        /// The worker's name for the topic.
        token: Token,
        /// The messages' bytes.
        frames: Arc<Frames>,
    },
    /// Messages may be missed from here to the next [`News::Live`].
    Gap {
        /// The worker's name for the topic.
        token: Token,
    },
    /// The hub has failed and begins anew: every topic must be wished for again (with the same
    /// token), and is in a gap until then.
    Restarted,
}

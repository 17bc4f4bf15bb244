//! Who is subscribed to what.

pub(crate) mod permissions;
pub(crate) mod publish;
pub(crate) mod pubsub;
pub(crate) mod subscribing;
pub(crate) mod topics;

use std::sync::Arc;

/// Who is subscribed to what, and which PUBLISHes wait for it.
pub(crate) struct Subscribers {
    pub topics: topics::Topics,
    /// PUBLISHes may wait for a node that is not reached.
    pub(crate) stranded: bool,
    pub(crate) waiting_publishers: subscribing::WaitingPublishers,
    /// Other workers' barriers, and the turn in which each came.
    pub barriers: Vec<(u64, Arc<crate::mailbox::ReadBarrier>)>,
}

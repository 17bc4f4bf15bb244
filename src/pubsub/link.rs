//! What the hub and the workers say to each other.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};

use super::{Frames, Topic};
use crate::channel::Kind;
use crate::cluster::Snapshot;
use crate::control::WorkerHandle;

/// A worker's name for one of its topics. A generation belongs to one subscription of the worker:
/// news of an earlier one are not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Index among the worker's topics.
    pub index: u32,
    /// Which one it was that had the index.
    pub generation: u32,
}

/// To the hub.
#[derive(Debug)]
pub enum ToHub {
    /// A worker has started; said before its first wish.
    Worker {
        /// The worker's index, never given twice.
        index: usize,
        /// How it is spoken to.
        handle: WorkerHandle,
    },
    /// A worker has ended, its subscribers with it.
    WorkerGone {
        /// Its index.
        index: usize,
    },
    /// The topology.
    Topology(Arc<Snapshot>),
    /// A worker routes by a new topology.
    Follows {
        /// Its index.
        worker: usize,
        /// The topology's generation.
        generation: u64,
    },
    /// The connection to this node is to be closed: it has become another.
    Stranger(Arc<crate::control::Stranger>),
    /// Run by this configuration from now on.
    Config(Arc<crate::config::Config>),
    /// What a worker wished for in one turn.
    Wishes {
        /// Its index.
        worker: usize,
        /// In order.
        wishes: Vec<Wish>,
    },
    /// The end.
    Stop,
    /// The hub fails.
    #[cfg(test)]
    Fail,
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

/// The news of one turn of the hub for one worker.
#[derive(Debug)]
pub struct Batch {
    /// In order.
    pub news: Vec<News>,
    bytes: usize,
    transit: Arc<AtomicUsize>,
}

impl Batch {
    /// `transit` is how many bytes of messages this worker was sent and has not dealt with; those
    /// of this batch are on it until the batch is dropped.
    pub fn new(news: Vec<News>, transit: &Arc<AtomicUsize>) -> Self {
        let bytes = |news: &News| match news {
            News::Messages { frames, .. } => frames.len(),
            _ => 0,
        };
        let bytes = news.iter().map(bytes).sum();
        transit.fetch_add(bytes, Relaxed);
        Batch { news, bytes, transit: Arc::clone(transit) }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.transit.fetch_sub(self.bytes, Relaxed);
    }
}

/// How the hub is spoken to.
#[derive(Debug, Clone)]
pub struct HubHandle {
    sender: mpsc::Sender<ToHub>,
    waker: Arc<mio::Waker>,
}

impl HubHandle {
    /// A handle over the hub's channel and the waker of its event loop.
    pub fn new(sender: mpsc::Sender<ToHub>, waker: Arc<mio::Waker>) -> Self {
        HubHandle { sender, waker }
    }

    /// Says `message` to the hub and wakes it.
    ///
    /// # Errors
    /// The hub has ended.
    pub fn send(&self, message: ToHub) -> io::Result<()> {
        self.sender.send(message).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.waker.wake()
    }
}

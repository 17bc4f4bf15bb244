//! What the pub/sub hub is told, and its news for a worker.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};

use super::{Stranger, WorkerHandle};
use crate::cluster::Snapshot;
use crate::pubsub::{News, Wish};

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
    Stranger(Arc<Stranger>),
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

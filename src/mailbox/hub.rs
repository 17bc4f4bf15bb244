//! What the pub/sub hub is told.

use std::io;
use std::sync::{Arc, mpsc};

use super::{WorkerHandle, WrongNode};
use crate::cluster::Snapshot;
use crate::pubsub::HubRequest;

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
    WrongNode(Arc<WrongNode>),
    /// Run by this configuration from now on.
    Config(Arc<crate::config::Config>),
    /// What a worker wished for in one turn.
    Wishes {
        /// Its index.
        worker: usize,
        /// In order.
        wishes: Vec<HubRequest>,
    },
    /// The end.
    Stop,
    /// The hub fails.
    #[cfg(test)]
    Fail,
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

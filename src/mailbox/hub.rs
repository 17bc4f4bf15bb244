//! Messages to the pub/sub hub.

use std::io;
use std::sync::{Arc, mpsc};

use super::{WorkerHandle, WrongNode};
use crate::cluster::Snapshot;
use crate::pubsub::HubRequest;

/// A message to the hub.
#[derive(Debug)]
pub enum ToHub {
    /// A worker has started; sent before its first wish.
    Worker {
        /// The worker's index, never given twice.
        index: usize,
        /// Sends it messages.
        handle: WorkerHandle,
    },
    /// A worker has ended, and its subscribers with it.
    WorkerGone {
        /// Index of the worker.
        index: usize,
    },
    /// The topology to subscribe by from now on.
    Topology(Arc<Snapshot>),
    /// A worker routes by this topology now.
    Follows {
        /// Index of the worker.
        worker: usize,
        /// Generation of the topology.
        generation: u64,
    },
    /// Another node answers at a node's address: close the connection.
    WrongNode(Arc<WrongNode>),
    /// The configuration to use from now on.
    Config(Arc<crate::config::Config>),
    /// Subscriptions and their ends from one turn of a worker.
    Wishes {
        /// Index of the worker.
        worker: usize,
        /// The wishes, in order.
        wishes: Vec<HubRequest>,
    },
    /// End the thread.
    Stop,
    /// Panic.
    #[cfg(test)]
    Fail,
}

/// Sends messages to the hub.
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

    /// Sends `message` and wakes the hub.
    ///
    /// # Errors
    /// The hub has ended.
    pub fn send(&self, message: ToHub) -> io::Result<()> {
        self.sender.send(message).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.waker.wake()
    }
}

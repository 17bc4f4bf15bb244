//! Messages to workers.

mod inquiry;
mod pending;

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, mpsc};
use std::time::Instant;

pub use inquiry::{Answered, Asker, Inquiry};
pub use pending::{BYTES_PER_TOPIC, PendingSubscriptions, ReadBarrier, Serial, Ticket};

use super::Batch;
use crate::client::{Census, Pause};
use crate::cluster::{Health, Identity, Snapshot, UpstreamId};
use crate::command::CommandTable;
use crate::dest::ClientId;
use crate::errors::Failure;
use crate::metrics::WorkerStats;
use crate::proxy_protocol::Endpoints;
use crate::upstream::HandshakeError;

/// The socket of an accepted client, in non-blocking mode.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Downstream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// The TLS handshake is still to come.
    Tls(TcpStream),
}

/// A client that was accepted for a worker.
#[derive(Debug)]
pub struct Arrival {
    /// Its socket.
    pub socket: Downstream,
    /// The client's own addresses, where a load balancer has sent them by the PROXY protocol.
    pub endpoints: Option<Endpoints>,
    /// The upstream of its listener, where that has one of its own.
    pub upstream: Option<UpstreamId>,
}

impl From<Downstream> for Arrival {
    /// A client that is connected directly.
    fn from(socket: Downstream) -> Self {
        Arrival { socket, endpoints: None, upstream: None }
    }
}

/// A message to a worker, from the control thread, the hub or another worker.
#[derive(Debug)]
pub enum ToWorker {
    /// Serve this client.
    Accept(Arrival),
    /// Close the clients that have been idle longest: their descriptors are needed for nodes.
    Shed {
        /// Number of clients to keep.
        keep: usize,
    },
    /// The topology to route by from now on.
    Topology(Arc<Snapshot>),
    /// Which replicas are fit to be read from, and the zones of nodes.
    Health(Arc<Health>),
    /// The command table to use from now on.
    Commands(Arc<CommandTable>),
    /// Version and the like of the cluster's servers, which clients are told.
    Identity(Arc<Identity>),
    /// A client's question to all workers: add to the answer and drop the reference.
    Asked(Arc<Inquiry>),
    /// All workers have answered the question of one of this worker's clients.
    Answered(Box<Answered>),
    /// Pub/sub news.
    PubSub(Batch),
    /// A pending subscription that a PUBLISH of this worker waits for has ended.
    SubscriptionEnded(Serial),
    /// Drop the reference once everything that has arrived at the sockets by now is read.
    Read(Arc<ReadBarrier>),
    /// All references to this worker's [`ReadBarrier`] of that number are dropped.
    OthersHaveRead(u64),
    /// The configuration to use from now on.
    Config {
        /// The configuration.
        config: Arc<crate::config::Config>,
        /// Number of workers among which limits of the process are divided.
        workers: usize,
    },
    /// End when the last client has gone: no new ones come.
    Retire,
    /// The answer to a [`crate::mailbox::UserQuestion`].
    Verified {
        /// The client that waits for it.
        client: ClientId,
        /// The grant, or the error reply.
        answer: Result<crate::users::Granted, Failure>,
    },
    /// The result of a [`crate::mailbox::UserRecheck`].
    Reverified(crate::users::Reverified),
    /// Slotway's own users from now on.
    Users(Arc<crate::users::Users>),
    /// CLIENT PAUSE is in effect: for a worker that starts during one.
    Pause(Pause),
    /// The result of probing a silent node.
    Probed(Probed),
    /// Another node answers at a node's address: close the connections.
    WrongNode(Arc<WrongNode>),
    /// A script keeps a node busy.
    Busy(BusyNode),
    /// Panic, for tests.
    #[cfg(debug_assertions)]
    Fail,
    /// Return a copy of the counters.
    Scrape(tokio::sync::oneshot::Sender<Box<WorkerStats>>),
    /// Return a summary of the clients.
    Census(tokio::sync::oneshot::Sender<Box<Census>>),
    /// Return what was observed of keys.
    Seen(tokio::sync::oneshot::Sender<Box<crate::observe::ObservedKeys>>),
    /// Read no more commands, answer what is in flight, then end the thread.
    Drain {
        /// When to end in any case.
        by: Instant,
    },
}

/// What a new connection to a silent node has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// The node answers PING: only the other connection is silent, or its first command takes long.
    Answers,
    /// The kernel accepts the connection and the node is silent: its process is busy or frozen.
    Accepts,
    /// No connection: the network, the machine or the process is down.
    Unreachable,
}

/// A silent node that was probed.
#[derive(Debug, Clone, Copy)]
pub struct Probed {
    /// Its address.
    pub node: SocketAddr,
    /// What the probe has shown.
    pub verdict: ProbeResult,
    /// When the probe began: it proves nothing about connections that fell silent later.
    pub begun: Instant,
}

/// Another node than the topology has answers at an address.
#[derive(Debug, Clone)]
pub struct WrongNode {
    /// The address.
    pub socket: SocketAddr,
    /// The ID that the topology has.
    pub expected: Box<str>,
    /// The ID of the node that answers.
    pub found: Box<str>,
}

impl WrongNode {
    /// The reason for closing connections to it.
    pub fn why(&self) -> HandshakeError {
        let (found, expected) = (self.found.clone(), self.expected.clone());
        HandshakeError::WrongNode { found, expected }
    }
}

/// A node that answers BUSY because a script runs.
#[derive(Debug, Clone, Copy)]
pub struct BusyNode {
    /// Its address.
    pub node: SocketAddr,
    /// When it was asked: this proves nothing about connections that fell silent later.
    pub asked: Instant,
}

/// Sends messages to a worker.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    sender: mpsc::Sender<ToWorker>,
    waker: Arc<mio::Waker>,
    /// The worker was woken and has not read its channel since.
    woken: Arc<AtomicBool>,
    /// Clients of the worker: control adds one that it sends, the worker subtracts one that it
    /// closes.
    pub clients: Arc<AtomicUsize>,
}

impl WorkerHandle {
    /// A handle over the worker's channel and the waker of its event loop.
    pub fn new(
        sender: mpsc::Sender<ToWorker>,
        waker: Arc<mio::Waker>,
        clients: Arc<AtomicUsize>,
    ) -> Self {
        WorkerHandle { sender, waker, woken: Arc::default(), clients }
    }

    /// Sends `message` and wakes the worker. `false`: its thread has ended.
    pub fn send(&self, message: ToWorker) -> bool {
        // Waking costs a system call, and one is enough for many messages.
        self.sender.send(message).is_ok()
            && (self.woken.swap(true, AcqRel) || self.waker.wake().is_ok())
    }

    /// Notes that the worker reads its channel now: the next message wakes it again.
    pub fn looks(&self) {
        if self.woken.load(Relaxed) {
            self.woken.swap(false, AcqRel);
        }
    }
}

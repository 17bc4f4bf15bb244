//! What a worker is told.

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
use crate::cluster::{Health, Identity, Snapshot};
use crate::command::CommandTable;
use crate::dest::ClientId;
use crate::errors::Failure;
use crate::metrics::WorkerStats;
use crate::proxy_protocol::Endpoints;
use crate::upstream::HandshakeError;

/// An accepted client connection, in non-blocking mode.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Downstream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Its TLS handshake is about to begin.
    Tls(TcpStream),
}

/// A client connection for a worker.
#[derive(Debug)]
pub struct Arrival {
    /// The connection.
    pub socket: Downstream,
    /// The client's own connection, where a load balancer has named it by the PROXY protocol.
    pub endpoints: Option<Endpoints>,
}

impl From<Downstream> for Arrival {
    /// A connection that the client itself has made.
    fn from(socket: Downstream) -> Self {
        Arrival { socket, endpoints: None }
    }
}

/// Control to worker.
#[derive(Debug)]
pub enum ToWorker {
    /// Serve this client.
    Accept(Arrival),
    /// Keep so many clients and let the others go, those that are idle longest first: their
    /// descriptors are needed for nodes.
    Shed {
        /// Clients that stay.
        keep: usize,
    },
    /// Route by this from now on.
    Topology(Arc<Snapshot>),
    /// Which replicas are fit to be read from, and where nodes are.
    Health(Arc<Health>),
    /// Look commands up in this from now on.
    Commands(Arc<CommandTable>),
    /// What the cluster's servers are.
    Identity(Arc<Identity>),
    /// What a client asks of all workers: add to the answer, and let go of it.
    Asked(Arc<Inquiry>),
    /// From the last worker to let go of it, to the one that asked.
    Answered(Box<Answered>),
    /// The pub/sub hub's news of one of its turns.
    PubSub(Batch),
    /// A subscription that a PUBLISH here waits for is confirmed, refused or given up.
    SubscriptionEnded(Serial),
    /// Let go of it when what has arrived at the worker's sockets by now is read.
    Read(Arc<ReadBarrier>),
    /// All other workers have let go of this worker's [`ReadBarrier`].
    OthersHaveRead(u64),
    /// Run by this configuration from now on.
    Config {
        /// Which one.
        config: Arc<crate::config::Config>,
        /// Workers that share what is limited for all together.
        workers: usize,
    },
    /// No more clients come; end when the last one has gone.
    Retire,
    /// What a node has said to a [`crate::mailbox::UserQuestion`].
    Verified {
        /// The client that waits for it.
        client: ClientId,
        /// Yes, or the error reply.
        answer: Result<crate::users::Granted, Failure>,
    },
    /// What was seen of a user of the cluster.
    Reverified(crate::users::Reverified),
    /// These are slotway's users from now on.
    Users(Arc<crate::users::Users>),
    /// CLIENT PAUSE is on, for a worker that started later.
    Pause(Pause),
    /// What was seen of a node that was silent.
    Probed(Probed),
    /// Connections to this node are to be closed: it has become another.
    WrongNode(Arc<WrongNode>),
    /// A script keeps this node busy.
    Busy(BusyNode),
    /// Fail, to show what comes of it.
    #[cfg(debug_assertions)]
    Fail,
    /// Send back a copy of the counters.
    Scrape(tokio::sync::oneshot::Sender<Box<WorkerStats>>),
    /// Send back who the clients are.
    Census(tokio::sync::oneshot::Sender<Box<Census>>),
    /// Send back what was seen of keys.
    Seen(tokio::sync::oneshot::Sender<Box<crate::seen::Seen>>),
    /// Read no more commands, answer what is in flight, then end the thread; at `by` end it anyway.
    Drain {
        /// When to stop waiting.
        by: Instant,
    },
}

/// What a fresh connection to a silent node has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// It answers there: it is only this connection that is silent, or its first command takes
    /// long by itself.
    Answers,
    /// It takes the connection and says nothing: its process is busy, or frozen.
    Accepts,
    /// No connection: the network, the machine or the process is gone.
    Unreachable,
}

/// The news of a node that was looked at.
#[derive(Debug, Clone, Copy)]
pub struct Probed {
    /// Where.
    pub node: SocketAddr,
    /// What was seen.
    pub verdict: ProbeResult,
    /// When it was begun: it says nothing of connections that fell silent later.
    pub begun: Instant,
}

/// Another node answers at a node's address.
#[derive(Debug, Clone)]
pub struct WrongNode {
    /// The address.
    pub socket: SocketAddr,
    /// The ID that the topology has there.
    pub expected: Box<str>,
    /// The ID of the node that answers.
    pub found: Box<str>,
}

impl WrongNode {
    /// Why a connection to it is closed.
    pub fn why(&self) -> HandshakeError {
        let (found, expected) = (self.found.clone(), self.expected.clone());
        HandshakeError::WrongNode { found, expected }
    }
}

/// A node that answers everybody with BUSY, as a script runs.
#[derive(Debug, Clone, Copy)]
pub struct BusyNode {
    /// Where.
    pub node: SocketAddr,
    /// When it was asked: it says nothing of connections that fell silent later.
    pub asked: Instant,
}

/// How a worker is spoken to: the control thread's end of it.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    sender: mpsc::Sender<ToWorker>,
    waker: Arc<mio::Waker>,
    /// It was woken and has not looked at its channel since.
    woken: Arc<AtomicBool>,
    /// Clients that the worker has or was handed; control adds one when it hands one over, the
    /// worker takes one off when it closes one.
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

    /// Says `message` to the worker and wakes it. `false`: the worker's thread has ended.
    pub fn send(&self, message: ToWorker) -> bool {
        // Waking costs a system call, and once is enough for many messages.
        self.sender.send(message).is_ok()
            && (self.woken.swap(true, AcqRel) || self.waker.wake().is_ok())
    }

    /// The worker looks at its channel now: what is sent from here on wakes it again.
    pub fn looks(&self) {
        if self.woken.load(Relaxed) {
            self.woken.swap(false, AcqRel);
        }
    }
}

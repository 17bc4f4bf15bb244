//! What the sandbox waits for, and what is missing while it does.

use super::Error;
use std::io;
use std::net::SocketAddr;

/// Why a condition that the sandbox waits for does not hold yet.
#[derive(Debug, thiserror::Error)]
pub enum Unmet {
    /// No node of the cluster runs.
    #[error("no node runs")]
    NoNodeRuns,
    /// A server runs, but cannot be used yet.
    #[error("it runs, but does not answer INFO, or still loads")]
    Starting,
    /// A connection failed while the node was asked.
    #[error("{addr}: {source}")]
    Connection {
        /// The node.
        addr: SocketAddr,
        /// What failed.
        source: io::Error,
    },
    /// A node could not be asked, or refused the command.
    #[error(transparent)]
    Command(Box<Error>),
    /// A node does not call the cluster ok.
    #[error("{addr} says cluster_state:{state}")]
    ClusterState {
        /// The node.
        addr: SocketAddr,
        /// Its `cluster_state`.
        state: String,
    },
    /// A node does not call all slots ok.
    #[error("{addr} says {slots} slots are ok")]
    SlotsOk {
        /// The node.
        addr: SocketAddr,
        /// Its `cluster_slots_ok`.
        slots: String,
    },
    /// A node knows too few others.
    #[error("{addr} knows {known} of {count} nodes")]
    Unknown {
        /// The node.
        addr: SocketAddr,
        /// The number of nodes that it knows, itself included.
        known: usize,
        /// The number of nodes.
        count: usize,
    },
    /// A node does not list all running nodes.
    #[error("{addr} knows {listed} of {running}")]
    Unlisted {
        /// The node.
        addr: SocketAddr,
        /// The number of running nodes that it lists.
        listed: usize,
        /// The number of running nodes.
        running: usize,
    },
    /// A node gives slots to a node that does not run.
    #[error("{addr} says the dead node {id} owns slots")]
    DeadOwner {
        /// The node.
        addr: SocketAddr,
        /// The ID of the owner.
        id: String,
    },
    /// A node believes that a running node has failed.
    #[error("{addr} says {id} is {flag}")]
    Flagged {
        /// The node.
        addr: SocketAddr,
        /// The ID of the other one.
        id: String,
        /// The flag in CLUSTER NODES: `fail?`, `handshake` …
        flag: String,
    },
    /// A replica has not received its primary's data yet.
    #[error("replica {0} is not in sync yet")]
    NotInSync(SocketAddr),
    /// A replica has not processed its primary's latest writes yet.
    #[error("it is behind offset {0}")]
    BehindOffset(i64),
    /// Nodes disagree about roles or slots.
    #[error("{0} sees other roles or slots than the others")]
    Disagreement(SocketAddr),
    /// CLUSTER SHARDS of a node does not call all running nodes online.
    #[error("{0} does not call all nodes online")]
    NotOnline(SocketAddr),
    /// A node does not know another one.
    #[error("{addr} does not know {other}")]
    Stranger {
        /// The node.
        addr: SocketAddr,
        /// The other one.
        other: SocketAddr,
    },
    /// A node knows an older epoch of another node.
    #[error("{known} instead of {current}")]
    OldEpoch {
        /// The epoch that it knows.
        known: u64,
        /// The other node's own.
        current: u64,
    },
    /// A replica has not been promoted yet.
    #[error("it is not a primary yet")]
    NotPrimary,
}

impl From<Error> for Unmet {
    fn from(error: Error) -> Unmet {
        Unmet::Command(Box::new(error))
    }
}

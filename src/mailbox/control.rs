//! Messages to the control thread.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Inquiry;
use crate::cluster::{NodeAddr, UpstreamId};

/// A message from a worker or the hub to the control thread.
#[derive(Debug)]
pub enum ToControl {
    /// The topology may have changed: a MOVED was received, or a connection was lost.
    RefreshTopology {
        /// A node that is likely to have the new topology: the one that a MOVED named.
        hint: Option<NodeAddr>,
        /// The upstream that is concerned; `None`: that of the hint or, if no upstream knows it, any.
        upstream: Option<UpstreamId>,
    },
    /// A client reads from replicas, so their health must be checked from now on.
    WatchReplicas,
    /// The command table may be outdated: the cluster has answered a command that it does not have,
    /// or a node is connected again that may have been restarted as another version.
    RefreshCommands,
    /// A node that owes a reply is silent: probe it.
    Silent {
        /// Its address.
        node: SocketAddr,
    },
    /// A connection is silent, perhaps because of its first command: check whether a script keeps
    /// the node busy or a module's command blocks the connection.
    Blocked {
        /// Address of the node.
        node: SocketAddr,
        /// Local address of the connection: as the node sees it, unless there is NAT in between.
        own: SocketAddr,
        /// Whether the command is a module's and others wait behind it.
        module: bool,
    },
    /// A question to a node about a user of the cluster.
    UserQuestion(Box<super::UserQuestion>),
    /// The periodic check of a user of the cluster.
    UserRecheck(Box<super::UserRecheck>),
    /// A client's question to all workers.
    AskEveryone(Arc<Inquiry>),
    /// A worker's thread has ended: drained, retired or failed.
    Exited {
        /// Index of the worker.
        worker: usize,
    },
}

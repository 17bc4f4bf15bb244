//! What the control thread is told.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Inquiry;
use crate::cluster::NodeAddr;

/// Worker to control.
#[derive(Debug)]
pub enum ToControl {
    /// The topology may have changed: a MOVED was seen, or a node was lost.
    RefreshTopology {
        /// A node that is likely to know better: the one a MOVED named.
        hint: Option<NodeAddr>,
    },
    /// A client reads from replicas: somebody has to look at them.
    WatchReplicas,
    /// A command that the table does not have was answered by the cluster, or a node that was lost
    /// is reached again.
    RefreshCommands,
    /// This node owes an answer and says nothing: is it there?
    Silent {
        /// Where it is connected to.
        node: SocketAddr,
    },
    /// This connection is silent, and its first command may be why: does a script keep the node
    /// busy, does a module's command block the connection?
    Blocked {
        /// Its node.
        node: SocketAddr,
        /// Its own end, as the node sees it where nothing stands between.
        own: SocketAddr,
        /// The command is a module's, and others wait behind it.
        module: bool,
    },
    /// A question to a node about one of its users.
    UserQuestion(Box<super::UserQuestion>),
    /// Is a user of the cluster still there, and may it hear what it hears?
    UserRecheck(Box<super::UserRecheck>),
    /// A client's question to all workers.
    AskEveryone(Arc<Inquiry>),
    /// The worker's thread ended (drained, or failed).
    Exited {
        /// Its index.
        worker: usize,
    },
}

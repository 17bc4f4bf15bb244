//! Why a connection to a node ends.

use std::io;

use thiserror::Error;

use super::HandshakeError;
use crate::resp::ReplyError;

/// Why a connection to a node ends, or could not be made. Its text stands in logs, and in the errors
/// of commands that were under way.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectionEnd {
    /// The node closed it.
    #[error("closed by the node")]
    Closed,
    /// The operating system's error.
    #[error("{0}")]
    Io(String),
    /// TLS's error, with what may be done about it.
    #[error("{0}")]
    Tls(String),
    /// The node is to be reached with TLS, and none is configured.
    #[error("connections to nodes have no TLS to use")]
    NoTls,
    /// The node's name has no address.
    #[error("the host name {host} is not resolved")]
    Unresolved {
        /// The name.
        host: String,
    },
    /// The TCP connection, or the handshake, took too long.
    #[error("no answer within timeouts.connect")]
    NoAnswer,
    /// The TLS handshake took too long.
    #[error("no TLS handshake within timeouts.connect; does this port speak TLS?")]
    NoTlsHandshake,
    /// The node refused slotway's greeting: its own words.
    #[error("the handshake was refused: {0}")]
    HandshakeRefused(String),
    /// The greeting ended in another way.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The user whose commands it carried is gone.
    #[error("its user is gone")]
    UserGone,
    /// What the node sends is no RESP.
    #[error("{0}")]
    Malformed(#[from] ReplyError),
    /// A push of pub/sub that is none.
    #[error("a push that is malformed")]
    MalformedPush,
    /// The node answers what it was not asked.
    #[error("a reply that nobody asked for")]
    UnexpectedReply,
    /// What a node says of subscriptions answers nothing that it was asked.
    #[error("{0}")]
    Unrelated(&'static str),
    /// A subscription connection is silent.
    #[error("{0}")]
    Silent(&'static str),
    /// The node pushes on a connection for replies.
    #[error("messages without end that nobody asked for")]
    UnexpectedPushes,
    /// EXEC was answered with something else than the transaction's replies.
    #[error("no reply to EXEC")]
    NoExecReply,
    /// A reply does not fit into what is left of `limits.memory`.
    #[error("a reply is larger than limits.memory has room for")]
    ReplyTooLarge,
    /// The same for a message.
    #[error("a message is larger than limits.memory has room for")]
    MessageTooLarge,
    /// A command's deadline passed, and nothing else came.
    #[error("no reply within timeouts.command")]
    CommandTimeout,
    /// The same on a connection that is lent to one client.
    #[error("no reply within its time and timeouts.command")]
    LentTimeout,
    /// The cluster has put another primary in the node's place.
    #[error("its node has failed, and is no primary any more")]
    NodeFailed,
    /// A replica does not answer the control thread.
    #[error("the replica does not answer")]
    ReplicaSilent,
    /// It is silent, and the node answers elsewhere.
    #[error("its node answers on other connections, and not on this one")]
    AnswersElsewhere,
    /// It was silent, and the node answers again.
    #[error("it was silent, and its node answers again on other connections")]
    AnswersAgain,
    /// It is silent, and the node cannot be connected to.
    #[error("it is silent, and its node takes no new connection")]
    TakesNoConnection,
}

impl From<io::Error> for ConnectionEnd {
    fn from(error: io::Error) -> Self {
        ConnectionEnd::Io(error.to_string())
    }
}

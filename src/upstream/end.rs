//! Reasons for which a connection to a node ends.

use std::io;

use thiserror::Error;

use super::HandshakeError;
use crate::resp::ReplyError;

/// Why a connection to a node has ended or could not be made. The text appears in logs and in the
/// error replies to commands that were in flight.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectionEnd {
    /// The node closed the connection.
    #[error("closed by the node")]
    Closed,
    /// An error of the operating system.
    #[error("{0}")]
    Io(String),
    /// An error of TLS, with a remedy where there is one.
    #[error("{0}")]
    Tls(String),
    /// The node's host name does not resolve.
    #[error("the host name {host} is not resolved")]
    Unresolved {
        /// The host name.
        host: String,
    },
    /// Connecting or the handshake exceeded `timeouts.connect`.
    #[error("no answer within timeouts.connect")]
    NoAnswer,
    /// The TLS handshake exceeded `timeouts.connect`.
    #[error("no TLS handshake within timeouts.connect; does this port speak TLS?")]
    NoTlsHandshake,
    /// The node refused a command of the handshake: its error.
    #[error("the handshake was refused: {0}")]
    HandshakeRefused(String),
    /// The handshake failed otherwise.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The user that the connection was authenticated as has been removed.
    #[error("its user is gone")]
    UserGone,
    /// The node does not send RESP.
    #[error("{0}")]
    Malformed(#[from] ReplyError),
    /// A pub/sub push does not have the form of one.
    #[error("a push that is malformed")]
    MalformedPush,
    /// A reply came while none was awaited.
    #[error("a reply that nobody asked for")]
    UnexpectedReply,
    /// A push about subscriptions matches no command that was sent.
    #[error("{0}")]
    Unrelated(&'static str),
    /// A subscription connection is silent, in this way.
    #[error("{0}")]
    Silent(&'static str),
    /// The node keeps pushing on a connection that has no subscriptions.
    #[error("messages without end that nobody asked for")]
    UnexpectedPushes,
    /// The reply to EXEC is not the array of the transaction's replies.
    #[error("no reply to EXEC")]
    NoExecReply,
    /// A reply exceeds what is left of `limits.memory`.
    #[error("a reply is larger than limits.memory has room for")]
    ReplyTooLarge,
    /// A message exceeds what is left of `limits.memory`.
    #[error("a message is larger than limits.memory has room for")]
    MessageTooLarge,
    /// The connection was silent until a command reached `timeouts.command`.
    #[error("no reply within timeouts.command")]
    CommandTimeout,
    /// A command on a dedicated connection exceeded its own timeout and `timeouts.command`.
    #[error("no reply within its time and timeouts.command")]
    LentTimeout,
    /// The topology has another primary in the node's place.
    #[error("its node has failed, and is no primary any more")]
    NodeFailed,
    /// The replica does not answer the control thread.
    #[error("the replica does not answer")]
    ReplicaSilent,
    /// The connection is silent while the node answers on others.
    #[error("its node answers on other connections, and not on this one")]
    AnswersElsewhere,
    /// The connection was silent, and the node answers again on others.
    #[error("it was silent, and its node answers again on other connections")]
    AnswersAgain,
    /// The connection is silent, and the node takes no new one.
    #[error("it is silent, and its node takes no new connection")]
    TakesNoConnection,
}

impl From<io::Error> for ConnectionEnd {
    fn from(error: io::Error) -> Self {
        ConnectionEnd::Io(error.to_string())
    }
}

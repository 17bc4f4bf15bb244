//! The wire protocol: scanning RESP2 and RESP3 requests, finding the ends of replies, writing
//! replies. Not here: the meaning of commands, and sockets.
//!
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>

mod args;
pub mod reply;
mod request;
pub mod tree;
pub mod write;

#[cfg(test)]
pub(crate) use args::words;
pub use args::{ArgRange, Args};
pub use reply::{ReplyError, ReplyProgress, ReplyScan};
pub use request::{
    ProtocolError, Request, RequestLimits, RequestProgress, inline_to_array, scan_request,
    strict_i64,
};

/// The protocol version that a connection speaks (`HELLO 2`, `HELLO 3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// RESP2, the default of every connection.
    Resp2,
    /// RESP3, after `HELLO 3`.
    Resp3,
}

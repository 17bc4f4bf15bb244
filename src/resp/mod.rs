//! The wire: RESP2 and RESP3 as bytes. Scans requests, finds the end of replies, writes replies.
//! Not here: what a command means, and any socket.
//!
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>

mod args;

pub use args::{ArgRange, Args};

/// The protocol version that a connection speaks (`HELLO 2`, `HELLO 3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// RESP2, what every connection starts with.
    Resp2,
    /// RESP3, after `HELLO 3`.
    Resp3,
}

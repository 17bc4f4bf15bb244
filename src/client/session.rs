//! What a client said of itself, and what its connection is set to.

use crate::resp::Protocol;

/// One client's session. The rarely used parts are boxed: thousands of clients are idle.
#[derive(Debug)]
pub struct Session {
    /// `CLIENT ID`: unique in this process, growing.
    pub id: u64,
    /// RESP2, or RESP3 after `HELLO 3`.
    pub protocol: Protocol,
    /// MULTI was refused: what follows belongs to the transaction and is refused, too, up to its
    /// EXEC or DISCARD. Clients send it all in one go, and it must not be executed without the rest.
    pub refused_multi: bool,
    /// `CLIENT SETNAME`.
    pub name: Option<Box<[u8]>>,
    /// `CLIENT SETINFO`: library name and version.
    pub library: Option<Box<(Vec<u8>, Vec<u8>)>>,
}

impl Session {
    /// A new connection's.
    pub fn new(id: u64) -> Self {
        Session { id, protocol: Protocol::Resp2, refused_multi: false, name: None, library: None }
    }
}

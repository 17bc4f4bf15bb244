//! What a worker wants to know, from time to time, of a user of the cluster whose clients are here.
//! The asking itself is control's.

use std::sync::Arc;

use crate::channel::Kind;

/// Something that clients of the user hear.
#[derive(Debug, Clone)]
pub struct Heard {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<[u8]>,
    /// Where the worker has it: index and generation.
    pub place: (u32, u32),
}

/// The answer.
#[derive(Debug)]
pub struct Looked {
    /// The worker's number of the user.
    pub realm: u16,
    /// There is no such user any more, or it has another password: all nodes that answer say so.
    pub gone: bool,
    /// What it may not hear, by [`Heard::place`].
    pub denied: Vec<(u32, u32)>,
}

/// A node says that the user is not there, or has another password.
pub fn is_refusal(text: &[u8]) -> bool {
    text.starts_with(b"WRONGPASS") || text.starts_with(b"NOAUTH")
}

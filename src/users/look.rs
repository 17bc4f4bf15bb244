//! What a worker wants to know, from time to time, of a user of the cluster whose clients are here.
//! The asking itself is control's.

use std::sync::Arc;

use super::Credentials;
use crate::channel::Kind;
use crate::control::WorkerHandle;

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

/// A question about a user.
#[derive(Debug)]
pub struct Look {
    /// The worker's number of the user.
    pub realm: u16,
    /// The user.
    pub who: Credentials,
    /// Whether the password is still right is asked, too.
    pub password: bool,
    /// What may it still hear of this?
    pub topics: Vec<Heard>,
    /// Who asks.
    pub to: WorkerHandle,
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

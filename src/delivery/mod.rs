//! Replies of nodes: which command each one answers, and what follows from refusals and lost
//! connections.
//!
//! - `walk`: HOT PATH, replies to ordinary commands; `reading`: all others
//! - `dedicated`, `errand`, `watch`: replies on connections that are lent to one client
//! - `join`: KEYS, whose reply is passed on in pieces
//! - `refused`, `shard_check`: refusals on shared connections
//! - `loss`: lost connections; `effect`: actions that concern several parts of the worker

mod dedicated;
mod effect;
mod errand;
mod join;
mod loss;
mod reading;
mod refused;
mod shard_check;
mod walk;
mod watch;

use crate::dispatch::Dispatcher;
use crate::engine::Engine;

/// Handles nodes' replies and lost connections.
pub(crate) struct Delivery<'a> {
    pub engine: &'a mut Engine,
}

impl Delivery<'_> {
    /// The dispatcher, for commands that follow from a reply.
    fn dispatcher(&mut self) -> Dispatcher<'_> {
        Dispatcher { engine: self.engine }
    }
}

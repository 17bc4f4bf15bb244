//! Replies of nodes: whose they are, what becomes of refusals and of what was lost.
//!
//! - `walk`: HOT PATH, the reply to an ordinary command; `reading`: all others
//! - `dedicated`, `errand`, `watch`: replies on connections that are lent to one client
//! - `join`: replies that are handed on in pieces
//! - `refused`, `shard_check`: refusals are carried out
//! - `effect`: what the parts leave to be done; `loss`: lost connections

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

/// What is done about nodes' replies, and about nodes that do not reply any more.
pub(crate) struct Delivery<'a> {
    pub engine: &'a mut Engine,
}

impl Delivery<'_> {
    /// What sends the commands that a reply leads to.
    fn dispatcher(&mut self) -> Dispatcher<'_> {
        Dispatcher { engine: self.engine }
    }
}

//! Dispatching clients' commands: from the plan to the buffers of the nodes.
//!
//! - `walk`: HOT PATH, an ordinary command to its node
//! - `plans`: the plans of all other commands, one arm for each
//! - `clients`, `transaction`, `users`, `login`, `realms`, `replicas`: commands that depend on the
//!   state of their client
//! - `split`, `scattered`, `emulation`, `keyspace`, `scripts`, `publish`, `subscribing`, `pubsub`:
//!   commands that go to several nodes, or to the hub
//! - `fairness`: full connections; `proxy`: SLOWLOG and PROXY

mod clients;
mod emulation;
mod fairness;
mod keyspace;
mod login;
mod plans;
mod proxy;
mod publish;
mod pubsub;
mod realms;
mod replicas;
mod scattered;
mod scripts;
mod split;
mod subscribing;
mod transaction;
mod users;
mod walk;

use crate::engine::Engine;

/// Dispatches clients' commands.
pub(crate) struct Dispatcher<'a> {
    pub engine: &'a mut Engine,
}

//! Commands of clients: what is done about each, from its plan to the buffers of its nodes.
//!
//! - `walk`: HOT PATH, an ordinary command to its node
//! - `plans`: plans of all other commands; `clients`, `transaction`, `users`, `login`, `realms`,
//!   `replicas`: commands that depend on the state of their client
//! - `split`, `scattered`, `emulation`, `keyspace`, `scripts`, `publish`, `subscribing`, `pubsub`:
//!   commands with parts at several nodes, or at the hub
//! - `fairness`: connections that are full; `proxy`: questions about slotway itself

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

/// What is done about clients' commands.
pub(crate) struct Dispatcher<'a> {
    pub engine: &'a mut Engine,
}

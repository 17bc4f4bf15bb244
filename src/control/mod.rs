//! What the control thread does beside the traffic: the topology, replicas' health, questions to
//! nodes, the pool of workers. Nothing here is on the way of a command.
//! Not here: what puts these parts together ([`crate::process`]).

mod blocked;
mod export;
mod recheck;
mod names;
mod node;
mod pool;
mod probe;
mod renew;
mod replicas;
mod requests;
mod round;
mod status;
mod supervise;
#[cfg(test)]
mod tests;
mod topology;
mod verify;
mod wire;
mod replica_watch;

pub use blocked::BlockWatcher;
pub use pool::{Pool, Scrape};
pub use probe::Prober;
pub use replicas::Replicas;
pub use requests::Requests;
pub use status::{Status, TopologyStatus, Unreached};
pub use supervise::supervise;
pub use topology::Refresher;
pub use verify::Verifier;

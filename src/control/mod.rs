//! The control thread: accepting, topology refresh, signals, reload, drain.
//!
//! One tokio runtime on the main thread, beside the traffic; nothing here is on the way of a
//! command. [`run()`] puts the parts together.

mod accept;
mod apply;
mod arrival;
mod blocked;
mod export;
mod listeners;
mod look;
mod names;
mod node;
mod notify;
mod pool;
mod probe;
mod reload;
mod renew;
mod replicas;
mod round;
mod run;
mod sockets;
mod status;
mod supervise;
#[cfg(test)]
mod tests;
mod topology;
mod verify;
mod wire;

pub use accept::is_exhausted;
pub use pool::{Pool, Scrape};
pub use reload::{Reload, ReloadStats};
pub use run::{BoundAddrs, RunError, run, run_reloading, run_until};
pub use status::{Status, TopologyStatus};

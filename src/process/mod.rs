//! The process: listening, signals, reload, hand-over, drain.
//!
//! It runs in one tokio runtime on the main thread; client traffic is in the workers' threads.
//! [`run()`] puts the parts together.

mod accept;
mod apply;
mod arrival;
mod error;
mod files;
mod listeners;
mod notify;
mod reload;
mod run;
mod sockets;

pub use error::RunError;
pub use reload::Reload;
pub use run::{BoundAddrs, run, run_reloading, run_until};

//! The control thread: accepting, topology refresh, signals, drain.

mod link;

pub use link::{Downstream, ToControl, ToWorker, WorkerHandle};

//! Messages between threads (the control thread, the workers, the pub/sub hub), and handles to send
//! them.
//! Not here: the threads themselves.

mod batch;
mod control;
mod hub;
mod users;
mod worker;

pub use batch::Batch;
pub use control::ToControl;
pub use hub::{HubHandle, ToHub};
pub use users::{UserQuestion, UserRecheck};
pub use worker::{
    Answered, Arrival, Asker, BYTES_PER_TOPIC, BusyNode, Downstream, Inquiry, PendingSubscriptions,
    ProbeResult, Probed, ReadBarrier, Serial, Ticket, ToWorker, WorkerHandle, WrongNode,
};
